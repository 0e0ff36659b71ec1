"""The 1,797 handwritten digits that come with scikit-learn: no download, and a search in seconds."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from spaces import RequestError
from trainables.data.images import TensorImages
from trainables.data.source import Pool, Reading
from trainables.data.splits import stratified

CLASSES, SIZE = 10, 8
POOL, TEST = 1200, 597
MEAN, STD = (0.3053,), (0.3757,)
"""Of the pool's pixels in 0 … 1."""


def read_digits(reading: Reading) -> Pool:
    """Gray 8 × 8 images, 120 of each class to choose from and 597 to test on; 17 levels, spread over 0 … 255.

    Which ones are tested on is fixed, whatever a sweep's seed.
    """
    del reading  # nothing lies on disk
    table = np.loadtxt(_file(), delimiter=",")
    levels = np.rint(table[:, :-1].reshape(-1, 1, SIZE, SIZE) * 255 / 16).astype(np.uint8)
    every = TensorImages(torch.from_numpy(levels), torch.from_numpy(table[:, -1].astype(np.int64)))
    pool, test = stratified(every.labels, classes=CLASSES, train=POOL, validation=TEST, seed=0)
    return Pool(every.subset(pool), every.subset(test), classes=CLASSES, size=SIZE)


def _file() -> Path:
    """Scikit-learn's own copy of the digits, one image and its label a row; to import the package takes two seconds."""
    spec = find_spec("sklearn")
    if spec is None or not spec.submodule_search_locations:
        raise RequestError("the digits come with scikit-learn, which is not installed", hint="pip install scikit-learn")
    return Path(spec.submodule_search_locations[0], "datasets", "data", "digits.csv.gz")
