"""Similarity-preserving distillation (Tung & Mori 2019, https://arxiv.org/abs/1907.09682)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from trainables.losses.feature.base import Comparison


@dataclass(frozen=True)
class Similarity(Comparison):
    """‖G_t − G_s‖² / B², where G (B × B) are inner products between the images of a batch, each row of length 1."""

    kind: ClassVar[str] = "similarity"

    def compare(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The mean over all pairs of images."""
        return F.mse_loss(_similarity(student), _similarity(teacher))


def _similarity(features: Tensor) -> Tensor:
    rows = features.flatten(1)
    return F.normalize(rows @ rows.T)
