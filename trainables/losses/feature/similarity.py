"""Similarity-preserving distillation (Tung & Mori 2019, https://arxiv.org/abs/1907.09682)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from trainables.losses.feature.base import StatelessFeatureLoss


@dataclass(frozen=True)
class Similarity(StatelessFeatureLoss):
    """‖G_t − G_s‖² / B², where G (B × B) holds the inner products of a batch's features, each row L2-normalized.

    Example:
        >>> import torch
        >>> round(float(Similarity().compare(torch.eye(2), torch.ones(2, 2))), 4)  # 1 − √½
        0.2929
    """

    kind: ClassVar[str] = "similarity"

    def compare(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compute the mean over all pairs of images."""
        return F.mse_loss(_similarities(student), _similarities(teacher))


def _similarities(features: Tensor) -> Tensor:
    rows = features.flatten(1)
    return F.normalize(rows @ rows.T)
