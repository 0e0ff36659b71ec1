"""Distillation from a stronger teacher, DIST (Huang et al. 2022, https://arxiv.org/abs/2205.10536)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from trainables.losses.base import DistillBatch
from trainables.losses.checks import check_option
from trainables.losses.logit.base import LogitLoss


@dataclass(frozen=True)
class DIST(LogitLoss):
    """T² · (β · inter + γ · intra), each 1 − Pearson's correlation between the two networks' probabilities.

    The inter-class correlation runs over the classes of each image, the intra-class correlation over the batch for
    each class. A constant has correlation 0.

    Args:
        beta: Weight β of the inter-class part, >= 0.
        gamma: Weight γ of the intra-class part, >= 0.

    Example:
        >>> import torch
        >>> logits = torch.eye(3)
        >>> batch = DistillBatch(torch.zeros(3, 1, 1, 1), torch.arange(3), torch.arange(3), 1.0, logits)
        >>> abs(float(DIST().compute_losses(batch, logits)["loss"])) < 1e-6
        True
    """

    kind: ClassVar[str] = "dist"

    beta: float = 1.0
    gamma: float = 1.0

    def __post_init__(self) -> None:
        """Check the weights."""
        check_option(self, "beta", lambda weight: weight >= 0, ">= 0")
        check_option(self, "gamma", lambda weight: weight >= 0, ">= 0")

    def compute_losses(self, batch: DistillBatch, teacher: Tensor) -> dict[str, Tensor]:
        """Return `loss`, and the parts `inter` and `intra`, each times T²."""
        student, teacher = ((logits / batch.temperature).softmax(1) for logits in (batch.student, teacher))
        scale = batch.temperature**2
        inter = scale * (1 - _pearson(student, teacher, dim=1).mean())
        intra = scale * (1 - _pearson(student, teacher, dim=0).mean())
        return {"loss": self.beta * inter + self.gamma * intra, "inter": inter, "intra": intra}


def _pearson(first: Tensor, second: Tensor, dim: int) -> Tensor:
    first, second = (values - values.mean(dim, keepdim=True) for values in (first, second))
    return F.cosine_similarity(first, second, dim=dim)
