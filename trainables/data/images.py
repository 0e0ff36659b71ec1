"""Labeled images, drawn in batches: the interface, and the set that lies in memory as one tensor."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from spaces.core.errors import RequestError
from trainables.shared_memory import Sent, received, sent


class Images(Protocol):
    """N labeled images that can be drawn in batches."""

    @property
    def labels(self) -> Tensor:
        """(N,) int64, on the CPU wherever the images are."""

    def __len__(self) -> int:
        """N."""

    def batches(
        self, size: int, *, generator: torch.Generator | None = None, drop_last: bool = False
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Each image once: uint8 images (B, C, H, W) and int64 labels (B,), both on this set's device.

        Args:
            size: B, at least 1; the last batch may be smaller.
            generator: on the CPU, shuffles; it draws one permutation, at the call, as `batch_rows` does. None keeps
                the order of the set.
            drop_last: leave out a last batch that is smaller than `size`.
        """

    def subset(self, indices: Tensor) -> Images:
        """The images at `indices` (M,) int64, in that order."""

    def to(self, device: torch.device | str) -> Images:
        """The same images, whose batches come on `device`."""


@dataclass(frozen=True, eq=False)
class TensorImages:
    """Images that lie on one device as one tensor, which nothing writes to: other processes may read the same memory.

    Args:
        images: (N, C, H, W) uint8, on any device.
        labels: (N,) int64, on the CPU.

    Raises:
        RequestError: another shape or type.
    """

    images: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        """Refuse what the interface does not promise."""
        if self.images.ndim != 4 or self.images.dtype != torch.uint8:
            raise RequestError("images must be (N, C, H, W) torch.uint8", value=_form(self.images))
        check_labels(self.labels, len(self.images))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled so that it is read where it lies, see `trainables.shared_memory`."""
        return _arrived, (sent(self.images), sent(self.labels))

    def __len__(self) -> int:
        """N."""
        return len(self.labels)

    def batches(
        self, size: int, *, generator: torch.Generator | None = None, drop_last: bool = False
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """As `Images.batches`; every batch is a copy, so it may be written to."""
        rows = batch_rows(len(self), size, generator=generator, drop_last=drop_last)
        return self._draw(rows)

    def _draw(self, batches: list[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        labels = self.labels.to(self.images.device)
        for rows in batches:
            rows = rows.to(self.images.device)
            yield self.images.index_select(0, rows), labels.index_select(0, rows)

    def subset(self, indices: Tensor) -> TensorImages:
        """A copy of the images at `indices` (M,) int64."""
        rows = indices.to(self.images.device)
        return TensorImages(self.images.index_select(0, rows), self.labels[indices.cpu()])

    def to(self, device: torch.device | str) -> TensorImages:
        """The images on `device`; the labels stay on the CPU."""
        return TensorImages(self.images.to(device), self.labels)


def _arrived(images: Sent, labels: Sent) -> TensorImages:
    return TensorImages(received(images), received(labels))


def batch_rows(
    count: int, size: int, *, generator: torch.Generator | None = None, drop_last: bool = False
) -> list[Tensor]:
    """The numbers 0 … count − 1, each once, in pieces (B,) int64 of `size`: what each batch consists of.

    Raises:
        RequestError: `size` is below 1.
    """
    if size < 1:
        raise RequestError("a batch has at least 1 image", value=size)
    order = torch.arange(count) if generator is None else torch.randperm(count, generator=generator)
    pieces = [piece for piece in torch.split(order, size) if len(piece)]
    return pieces[: count // size] if drop_last else pieces


def check_labels(labels: Tensor, count: int) -> None:
    """Refuse labels that are not (count,) int64 on the CPU.

    Raises:
        RequestError: as said.
    """
    if labels.shape != (count,) or labels.dtype != torch.int64 or labels.device.type != "cpu":
        raise RequestError(f"labels must be ({count},) torch.int64 on cpu", value=_form(labels))


def _form(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} {tensor.dtype} on {tensor.device}"
