"""Sharpness: blend the smoothed image with the image.

Source: PBA, Ho et al. 2019, https://arxiv.org/abs/1905.05393. Parity: Pillow's `ImageEnhance.Sharpness` on L
and RGB images, byte for byte.
"""

from __future__ import annotations

import torch
from torch import Tensor

from spaces.operations.tone import blend, factors


def sharpness(images: Tensor, levels: Tensor) -> Tensor:
    """Blend by 0.1 + 0.18·L: identity at level 5, blurred below it (level 0 too), sharpened above.

    The outermost pixels stay as they are, so an image under 3 pixels wide or high is returned unchanged.

    Args:
        images: (B, C, H, W) uint8.
        levels: (B,) in 0…9.

    Returns:
        (B, C, H, W) uint8, a new tensor.
    """
    sharpened = images.clone()
    inner = images[..., 1:-1, 1:-1]
    sharpened[..., 1:-1, 1:-1] = blend(smooth(images), inner.float(), factors(levels).view(-1, 1, 1, 1))
    return sharpened


def smooth(images: Tensor) -> Tensor:
    """Pillow's SMOOTH, ((1, 1, 1), (1, 5, 1), (1, 1, 1)) / 13, rounded: (B, C, H - 2, W - 2) float32."""
    wide = images.to(torch.int16)  # 13 · 255 fits
    rows = wide[..., :-2, :] + wide[..., 1:-1, :] + wide[..., 2:, :]
    weighted = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:] + 4 * wide[..., 1:-1, 1:-1]
    # An integer over 13 is never halfway between two integers, so to round is to add 6 and to cut.
    return ((weighted + 6).float() / 13).floor()
