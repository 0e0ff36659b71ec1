"""Images of the augmentation benchmark, and the description of one contestant."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks.common.timing import Run

FILL = (125, 122, 113)
"""Color of uncovered and cut-out pixels: the mean of CIFAR-10."""


@dataclass(frozen=True)
class Contestant:
    """One implementation that augments a batch.

    Args:
        name: Unique name in the table. It says so if anything but drawing and applying is timed.
        works_on: Type of its input and output.
        operations: Mean number of operations per image.
        run: Augments the batch of the given number.
        kind: `roletune`; `lean`, plain Pillow; `peer`, a library that draws about two operations for each image; or
            `other`, which does less and is listed for information.
        threaded: True if it uses torch's threads, False if it processes images one by one in one thread.
    """

    name: str
    works_on: str
    operations: float
    run: Run
    kind: str
    threaded: bool = False


@dataclass(frozen=True)
class Case:
    """RGB images of one size, drawn in batches.

    Args:
        size: Side length in pixels.
        batch: Images per batch.
        pool: Number of distinct images. Batches take them in turn.
        seed: Seed of the images and of all draws.
    """

    size: int
    batch: int
    pool: int
    seed: int

    @cached_property
    def images(self) -> Tensor:
        """Images as one uint8 tensor (pool, 3, size, size)."""
        pixels = photographs(self.size, self.pool, self.seed)
        return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()

    @cached_property
    def arrays(self) -> list[np.ndarray[Any, Any]]:
        """The same images as uint8 arrays (size, size, 3)."""
        return [np.ascontiguousarray(array) for array in self.images.permute(0, 2, 3, 1).numpy()]

    @cached_property
    def pil_images(self) -> list[Image.Image]:
        """The same images as PIL images in memory."""
        return [Image.fromarray(array) for array in self.arrays]

    def batch_slice(self, number: int) -> slice:
        """Return the indices of the batch of that number."""
        start = number % (self.pool // self.batch) * self.batch
        return slice(start, start + self.batch)

    def per_image(self, augment: Callable[[Any], Any], items: Sequence[Any]) -> Run:
        """Return a run that calls `augment` on each item of the batch and keeps the results."""
        return lambda number: [augment(item) for item in items[self.batch_slice(number)]]


def photographs(size: int, count: int, seed: int) -> np.ndarray[Any, Any]:
    """Return random squares of scikit-learn's two sample photographs as uint8 (count, size, size, 3).

    Photographs rather than noise, because the time of some operations depends on how similar neighboring pixels are.
    """
    from sklearn.datasets import load_sample_images

    photos = [Image.fromarray(array) for array in load_sample_images().images]
    generator = np.random.default_rng(seed)
    return np.stack([_square(photo, size, generator) for photo in itertools.islice(itertools.cycle(photos), count)])


def _square(photo: Image.Image, size: int, generator: np.random.Generator) -> np.ndarray[Any, Any]:
    side = int(generator.integers(size, min(photo.size), endpoint=True))
    left, top = (int(generator.integers(0, length - side, endpoint=True)) for length in photo.size)
    square = photo.crop((left, top, left + side, top + side))
    return np.asarray(square.resize((size, size), Image.Resampling.BILINEAR, reducing_gap=3.0))
