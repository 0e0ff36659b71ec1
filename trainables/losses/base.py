"""The interface of distillation losses: options as plain data, built for two networks, then evaluated on batches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

from torch import Tensor, nn


@dataclass(frozen=True)
class DistillBatch:
    """One batch with the answers of both networks. B images, C classes of the student, K classes of the teacher.

    Args:
        images: Images as the student saw them, normalized, (B, channels, H, W).
        labels: Class labels, (B,) int64.
        rows: Indices of the images in the training set, (B,) int64.
        temperature: Temperature T > 0 of losses on logits.
        student: Student's logits, (B, C).
        teacher: Teacher's logits, (B, K), without a gradient; None without a teacher.
        student_features: Outputs of the student's layers by name, the batch dimension first.
        teacher_features: Outputs of the teacher's layers by name, without a gradient.
    """

    images: Tensor
    labels: Tensor
    rows: Tensor
    temperature: float
    student: Tensor
    teacher: Tensor | None = None
    student_features: Mapping[str, Tensor] = field(default_factory=dict)
    teacher_features: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class NetworkPair:
    """The student and the teacher that a loss is built for.

    Args:
        classes: Number C of classes of the data.
        images: Number of training images.
        student: Layer name → shape without the batch of the student's features, in network order.
        teacher: The same for the teacher; empty without a teacher.
        teacher_classes: Number K of the teacher's classes; None without a teacher.
        peer: Function that returns a trainable copy of the teacher; None without a teacher.
    """

    classes: int
    images: int
    student: Mapping[str, tuple[int, ...]]
    teacher: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    teacher_classes: int | None = None
    peer: Callable[[], nn.Module] | None = None


class Criterion(nn.Module, ABC):
    """A loss built for two networks. Its parameters, if any, learn beside the student and are not exported."""

    @abstractmethod
    def forward(self, batch: DistillBatch) -> dict[str, Tensor]:
        """Compute the loss of a batch.

        Returns:
            `loss`, the scalar that the student minimizes; further named parts to report; and, if the loss has
            parameters with an objective of their own, `auxiliary_loss`, the scalar that these minimize, without a
            gradient into the student.
        """

    def report(self) -> dict[str, float]:
        """Return metrics of the last batch, called at the end of an epoch."""
        return {}


@dataclass(frozen=True)
class Loss(ABC):
    """A distillation loss by name, with its options as plain data.

    Attributes:
        kind: Name in the registry.
        needs: Requirements: `teacher`; `classes`, a teacher with the student's classes; `features`, outputs of layers
            of the student and, if there is one, the teacher.
    """

    kind: ClassVar[str]
    needs: ClassVar[frozenset[str]]

    @abstractmethod
    def build(self, pair: NetworkPair) -> Criterion:
        """Build the loss for two networks.

        Raises:
            RequestError: The networks do not fit each other under this loss.
        """

    def layers(self, pair: NetworkPair) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the names of the student's and the teacher's layers whose outputs the loss needs."""
        del pair
        return (), ()

    def to_json(self) -> dict[str, Any]:
        """Return the options that differ from their defaults, as plain data."""
        defaults = type(self)()
        options = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: value for name, value in options.items() if value != getattr(defaults, name)}
