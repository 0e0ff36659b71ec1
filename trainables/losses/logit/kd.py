"""Knowledge distillation from logits (Hinton et al. 2015, https://arxiv.org/abs/1503.02531)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from trainables.losses.base import DistillBatch
from trainables.losses.logit.base import LogitLoss


def kd_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T² · KL(softmax(t / T) ‖ softmax(s / T)), the mean over the batch.

    T² keeps the gradient's size independent of the temperature.

    Args:
        student: logits s, (B, C).
        teacher: logits t, (B, C); no gradient flows into them.
        temperature: T > 0.
    """
    return divergence(student, teacher.detach(), temperature)


def divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """`kd_loss` whose gradient flows into the teacher's logits as well."""
    target = F.log_softmax(teacher.float() / temperature, dim=1)
    log_student = F.log_softmax(student.float() / temperature, dim=1)
    return F.kl_div(log_student, target, reduction="batchmean", log_target=True) * temperature**2


@dataclass(frozen=True)
class Kd(LogitLoss):
    """`kd_loss`: Hinton's."""

    kind: ClassVar[str] = "kd"

    def compute_losses(self, seen: DistillBatch, teacher: Tensor) -> dict[str, Tensor]:
        """`loss` alone."""
        return {"loss": kd_loss(seen.student, teacher, seen.temperature)}
