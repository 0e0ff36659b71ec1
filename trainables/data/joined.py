"""Two sets of images as one: what the full training sees."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from trainables.data.image_folder import FolderImages
from trainables.data.images import Images, TensorImages, batch_rows


def join(first: Images, second: Images) -> Images:
    """Both sets as one, `first` in front, in the simplest form for the two. Both are on the same device."""
    labels = torch.cat([first.labels, second.labels])
    if isinstance(first, TensorImages) and isinstance(second, TensorImages):
        return TensorImages(torch.cat([first.images, second.images]), labels)
    if isinstance(first, FolderImages) and isinstance(second, FolderImages) and first.reads_like(second):
        return replace(first, files=first.files + second.files, labels=labels)
    return JoinedImages(first, second, torch.arange(len(labels)))


@dataclass(frozen=True, eq=False)
class JoinedImages:
    """Images out of any two sets: for classes of a user's own, of which only the interface is known.

    Args:
        first: N images.
        second: M images of the same shape, on the same device.
        rows: (K,) int64 in 0 … N + M − 1: which images, in which order; those of `second` count from N.
    """

    first: Images
    second: Images
    rows: Tensor

    @property
    def labels(self) -> Tensor:
        """(K,) int64, on the CPU."""
        return torch.cat([self.first.labels, self.second.labels])[self.rows]

    def __len__(self) -> int:
        """K."""
        return len(self.rows)

    def batches(
        self, size: int, *, generator: torch.Generator | None = None, drop_last: bool = False
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """As `Images.batches`."""
        pieces = batch_rows(len(self), size, generator=generator, drop_last=drop_last)
        return (self._pick(self.rows[piece]) for piece in pieces)

    def _pick(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        ahead = rows < len(self.first)
        parts = [(self.first, rows[ahead]), (self.second, rows[~ahead] - len(self.first))]
        drawn = [next(images.subset(own).batches(len(own))) for images, own in parts if len(own)]
        images, labels = (torch.cat(tensors) for tensors in zip(*drawn, strict=True))
        places = torch.cat([ahead.nonzero(), (~ahead).nonzero()]).flatten().argsort().to(images.device)
        return images[places], labels[places]

    def subset(self, indices: Tensor) -> JoinedImages:
        """The images at `indices` (L,) int64, in that order."""
        return replace(self, rows=self.rows[indices.cpu()])

    def to(self, device: torch.device | str) -> JoinedImages:
        """Both sets on `device`."""
        return replace(self, first=self.first.to(device), second=self.second.to(device))
