"""Base augmentation of a data set: padded random crop and horizontal flip."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from spaces.core.errors import RequestError
from spaces.engine import crop


@dataclass(frozen=True, slots=True)
class BaseAugmentation:
    """Base augmentation of a data set: padded random crop, and horizontal flip of half of the images.

    Args:
        crop: Padding in pixels, >= 0; 0 turns the crop off.
        flip: True if a mirrored image shows the same class.

    Raises:
        RequestError: The padding is negative.

    Example:
        >>> import torch
        >>> from spaces import BaseAugmentation
        >>> images = torch.zeros(4, 3, 32, 32, dtype=torch.uint8)
        >>> augment = BaseAugmentation(crop=4, flip=True)
        >>> augment(images, fill=(0, 0, 0), generator=torch.Generator().manual_seed(0)).shape
        torch.Size([4, 3, 32, 32])
    """

    crop: int
    flip: bool

    def __post_init__(self) -> None:
        """Check the padding."""
        if self.crop < 0:
            raise RequestError("BaseAugmentation.crop must be >= 0", value=self.crop)

    def __call__(self, images: Tensor, fill: Sequence[int], generator: torch.Generator) -> Tensor:
        """Augment uint8 images (B, C, H, W), which are not modified.

        Args:
            images: Images (B, C, H, W), uint8.
            fill: Color of the padding, C integers from 0 to 255.
            generator: Source of all random numbers, on the CPU.
        """
        if not self.crop and not self.flip:
            return images
        batch = len(images)
        top, left = torch.randint(-self.crop, self.crop + 1, (2, batch), generator=generator)
        mirrored = (torch.rand(batch, generator=generator) < 0.5) & self.flip
        return crop(images, top, left, mirrored, fill)
