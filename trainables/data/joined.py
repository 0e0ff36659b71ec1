"""The union of two sets of images, for the final training."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from trainables.data.image_folder import FolderImages
from trainables.data.images import Images, TensorImages, batch_rows


def join(first: Images, second: Images) -> Images:
    """Join two sets on the same device, `first` in front, in the simplest class that can hold both.

    Example:
        >>> from trainables.data import load
        >>> data = load("digits", train=20, validation=10)
        >>> len(join(data.train, data.validation))
        30
    """
    labels = torch.cat([first.labels, second.labels])
    if isinstance(first, TensorImages) and isinstance(second, TensorImages):
        return TensorImages(torch.cat([first.images, second.images]), labels)
    if isinstance(first, FolderImages) and isinstance(second, FolderImages) and first.reads_like(second):
        return replace(first, files=first.files + second.files, labels=labels)
    return JoinedImages(first, second, torch.arange(len(labels)))


@dataclass(frozen=True, eq=False)
class JoinedImages:
    """Images of any two sets, of which only the interface is known, such as a user's own classes.

    Args:
        first: N images.
        second: M images of the same shape, on the same device.
        rows: Indices into both, (K,) int64 in 0 … N + M − 1; those of `second` start at N.
    """

    first: Images
    second: Images
    rows: Tensor

    @property
    def labels(self) -> Tensor:
        """Class labels, (K,) int64, on the CPU."""
        return torch.cat([self.first.labels, self.second.labels])[self.rows]

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.rows)

    def batches(
        self, size: int, *, generator: torch.Generator | None = None, drop_last: bool = False
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Draw each image once, see `Images.batches`."""
        pieces = batch_rows(len(self), size, generator=generator, drop_last=drop_last)
        return (self._pick(self.rows[piece]) for piece in pieces)

    def _pick(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        in_first = rows < len(self.first)
        parts = [(self.first, rows[in_first]), (self.second, rows[~in_first] - len(self.first))]
        drawn = [next(images.subset(part).batches(len(part))) for images, part in parts if len(part)]
        images, labels = (torch.cat(tensors) for tensors in zip(*drawn, strict=True))
        places = torch.cat([in_first.nonzero(), (~in_first).nonzero()]).flatten().argsort().to(images.device)
        return images[places], labels[places]

    def subset(self, indices: Tensor) -> JoinedImages:
        """Return the images at `indices` (L,) int64, in that order."""
        return replace(self, rows=self.rows[indices.cpu()])

    def to(self, device: torch.device | str) -> JoinedImages:
        """Return both sets with batches on `device`."""
        return replace(self, first=self.first.to(device), second=self.second.to(device))
