"""Random augmentation by other libraries: Pillow, torchvision, kornia and albumentations.

Each is written as fast as its public interface allows, with the 15 operations nearest to PBA's and ranges like those of
PBA's levels. None is a dependency of roletune. A library that is not installed is skipped.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np
from PIL import Image
from torch import nn

from benchmarks.augmentation.cases import FILL, Case, Contestant
from benchmarks.augmentation.lean_pillow import two_operations

PACKAGES = ("kornia", "albumentations", "opencv-python-headless", "opencv-python")
"""Libraries, and their image backends, whose versions the result file records."""

ENHANCE = (0.1, 1.72)
"""Range of the factor of PBA's enhancing operations."""


def peers(case: Case) -> Iterator[Contestant]:
    """Yield the contestants of all installed libraries, and print one line for each that is missing."""
    makers: Sequence[Callable[[Case], Iterator[Contestant]]] = (_pillow, _torchvision, _kornia, _albumentations)
    for maker in makers:
        try:
            yield from maker(case)
        except ModuleNotFoundError as error:
            _print_once(f"{error.name} is not installed and is skipped")


@cache
def _print_once(line: str) -> None:
    print(line)


def _pillow(case: Case) -> Iterator[Contestant]:
    augment = two_operations(case.size, case.seed)
    images_only = case.per_image(augment, case.pil_images)
    yield Contestant("Pillow, lean", "Pillow images", 2, images_only, "lean")

    def with_arrays(number: int) -> np.ndarray[Any, Any]:
        arrays = case.arrays[case.batch_slice(number)]
        return np.stack([np.asarray(augment(Image.fromarray(array))) for array in arrays])

    yield Contestant("Pillow, lean, arrays to batch", "uint8 arrays", 2, with_arrays, "lean")


def _torchvision(case: Case) -> Iterator[Contestant]:
    from torchvision.transforms import v2

    sources: dict[str, Sequence[Any]] = {"Pillow images": case.pil_images, "uint8 tensors": list(case.images)}
    for source, items in sources.items():
        kind = source.split()[0]
        two = case.per_image(v2.RandAugment(num_ops=2, fill=list(FILL)), items)
        yield Contestant(f"torchvision RandAugment, {kind}", source, 2, two, "peer")
        one = case.per_image(v2.TrivialAugmentWide(fill=list(FILL)), items)
        yield Contestant(f"torchvision TrivialAugmentWide, {kind}", source, 1, one, "other")


def _kornia(case: Case) -> Iterator[Contestant]:
    """Yield kornia's contestants, on float batches; the conversion from and to uint8 is not timed.

    Its containers draw the operations once per batch. For draws per image, each operation has the probability 2/15, so
    that an image gets two on average; a plain `nn.Sequential` is the fastest container for that.
    """
    from kornia.augmentation import AugmentationSequential

    batches = case.images.float() / 255
    per_image = nn.Sequential(*_kornia_operations(2 / 15))
    per_batch = AugmentationSequential(*_kornia_operations(1.0), data_keys=["input"], random_apply=2)

    def on_batch(augment: nn.Module) -> Callable[[int], Any]:
        return lambda number: augment(batches[case.batch_slice(number)])

    yield Contestant("kornia, each with p = 2/15", "float batch", 2, on_batch(per_image), "peer", threaded=True)
    yield Contestant("kornia, two for a whole batch", "float batch", 2, on_batch(per_batch), "other", threaded=True)


def _kornia_operations(p: float) -> list[Any]:
    from kornia import augmentation as ops

    shift, turn = (-9 / 32, 9 / 32), 15.0  # a slope of 0.27 is an angle of 15 degrees
    return [
        ops.RandomRotation(27.0, resample="nearest", p=p),
        ops.RandomTranslate(translate_x=shift, resample="nearest", p=p),
        ops.RandomTranslate(translate_y=shift, resample="nearest", p=p),
        ops.RandomShear((-turn, turn), resample="nearest", p=p),
        ops.RandomShear((0.0, 0.0, -turn, turn), resample="nearest", p=p),
        ops.RandomBrightness(ENHANCE, p=p),
        ops.RandomSaturation(ENHANCE, p=p),
        ops.RandomContrast(ENHANCE, p=p),
        ops.RandomSharpness((0.0, 1.0), p=p),
        ops.RandomInvert(p=p),
        ops.RandomPosterize((1, 4), p=p),
        ops.RandomSolarize((0.1, 1.0), p=p),
        ops.RandomEqualize(p=p),
        ops.RandomAutoContrast(p=p),
        ops.RandomErasing((0.01, 0.3), (1.0, 1.0), p=p),
    ]


def _albumentations(case: Case) -> Iterator[Contestant]:
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # otherwise its import asks the network for a newer release
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import albumentations
        import cv2

    cv2.setNumThreads(1)  # like the other libraries that process images one by one
    augment = albumentations.SomeOf(_albumentations_operations(), n=2, p=1)
    augment.set_random_seed(case.seed)
    run = case.per_image(lambda array: augment(image=array)["image"], case.arrays)
    yield Contestant("albumentations SomeOf", "uint8 arrays", 2, run, "peer")


def _albumentations_operations() -> list[Any]:
    import albumentations as ops
    import cv2

    shift, still, same = (-9 / 32, 9 / 32), (0, 0), (1, 1)
    nearest: dict[str, Any] = {"interpolation": cv2.INTER_NEAREST, "fill": FILL, "p": 1}
    sides = (2 / 32, 18 / 32)
    return [
        ops.Rotate((-27, 27), **nearest),
        ops.Affine(translate_percent={"x": shift, "y": still}, **nearest),
        ops.Affine(translate_percent={"x": still, "y": shift}, **nearest),
        ops.Affine(shear={"x": (-15, 15), "y": still}, **nearest),
        ops.Affine(shear={"x": still, "y": (-15, 15)}, **nearest),
        ops.RandomBrightnessContrast(brightness_limit=0, contrast_limit=(-0.9, 0.72), p=1),  # like Brightness
        ops.ColorJitter(brightness=same, contrast=same, saturation=ENHANCE, hue=still, p=1),
        ops.ColorJitter(brightness=same, contrast=ENHANCE, saturation=same, hue=still, p=1),
        ops.Sharpen(alpha=(0, 0.7), lightness=same, p=1),
        ops.InvertImg(p=1),
        ops.Posterize(num_bits=(1, 4), p=1),
        ops.Solarize((0.1, 1), p=1),
        ops.Equalize(p=1),
        ops.AutoContrast(p=1),
        ops.CoarseDropout(num_holes_range=(1, 1), hole_height_range=sides, hole_width_range=sides, fill=FILL, p=1),
    ]
