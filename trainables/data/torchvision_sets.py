"""The data sets read by torchvision: MNIST, Fashion-MNIST, SVHN, CIFAR-10 and CIFAR-100.

CIFAR's files are Python pickles. torchvision unpickles them only if their MD5 sums match the published ones, and raises
otherwise; this check is never bypassed here.
"""

from __future__ import annotations

import gzip
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from spaces.core.errors import RequestError, RoletuneError, WorkError
from trainables.data.images import TensorImages
from trainables.data.source import Pool, ReadOptions

DEBIAN_FASHION = Path("/usr/share/datasets/fashion-mnist")
"""Folder of Debian's package `dataset-fashion-mnist`."""

DOWNLOAD_HINT = "download it with `data.download: true` (or `--set data.download=true`)"


@dataclass(frozen=True)
class TorchvisionSet:
    """A class of `torchvision.datasets` and the layout of its arrays.

    Args:
        name: Name in the sweep file.
        kind: Name of the class.
        folder: Folder of its files below the root.
        classes: Number of classes.
        size: Side of the images, px.
        layout: Layout of the class's `data`: (N, H, W), (N, H, W, C) or (N, C, H, W).
        packaged: True for Fashion-MNIST, whose IDX files in `DEBIAN_FASHION` are read where the root has none.
    """

    name: str
    kind: str
    folder: str
    classes: int
    size: int
    layout: Literal["NHW", "NHWC", "NCHW"]
    packaged: bool = False

    def read(self, options: ReadOptions) -> Pool:
        """Read both parts, and download them first if they are missing and `options.download` is set.

        Raises:
            RequestError: The files are missing or damaged.
            WorkError: The download failed.
        """
        missing = not (options.root.expanduser() / self.folder).is_dir() and not options.download
        if missing and self.packaged and DEBIAN_FASHION.is_dir():
            train, test = (self._packaged(DEBIAN_FASHION, part) for part in ("train", "t10k"))
        else:
            train, test = (self._part(options, train) for train in (True, False))
        return Pool(train, test, classes=self.classes, size=self.size)

    def _part(self, options: ReadOptions, train: bool) -> TensorImages:
        from torchvision import datasets  # imported here because it takes a second

        root = options.root.expanduser().absolute()
        part = {"split": "train" if train else "test"} if self.kind == "SVHN" else {"train": train}
        try:
            return self._tensors(getattr(datasets, self.kind)(root, download=options.download, **part))
        except Exception as error:  # a damaged file raises anything
            raise self._failure(error, root / self.folder, options.download) from error

    def _packaged(self, folder: Path, part: str) -> TensorImages:
        """Read a part from compressed IDX files (http://yann.lecun.com/exdb/mnist/): big-endian sizes, then bytes."""
        try:
            images = _idx(folder / f"{part}-images-idx3-ubyte.gz", dimensions=3)
            labels = _idx(folder / f"{part}-labels-idx1-ubyte.gz", dimensions=1)
            if images.shape[1:] != (self.size, self.size):
                raise ValueError(f"{len(images)} images of {images.shape[1:]} px")
            return TensorImages(torch.from_numpy(images[:, None].copy()), torch.from_numpy(labels.astype(np.int64)))
        except (OSError, EOFError, ValueError, zlib.error) as error:
            rule = (
                f"the files of data set {self.name!r} in {folder} must be undamaged ({type(error).__name__}: {error})"
            )
            raise RequestError(rule, hint="install the package again, or set data.root") from error

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
            return WorkError(
                f"data set {self.name!r} could not be downloaded to {folder}: {' '.join(str(error).split())}"
            )
        if isinstance(error, RuntimeError) and "not found" in str(error):
            return RequestError(
                f"the files of data set {self.name!r} must be in {folder}, undamaged", hint=DOWNLOAD_HINT
            )
        rule = f"the files of data set {self.name!r} in {folder} must be undamaged ({type(error).__name__}: {error})"
        return RequestError(rule, hint=f"remove its files and {DOWNLOAD_HINT}")


def _idx(file: Path, dimensions: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    content = gzip.decompress(file.read_bytes())
    if content[:4] != bytes([0, 0, 8, dimensions]):
        raise ValueError(f"{file.name} is no IDX file of {dimensions} dimensions of bytes")
    shape = np.frombuffer(content, ">u4", count=dimensions, offset=4).astype(np.int64)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape)
