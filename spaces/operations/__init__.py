"""PBA's 15 operations on batches of uint8 images, each sample with its own level, sign and position.

Source: PBA, Ho et al. 2019, https://arxiv.org/abs/1905.05393; ranges and order as in its code,
https://github.com/arcelien/pba. Every operation gives Pillow's own bytes for L and RGB images.

Departures from PBA's code: uncovered and cut-out pixels take `fill` and stay ordinary pixels (there they are
transparent, black or of a fixed colour, and become the data set's mean at the end, unless an operation that
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

from spaces.errors import RequestError
from spaces.operations.cutout import cutout
from spaces.operations.geometry import MATRICES, Matrix, warp
from spaces.operations.sharpness import sharpness
from spaces.operations.tone import TABLES, Table, color, look_up

__all__ = ["LEVELS", "OPERATIONS", "Operation", "check_images"]

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
            images: (B, C, H, W) uint8, C = 1 (grey) or 3 (RGB); never modified.
            levels: (B,) int64 in 0…9.
            signs: (B,) int64 in {-1, +1}.
            positions: (B, 2) float32 in [0, 1), fractions of height and width.
            fill: (C,) uint8, the colour of uncovered and cut-out pixels.

        Returns:
            (B, C, H, W) uint8, a new tensor on the same device.

        Raises:
            RequestError: a tensor has another shape or dtype.
        """
        check_images(images)
        batch, channels = images.shape[:2]
        _check("levels", levels, (batch,), torch.int64)
        _check("signs", signs, (batch,), torch.int64)
        _check("positions", positions, (batch, 2), torch.float32)
        _check("fill", fill, (channels,), torch.uint8)
        return self.apply(images, levels, signs, positions, fill)


def check_images(images: Tensor) -> None:
    """Refuse what no operation can work on.

    Raises:
        RequestError: not uint8, not of shape (B, C, H, W), C neither 1 nor 3, or no image or no pixel in it.
    """
    if images.dtype != torch.uint8:
        raise RequestError("images must be uint8", got=str(images.dtype), mend="augment before images become floats")
    if images.ndim != 4:
        raise RequestError("images must have the shape (B, C, H, W)", got=tuple(images.shape))
    if images.shape[1] not in (1, 3):
        raise RequestError("images must have 1 (grey) or 3 (RGB) channels", got=tuple(images.shape))
    if images.numel() == 0:
        raise RequestError("a batch must hold at least one image of one pixel", got=tuple(images.shape))


def _check(name: str, given: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    if tuple(given.shape) != shape or given.dtype != dtype:
        raise RequestError(
            f"{name} must be {dtype} of shape {shape}", got=f"{given.dtype} of shape {tuple(given.shape)}"
        )


def _warped(matrix: Matrix, images: Tensor, levels: Tensor, signs: Tensor, _positions: Tensor, fill: Tensor) -> Tensor:
    return warp(images, matrix(levels, signs, *images.shape[-2:]), fill)


def _looked_up(
    table: Table, images: Tensor, levels: Tensor, _signs: Tensor, _positions: Tensor, _fill: Tensor
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
    apply = partial(_looked_up, TABLES[name])
    return Operation(name, meaning, uses_level, signed=False, positioned=False, apply=apply)


def _levelled(name: str, meaning: str, change: Callable[[Tensor, Tensor], Tensor]) -> Operation:
    apply = partial(_by_level, change)
    return Operation(name, meaning, uses_level=True, signed=False, positioned=False, apply=apply)


# The order of HP_TRANSFORMS in pba/augmentation_transforms_hp.py of arcelien/pba at commit 950397f. An
# earlier commit (588f1b7) has another order, in a plain dict, which is why genomes name their operations.
_IN_ORDER = (
    _geometric("Rotate", "rotate by ±3·L degrees"),
    _geometric("TranslateX", "shift sideways by ±L·width/32 pixels, rounded"),
    _geometric("TranslateY", "shift up or down by ±L·height/32 pixels, rounded"),
    _tonal("Brightness", "blend with black by the factor 0.1 + 0.18·L"),
    _levelled("Color", "blend with the grey image by the factor 0.1 + 0.18·L; none on grey images", color),
    _tonal("Invert", "255 - value; no level", uses_level=False),
    _levelled("Sharpness", "blend with the smoothed image by the factor 0.1 + 0.18·L", sharpness),
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
    _tonal("Contrast", "blend with the mean grey by the factor 0.1 + 0.18·L"),
)

OPERATIONS: Mapping[str, Operation] = MappingProxyType({operation.name: operation for operation in _IN_ORDER})
"""All 15 by name, in PBA's order."""
