"""What the losses on logits share."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor

from trainables.losses.base import Criterion, DistillBatch, Loss, Pair
from trainables.losses.checks import need_classes, without_autocast


@dataclass(frozen=True)
class LogitLoss(Loss):
    """A loss without parameters, that compares logits over the same classes."""

    needs: ClassVar[frozenset[str]] = frozenset({"teacher", "classes"})

    def build(self, pair: Pair) -> Criterion:
        """Make it ready.

        Raises:
            RequestError: there is no teacher, or one of other classes.
        """
        need_classes(self, pair)
        return LogitCriterion(self)

    @abstractmethod
    def compute_losses(self, seen: DistillBatch, teacher: Tensor) -> dict[str, Tensor]:
        """As `Criterion.forward`; all logits are float32, and the `teacher`'s are without a gradient."""


class LogitCriterion(Criterion):
    """A `LogitLoss` at work."""

    def __init__(self, options: LogitLoss) -> None:
        """Keep the options."""
        super().__init__()
        self.options = options

    def forward(self, seen: DistillBatch) -> dict[str, Tensor]:
        """Judge a batch in float32."""
        assert seen.teacher is not None
        with without_autocast(seen.student):
            return self.options.compute_losses(
                replace(seen, student=seen.student.float()), seen.teacher.detach().float()
            )
