"""Labeled images that are drawn in batches: the interface, and the implementation in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from spaces.core.errors import RequestError
from trainables.shared_memory import Shareable, from_shareable, to_shareable


class Images(Protocol):
    """The interface of N labeled images.

    Example:
        >>> from trainables.data import load
        >>> train = load("digits", train=20, validation=10).train
        >>> images, labels = next(train.batches(8))
        >>> tuple(images.shape), images.dtype, tuple(labels.shape)
        ((8, 1, 8, 8), torch.uint8, (8,))
    """

    @property
    def labels(self) -> Tensor:
        """Class labels, (N,) int64, always on the CPU."""

    def __len__(self) -> int:
        """Return the number of images."""

    def batches(
        self, size: int, *, generator: torch.Generator | None = None, drop_last: bool = False
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Draw each image once.

        Args:
            size: Images per batch, >= 1; the last batch may be smaller.
            generator: Generator on the CPU that shuffles; it draws one permutation, when `batches` is called, as
                `batch_rows` does. None to keep the order.
            drop_last: Leave out a smaller last batch.

        Returns:
            An iterator over uint8 images (B, C, H, W) and int64 labels (B,), both on the images' device.
        """

    def subset(self, indices: Tensor) -> Images:
        """Return the images at `indices` (M,) int64, in that order."""

    def to(self, device: torch.device | str) -> Images:
        """Return the images with batches on `device`."""


@dataclass(frozen=True, eq=False)
class TensorImages:
    """Images in one tensor, which is never written to because other processes may share its memory.

    Args:
        images: Pixels, (N, C, H, W) uint8, on any device.
        labels: Class labels, (N,) int64, on the CPU.

    Raises:
        RequestError: A tensor has another shape or type.

    Example:
        >>> images = TensorImages(torch.zeros(3, 1, 2, 2, dtype=torch.uint8), torch.tensor([0, 1, 0]))
        >>> len(images), images.subset(torch.tensor([1])).labels
        (3, tensor([1]))
    """

    images: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        """Check shapes and types."""
        if self.images.ndim != 4 or self.images.dtype != torch.uint8:
            raise RequestError("images must be (N, C, H, W) torch.uint8", value=_describe(self.images))
        check_labels(self.labels, len(self.images))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the tensors so that other processes read them in place, see `trainables.shared_memory`."""
        return _unpickle_images, (to_shareable(self.images), to_shareable(self.labels))

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    def batches(
        self, size: int, *, generator: torch.Generator | None = None, drop_last: bool = False
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Draw each image once; every batch is a copy, which may be written to."""
        rows = batch_rows(len(self), size, generator=generator, drop_last=drop_last)
        return self._draw(rows)

    def _draw(self, batches: list[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        labels = self.labels.to(self.images.device)
        for rows in batches:
            rows = rows.to(self.images.device)
            yield self.images.index_select(0, rows), labels.index_select(0, rows)

    def subset(self, indices: Tensor) -> TensorImages:
        """Return a copy of the images at `indices` (M,) int64."""
        rows = indices.to(self.images.device)
        return TensorImages(self.images.index_select(0, rows), self.labels[indices.cpu()])

    def to(self, device: torch.device | str) -> TensorImages:
        """Return the images on `device`; the labels stay on the CPU."""
        return TensorImages(self.images.to(device), self.labels)


def _unpickle_images(images: Shareable, labels: Shareable) -> TensorImages:
    return TensorImages(from_shareable(images), from_shareable(labels))


def batch_rows(
    count: int, size: int, *, generator: torch.Generator | None = None, drop_last: bool = False
) -> list[Tensor]:
    """Return the row indices of each batch: 0 … count − 1, each once, in pieces (B,) int64.

    Args:
        count: Number of images.
        size: Images per batch, >= 1.
        generator: Generator that shuffles; None to keep the order.
        drop_last: Leave out a smaller last batch.

    Raises:
        RequestError: `size` is below 1.

    Example:
        >>> batch_rows(5, 2)
        [tensor([0, 1]), tensor([2, 3]), tensor([4])]
    """
    if size < 1:
        raise RequestError("the batch size must be >= 1", value=size)
    order = torch.arange(count) if generator is None else torch.randperm(count, generator=generator)
    pieces = [piece for piece in torch.split(order, size) if len(piece)]
    return pieces[: count // size] if drop_last else pieces


def check_labels(labels: Tensor, count: int) -> None:
    """Check that `labels` are (count,) int64 on the CPU.

    Raises:
        RequestError: They are not.
    """
    if labels.shape != (count,) or labels.dtype != torch.int64 or labels.device.type != "cpu":
        raise RequestError(f"labels must be ({count},) torch.int64 on cpu", value=_describe(labels))


def _describe(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} {tensor.dtype} on {tensor.device}"
