"""Base augmentation: the padded random crop and the horizontal flip that belong to a data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from spaces.core.errors import RequestError
from spaces.engine import crop


@dataclass(frozen=True, slots=True)
class BaseAugmentation:
    """Pad by `crop` px with the fill color, crop back at random; flip half of the images if `flip`.

    Args:
        crop: padding in px, ≥ 0; 0 turns the crop off.
        flip: whether a mirrored image still shows the same class.

    Raises:
        RequestError: a negative padding.
    """

    crop: int
    flip: bool

    def __post_init__(self) -> None:
        """Refuse a negative padding."""
        if self.crop < 0:
            raise RequestError("the crop's padding is 0 px or more", value=self.crop)

    def __call__(self, images: Tensor, fill: Sequence[int], generator: torch.Generator) -> Tensor:
        """Augment uint8 images (B, C, H, W); the input is left as it is."""
        if not self.crop and not self.flip:
            return images
        batch = len(images)
        top, left = torch.randint(-self.crop, self.crop + 1, (2, batch), generator=generator)
        mirrored = (torch.rand(batch, generator=generator) < 0.5) & self.flip
        return crop(images, top, left, mirrored, fill)
