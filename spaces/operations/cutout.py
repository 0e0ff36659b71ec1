"""Cutout: fill one square per image.

Source: PBA, Ho et al. 2019, https://arxiv.org/abs/1905.05393, after DeVries and Taylor 2017,
https://arxiv.org/abs/1708.04552.
"""

from __future__ import annotations

import torch
from torch import Tensor


def cutout(images: Tensor, levels: Tensor, positions: Tensor, fill: Tensor) -> Tensor:
    """Fill a square whose side is 2·L pixels on an image of 32, and scales with the smaller side.

    With s = round(2·L·min(H, W) / 32), halves up, and the center (r, c) = (int(p₀·H), int(p₁·W)), the square covers
    the rows r - s//2 to r - s//2 + s - 1 and the columns c - s//2 to c - s//2 + s - 1, clipped to the image. At level 0
    it is empty.

    Departure: the authors' code covers 2·(s//2) pixels per side. At its 32 × 32 pixels s is even, so the square is
    the same.

    Args:
        images: Images (B, C, H, W), uint8.
        levels: Levels (B,), 0 to 9.
        positions: Centers (B, 2) as fractions (p₀ of the height, p₁ of the width) in [0, 1).
        fill: Fill color (C,), uint8.

    Returns:
        New images (B, C, H, W), uint8.
    """
    height, width = images.shape[-2:]
    covered = square_mask(cutout_sides(levels, height, width), positions, height, width)
    return torch.where(covered.unsqueeze(1), fill.view(1, -1, 1, 1), images)


def cutout_sides(levels: Tensor, height: int, width: int) -> Tensor:
    """Return the side s of the square at each level in pixels, (B,)."""
    return (levels * min(height, width) + 8) // 16


def square_mask(sides: Tensor, positions: Tensor, height: int, width: int) -> Tensor:
    """Return the mask (B, H, W) of the squares with side `sides` (B,) around `positions` (B, 2)."""
    rows = _span(positions[:, 0], sides, height)
    columns = _span(positions[:, 1], sides, width)
    return rows.unsqueeze(2) & columns.unsqueeze(1)


def _span(centers: Tensor, sides: Tensor, length: int) -> Tensor:
    """Return the mask (B, length) of the rows (or columns) that each square covers."""
    starts = ((centers.double() * length).long() - sides // 2).unsqueeze(1)
    pixels = torch.arange(length, device=centers.device)
    return (pixels >= starts) & (pixels < starts + sides.unsqueeze(1))
