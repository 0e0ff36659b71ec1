"""Cutout: one square per sample takes the fill color.

Source: PBA, Ho et al. 2019, https://arxiv.org/abs/1905.05393, after DeVries and Taylor 2017,
https://arxiv.org/abs/1708.04552.
"""

from __future__ import annotations

import torch
from torch import Tensor


def cutout(images: Tensor, levels: Tensor, positions: Tensor, fill: Tensor) -> Tensor:
    """Cover a square of side 2·L pixels on 32, in proportion to the image's smaller side.

    With s = round(2·L·min(H, W) / 32), halves up, and the center pixel (r, c) = (int(p₀·H), int(p₁·W)), it
    covers the rows from r - s//2 to r - s//2 + s - 1 and the columns from c - s//2 to c - s//2 + s - 1, as
    far as they are inside the image: nothing at level 0, and s × s pixels away from the border.

    Departure: PBA's code covers 2·(s//2) pixels a side; at its 32 × 32 s is even, so the square is the same.

    Args:
        images: (B, C, H, W) uint8.
        levels: (B,) in 0…9.
        positions: (B, 2), the centers as fractions (p₀ of the height, p₁ of the width) in [0, 1).
        fill: (C,) uint8.

    Returns:
        (B, C, H, W) uint8, a new tensor.
    """
    height, width = images.shape[-2:]
    covered = square(sides(levels, height, width), positions, height, width)
    return torch.where(covered.unsqueeze(1), fill.view(1, -1, 1, 1), images)


def sides(levels: Tensor, height: int, width: int) -> Tensor:
    """The square's side s in pixels at each level, (B,)."""
    return (levels * min(height, width) + 8) // 16


def square(sides: Tensor, positions: Tensor, height: int, width: int) -> Tensor:
    """Which pixels a square of side `sides` (B,) about `positions` (B, 2) covers, (B, H, W) bool."""
    rows = _span(positions[:, 0], sides, height)
    columns = _span(positions[:, 1], sides, width)
    return rows.unsqueeze(2) & columns.unsqueeze(1)


def _span(centers: Tensor, sides: Tensor, length: int) -> Tensor:
    """Which of `length` rows (or columns) each square covers, (B, length) bool."""
    starts = ((centers.double() * length).long() - sides // 2).unsqueeze(1)
    pixels = torch.arange(length, device=centers.device)
    return (pixels >= starts) & (pixels < starts + sides.unsqueeze(1))
