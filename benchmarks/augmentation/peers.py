"""What others offer for random augmentation: Pillow, torchvision, kornia, albumentations.

Each is written as leanly as its public interface allows, with the 15 operations that are nearest to PBA's, and ranges
like its levels. None is a dependency: what is not installed is not measured.
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
"""Peers, and what they compute with, whose versions go into the result file."""

ENHANCE = (0.1, 1.72)
"""The range of PBA's enhancers' factor."""


def peers(case: Case) -> Iterator[Contestant]:
    """All contestants that are installed; a line is printed for each that is not."""
    makers: Sequence[Callable[[Case], Iterator[Contestant]]] = (_pillow, _torchvision, _kornia, _albumentations)
    for maker in makers:
        try:
            yield from maker(case)
        except ModuleNotFoundError as error:
            _say_once(f"{error.name} is not installed: not measured")


@cache
def _say_once(line: str) -> None:
    print(line)


def _pillow(case: Case) -> Iterator[Contestant]:
    augment = two_operations(case.size, case.seed)
    alone = case.one_by_one(augment, case.pictures)
    yield Contestant("Pillow, lean", "Pillow images", 2, alone, "lean")

    def with_arrays(turn: int) -> np.ndarray[Any, Any]:
        arrays = case.arrays[case.rows(turn)]
        return np.stack([np.asarray(augment(Image.fromarray(array))) for array in arrays])

    yield Contestant("Pillow, lean, arrays to batch", "uint8 arrays", 2, with_arrays, "lean")


def _torchvision(case: Case) -> Iterator[Contestant]:
    from torchvision.transforms import v2

    sources: dict[str, Sequence[Any]] = {"Pillow images": case.pictures, "uint8 tensors": list(case.images)}
    for source, items in sources.items():
        kind = source.split()[0]
        two = case.one_by_one(v2.RandAugment(num_ops=2, fill=list(FILL)), items)
        yield Contestant(f"torchvision RandAugment, {kind}", source, 2, two, "peer")
        one = case.one_by_one(v2.TrivialAugmentWide(fill=list(FILL)), items)
        yield Contestant(f"torchvision TrivialAugmentWide, {kind}", source, 1, one, "other")


def _kornia(case: Case) -> Iterator[Contestant]:
    """Float batches in and out; the conversion from and to uint8 is not counted.

    Its containers draw the operations once for a batch. That every image draws its own is said by each operation's own
    probability, 2 of 15, so that an image gets two on average; a plain `nn.Sequential` is the fastest road to that.
    """
    from kornia.augmentation import AugmentationSequential

    batches = case.images.float() / 255
    own = nn.Sequential(*_kornia_operations(2 / 15))
    shared = AugmentationSequential(*_kornia_operations(1.0), data_keys=["input"], random_apply=2)

    def on_batch(augment: nn.Module) -> Callable[[int], Any]:
        return lambda turn: augment(batches[case.rows(turn)])

    yield Contestant("kornia, each with p = 2/15", "float batch", 2, on_batch(own), "peer", threaded=True)
    yield Contestant("kornia, two for a whole batch", "float batch", 2, on_batch(shared), "other", threaded=True)


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
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # importing it would ask the network for a newer release
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import albumentations
        import cv2

    cv2.setNumThreads(1)  # as the other peers that go image by image
    augment = albumentations.SomeOf(_albumentations_operations(), n=2, p=1)
    augment.set_random_seed(case.seed)
    run = case.one_by_one(lambda array: augment(image=array)["image"], case.arrays)
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
        ops.RandomBrightnessContrast(brightness_limit=0, contrast_limit=(-0.9, 0.72), p=1),  # it multiplies: Brightness
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
