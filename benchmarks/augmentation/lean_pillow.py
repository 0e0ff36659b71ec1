"""PBA's 15 operations with plain Pillow, image by image, as fast as its public calls allow: the reference speed.

Every operation at every level and sign is prepared as a function of one image. Per image, the benchmark then only draws
two of them and calls them. A faster route to the same bytes replaces Pillow's own function where there is one: one
affine transform for all geometric operations, `paste` for translations by whole pixels, `blend` instead of
`ImageEnhance`, and `ImageChops.invert`. No pixel is processed in Python. Pillow's private core is not used: it would
save the table check of `Image.point`, about 30 µs per call.
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

ImageFunction: TypeAlias = Callable[[Image.Image], Image.Image]
DrawPosition: TypeAlias = Callable[[], float]
"""Draws a number in [0, 1)."""

Matrix: TypeAlias = tuple[float, ...]

_VALUES = range(256)
_FACTORS = enhancement_factors(torch.arange(LEVELS)).tolist()


def operation_variants(size: int, draw: DrawPosition) -> dict[str, list[ImageFunction]]:
    """Return the variants of all 15 operations: one per level and, for signed operations, per sign.

    Args:
        size: Side length of the RGB images in pixels.
        draw: Draws the two positions of Cutout.

    Returns:
        Variants by name of the operation, sorted by level, then by sign.
    """
    black = Image.new("RGB", (size, size))
    levels = range(LEVELS)
    photometric: dict[str, list[ImageFunction]] = {
        "Brightness": [partial(_brightness, black, factor) for factor in _FACTORS],
        "Color": [partial(_color, factor) for factor in _FACTORS],
        "Contrast": [partial(_contrast, factor) for factor in _FACTORS],
        "Sharpness": [partial(_sharpness, factor) for factor in _FACTORS],
        "Posterize": [partial(ImageOps.posterize, bits=4 - level * 4 // 10) for level in levels],
        "Solarize": [partial(ImageOps.solarize, threshold=256 - level * 256 // 10) for level in levels],
        "Invert": [ImageChops.invert] * LEVELS,
        "Equalize": [ImageOps.equalize] * LEVELS,
        "AutoContrast": [ImageOps.autocontrast] * LEVELS,
        "Cutout": [partial(_cutout, side, draw) for side in cutout_sides(torch.arange(LEVELS), size, size).tolist()],
    }
    return photometric | {name: [_geometric(name, matrix) for matrix in _matrices(name, size)] for name in MATRICES}


def two_operations(size: int, seed: int) -> ImageFunction:
    """Return a function that applies two random operations, each at a random level and sign."""
    draw = random.Random(seed).random
    # Every operation appears equally often, so that a single number draws operation, level and sign.
    table = [
        variant
        for same_operation in operation_variants(size, draw).values()
        for variant in same_operation * (2 * LEVELS // len(same_operation))
    ]
    count = len(table)

    def augment(image: Image.Image) -> Image.Image:
        return table[int(draw() * count)](table[int(draw() * count)](image))

    return augment


def _matrices(name: str, size: int) -> list[Matrix]:
    levels = torch.arange(LEVELS).repeat_interleave(2)
    signs = torch.tensor([-1, 1]).repeat(LEVELS)
    return [tuple(matrix) for matrix in MATRICES[name](levels, signs, size, size).tolist()]


def _geometric(name: str, matrix: Matrix) -> ImageFunction:
    if name.startswith("Translate"):
        return partial(_translate, (-int(matrix[2]), -int(matrix[5])))
    return partial(_affine, matrix)


def _affine(matrix: Matrix, image: Image.Image) -> Image.Image:
    affine, nearest = Image.Transform.AFFINE, Image.Resampling.NEAREST
    return image.transform(image.size, affine, matrix, nearest, fillcolor=FILL)


def _translate(offset: tuple[int, int], image: Image.Image) -> Image.Image:
    result = Image.new("RGB", image.size, FILL)
    result.paste(image, offset)
    return result


def _brightness(black: Image.Image, factor: float, image: Image.Image) -> Image.Image:
    return Image.blend(black, image, factor)


def _color(factor: float, image: Image.Image) -> Image.Image:
    return Image.blend(image.convert("L").convert("RGB"), image, factor)


def _contrast(factor: float, image: Image.Image) -> Image.Image:
    counts = image.convert("L").histogram()
    mean = int(sum(map(operator.mul, counts, _VALUES)) / (image.width * image.height) + 0.5)
    return Image.blend(Image.new("RGB", image.size, (mean, mean, mean)), image, factor)


def _sharpness(factor: float, image: Image.Image) -> Image.Image:
    return Image.blend(image.filter(ImageFilter.SMOOTH), image, factor)


def _cutout(side: int, draw: DrawPosition, image: Image.Image) -> Image.Image:
    top, left = int(draw() * image.height) - side // 2, int(draw() * image.width) - side // 2
    result = image.copy()
    result.paste(FILL, (left, top, left + side, top + side))
    return result
