"""What an operation does at each level, as constants of an image's size: the same for every path of the engine.

They are filled by the operations' own definitions in `spaces.operations`, so that no path has a second one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from spaces.operations import LEVELS, OPERATIONS
from spaces.operations.cutout import sides
from spaces.operations.geometry import MATRICES, fixed_point
from spaces.operations.tone import SHARED_TABLES, factors

INDEX = {name: index for index, name in enumerate(OPERATIONS)}
"""Where an operation stands in `OPERATIONS`, which is its number in `Parameters.operations`."""

ROWS = len(OPERATIONS) + 1
"""One row for each operation, and a last one for none at all: index −1 finds it."""


@dataclass(frozen=True)
class Constants:
    """All that depends on nothing but operation, level, sign and image size; what an operation lacks is the identity.

    Letters: O operations and none, L levels.

    Args:
        matrices: (O, L, 2, 6) int64, 16.16 fixed point, for the signs −1 and +1.
        tables: (O, L, 256) uint8.
        factors: (L,) float32, of the enhancers.
        sides: (L,) int64, Cutout's, in pixels.
    """

    matrices: Tensor
    tables: Tensor
    factors: Tensor
    sides: Tensor


@lru_cache(maxsize=32)
def constants(height: int, width: int, device: torch.device) -> Constants:
    """The constants for images of `height` × `width`, on `device`."""
    levels = torch.arange(LEVELS)
    identity = fixed_point(torch.tensor([[1.0, 0.0, 0.0, 0.0, 1.0, 0.0]], dtype=torch.float64))
    matrices = identity.view(1, 1, 1, 6).repeat(ROWS, LEVELS, 2, 1)
    for name, matrix in MATRICES.items():
        for sign in (-1, 1):
            at_levels = matrix(levels, torch.full_like(levels, sign), height, width)
            matrices[INDEX[name], :, (sign + 1) // 2] = fixed_point(at_levels)
    tables = torch.arange(256, dtype=torch.uint8).repeat(ROWS, LEVELS, 1)
    for name, table in SHARED_TABLES.items():
        tables[INDEX[name]] = table(levels)
    parts = (matrices, tables, factors(levels), sides(levels, height, width))
    return Constants(*(part.to(device) for part in parts))
