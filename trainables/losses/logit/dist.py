"""Distillation from a stronger teacher, DIST (Huang et al. 2022, https://arxiv.org/abs/2205.10536)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from trainables.losses.base import DistillBatch
from trainables.losses.checks import number
from trainables.losses.logit.base import LogitLoss


@dataclass(frozen=True)
class Dist(LogitLoss):
    """T² · (β · inter + γ · intra): 1 − Pearson's correlation between the two networks' probabilities.

    Inter-class: over the classes, for each image; intra-class: over the batch, for each class. What is constant has a
    correlation of 0.

    Args:
        beta: of the inter-class part, ≥ 0.
        gamma: of the intra-class part, ≥ 0.
    """

    kind: ClassVar[str] = "dist"

    beta: float = 1.0
    gamma: float = 1.0

    def __post_init__(self) -> None:
        """Refuse weights below 0."""
        number(self, "beta", lambda weight: weight >= 0, "0 or more")
        number(self, "gamma", lambda weight: weight >= 0, "0 or more")

    def compute_losses(self, seen: DistillBatch, teacher: Tensor) -> dict[str, Tensor]:
        """`loss`; `inter` and `intra`, T² times each."""
        student, known = ((logits / seen.temperature).softmax(1) for logits in (seen.student, teacher))
        scale = seen.temperature**2
        inter = scale * (1 - _pearson(student, known, dim=1).mean())
        intra = scale * (1 - _pearson(student, known, dim=0).mean())
        return {"loss": self.beta * inter + self.gamma * intra, "inter": inter, "intra": intra}


def _pearson(first: Tensor, second: Tensor, dim: int) -> Tensor:
    first, second = (values - values.mean(dim, keepdim=True) for values in (first, second))
    return F.cosine_similarity(first, second, dim=dim)
