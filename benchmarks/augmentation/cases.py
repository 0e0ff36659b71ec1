"""What contestants for speed of augmentation have in common: the images, and how one is described."""

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
"""The color of uncovered and cut-out pixels: CIFAR-10's mean, as the data set of that name has it."""


@dataclass(frozen=True)
class Contestant:
    """One way to augment a batch.

    Args:
        name: as the table shows it, no two alike; it says so where anything but drawing and applying is timed.
        works_on: what it takes and gives.
        operations: how many an image gets on average.
        run: augments a batch; it is handed the number of its turn.
        kind: `ours`; `lean`, plain Pillow; `peer`, a library that draws about two operations for every image on its
            own, as ours does; or `other`, which does less and is there for information.
        threaded: whether it takes as many threads as torch has; one that goes image by image takes one.
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
        size: side, px.
        batch: images a batch.
        pool: how many different images there are; batches are taken from them in turn.
        seed: of the images and of all that is drawn.
    """

    size: int
    batch: int
    pool: int
    seed: int

    @cached_property
    def images(self) -> Tensor:
        """(pool, 3, size, size) uint8."""
        pixels = photographs(self.size, self.pool, self.seed)
        return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()

    @cached_property
    def arrays(self) -> list[np.ndarray[Any, Any]]:
        """The same images, (size, size, 3) uint8 each."""
        return [np.ascontiguousarray(array) for array in self.images.permute(0, 2, 3, 1).numpy()]

    @cached_property
    def pictures(self) -> list[Image.Image]:
        """The same images as Pillow's, in memory."""
        return [Image.fromarray(array) for array in self.arrays]

    def rows(self, turn: int) -> slice:
        """Which images make up the batch of `turn`."""
        start = turn % (self.pool // self.batch) * self.batch
        return slice(start, start + self.batch)

    def one_by_one(self, augment: Callable[[Any], Any], items: Sequence[Any]) -> Run:
        """A run that calls `augment` on one item of the batch after the other, and keeps the answers."""
        return lambda turn: [augment(item) for item in items[self.rows(turn)]]


def photographs(size: int, count: int, seed: int) -> np.ndarray[Any, Any]:
    """`count` images (N, size, size, 3) uint8: random squares out of scikit-learn's two sample photographs.

    Photographs and not noise, since the time of some operations depends on how alike neighboring pixels are.
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
