"""Brightness, contrast and the channels' gains with a learned distribution: our own addition to HARD."""

from __future__ import annotations

import torch
from torch import Tensor

from spaces.augmentors.base import Augmentor, Drawn
from spaces.augmentors.bounded import Bounded


class Color(Augmentor):
    """(g ⊙ x - m)·c + m + b, clipped to [0, 1], m the mean of g ⊙ x: what a camera might have done.

    Args:
        channels: C; only color images have gains.
        reach: r: c in [4⁻ʳ, 4ʳ], each gain in [2⁻ʳ, 2ʳ], b in [-r, r].
        conditional: whether the distribution depends on the image.
    """

    def __init__(self, channels: int, *, reach: float, conditional: bool) -> None:
        """Start near the identity."""
        super().__init__()
        self.names = ("brightness", "contrast", *(("red", "green", "blue") if channels == 3 else ()))
        self.reach = reach
        self.drawn = Bounded(len(self.names), channels=channels if conditional else None)

    def forward(self, images: Tensor, fill: Tensor, generator: torch.Generator) -> Drawn:
        """One change of tone for each image."""
        del fill
        values, entropy = self.drawn(images, generator)
        brightness, contrast, gains = (self.reach * values)[:, :, None, None].split((1, 1, len(self.names) - 2), dim=1)
        lit = images * torch.exp2(gains) if gains.shape[1] else images
        mean = lit.mean(dim=(1, 2, 3), keepdim=True)
        changed = (lit - mean) * torch.exp2(2 * contrast) + mean + brightness
        return Drawn(changed.clamp(0, 1), entropy, values.detach())
