"""Mix augmentor: mix with another image, with a learned weight per region."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from spaces.augmentors.base import Augmentor, AugmentorOutput
from spaces.augmentors.bounded import BoundedNormal
from spaces.augmentors.pairing import random_partners


class Mix(Augmentor):
    """Mix x + s ⊙ (partner - x) with s in [0, `most`] on a `regions` × `regions` grid, interpolated in between.

    The initial s is a twentieth of `most`.

    Args:
        channels: Channels C of the images.
        regions: Regions per side.
        most: Largest weight of the partner.
        conditional: True if the weights depend on the two images.
    """

    def __init__(self, channels: int, *, regions: int, most: float, conditional: bool) -> None:
        super().__init__()
        self.names = tuple(f"row {row} column {column}" for row in range(regions) for column in range(regions))
        self.regions, self.most = regions, most
        self.drawn = BoundedNormal(regions**2, channels=2 * channels if conditional else None, start=-0.9)

    def forward(self, images: Tensor, fill: Tensor, generator: torch.Generator) -> AugmentorOutput:
        """Mix each image with its partner; the batch must hold at least two images."""
        del fill
        partner = random_partners(len(images), generator).to(images.device)
        other = images[partner]
        values, entropy = self.drawn(torch.cat((images, other), dim=1), generator)
        share = (self.most / 2) * (1 + values.view(-1, 1, self.regions, self.regions))
        share = F.interpolate(share, images.shape[-2:], mode="bilinear", align_corners=False).clamp(max=self.most)
        weight = 1 - share.detach().mean(dim=(1, 2, 3))
        mixed = (images + share * (other - images)).clamp(0, 1)  # rounding may exceed the range
        return AugmentorOutput(mixed, entropy, values.detach(), partner, weight)
