"""A trained teacher that stays frozen and in evaluation mode."""

from __future__ import annotations

from copy import deepcopy
from typing import Self, TypeAlias

import torch
from torch import Tensor, nn

Statistics: TypeAlias = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation of each channel, for pixels in [0, 1]."""


class FrozenTeacher(nn.Module):
    """A trained network that answers and never learns.

    Its parameters require no gradient, and `train()` leaves it in evaluation mode, so neither an optimizer nor a
    parent module can change its weights or its batch statistics.

    Args:
        model: Trained network, (B, C, H, W) → logits (B, K); taken over, not copied.
        classes: Number K of the teacher's classes; None for the same as the student's.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> teacher = FrozenTeacher(nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.Dropout()))
        >>> teacher.train().training
        False
        >>> logits = teacher(torch.rand(2, 1, 2, 2))
        >>> tuple(logits.shape), logits.requires_grad
        ((2, 3), False)
    """

    def __init__(self, model: nn.Module, classes: int | None = None) -> None:
        """Freeze `model`."""
        super().__init__()
        self.classes = classes
        self.model = model.eval().requires_grad_(False)
        self.training = False

    def train(self, mode: bool = True) -> Self:
        """Do nothing: the teacher stays in evaluation mode."""
        del mode
        return self

    def trainable_copy(self) -> nn.Module:
        """Return a copy of the network in training mode, with parameters that require gradients."""
        return deepcopy(self.model).requires_grad_(True).train()

    def forward_with_grad(self, images: Tensor) -> Tensor:
        """Return logits (B, K) of `images` (B, C, H, W), with a gradient to the images and none to the weights."""
        logits: Tensor = self.model(images)
        return logits

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, K) of `images` (B, C, H, W), without a gradient."""
        logits: Tensor = self.model(images)
        return logits


class Renormalize:
    """A forward pre-hook that converts images from one normalization to another.

    It computes x · σ / σ′ + (μ − μ′) / σ′ for images x that were normalized by mean μ and deviation σ.

    Args:
        source: Mean μ and deviation σ that the images were normalized by.
        target: Mean μ′ and deviation σ′ that the network was trained with.

    Example:
        >>> import torch
        >>> hook = Renormalize(source=((0.5,), (0.5,)), target=((0.0,), (1.0,)))
        >>> hook(None, (torch.zeros(1, 1, 1, 1),))
        (tensor([[[[0.5000]]]]),)
    """

    def __init__(self, source: Statistics, target: Statistics) -> None:
        """Compute factor and offset of each channel."""
        self._factor = torch.tensor([s / t for s, t in zip(source[1], target[1], strict=True)]).view(1, -1, 1, 1)
        shift = [(m - n) / t for m, n, t in zip(source[0], target[0], target[1], strict=True)]
        self._offset = torch.tensor(shift).view(1, -1, 1, 1)

    def __call__(self, network: nn.Module | None, arguments: tuple[Tensor]) -> tuple[Tensor]:
        """Convert the images that the network is called with."""
        (images,) = arguments
        if self._factor.device != images.device:
            self._factor, self._offset = self._factor.to(images.device), self._offset.to(images.device)
        return (torch.addcmul(self._offset, images, self._factor),)
