"""The sets whose files torchvision reads: MNIST, Fashion-MNIST, SVHN, CIFAR-10 and CIFAR-100.

CIFAR's own files are Python pickles. torchvision unpickles them only after their MD5 sums have matched the
published ones, and raises otherwise; this check is never bypassed here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from spaces.core.errors import RequestError, RoletuneError, WorkError
from trainables.data.images import TensorImages
from trainables.data.source import Pool, Reading

FETCH = "fetch it with `data.download: true` (or `--set data.download=true`)"


@dataclass(frozen=True)
class TorchvisionSet:
    """A class of `torchvision.datasets`, and how its arrays lie.

    Args:
        name: as a sweep names it.
        kind: the class.
        folder: where its files lie below the root.
        classes: how many.
        size: side of the images, px.
        layout: of the class's `data`: (N, H, W), (N, H, W, C) or (N, C, H, W).
    """

    name: str
    kind: str
    folder: str
    classes: int
    size: int
    layout: Literal["NHW", "NHWC", "NCHW"]

    def read(self, reading: Reading) -> Pool:
        """Read both parts; fetch them first if they are missing and `reading.download` says so.

        Raises:
            RequestError: the files are missing or damaged.
            WorkError: fetching them failed.
        """
        train, test = (self._part(reading, train) for train in (True, False))
        return Pool(train, test, classes=self.classes, size=self.size)

    def _part(self, reading: Reading, train: bool) -> TensorImages:
        from torchvision import datasets  # here, since it takes a second that not every set needs

        root = reading.root.expanduser().absolute()
        part = {"split": "train" if train else "test"} if self.kind == "SVHN" else {"train": train}
        try:
            return self._tensors(getattr(datasets, self.kind)(root, download=reading.download, **part))
        except Exception as error:  # a damaged file makes its reader raise anything
            raise self._failure(error, root / self.folder, reading.download) from error

    def _tensors(self, opened: Any) -> TensorImages:
        data = np.asarray(opened.data)
        data = data[:, None] if self.layout == "NHW" else data
        data = data.transpose(0, 3, 1, 2) if self.layout == "NHWC" else data
        labels = opened.labels if self.kind == "SVHN" else opened.targets
        if not len(data) or data.shape[2:] != (self.size, self.size):
            raise ValueError(f"{len(data)} images of {data.shape[2:]} px")
        return TensorImages(torch.from_numpy(np.ascontiguousarray(data)), torch.as_tensor(labels, dtype=torch.int64))

    def _failure(self, error: Exception, folder: Path, download: bool) -> RoletuneError:
        if isinstance(error, OSError | RuntimeError) and download:
            return WorkError(f"data set {self.name!r} could not be fetched to {folder}: {' '.join(str(error).split())}")
        if isinstance(error, RuntimeError) and "not found" in str(error):
            return RequestError(f"data set {self.name!r} was not found in {folder}, or is damaged", hint=FETCH)
        rule = f"data set {self.name!r} in {folder} is damaged ({type(error).__name__}: {error})"
        return RequestError(rule, hint=f"remove its files and {FETCH}")
