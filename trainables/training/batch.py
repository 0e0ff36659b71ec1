"""One batch of training images, and the running means of what is reported of an epoch's batches."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from spaces import WorkError

NOT_REPORTED = ("logits", "auxiliary_loss")
"""Entries of `Learner.losses` that are no metrics."""


@dataclass(frozen=True)
class Batch:
    """Training images before augmentation.

    Args:
        raw: Images, (B, C, H, W) uint8.
        labels: Class labels, (B,) int64, on the network's device.
        rows: Indices into the training set, (B,) int64, on the CPU.
    """

    raw: Tensor
    labels: Tensor
    rows: Tensor


class EpochMetrics:
    """Running means over the images of one epoch, kept on the device until `means` is called.

    Example:
        >>> import torch
        >>> metrics = EpochMetrics()
        >>> metrics.add({"loss": torch.tensor(2.0), "logits": torch.eye(2)}, labels=torch.tensor([0, 0]))
        >>> metrics.means(epoch=0)
        {'loss': 2.0, 'train_accuracy': 0.5}
    """

    def __init__(self) -> None:
        """Start with no images."""
        self.images = 0
        self._sums: dict[str, Tensor] = {}

    def add(self, losses: Mapping[str, Tensor], labels: Tensor) -> None:
        """Add the losses and the accuracy of one batch.

        Args:
            losses: Scalars by name, and `logits`, (B, K).
            labels: Class labels, (B,) int64.
        """
        accuracy = (losses["logits"].argmax(1) == labels).float().mean()
        values = {name: value.detach() for name, value in losses.items() if name not in NOT_REPORTED}
        for name, value in (values | {"train_accuracy": accuracy}).items():
            self._sums[name] = self._sums.get(name, 0) + value * len(labels)
        self.images += len(labels)

    def means(self, epoch: int) -> dict[str, float]:
        """Return the mean of every value.

        Args:
            epoch: Number of the epoch, for the error message.

        Raises:
            WorkError: A mean is not finite.
        """
        means = {name: float(total) / self.images for name, total in self._sums.items()}  # waits for the device
        if not all(map(math.isfinite, means.values())):
            values = ", ".join(f"{name} = {value:g}" for name, value in means.items())
            raise WorkError(f"the loss is not finite in epoch {epoch} ({values}); try a smaller lr, or set clip")
        return means
