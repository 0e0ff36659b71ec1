"""The 1,797 handwritten digits that come with scikit-learn, for searches in seconds without a download."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from spaces import RequestError
from trainables.data.images import TensorImages
from trainables.data.source import Pool, ReadOptions
from trainables.data.splits import stratified_split

CLASSES, SIZE = 10, 8
POOL, TEST = 1200, 597
MEAN, STD = (0.3053,), (0.3757,)
"""Mean and standard deviation of the pool's pixels in [0, 1]."""


def read_digits(options: ReadOptions) -> Pool:
    """Read 1,200 gray 8 × 8 images, 120 of each class, to train and validate on, and 597 to test on.

    The 17 gray levels are scaled to 0 … 255. The test images are the same for every seed of a sweep.
    """
    del options  # the file is part of an installed package
    table = np.loadtxt(_file(), delimiter=",")
    levels = np.rint(table[:, :-1].reshape(-1, 1, SIZE, SIZE) * 255 / 16).astype(np.uint8)
    digits = TensorImages(torch.from_numpy(levels), torch.from_numpy(table[:, -1].astype(np.int64)))
    pool, test = stratified_split(digits.labels, classes=CLASSES, train=POOL, validation=TEST, seed=0)
    return Pool(digits.subset(pool), digits.subset(test), classes=CLASSES, size=SIZE)


def _file() -> Path:
    """Return scikit-learn's file of the digits, one image and its label per row, without its import of two seconds."""
    spec = find_spec("sklearn")
    if spec is None or not spec.submodule_search_locations:
        raise RequestError("scikit-learn must be installed for the data set digits", hint="pip install scikit-learn")
    return Path(spec.submodule_search_locations[0], "datasets", "data", "digits.csv.gz")
