"""Sharpness: blend of the smoothed image and the image.

Source: PBA, Ho et al. 2019, https://arxiv.org/abs/1905.05393. Reference: Pillow's `ImageEnhance.Sharpness` on L
and RGB images, byte for byte.
"""

from __future__ import annotations

import torch
from torch import Tensor

from spaces.operations.tone import blend, enhancement_factors


def sharpness(images: Tensor, levels: Tensor) -> Tensor:
    """Blend by the factor 0.1 + 0.18·L: identity at level 5, blurred below (level 0 too), sharpened above.

    Border pixels do not change, so an image less than 3 pixels wide or high is returned unchanged.

    Args:
        images: Images (B, C, H, W), uint8.
        levels: Levels (B,), 0 to 9.

    Returns:
        New images (B, C, H, W), uint8.
    """
    sharpened = images.clone()
    inner = images[..., 1:-1, 1:-1]
    sharpened[..., 1:-1, 1:-1] = blend(smooth(images), inner.float(), enhancement_factors(levels).view(-1, 1, 1, 1))
    return sharpened


def smooth(images: Tensor) -> Tensor:
    """Filter with Pillow's SMOOTH, ((1, 1, 1), (1, 5, 1), (1, 1, 1)) / 13, rounded: (B, C, H - 2, W - 2) float32."""
    wide = images.to(torch.int16)  # 13 · 255 fits
    rows = wide[..., :-2, :] + wide[..., 1:-1, :] + wide[..., 2:, :]
    weighted = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:] + 4 * wide[..., 1:-1, 1:-1]
    # An integer over 13 is never halfway between two integers, so adding 6 and truncating rounds it.
    return ((weighted + 6).float() / 13).floor()
