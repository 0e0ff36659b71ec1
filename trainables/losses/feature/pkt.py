"""Probabilistic knowledge transfer, PKT (Passalis & Tefas 2018, https://arxiv.org/abs/1803.10837)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from trainables.losses.feature.base import StatelessFeatureLoss

EPS = 1e-7
"""Keeps logarithms finite; the authors' value."""


@dataclass(frozen=True)
class PKT(StatelessFeatureLoss):
    """KL(p_t ‖ p_s), averaged over all B² pairs of images as in the authors' code.

    Row i of p (B × B) is (1 + cosine similarity of images i and j) / 2, divided by the row's sum.

    Example:
        >>> import torch
        >>> features = torch.rand(4, 3)
        >>> float(PKT().compare(features, features))
        0.0
    """

    kind: ClassVar[str] = "pkt"

    pool: bool = True

    def compare(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compute the mean over all pairs of images."""
        student, teacher = _probabilities(student), _probabilities(teacher)
        return (teacher * ((teacher + EPS) / (student + EPS)).log()).mean()


def _probabilities(features: Tensor) -> Tensor:
    rows = F.normalize(features.flatten(1), eps=EPS)
    return F.normalize((1 + rows @ rows.T) / 2, p=1, dim=1)
