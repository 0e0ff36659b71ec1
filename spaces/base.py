"""Base augmentation: the padded random crop and the horizontal flip that belong to a data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from spaces.errors import RequestError


@dataclass(frozen=True, slots=True)
class BaseAugmentation:
    """Pad by `crop` px with the fill colour, crop back at random; flip half of the images if `flip`.

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
            raise RequestError("the crop's padding is 0 px or more", got=self.crop)

    def __call__(self, images: Tensor, fill: Sequence[int], generator: torch.Generator) -> Tensor:
        """Augment uint8 images (B, C, H, W) in one gather; the input is left as it is."""
        if not self.crop and not self.flip:
            return images
        batch, channels, height, width = images.shape
        top, left = torch.randint(0, 2 * self.crop + 1, (2, batch), generator=generator)
        mirrored = (torch.rand(batch, generator=generator) < 0.5) & self.flip
        if self.crop:
            padded = images.new_empty(batch, channels, height + 2 * self.crop, width + 2 * self.crop)
            padded[:] = torch.tensor(fill, dtype=images.dtype, device=images.device).view(1, -1, 1, 1)
            padded[:, :, self.crop : self.crop + height, self.crop : self.crop + width] = images
            images = padded
        column = torch.arange(width)
        columns = left[:, None] + torch.where(mirrored[:, None], width - 1 - column, column)
        rows = top[:, None] + torch.arange(height)
        flat = (rows[:, :, None] * images.shape[3] + columns[:, None, :]).to(images.device)
        index = flat.view(batch, 1, height * width).expand(-1, channels, -1)
        return images.flatten(2).gather(2, index).view(batch, channels, height, width)
