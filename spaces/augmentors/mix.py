"""A mix with another image, whose share is learned region by region."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from spaces.augmentors.base import Augmentor, Drawn
from spaces.augmentors.bounded import Bounded
from spaces.augmentors.pairing import partners


class Mix(Augmentor):
    """x + s ⊙ (partner - x), s between 0 and `most` in each of `regions` × `regions` regions, smooth between them.

    Args:
        channels: C.
        regions: along each side.
        most: the partner's largest share.
        conditional: whether the shares depend on the two images.
    """

    def __init__(self, channels: int, *, regions: int, most: float, conditional: bool) -> None:
        """Start with a twentieth of the largest share."""
        super().__init__()
        self.names = tuple(f"row {row} column {column}" for row in range(regions) for column in range(regions))
        self.regions, self.most = regions, most
        self.drawn = Bounded(regions**2, channels=2 * channels if conditional else None, start=-0.9)

    def forward(self, images: Tensor, fill: Tensor, generator: torch.Generator) -> Drawn:
        """Mix each image with its partner; at least two images."""
        del fill
        partner = partners(len(images), generator).to(images.device)
        other = images[partner]
        values, entropy = self.drawn(torch.cat((images, other), dim=1), generator)
        share = (self.most / 2) * (1 + values.view(-1, 1, self.regions, self.regions))
        share = F.interpolate(share, images.shape[-2:], mode="bilinear", align_corners=False).clamp(max=self.most)
        weight = 1 - share.detach().mean(dim=(1, 2, 3))
        mixed = (images + share * (other - images)).clamp(0, 1)  # which rounding may leave
        return Drawn(mixed, entropy, values.detach(), partner, weight)
