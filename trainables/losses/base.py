"""What a distillation loss is: a choice by name, with options, built for two networks, that then judges batches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

from torch import Tensor, nn


@dataclass(frozen=True)
class DistillBatch:
    """One batch as both networks answered it. Letters: B images, C classes, K classes of the teacher's.

    Args:
        images: as the student saw them, normalized, (B, channels, H, W).
        labels: (B,) int64.
        rows: (B,) int64: which images of the training set these are.
        temperature: T > 0, for losses that soften logits.
        student: logits, (B, C).
        teacher: logits, (B, K), without a gradient; None: there is no teacher.
        student_features: what the student's layers gave, by name; the first dimension is B.
        teacher_features: what the teacher's layers gave, by name, without a gradient.
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
class Pair:
    """The two networks that a loss is built for.

    Args:
        classes: C, of the data.
        images: in the training set.
        student: layer → shape (without the batch) of the student's features, in the order of the network.
        teacher: the same of the teacher; empty: there is none.
        teacher_classes: K; None: there is no teacher.
        peer: gives a copy of the teacher's network that learns; None: there is no teacher.
    """

    classes: int
    images: int
    student: Mapping[str, tuple[int, ...]]
    teacher: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    teacher_classes: int | None = None
    peer: Callable[[], nn.Module] | None = None


class Criterion(nn.Module, ABC):
    """A loss at work. Its parameters, if it has any, learn beside the student, and nobody keeps them afterwards."""

    @abstractmethod
    def forward(self, seen: DistillBatch) -> dict[str, Tensor]:
        """Judge a batch.

        Returns:
            `loss`: what the student minimizes, a scalar; other named parts to report; `own`, where the loss has
            parameters with an aim of their own: what these minimize, with no gradient into the student.
        """

    def report(self) -> dict[str, float]:
        """What there is to say at the end of an epoch, of its last batch."""
        return {}


@dataclass(frozen=True)
class Loss(ABC):
    """A distillation loss by name, with its options: plain data.

    Attributes:
        kind: its name in the catalog.
        needs: what it cannot do without: `teacher`, `classes` (that the teacher's are the student's own), `features`
            (what layers of the student, and of a teacher, gave).
    """

    kind: ClassVar[str]
    needs: ClassVar[frozenset[str]]

    @abstractmethod
    def build(self, pair: Pair) -> Criterion:
        """Make it ready for two networks.

        Raises:
            RequestError: they do not fit each other under this loss.
        """

    def layers(self, pair: Pair) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The layers that it looks at, of the student and of the teacher."""
        del pair
        return (), ()

    def to_json(self) -> dict[str, Any]:
        """Its options that differ from the defaults, as plain data."""
        usual = type(self)()
        changed = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: value for name, value in changed.items() if value != getattr(usual, name)}
