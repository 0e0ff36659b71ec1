"""Rotate, ShearX, ShearY, TranslateX and TranslateY: an affine matrix per sample, and one resampling for all.

Source: PBA, Ho et al. 2019, https://arxiv.org/abs/1905.05393. Parity: Pillow's `Image.transform` and
`Image.rotate` with nearest-neighbor resampling. A matrix is Pillow's (a, b, c, d, e, f): the output (x, y)
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

FRACTION = 16  # bits behind the point of Pillow's fixed-point coordinates
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
    """Resample each image by its own matrix, nearest neighbor, as Pillow's `Image.transform(…, AFFINE, …)`.

    Byte for byte for every matrix with b or d ≠ 0 and for whole-pixel shifts. Not so for a pure scaling or a
    fractional shift, which no operation here makes, nor where a coordinate passes 32,767: there Pillow leaves
    fixed point for floating point, and a coordinate near the edge of two pixels may fall into the other one.

    Args:
        images: (B, C, H, W) uint8.
        matrices: (B, 6) float64, output to input.
        fill: (C,) uint8, the color of what the input does not cover.

    Returns:
        (B, C, H, W) uint8, a new tensor.
    """
    return read(images, *sources(fixed_point(matrices), images), fill)


def fixed_point(matrices: Tensor) -> Tensor:
    """Pillow's `affine_fixed`: matrices (B, 6) as 16.16 fixed-point numbers, taken at the pixels' middles, int64."""
    across, down, shift = matrices.reshape(-1, 2, 3).unbind(2)
    middle = shift + across * 0.5 + down * 0.5
    fixed: Tensor = (torch.stack((across, down, middle), dim=2) * 2**FRACTION + 0.5).floor().long()
    return fixed.view(-1, 6)


def sources(fixed: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
    """Which column and row of the input each output pixel is read from, inside or outside, (B, H, W) each.

    Args:
        fixed: (B, 6), from `fixed_point`.
        images: (B, C, H, W); only its shape and device count.
    """
    dtype = _index_dtype(images)
    columns = torch.arange(images.shape[-1], dtype=dtype, device=fixed.device).view(1, 1, -1)
    rows = torch.arange(images.shape[-2], dtype=dtype, device=fixed.device).view(1, -1, 1)
    a, b, c, d, e, f = fixed.to(dtype).view(-1, 6, 1, 1).unbind(1)
    x = torch.bitwise_right_shift(a * columns + (b * rows + c), FRACTION)
    y = torch.bitwise_right_shift(d * columns + (e * rows + f), FRACTION)
    return x, y


def read(images: Tensor, x: Tensor, y: Tensor, fill: Tensor, hidden: Tensor | None = None) -> Tensor:
    """The pixels of `images` (B, C, H, W) at columns x and rows y (B, H, W); `fill` outside, and where `hidden`."""
    batch, channels, height, width = images.shape
    column, row = x.clamp(0, width - 1), y.clamp(0, height - 1)
    shown = (column == x) & (row == y)
    if hidden is not None:
        shown &= ~hidden
    planes = torch.arange(batch * channels, dtype=x.dtype, device=x.device) * (height * width)
    index = planes.view(batch, channels, 1, 1) + (row * width + column).unsqueeze(1)
    pixels = images.reshape(-1).index_select(0, index.view(-1)).view(images.shape)
    return torch.where(shown.unsqueeze(1), pixels, fill.view(1, channels, 1, 1))


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
