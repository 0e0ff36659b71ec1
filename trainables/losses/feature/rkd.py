"""Relational knowledge distillation (Park et al. 2019, https://arxiv.org/abs/1904.05068)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from trainables.losses.checks import number
from trainables.losses.feature.base import Comparison

_EQUAL = 1e-13
"""Squared distances below this share of the squared lengths are what rounding leaves of equal rows."""

_TINY = 1e-12


@dataclass(frozen=True)
class RKD(Comparison):
    """Huber's loss between distances, and between angles, that the images of a batch form in the two spaces.

    Distances are divided by their mean; an angle is the cosine at the middle one of three images.

    Args:
        distance: weight of the distances' part, ≥ 0.
        angle: weight of the angles' part, ≥ 0; it takes B³ numbers.
    """

    kind: ClassVar[str] = "relational"

    pool: bool = True
    distance: float = 25.0
    angle: float = 50.0

    def __post_init__(self) -> None:
        """Refuse weights below 0."""
        super().__post_init__()
        number(self, "distance", lambda weight: weight >= 0, "0 or more")
        number(self, "angle", lambda weight: weight >= 0, "0 or more")

    def compare(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The weighted sum; each part is a mean over all its pairs or triples."""
        student, teacher = _squared_distances(student.flatten(1)), _squared_distances(teacher.flatten(1))
        distances = F.smooth_l1_loss(_distances(student), _distances(teacher))
        angles = F.smooth_l1_loss(_angles(student), _angles(teacher))
        return self.distance * distances + self.angle * angles


def _squared_distances(rows: Tensor) -> Tensor:
    """(B, D) → (B, B) float32; exactly 0 between equal rows.

    By inner products in float64: B² D steps, and no B² D numbers as the differences would be.
    """
    rows = rows.double()
    inner = rows @ rows.T
    lengths = inner.diagonal()
    both = lengths[:, None] + lengths
    squares = both - 2 * inner
    return squares.where(squares > _EQUAL * both, 0).float()


def _distances(squares: Tensor) -> Tensor:
    """(B, B), of mean 1 over those above 0."""
    apart = squares > 0
    distances = squares.where(apart, 1).sqrt() * apart
    return distances * (apart.sum() / distances.sum().clamp_min(_TINY))


def _angles(squares: Tensor) -> Tensor:
    """(B, B, B): at [j, i, k] the cosine between i − j and k − j, by the law of cosines; 0 where one of them is."""
    apart = squares > 0
    inverse = squares.where(apart, 1).rsqrt() * apart
    across = squares[:, :, None] + squares[:, None] - squares
    return across * (inverse[:, :, None] * inverse[:, None] / 2)
