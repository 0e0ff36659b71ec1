"""A trained teacher: frozen, in evaluation mode, whatever is called."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn


class FrozenTeacher(nn.Module):
    """A network that answers and never learns.

    Its parameters take no gradient, and `train()` leaves it in evaluation mode, so that neither an optimiser nor a
    module that holds it can change its weights or its batch statistics.

    Args:
        model: the trained network; it is taken over, not copied.
    """

    def __init__(self, model: nn.Module) -> None:
        """Freeze `model`."""
        super().__init__()
        self.model = model.eval().requires_grad_(False)
        self.training = False

    def train(self, mode: bool = True) -> Self:
        """Do nothing: a teacher stays in evaluation mode."""
        del mode
        return self

    def through(self, images: Tensor) -> Tensor:
        """(B, C, H, W) → logits (B, classes), with a gradient to the images and none to the weights."""
        logits: Tensor = self.model(images)
        return logits

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) → logits (B, classes), without a gradient."""
        logits: Tensor = self.model(images)
        return logits
