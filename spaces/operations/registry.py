"""Registry of the 15 operations of PBA, with a level, sign and position for each image of a batch.

Source: PBA, Ho et al. 2019, https://arxiv.org/abs/1905.05393; ranges and order as in the authors' code,
https://github.com/arcelien/pba. Every operation gives the same bytes as Pillow for L and RGB images.

Departures from the authors' code: uncovered and cut-out pixels get the fill color at once (there they become
transparent, black or a fixed color, and the mean color of the data set at the end, unless an operation in between
drops the alpha channel); translations and Cutout scale with the image (there they assume 32 pixels).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import TypeAlias

import torch
from torch import Tensor

from spaces.core.errors import RequestError
from spaces.operations.cutout import cutout
from spaces.operations.geometry import MATRICES, Matrix, warp
from spaces.operations.images import check_images, on_bytes
from spaces.operations.sharpness import sharpness
from spaces.operations.tone import IMAGE_TABLES, LEVEL_TABLES, ImageTable, LevelTable, apply_tables, color

__all__ = ["ALL_LEVELS", "LEVELS", "OPERATIONS", "Operation"]

LEVELS = 10
"""Number of levels of PBA: 0 to 9."""

ALL_LEVELS = 13
"""Number of levels with 10, 11 and 12, at which Posterize keeps 5, 6 and 7 bits; only scaled policies use them."""

Apply: TypeAlias = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
"""(images, levels, signs, positions, fill) → images."""


@dataclass(frozen=True)
class Operation:
    """Augmentation operation on a batch, with a level, sign and position for each image.

    `OPERATIONS` holds the instances; `sample` and `apply` are the fast way to use them.

    Attributes:
        name: Name in PBA.
        meaning: Effect at level L, with its unit.
        uses_level: True if the level has an effect.
        signed: True if the sign has an effect.
        positioned: True if the position has an effect.
        apply: Function on uint8 images that `__call__` wraps with checks.

    Example:
        >>> import torch
        >>> from spaces import OPERATIONS
        >>> images = torch.full((1, 1, 2, 2), 10, dtype=torch.uint8)
        >>> level, sign, position = torch.tensor([0]), torch.tensor([1]), torch.zeros(1, 2)
        >>> OPERATIONS["Invert"](images, level, sign, position, torch.zeros(1, dtype=torch.uint8)).unique().item()
        245
    """

    name: str
    meaning: str
    uses_level: bool
    signed: bool
    positioned: bool
    apply: Apply = field(repr=False)

    def __call__(self, images: Tensor, levels: Tensor, signs: Tensor, positions: Tensor, fill: Tensor) -> Tensor:
        """Apply the operation to each image with its own parameters; all tensors are on one device.

        The values of levels, signs and positions are not checked, because the host would wait for the device.

        Args:
            images: Images (B, C, H, W), uint8, or floating point in [0, 1], rounded to bytes; C is 1 (gray) or 3
                (RGB). Never modified.
            levels: Levels (B,), int64, 0 to 9.
            signs: Signs (B,), int64, -1 or +1.
            positions: Positions (B, 2), float32 in [0, 1), fractions of height and width.
            fill: Color of uncovered and cut-out pixels (C,), uint8.

        Returns:
            New images (B, C, H, W) of the same dtype on the same device.

        Raises:
            RequestError: A tensor has another shape or dtype, or a pixel is NaN or outside [0, 1].
        """
        check_images(images)
        batch, channels = images.shape[:2]
        _check("levels", levels, (batch,), torch.int64)
        _check("signs", signs, (batch,), torch.int64)
        _check("positions", positions, (batch, 2), torch.float32)
        _check("fill", fill, (channels,), torch.uint8)
        return on_bytes(lambda pixels: self.apply(pixels, levels, signs, positions, fill), images)


def _check(name: str, given: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    if tuple(given.shape) != shape or given.dtype != dtype:
        raise RequestError(
            f"{name} must be {dtype} of shape {shape}", value=f"{given.dtype} of shape {tuple(given.shape)}"
        )


def _warped(matrix: Matrix, images: Tensor, levels: Tensor, signs: Tensor, _positions: Tensor, fill: Tensor) -> Tensor:
    return warp(images, matrix(levels, signs, *images.shape[-2:]), fill)


def _by_level_table(
    table: LevelTable, images: Tensor, levels: Tensor, _signs: Tensor, _positions: Tensor, _fill: Tensor
) -> Tensor:
    return apply_tables(images, table(levels).unsqueeze(1).expand(-1, images.shape[1], -1))


def _by_image_table(
    table: ImageTable, images: Tensor, levels: Tensor, _signs: Tensor, _positions: Tensor, _fill: Tensor
) -> Tensor:
    return apply_tables(images, table(images, levels))


def _by_level(
    change: Callable[[Tensor, Tensor], Tensor],
    images: Tensor,
    levels: Tensor,
    _signs: Tensor,
    _positions: Tensor,
    _fill: Tensor,
) -> Tensor:
    return change(images, levels)


def _cut(images: Tensor, levels: Tensor, _signs: Tensor, positions: Tensor, fill: Tensor) -> Tensor:
    return cutout(images, levels, positions, fill)


def _geometric(name: str, meaning: str) -> Operation:
    apply = partial(_warped, MATRICES[name])
    return Operation(name, meaning, uses_level=True, signed=True, positioned=False, apply=apply)


def _tonal(name: str, meaning: str, *, uses_level: bool = True) -> Operation:
    shared = name in LEVEL_TABLES
    apply = partial(_by_level_table, LEVEL_TABLES[name]) if shared else partial(_by_image_table, IMAGE_TABLES[name])
    return Operation(name, meaning, uses_level, signed=False, positioned=False, apply=apply)


def _blended(name: str, meaning: str, change: Callable[[Tensor, Tensor], Tensor]) -> Operation:
    apply = partial(_by_level, change)
    return Operation(name, meaning, uses_level=True, signed=False, positioned=False, apply=apply)


# The order of HP_TRANSFORMS in pba/augmentation_transforms_hp.py of arcelien/pba at commit 950397f. Commit 588f1b7
# has another order, in a plain dict, which is why genomes store operations by name.
_IN_ORDER = (
    _geometric("Rotate", "rotate by ±3·L degrees"),
    _geometric("TranslateX", "shift sideways by ±L·width/32 pixels, rounded"),
    _geometric("TranslateY", "shift up or down by ±L·height/32 pixels, rounded"),
    _tonal("Brightness", "blend with black by the factor 0.1 + 0.18·L"),
    _blended("Color", "blend with the gray image by the factor 0.1 + 0.18·L; none on gray images", color),
    _tonal("Invert", "255 - value; no level", uses_level=False),
    _blended("Sharpness", "blend with the smoothed image by the factor 0.1 + 0.18·L", sharpness),
    _tonal("Posterize", "keep 4 - int(0.4·L) bits a channel"),
    _geometric("ShearX", "shear sideways with slope ±0.03·L"),
    _tonal("Solarize", "invert values from 256 - int(25.6·L) up"),
    _geometric("ShearY", "shear up or down with slope ±0.03·L"),
    _tonal("Equalize", "flatten each channel's histogram; no level", uses_level=False),
    _tonal("AutoContrast", "stretch each channel to 0…255; no level", uses_level=False),
    Operation(
        "Cutout",
        "fill a square of side 2·L·min(height, width)/32 pixels, rounded",
        uses_level=True,
        signed=False,
        positioned=True,
        apply=_cut,
    ),
    _tonal("Contrast", "blend with the mean gray by the factor 0.1 + 0.18·L"),
)

OPERATIONS: Mapping[str, Operation] = MappingProxyType({operation.name: operation for operation in _IN_ORDER})
"""All 15 operations by name, in the order of PBA."""
