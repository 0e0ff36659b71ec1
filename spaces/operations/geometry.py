"""Rotate, ShearX, ShearY, TranslateX and TranslateY: an affine matrix per sample, and one resampling for all.

Source: PBA, Ho et al. 2019, https://arxiv.org/abs/1905.05393. Parity: Pillow's `Image.transform` and
`Image.rotate` with nearest-neighbour resampling. A matrix is Pillow's (a, b, c, d, e, f): the output (x, y)
is read from (a·x + b·y + c, d·x + e·y + f) of the input: a positive translation moves the picture left or up.
Letters: B samples, C channels, H rows, W columns; a level L is in 0…9, a sign in {-1, +1}.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TypeAlias

import torch
from torch import Tensor

Matrix: TypeAlias = Callable[[Tensor, Tensor, int, int], Tensor]
"""(levels (B,), signs (B,), height, width) → matrices (B, 6) in float64."""

_FRACTION = 16  # bits behind the point of Pillow's fixed-point coordinates
_SAFE_SIDE = 2**14  # up to this side, coordinates of turned and sheared images fit 16.16 bits


def rotate(levels: Tensor, signs: Tensor, height: int, width: int) -> Tensor:
    """±3·L degrees, counter-clockwise where the sign is +1, about the middle of the image.

    Pillow also rounds sine and cosine to 15 digits; at these angles 16.16 fixed point cannot tell.
    """
    angles = torch.deg2rad(-3.0 * (levels * signs).double())
    cos, sin = angles.cos(), angles.sin()
    x, y = width / 2, height / 2
    return torch.stack((cos, sin, x - (cos * x + sin * y), -sin, cos, y - (cos * y - sin * x)), dim=1)


def shear_x(levels: Tensor, signs: Tensor, height: int, width: int) -> Tensor:
    """Slope ±0.03·L: row y is read ±0.03·L·y pixels further right."""
    return _identity_but(1, _slopes(levels, signs))


def shear_y(levels: Tensor, signs: Tensor, height: int, width: int) -> Tensor:
    """Slope ±0.03·L: column x is read ±0.03·L·x pixels further down."""
    return _identity_but(3, _slopes(levels, signs))


def translate_x(levels: Tensor, signs: Tensor, height: int, width: int) -> Tensor:
    """±L·W/32 pixels, rounded to a whole pixel, halves away from zero."""
    return _identity_but(2, _pixels(levels, signs, width))


def translate_y(levels: Tensor, signs: Tensor, height: int, width: int) -> Tensor:
    """±L·H/32 pixels, rounded to a whole pixel, halves away from zero."""
    return _identity_but(5, _pixels(levels, signs, height))


MATRICES: Mapping[str, Matrix] = MappingProxyType(
    {
        "Rotate": rotate,
        "ShearX": shear_x,
        "ShearY": shear_y,
        "TranslateX": translate_x,
        "TranslateY": translate_y,
    }
)


def warp(images: Tensor, matrices: Tensor, fill: Tensor) -> Tensor:
    """Resample each image by its own matrix, nearest neighbour, as Pillow's `Image.transform(…, AFFINE, …)`.

    Byte for byte for every matrix with b or d ≠ 0 and for whole-pixel shifts. Not so for a pure scaling or a
    fractional shift, which no operation here makes, nor where a coordinate passes 32,767: there Pillow leaves
    fixed point for floating point, and a coordinate near the edge of two pixels may fall into the other one.

    Args:
        images: (B, C, H, W) uint8.
        matrices: (B, 6) float64, output to input.
        fill: (C,) uint8, the colour of what the input does not cover.

    Returns:
        (B, C, H, W) uint8, a new tensor.
    """
    batch, channels, height, width = images.shape
    x, y = (_coordinates(axis, images) for axis in (matrices[:, :3], matrices[:, 3:]))
    column, row = x.clamp(0, width - 1), y.clamp(0, height - 1)
    covered = (column == x) & (row == y)
    planes = torch.arange(batch * channels, dtype=x.dtype, device=x.device) * (height * width)
    index = planes.view(batch, channels, 1, 1) + (row * width + column).unsqueeze(1)
    pixels = images.reshape(-1).index_select(0, index.view(-1)).view(images.shape)
    return torch.where(covered.unsqueeze(1), pixels, fill.view(1, channels, 1, 1))


def _coordinates(axis: Tensor, images: Tensor) -> Tensor:
    """The input column (or row) of each output pixel, (B, H, W), from its coefficients (B, 3).

    Pillow's `affine_fixed`: coefficients rounded to 16.16 fixed point, and pixels taken at their middles.
    """
    height, width = images.shape[-2:]
    across, down, shift = axis.unbind(1)
    middle = shift + across * 0.5 + down * 0.5
    dtype = _index_dtype(images)
    fixed = (torch.stack((across, down, middle), dim=1) * 2**_FRACTION + 0.5).floor().to(dtype)
    across, down, middle = fixed.view(-1, 3, 1, 1).unbind(1)
    columns = torch.arange(width, dtype=dtype, device=axis.device).view(1, 1, -1)
    rows = torch.arange(height, dtype=dtype, device=axis.device).view(1, -1, 1)
    return torch.bitwise_right_shift(across * columns + (down * rows + middle), _FRACTION)


def _index_dtype(images: Tensor) -> torch.dtype:
    """int32 where it suffices: half the memory of int64 for coordinates and indices."""
    fits = images.numel() < 2**31 and max(images.shape[-2:]) <= _SAFE_SIDE
    return torch.int32 if fits else torch.int64


def _identity_but(entry: int, values: Tensor) -> Tensor:
    """Identity matrices (B, 6) with the given entry replaced by `values` (B,)."""
    matrices = torch.zeros(len(values), 6, dtype=torch.float64, device=values.device)
    matrices[:, 0] = 1.0
    matrices[:, 4] = 1.0
    matrices[:, entry] = values
    return matrices


def _slopes(levels: Tensor, signs: Tensor) -> Tensor:
    """±0.03·L in PBA's own order of operations, (B,) float64."""
    return (levels * signs).double() * 0.3 / 10


def _pixels(levels: Tensor, signs: Tensor, side: int) -> Tensor:
    """±round(L·side/32), halves away from zero, in integers, (B,)."""
    return signs * ((levels * side + 16) // 32)
