"""Hints (FitNets, Romero et al. 2014, https://arxiv.org/abs/1412.6550)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from trainables.losses.feature.base import StatelessFeatureLoss


@dataclass(frozen=True)
class Hint(StatelessFeatureLoss):
    """The mean squared error between the features of student and teacher.

    The authors' regressor is `projection: student`. They train on the hint alone first; here it is a term of the loss
    throughout. Layers of different widths need a projection.

    Example:
        >>> import torch
        >>> float(Hint().compare(torch.zeros(2, 3), torch.full((2, 3), 2.0)))
        4.0
    """

    kind: ClassVar[str] = "hint"
    same_width: ClassVar[bool] = True

    def compare(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compute the mean over all elements."""
        return F.mse_loss(student, teacher)
