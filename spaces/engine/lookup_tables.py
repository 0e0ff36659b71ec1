"""Constants of each operation and level for an image size, shared by both backends.

They are computed by `spaces.operations`, the only definition of the operations.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from spaces.operations import ALL_LEVELS, OPERATIONS
from spaces.operations.cutout import cutout_sides
from spaces.operations.geometry import MATRICES, fixed_point
from spaces.operations.tone import LEVEL_TABLES, enhancement_factors

INDEX = {name: index for index, name in enumerate(OPERATIONS)}
"""Index of each operation in `OPERATIONS`, as in `Parameters.operations`."""

ROWS = len(OPERATIONS) + 1
"""One row per operation, and a last one for no operation, which index -1 selects."""


@dataclass(frozen=True)
class Constants:
    """Constants by operation, level and sign; the identity where an operation does not use a kind of constant.

    Letters: O operations plus one row for none, L levels.

    Args:
        matrices: Matrices in 16.16 fixed point for the signs -1 and +1, (O, L, 2, 6) int64.
        tables: Lookup tables, (O, L, 256) uint8.
        factors: Factors of the enhancement operations, (L,) float32.
        sides: Sides of the Cutout square in pixels, (L,) int64.
    """

    matrices: Tensor
    tables: Tensor
    factors: Tensor
    sides: Tensor


@lru_cache(maxsize=32)
def constants(height: int, width: int, device: torch.device) -> Constants:
    """Return the constants for images of `height` × `width` pixels, on `device`."""
    levels = torch.arange(ALL_LEVELS)
    identity = fixed_point(torch.tensor([[1.0, 0.0, 0.0, 0.0, 1.0, 0.0]], dtype=torch.float64))
    matrices = identity.view(1, 1, 1, 6).repeat(ROWS, ALL_LEVELS, 2, 1)
    for name, matrix in MATRICES.items():
        for sign in (-1, 1):
            at_levels = matrix(levels, torch.full_like(levels, sign), height, width)
            matrices[INDEX[name], :, (sign + 1) // 2] = fixed_point(at_levels)
    tables = torch.arange(256, dtype=torch.uint8).repeat(ROWS, ALL_LEVELS, 1)
    for name, table in LEVEL_TABLES.items():
        tables[INDEX[name]] = table(levels)
    parts = (matrices, tables, enhancement_factors(levels), cutout_sides(levels, height, width))
    return Constants(*(part.to(device) for part in parts))
