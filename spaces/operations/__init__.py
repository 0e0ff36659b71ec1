"""PBA's 15 operations on batches of images, each sample with its own level, sign and position.

Source: PBA, Ho et al. 2019, https://arxiv.org/abs/1905.05393; ranges and order as in its code,
https://github.com/arcelien/pba. Every operation gives Pillow's own bytes for L and RGB images.

Departures from PBA's code: uncovered and cut-out pixels take `fill` and stay ordinary pixels (there they are
transparent, black or of a fixed color, and become the data set's mean at the end, unless an operation that
drops the alpha channel came in between); translations and Cutout scale with the image (there 32 pixels are
built in).
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
from spaces.operations.tone import OWN_TABLES, SHARED_TABLES, OwnTable, SharedTable, color, look_up

__all__ = ["LEVELS", "OPERATIONS", "Operation"]

LEVELS = 10
"""How many levels there are: 0…9."""

Apply: TypeAlias = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
"""(images, levels, signs, positions, fill) → images."""


@dataclass(frozen=True)
class Operation:
    """One augmentation operation: what it means, what it needs, and the operation itself.

    Attributes:
        name: PBA's name.
        meaning: what it does at level L, with its unit.
        uses_level: whether the level matters.
        signed: whether the sign matters.
        positioned: whether the position matters.
        apply: the operation, without the checks.
    """

    name: str
    meaning: str
    uses_level: bool
    signed: bool
    positioned: bool
    apply: Apply = field(repr=False)

    def __call__(self, images: Tensor, levels: Tensor, signs: Tensor, positions: Tensor, fill: Tensor) -> Tensor:
        """Apply it to each image with its own parameters; all tensors are on one device.

        Whether levels, signs and positions are in range is not checked: the host would wait for the device.

        Args:
            images: (B, C, H, W) uint8, or floating point in [0, 1], which stands for the bytes it rounds to;
                C = 1 (gray) or 3 (RGB); never modified.
            levels: (B,) int64 in 0…9.
            signs: (B,) int64 in {-1, +1}.
            positions: (B, 2) float32 in [0, 1), fractions of height and width.
            fill: (C,) uint8, the color of uncovered and cut-out pixels.

        Returns:
            (B, C, H, W), a new tensor of the same dtype on the same device.

        Raises:
            RequestError: a tensor has another shape or dtype, or a pixel is NaN or outside [0, 1].
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


def _looked_up(
    table: SharedTable, images: Tensor, levels: Tensor, _signs: Tensor, _positions: Tensor, _fill: Tensor
) -> Tensor:
    return look_up(images, table(levels).unsqueeze(1).expand(-1, images.shape[1], -1))


def _looked_up_own(
    table: OwnTable, images: Tensor, levels: Tensor, _signs: Tensor, _positions: Tensor, _fill: Tensor
) -> Tensor:
    return look_up(images, table(images, levels))


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
    shared = name in SHARED_TABLES
    apply = partial(_looked_up, SHARED_TABLES[name]) if shared else partial(_looked_up_own, OWN_TABLES[name])
    return Operation(name, meaning, uses_level, signed=False, positioned=False, apply=apply)


def _leveled(name: str, meaning: str, change: Callable[[Tensor, Tensor], Tensor]) -> Operation:
    apply = partial(_by_level, change)
    return Operation(name, meaning, uses_level=True, signed=False, positioned=False, apply=apply)


# The order of HP_TRANSFORMS in pba/augmentation_transforms_hp.py of arcelien/pba at commit 950397f. An
# earlier commit (588f1b7) has another order, in a plain dict, which is why genomes name their operations.
_IN_ORDER = (
    _geometric("Rotate", "rotate by ±3·L degrees"),
    _geometric("TranslateX", "shift sideways by ±L·width/32 pixels, rounded"),
    _geometric("TranslateY", "shift up or down by ±L·height/32 pixels, rounded"),
    _tonal("Brightness", "blend with black by the factor 0.1 + 0.18·L"),
    _leveled("Color", "blend with the gray image by the factor 0.1 + 0.18·L; none on gray images", color),
    _tonal("Invert", "255 - value; no level", uses_level=False),
    _leveled("Sharpness", "blend with the smoothed image by the factor 0.1 + 0.18·L", sharpness),
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
"""All 15 by name, in PBA's order."""
