"""PBA's 15 operations by plain Pillow, image by image, as lean as its public calls allow: the mark to be measured by.

Every operation at every level and sign is prepared beforehand as a function of one image, so that what is left for an
image is to draw two of them and to call them. Where Pillow's own function does more than is needed, a leaner way to the
same bytes is taken: one affine transform for all that moves pixels, `paste` for what moves by whole pixels, `blend` in
place of `ImageEnhance`, `ImageChops.invert`. Python does no pixel's work, and Pillow's private core is left alone: to
reach into it would spare `Image.point` its check of the table, about 30 µs a call.
"""

from __future__ import annotations

import operator
import random
from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import torch
from PIL import Image, ImageChops, ImageFilter, ImageOps

from benchmarks.augmentation.cases import FILL
from spaces.operations import LEVELS
from spaces.operations.cutout import cutout_sides
from spaces.operations.geometry import MATRICES
from spaces.operations.tone import enhancement_factors

Change: TypeAlias = Callable[[Image.Image], Image.Image]
Position: TypeAlias = Callable[[], float]
"""Draws a fraction in [0, 1)."""

Matrix: TypeAlias = tuple[float, ...]

_VALUES = range(256)
_FACTORS = enhancement_factors(torch.arange(LEVELS)).tolist()


def variants(size: int, draw: Position) -> dict[str, list[Change]]:
    """All 15 operations for RGB images of side `size`: at every level, and for both signs where there is one.

    The list of an operation is sorted by level, then by sign; `draw` is asked for Cutout's two positions.
    """
    black = Image.new("RGB", (size, size))
    levels = range(LEVELS)
    own: dict[str, list[Change]] = {
        "Brightness": [partial(_brighter, black, factor) for factor in _FACTORS],
        "Color": [partial(_colored, factor) for factor in _FACTORS],
        "Contrast": [partial(_contrasted, factor) for factor in _FACTORS],
        "Sharpness": [partial(_sharpened, factor) for factor in _FACTORS],
        "Posterize": [partial(ImageOps.posterize, bits=4 - level * 4 // 10) for level in levels],
        "Solarize": [partial(ImageOps.solarize, threshold=256 - level * 256 // 10) for level in levels],
        "Invert": [ImageChops.invert] * LEVELS,
        "Equalize": [ImageOps.equalize] * LEVELS,
        "AutoContrast": [ImageOps.autocontrast] * LEVELS,
        "Cutout": [partial(_cut, side, draw) for side in cutout_sides(torch.arange(LEVELS), size, size).tolist()],
    }
    return own | {name: [_geometric(name, matrix) for matrix in _matrices(name, size)] for name in MATRICES}


def two_operations(size: int, seed: int) -> Change:
    """A function of one image: two operations out of the 15, each at a random level and sign."""
    source = random.Random(seed)
    changes = list(variants(size, source.random).values())
    # One list with every operation equally often, so that a single number draws operation, level and sign.
    every = [change for own in changes for change in own * (2 * LEVELS // len(own))]
    count, draw = len(every), source.random

    def augment(image: Image.Image) -> Image.Image:
        return every[int(draw() * count)](every[int(draw() * count)](image))

    return augment


def _matrices(name: str, size: int) -> list[Matrix]:
    levels = torch.arange(LEVELS).repeat_interleave(2)
    signs = torch.tensor([-1, 1]).repeat(LEVELS)
    return [tuple(matrix) for matrix in MATRICES[name](levels, signs, size, size).tolist()]


def _geometric(name: str, matrix: Matrix) -> Change:
    if name.startswith("Translate"):
        return partial(_moved, (-int(matrix[2]), -int(matrix[5])))
    return partial(_warped, matrix)


def _warped(matrix: Matrix, image: Image.Image) -> Image.Image:
    affine, nearest = Image.Transform.AFFINE, Image.Resampling.NEAREST
    return image.transform(image.size, affine, matrix, nearest, fillcolor=FILL)


def _moved(offset: tuple[int, int], image: Image.Image) -> Image.Image:
    result = Image.new("RGB", image.size, FILL)
    result.paste(image, offset)
    return result


def _brighter(black: Image.Image, factor: float, image: Image.Image) -> Image.Image:
    return Image.blend(black, image, factor)


def _colored(factor: float, image: Image.Image) -> Image.Image:
    return Image.blend(image.convert("L").convert("RGB"), image, factor)


def _contrasted(factor: float, image: Image.Image) -> Image.Image:
    counts = image.convert("L").histogram()
    mean = int(sum(map(operator.mul, counts, _VALUES)) / (image.width * image.height) + 0.5)
    return Image.blend(Image.new("RGB", image.size, (mean, mean, mean)), image, factor)


def _sharpened(factor: float, image: Image.Image) -> Image.Image:
    return Image.blend(image.filter(ImageFilter.SMOOTH), image, factor)


def _cut(side: int, draw: Position, image: Image.Image) -> Image.Image:
    top, left = int(draw() * image.height) - side // 2, int(draw() * image.width) - side // 2
    result = image.copy()
    result.paste(FILL, (left, top, left + side, top + side))
    return result
