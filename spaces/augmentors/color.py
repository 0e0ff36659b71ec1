"""Color augmentor: learned distribution of brightness, contrast and channel gains; an addition to HARD."""

from __future__ import annotations

import torch
from torch import Tensor

from spaces.augmentors.base import Augmentor, AugmentorOutput
from spaces.augmentors.bounded import BoundedNormal


class Color(Augmentor):
    """Color change (g ⊙ x - m)·c + m + b, clipped to [0, 1], with m the mean of g ⊙ x.

    The initial distribution is close to the identity.

    Args:
        channels: Channels C of the images; gains g need C = 3.
        reach: Bound r: contrast c in [4⁻ʳ, 4ʳ], gains g in [2⁻ʳ, 2ʳ], brightness b in [-r, r].
        conditional: True if the distribution depends on the image.
    """

    def __init__(self, channels: int, *, reach: float, conditional: bool) -> None:
        super().__init__()
        self.names = ("brightness", "contrast", *(("red", "green", "blue") if channels == 3 else ()))
        self.reach = reach
        self.drawn = BoundedNormal(len(self.names), channels=channels if conditional else None)

    def forward(self, images: Tensor, fill: Tensor, generator: torch.Generator) -> AugmentorOutput:
        """Draw one color change per image."""
        del fill
        values, entropy = self.drawn(images, generator)
        brightness, contrast, gains = (self.reach * values)[:, :, None, None].split((1, 1, len(self.names) - 2), dim=1)
        lit = images * torch.exp2(gains) if gains.shape[1] else images
        mean = lit.mean(dim=(1, 2, 3), keepdim=True)
        changed = (lit - mean) * torch.exp2(2 * contrast) + mean + brightness
        return AugmentorOutput(changed.clamp(0, 1), entropy, values.detach())
