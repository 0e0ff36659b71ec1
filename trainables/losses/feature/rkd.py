"""Relational knowledge distillation, RKD (Park et al. 2019, https://arxiv.org/abs/1904.05068)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from trainables.losses.checks import check_option
from trainables.losses.feature.base import StatelessFeatureLoss

_EQUAL = 1e-13
"""Squared distances below this share of the squared lengths are rounding errors between equal rows."""

_TINY = 1e-12


@dataclass(frozen=True)
class RKD(StatelessFeatureLoss):
    """The Huber loss between the distances, and between the angles, of a batch's images in the two feature spaces.

    Distances are divided by their mean; an angle is the cosine at the middle one of three images.

    Args:
        distance: Weight λ_D of the distance loss, >= 0.
        angle: Weight λ_A of the angle loss, >= 0; it needs B³ numbers.

    Example:
        >>> import torch
        >>> features = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> round(float(RKD().compare(features, 5 * features)), 6)  # equal up to scale
        0.0
    """

    kind: ClassVar[str] = "rkd"

    pool: bool = True
    distance: float = 25.0
    angle: float = 50.0

    def __post_init__(self) -> None:
        """Check the options."""
        super().__post_init__()
        check_option(self, "distance", lambda weight: weight >= 0, ">= 0")
        check_option(self, "angle", lambda weight: weight >= 0, ">= 0")

    def compare(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compute the weighted sum; each part is a mean over all pairs or triples of images."""
        student, teacher = _squared_distances(student.flatten(1)), _squared_distances(teacher.flatten(1))
        distances = F.smooth_l1_loss(_distances(student), _distances(teacher))
        angles = F.smooth_l1_loss(_angles(student), _angles(teacher))
        return self.distance * distances + self.angle * angles


def _squared_distances(rows: Tensor) -> Tensor:
    """Return squared distances of rows (B, D), (B, B) float32, exactly 0 between equal rows.

    Inner products in float64 take B² numbers, where the differences themselves would take B² D.
    """
    rows = rows.double()
    inner = rows @ rows.T
    lengths = inner.diagonal()
    both = lengths[:, None] + lengths
    squares = both - 2 * inner
    return squares.where(squares > _EQUAL * both, 0).float()


def _distances(squares: Tensor) -> Tensor:
    """Return distances (B, B) with mean 1 over those above 0."""
    apart = squares > 0
    distances = squares.where(apart, 1).sqrt() * apart
    return distances * (apart.sum() / distances.sum().clamp_min(_TINY))


def _angles(squares: Tensor) -> Tensor:
    """Return (B, B, B): at [j, i, k] the cosine between i − j and k − j, by the law of cosines; 0 for a zero vector."""
    apart = squares > 0
    inverse = squares.where(apart, 1).rsqrt() * apart
    across = squares[:, :, None] + squares[:, None] - squares
    return across * (inverse[:, :, None] * inverse[:, None] / 2)
