"""Decoupled knowledge distillation (Zhao et al. 2022, https://arxiv.org/abs/2203.08679)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from trainables.losses.base import DistillBatch
from trainables.losses.checks import number
from trainables.losses.logit.base import LogitLoss


@dataclass(frozen=True)
class Dkd(LogitLoss):
    """T² · (α · TCKD + β · NCKD), the mean over the batch.

    TCKD is the divergence of (p, 1 − p), where p is the label's probability; NCKD that of the probabilities among the
    other classes. Hinton's loss is T² · (TCKD + (1 − p of the teacher) · NCKD).

    Args:
        alpha: of TCKD, ≥ 0.
        beta: of NCKD, ≥ 0; 8 is the authors' for CIFAR-100 where teacher and student are of one family.
    """

    kind: ClassVar[str] = "dkd"

    alpha: float = 1.0
    beta: float = 8.0

    def __post_init__(self) -> None:
        """Refuse weights below 0."""
        number(self, "alpha", lambda weight: weight >= 0, "0 or more")
        number(self, "beta", lambda weight: weight >= 0, "0 or more")

    def compute_losses(self, seen: DistillBatch, teacher: Tensor) -> dict[str, Tensor]:
        """`loss`; `target`: T² · TCKD; `others`: T² · NCKD."""
        (binary, others), (known_binary, known_others) = (
            _decoupled(logits / seen.temperature, seen.labels) for logits in (seen.student, teacher)
        )
        scale = seen.temperature**2
        tckd = scale * F.kl_div(binary, known_binary, reduction="batchmean", log_target=True)
        nckd = scale * F.kl_div(others, known_others, reduction="batchmean", log_target=True)
        return {"loss": self.alpha * tckd + self.beta * nckd, "target": tckd, "others": nckd}


def _decoupled(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Log probabilities of the label and of all else, (B, 2); and of the other classes among themselves, (B, C − 1)."""
    count, classes = logits.shape
    shift = torch.arange(1, classes, device=logits.device)
    others = logits.gather(1, (labels[:, None] + shift) % classes)
    pair = torch.stack((logits.gather(1, labels[:, None])[:, 0], others.logsumexp(1)), dim=1)
    return F.log_softmax(pair, dim=1), F.log_softmax(others.view(count, classes - 1), dim=1)
