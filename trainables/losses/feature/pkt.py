"""Probabilistic knowledge transfer (Passalis & Tefas 2018, https://arxiv.org/abs/1803.10837)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from trainables.losses.feature.base import Comparison

EPS = 1e-7
"""What keeps logarithms finite, the authors' number."""


@dataclass(frozen=True)
class Pkt(Comparison):
    """KL(p_t ‖ p_s), the mean over all B² pairs of images as in the authors' code.

    Row i of p (B × B) is (1 + cosine between images i and j) / 2, divided by the row's sum.
    """

    kind: ClassVar[str] = "pkt"

    pool: bool = True

    def compare(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The mean over all pairs of images."""
        student, teacher = _neighbors(student), _neighbors(teacher)
        return (teacher * ((teacher + EPS) / (student + EPS)).log()).mean()


def _neighbors(features: Tensor) -> Tensor:
    rows = F.normalize(features.flatten(1), eps=EPS)
    return F.normalize((1 + rows @ rows.T) / 2, p=1, dim=1)
