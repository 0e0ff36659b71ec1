"""Hints (FitNets, Romero et al. 2014, https://arxiv.org/abs/1412.6550)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from trainables.losses.feature.base import Comparison


@dataclass(frozen=True)
class Hint(Comparison):
    """The mean squared error between the student's features and the teacher's.

    The authors' regressor is the projection `student`, and they train on the hint alone first; here it is a term of
    the loss throughout. Under another width it needs a projection.
    """

    kind: ClassVar[str] = "hint"
    same_width: ClassVar[bool] = True

    def compare(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The mean over all elements."""
        return F.mse_loss(student, teacher)
