"""Knowledge distillation from logits (Hinton et al. 2015, https://arxiv.org/abs/1503.02531)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from trainables.losses.base import DistillBatch
from trainables.losses.logit.base import LogitLoss


def kd_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Compute T² · KL(softmax(t / T) ‖ softmax(s / T)), averaged over the batch.

    The factor T² keeps the gradient's magnitude independent of the temperature.

    Args:
        student: Student's logits s, (B, C).
        teacher: Teacher's logits t, (B, C); no gradient flows into them.
        temperature: Temperature T > 0.

    Returns:
        A float32 scalar.

    Example:
        >>> import torch
        >>> student, teacher = torch.zeros(1, 2), torch.tensor([[3.0, 1.0]]).log()
        >>> round(float(kd_loss(student, teacher, temperature=1.0)), 4)  # ¾ ln 3 − ln 2
        0.1308
    """
    return divergence(student, teacher.detach(), temperature)


def divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Compute `kd_loss` with a gradient into the teacher's logits as well."""
    log_teacher = F.log_softmax(teacher.float() / temperature, dim=1)
    log_student = F.log_softmax(student.float() / temperature, dim=1)
    return F.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True) * temperature**2


@dataclass(frozen=True)
class KD(LogitLoss):
    """Hinton's loss, `kd_loss`, at the distillation's temperature.

    Example:
        >>> import torch
        >>> logits = torch.eye(2)
        >>> batch = DistillBatch(torch.zeros(2, 1, 1, 1), torch.tensor([0, 1]), torch.arange(2), 4.0, logits, logits)
        >>> float(KD().compute_losses(batch, logits)["loss"])
        0.0
    """

    kind: ClassVar[str] = "kd"

    def compute_losses(self, batch: DistillBatch, teacher: Tensor) -> dict[str, Tensor]:
        """Return `loss`."""
        return {"loss": kd_loss(batch.student, teacher, batch.temperature)}
