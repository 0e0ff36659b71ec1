"""The 1,797 handwritten digits that come with scikit-learn: no download, and a search in seconds."""

from __future__ import annotations

import numpy as np
import torch

from trainables.data.images import TensorImages
from trainables.data.source import Pool, Reading
from trainables.data.splits import stratified

CLASSES, SIZE = 10, 8
POOL, TEST = 1200, 597
MEAN, STD = (0.3053,), (0.3757,)
"""Of the pool's pixels in 0 … 1."""


def read_digits(reading: Reading) -> Pool:
    """Grey 8 × 8 images, 120 of each class to choose from and 597 to test on; 17 levels, spread over 0 … 255.

    Which ones are tested on is fixed, whatever a sweep's seed.
    """
    del reading  # nothing lies on disk
    from sklearn.datasets import load_digits  # here, since it takes a second that no other set needs

    digits = load_digits()
    levels = np.rint(digits.images * 255 / 16).astype(np.uint8)
    every = TensorImages(torch.from_numpy(levels)[:, None], torch.from_numpy(digits.target.astype(np.int64)))
    pool, test = stratified(every.labels, classes=CLASSES, train=POOL, validation=TEST, seed=0)
    return Pool(every.subset(pool), every.subset(test), classes=CLASSES, size=SIZE)
