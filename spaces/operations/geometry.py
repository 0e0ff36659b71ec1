"""Rotate, ShearX, ShearY, TranslateX and TranslateY: one affine matrix per image, one resampling per batch.

Source: PBA, Ho et al. 2019, https://arxiv.org/abs/1905.05393. Reference: Pillow's `Image.transform` and
`Image.rotate` with nearest-neighbor resampling. A matrix is (a, b, c, d, e, f) as in Pillow: the output pixel (x, y) is
read from (a·x + b·y + c, d·x + e·y + f) of the input, so a positive translation moves the image left or up.
Letters: B images, C channels, H rows, W columns; a level L is 0 to 9, a sign -1 or +1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TypeAlias

import torch
from torch import Tensor

Matrix: TypeAlias = Callable[[Tensor, Tensor, int, int], Tensor]
"""(levels (B,), signs (B,), height, width) → matrices (B, 6) in float64."""

FRACTION = 16  # fractional bits of Pillow's fixed-point coordinates
_SAFE_SIDE = 2**14  # up to this side, coordinates of rotated and sheared images fit 16.16 bits


def rotate(levels: Tensor, signs: Tensor, height: int, width: int) -> Tensor:
    """Return matrices that rotate by ±3·L degrees around the center, counter-clockwise for sign +1.

    Pillow also rounds sine and cosine to 15 digits, which makes no difference in 16.16 fixed point at these angles.
    """
    angles = torch.deg2rad(-3.0 * (levels * signs).double())
    cos, sin = angles.cos(), angles.sin()
    x, y = width / 2, height / 2
    return torch.stack((cos, sin, x - (cos * x + sin * y), -sin, cos, y - (cos * y - sin * x)), dim=1)


def shear_x(levels: Tensor, signs: Tensor, height: int, width: int) -> Tensor:
    """Return matrices of slope ±0.03·L: row y is read ±0.03·L·y pixels further right."""
    return _identity_except(1, _slopes(levels, signs))


def shear_y(levels: Tensor, signs: Tensor, height: int, width: int) -> Tensor:
    """Return matrices of slope ±0.03·L: column x is read ±0.03·L·x pixels further down."""
    return _identity_except(3, _slopes(levels, signs))


def translate_x(levels: Tensor, signs: Tensor, height: int, width: int) -> Tensor:
    """Return matrices that shift by ±L·W/32 pixels, rounded to an integer, halves away from zero."""
    return _identity_except(2, _pixels(levels, signs, width))


def translate_y(levels: Tensor, signs: Tensor, height: int, width: int) -> Tensor:
    """Return matrices that shift by ±L·H/32 pixels, rounded to an integer, halves away from zero."""
    return _identity_except(5, _pixels(levels, signs, height))


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
    """Resample each image with its own matrix, nearest neighbor, like Pillow's `Image.transform(…, AFFINE, …)`.

    The bytes equal Pillow's for matrices with b or d ≠ 0 and for shifts by whole pixels. They may differ for a pure
    scaling or a fractional shift, which no operation here uses, and where a coordinate exceeds 32,767: there Pillow
    uses floating point.

    Args:
        images: Images (B, C, H, W), uint8.
        matrices: Matrices (B, 6) from output to input, float64.
        fill: Color of uncovered pixels (C,), uint8.

    Returns:
        New images (B, C, H, W), uint8.
    """
    return read_pixels(images, *source_coordinates(fixed_point(matrices), images), fill)


def fixed_point(matrices: Tensor) -> Tensor:
    """Convert matrices (B, 6) to 16.16 fixed point at pixel centers, int64, like Pillow's `affine_fixed`."""
    across, down, shift = matrices.reshape(-1, 2, 3).unbind(2)
    middle = shift + across * 0.5 + down * 0.5
    fixed: Tensor = (torch.stack((across, down, middle), dim=2) * 2**FRACTION + 0.5).floor().long()
    return fixed.view(-1, 6)


def source_coordinates(fixed: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return the input column and row of each output pixel, (B, H, W) each; they may lie outside the image.

    Args:
        fixed: Matrices (B, 6) from `fixed_point`.
        images: Images (B, C, H, W), used for their shape alone.
    """
    dtype = _index_dtype(images)
    columns = torch.arange(images.shape[-1], dtype=dtype, device=fixed.device).view(1, 1, -1)
    rows = torch.arange(images.shape[-2], dtype=dtype, device=fixed.device).view(1, -1, 1)
    a, b, c, d, e, f = fixed.to(dtype).view(-1, 6, 1, 1).unbind(1)
    x = torch.bitwise_right_shift(a * columns + (b * rows + c), FRACTION)
    y = torch.bitwise_right_shift(d * columns + (e * rows + f), FRACTION)
    return x, y


def read_pixels(images: Tensor, x: Tensor, y: Tensor, fill: Tensor, hidden: Tensor | None = None) -> Tensor:
    """Gather the pixels of `images` (B, C, H, W) at columns x, rows y (B, H, W); `fill` outside and where `hidden`."""
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
    """Return int32 if coordinates and indices fit, which halves the memory, else int64."""
    fits = images.numel() < 2**31 and max(images.shape[-2:]) <= _SAFE_SIDE
    return torch.int32 if fits else torch.int64


def _identity_except(entry: int, values: Tensor) -> Tensor:
    """Return identity matrices (B, 6) with one entry replaced by `values` (B,)."""
    matrices = torch.zeros(len(values), 6, dtype=torch.float64, device=values.device)
    matrices[:, 0] = 1.0
    matrices[:, 4] = 1.0
    matrices[:, entry] = values
    return matrices


def _slopes(levels: Tensor, signs: Tensor) -> Tensor:
    """Return ±0.03·L, (B,) float64, in PBA's order of multiplication and division."""
    return (levels * signs).double() * 0.3 / 10


def _pixels(levels: Tensor, signs: Tensor, side: int) -> Tensor:
    """Return ±round(L·side/32), halves away from zero, (B,) int64."""
    return signs * ((levels * side + 16) // 32)
