"""The base class of losses on logits."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor

from trainables.losses.base import Criterion, DistillBatch, Loss, NetworkPair
from trainables.losses.checks import require_same_classes, without_autocast


@dataclass(frozen=True)
class LogitLoss(Loss):
    """A loss without parameters that compares the logits of two networks over the same classes."""

    needs: ClassVar[frozenset[str]] = frozenset({"teacher", "classes"})

    def build(self, pair: NetworkPair) -> Criterion:
        """Build the loss.

        Raises:
            RequestError: There is no teacher, or it has other classes.
        """
        require_same_classes(self, pair)
        return LogitCriterion(self)

    @abstractmethod
    def compute_losses(self, batch: DistillBatch, teacher: Tensor) -> dict[str, Tensor]:
        """Compute the parts that `Criterion.forward` returns.

        Args:
            batch: The batch, with the student's logits in float32.
            teacher: Teacher's logits, (B, C) float32, without a gradient.
        """


class LogitCriterion(Criterion):
    """A `LogitLoss` evaluated in float32."""

    def __init__(self, options: LogitLoss) -> None:
        """Keep the options."""
        super().__init__()
        self.options = options

    def forward(self, batch: DistillBatch) -> dict[str, Tensor]:
        """Compute the loss of a batch."""
        assert batch.teacher is not None
        with without_autocast(batch.student):
            teacher = batch.teacher.detach().float()
            return self.options.compute_losses(replace(batch, student=batch.student.float()), teacher)
