"""Affine augmentor: learned distribution of rotations, shears, scalings and shifts."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from spaces.augmentors.base import Augmentor, AugmentorOutput
from spaces.augmentors.bounded import BoundedNormal


class Affine(Augmentor):
    """Affine transform θ = I + A·tanh(μ + softplus(ρ)·ε), ε ~ N(0, I₆), by bilinear `affine_grid` and `grid_sample`.

    θ maps output coordinates to input coordinates, in units of half a side from the center. The initial distribution
    is close to the identity.

    Args:
        channels: Channels C of the images.
        linear: Bound of the four scaling and shearing entries of θ - I.
        shift: Bound of the two shifts; 0.5 is a quarter of the side.
        conditional: True if μ and ρ depend on the image.

    Example:
        >>> import torch
        >>> from spaces.augmentors import Affine
        >>> augmentor = Affine(1, linear=0.5, shift=0.5, conditional=False)
        >>> output = augmentor(torch.rand(2, 1, 8, 8), torch.zeros(1), torch.Generator().manual_seed(0))
        >>> output.images.shape, output.parameters.shape
        (torch.Size([2, 1, 8, 8]), torch.Size([2, 6]))
    """

    names = ("stretch x", "shear x", "shift x", "shear y", "stretch y", "shift y")

    def __init__(self, channels: int, *, linear: float, shift: float, conditional: bool) -> None:
        super().__init__()
        self.drawn = BoundedNormal(len(self.names), channels=channels if conditional else None)
        self.register_buffer("_bounds", torch.tensor([linear, linear, shift] * 2), persistent=False)

    def forward(self, images: Tensor, fill: Tensor, generator: torch.Generator) -> AugmentorOutput:
        """Draw one transform per image; pixels from outside get the fill color."""
        values, entropy = self.drawn(images, generator)
        return AugmentorOutput(warp_affine(images, values * self._bounds, fill), entropy, values.detach())


def warp_affine(images: Tensor, change: Tensor, fill: Tensor) -> Tensor:
    """Warp `images` by θ = I + `change` (B, 6), bilinear, with `fill` (C,) outside."""
    eye = torch.eye(2, 3, device=images.device, dtype=images.dtype)
    grid = F.affine_grid(eye + change.view(-1, 2, 3), list(images.shape), align_corners=False)
    color = fill.view(1, -1, 1, 1)
    return (F.grid_sample(images - color, grid, align_corners=False) + color).clamp(0, 1)
