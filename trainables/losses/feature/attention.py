"""Attention transfer (Zagoruyko & Komodakis 2016, https://arxiv.org/abs/1612.03928)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from spaces.core.errors import RequestError
from trainables.losses.base import Pair
from trainables.losses.feature.base import Comparison, Shape, paired, shown


@dataclass(frozen=True)
class Attention(Comparison):
    """The mean squared error between maps of where the activity is: squares, averaged over channels, of length 1.

    As in the authors' code; their paper has the distance instead. Where no layers are named, all stages with more than
    one position are compared, paired from the end.
    """

    kind: ClassVar[str] = "attention"

    def __post_init__(self) -> None:
        """Refuse pooling, which would leave no map."""
        super().__post_init__()
        if self.pool:
            raise RequestError("attention compares maps", value="pool: true", hint="leave pool out")

    def layers(self, pair: Pair) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Those that it names, else all that are maps, as many as both have."""
        student, teacher = (
            named or tuple(name for name in stages if _is_map(shown(self, name, stages)))
            for named, stages in ((self.student, pair.student), (self.teacher, pair.teacher))
        )
        if not self.student and not self.teacher:
            count = min(len(student), len(teacher))
            student, teacher = student[len(student) - count :], teacher[len(teacher) - count :]
        return paired(self, student, teacher)

    def shapes(self, pair: Pair) -> list[tuple[Shape, Shape]]:
        """As for any, of maps.

        Raises:
            RequestError: a layer is none.
        """
        both = super().shapes(pair)
        if not both or not all(_is_map(shape) for shapes in both for shape in shapes):
            hint = "name convolutional layers, or choose another loss"
            raise RequestError("attention compares maps of more than one position", value=both, hint=hint)
        return both

    def compare(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The mean over all positions."""
        return F.mse_loss(_attention(student), _attention(teacher))


def _attention(features: Tensor) -> Tensor:
    return F.normalize(features.square().mean(1).flatten(1))


def _is_map(shape: Shape) -> bool:
    return shape[1] * shape[2] > 1
