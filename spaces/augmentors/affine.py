"""Rotations, shears, stretches and shifts with a learned distribution."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from spaces.augmentors.base import Augmentor, Drawn
from spaces.augmentors.bounded import Bounded


class Affine(Augmentor):
    """θ = I + A·tanh(μ + softplus(ρ)·ε), ε ~ N(0, I₆), by `affine_grid` and `grid_sample`, bilinear.

    θ takes places in the new image to places in the old one, in units of half a side from the center.

    Args:
        channels: C.
        linear: bound of the four numbers that stretch and shear.
        shift: bound of the two that shift; 0.5 is a quarter of the side.
        conditional: whether μ and ρ depend on the image.
    """

    names = ("stretch x", "shear x", "shift x", "shear y", "stretch y", "shift y")

    def __init__(self, channels: int, *, linear: float, shift: float, conditional: bool) -> None:
        """Start near the identity."""
        super().__init__()
        self.drawn = Bounded(len(self.names), channels=channels if conditional else None)
        self.register_buffer("_bounds", torch.tensor([linear, linear, shift] * 2), persistent=False)

    def forward(self, images: Tensor, fill: Tensor, generator: torch.Generator) -> Drawn:
        """One transform for each image; what comes from outside takes the fill color."""
        values, entropy = self.drawn(images, generator)
        return Drawn(warped(images, values * self._bounds, fill), entropy, values.detach())


def warped(images: Tensor, change: Tensor, fill: Tensor) -> Tensor:
    """`images` under θ = I + `change`, (B, 6); bilinear, with `fill` (C,) outside."""
    eye = torch.eye(2, 3, device=images.device, dtype=images.dtype)
    grid = F.affine_grid(eye + change.view(-1, 2, 3), list(images.shape), align_corners=False)
    color = fill.view(1, -1, 1, 1)
    return (F.grid_sample(images - color, grid, align_corners=False) + color).clamp(0, 1)
