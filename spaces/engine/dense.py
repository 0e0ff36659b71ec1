"""Dense backend for any device: plain PyTorch without synchronization of host and device.

For each operation of an image, one resampling, one table lookup and one blend run on all images, as the identity where
an image does not need them. So shapes do not depend on the parameters, no value returns to the host, and the whole can
be captured as a CUDA graph or compiled.
"""

from __future__ import annotations

import torch
from torch import Tensor

from spaces.engine.lookup_tables import INDEX, Constants, constants
from spaces.operations.cutout import square_mask
from spaces.operations.geometry import read_pixels, source_coordinates
from spaces.operations.sharpness import smooth
from spaces.operations.tone import IMAGE_TABLES, apply_tables, blend, gray
from spaces.policy.sampling import Parameters


def apply(images: Tensor, parameters: Parameters, fill: Tensor) -> Tensor:
    """Apply `parameters` to uint8 images (B, C, H, W); all tensors on one device."""
    fixed = constants(*images.shape[-2:], images.device)
    for place in range(parameters.operations.shape[1]):
        operations, levels = parameters.operations[:, place], parameters.levels[:, place]
        images = _warped(
            images, operations, levels, parameters.signs[:, place], parameters.positions[:, place], fill, fixed
        )
        images = apply_tables(images, _tables(images, operations, levels, fixed))
        images = _blended(images, operations, fixed.factors[levels])
    return images


def crop(images: Tensor, top: Tensor, left: Tensor, mirrored: Tensor, fill: Tensor) -> Tensor:
    """Shift uint8 images (B, C, H, W) by whole pixels, then mirror some of them; all tensors on one device."""
    height, width = images.shape[-2:]
    columns = torch.arange(width, device=images.device).expand(len(images), 1, -1)
    columns = torch.where(mirrored.view(-1, 1, 1), width - 1 - columns, columns) + left.view(-1, 1, 1)
    rows = torch.arange(height, device=images.device).view(1, -1, 1) + top.view(-1, 1, 1)
    return read_pixels(images, columns.expand(-1, height, -1), rows.expand(-1, -1, width), fill)


def _warped(
    images: Tensor,
    operations: Tensor,
    levels: Tensor,
    signs: Tensor,
    positions: Tensor,
    fill: Tensor,
    fixed: Constants,
) -> Tensor:
    """Apply the five geometric operations and Cutout in one resampling."""
    x, y = source_coordinates(fixed.matrices[operations, levels, (signs + 1) // 2], images)
    sides = fixed.sides[levels] * (operations == INDEX["Cutout"])
    return read_pixels(images, x, y, fill, square_mask(sides, positions, *images.shape[-2:]))


def _tables(images: Tensor, operations: Tensor, levels: Tensor, fixed: Constants) -> Tensor:
    """Return the tables (B, C, 256) of the seven operations that have one; the identity for all others."""
    tables = fixed.tables[operations, levels].unsqueeze(1).expand(-1, images.shape[1], -1)
    for name, table in IMAGE_TABLES.items():
        tables = torch.where((operations == INDEX[name]).view(-1, 1, 1), table(images, levels), tables)
    return tables


def _blended(images: Tensor, operations: Tensor, factors: Tensor) -> Tensor:
    """Apply Color and Sharpness in one blend; an image blended with itself is the identity at any factor."""
    whole = images.float()
    under = torch.where(_is("Color", operations), gray(images).float(), whole)
    inner = under[..., 1:-1, 1:-1]
    under[..., 1:-1, 1:-1] = torch.where(_is("Sharpness", operations), smooth(images), inner)
    return blend(under, whole, factors.view(-1, 1, 1, 1))


def _is(name: str, operations: Tensor) -> Tensor:
    return (operations == INDEX[name]).view(-1, 1, 1, 1)
