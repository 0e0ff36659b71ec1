"""Decoupled knowledge distillation, DKD (Zhao et al. 2022, https://arxiv.org/abs/2203.08679)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from trainables.losses.base import DistillBatch
from trainables.losses.checks import check_option
from trainables.losses.logit.base import LogitLoss


@dataclass(frozen=True)
class DKD(LogitLoss):
    """T² · (α · TCKD + β · NCKD), averaged over the batch.

    TCKD is the KL divergence between (p, 1 − p), where p is the label's probability; NCKD is the one between the
    probabilities among the other classes. Hinton's loss is T² · (TCKD + (1 − p of the teacher) · NCKD).

    Args:
        alpha: Weight α of TCKD, >= 0.
        beta: Weight β of NCKD, >= 0; the authors use 8 on CIFAR-100 for teacher and student of one family.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[2.0, 1.0, 0.0]])
        >>> batch = DistillBatch(torch.zeros(1, 1, 1, 1), torch.tensor([0]), torch.tensor([0]), 4.0, logits)
        >>> sorted(DKD().compute_losses(batch, logits.flip(1)))
        ['loss', 'others', 'target']
    """

    kind: ClassVar[str] = "dkd"

    alpha: float = 1.0
    beta: float = 8.0

    def __post_init__(self) -> None:
        """Check the weights."""
        check_option(self, "alpha", lambda weight: weight >= 0, ">= 0")
        check_option(self, "beta", lambda weight: weight >= 0, ">= 0")

    def compute_losses(self, batch: DistillBatch, teacher: Tensor) -> dict[str, Tensor]:
        """Return `loss`; `target`, T² · TCKD; and `others`, T² · NCKD."""
        (binary, others), (teacher_binary, teacher_others) = (
            _decouple(logits / batch.temperature, batch.labels) for logits in (batch.student, teacher)
        )
        scale = batch.temperature**2
        tckd = scale * F.kl_div(binary, teacher_binary, reduction="batchmean", log_target=True)
        nckd = scale * F.kl_div(others, teacher_others, reduction="batchmean", log_target=True)
        return {"loss": self.alpha * tckd + self.beta * nckd, "target": tckd, "others": nckd}


def _decouple(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return log probabilities of (label, not label), (B, 2), and of the others among themselves, (B, C − 1)."""
    count, classes = logits.shape
    shift = torch.arange(1, classes, device=logits.device)
    others = logits.gather(1, (labels[:, None] + shift) % classes)
    binary = torch.stack((logits.gather(1, labels[:, None])[:, 0], others.logsumexp(1)), dim=1)
    return F.log_softmax(binary, dim=1), F.log_softmax(others.view(count, classes - 1), dim=1)
