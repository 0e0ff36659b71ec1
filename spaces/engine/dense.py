"""The engine on any device: plain PyTorch, every image on the same road, and nothing that the host waits for.

In each place all images go through one resampling, one look-up and one blend, where what an image does not need is
the identity. So the work is the same whatever the parameters say: no shape depends on them, no index comes back to the
host, and the whole can be captured as a CUDA graph or compiled.
"""

from __future__ import annotations

import torch
from torch import Tensor

from spaces.engine.lookup_tables import INDEX, Constants, constants
from spaces.operations.cutout import square
from spaces.operations.geometry import read, sources
from spaces.operations.sharpness import smooth
from spaces.operations.tone import OWN_TABLES, blend, gray, look_up
from spaces.policy.sampling import Parameters


def apply(images: Tensor, parameters: Parameters, fill: Tensor) -> Tensor:
    """Change uint8 images (B, C, H, W) as `parameters` say; all tensors on one device."""
    fixed = constants(*images.shape[-2:], images.device)
    for place in range(parameters.operations.shape[1]):
        operations, levels = parameters.operations[:, place], parameters.levels[:, place]
        images = _moved(
            images, operations, levels, parameters.signs[:, place], parameters.positions[:, place], fill, fixed
        )
        images = look_up(images, _tables(images, operations, levels, fixed))
        images = _blended(images, operations, fixed.factors[levels])
    return images


def crop(images: Tensor, top: Tensor, left: Tensor, mirrored: Tensor, fill: Tensor) -> Tensor:
    """Move uint8 images (B, C, H, W) by whole pixels, then mirror some; all tensors on one device."""
    height, width = images.shape[-2:]
    columns = torch.arange(width, device=images.device).expand(len(images), 1, -1)
    columns = torch.where(mirrored.view(-1, 1, 1), width - 1 - columns, columns) + left.view(-1, 1, 1)
    rows = torch.arange(height, device=images.device).view(1, -1, 1) + top.view(-1, 1, 1)
    return read(images, columns.expand(-1, height, -1), rows.expand(-1, -1, width), fill)


def _moved(
    images: Tensor,
    operations: Tensor,
    levels: Tensor,
    signs: Tensor,
    positions: Tensor,
    fill: Tensor,
    fixed: Constants,
) -> Tensor:
    """The five geometric operations, and Cutout, in one resampling."""
    x, y = sources(fixed.matrices[operations, levels, (signs + 1) // 2], images)
    sides = fixed.sides[levels] * (operations == INDEX["Cutout"])
    return read(images, x, y, fill, square(sides, positions, *images.shape[-2:]))


def _tables(images: Tensor, operations: Tensor, levels: Tensor, fixed: Constants) -> Tensor:
    """Each image's table for the seven operations that have one, (B, C, 256)."""
    tables = fixed.tables[operations, levels].unsqueeze(1).expand(-1, images.shape[1], -1)
    for name, own in OWN_TABLES.items():
        tables = torch.where((operations == INDEX[name]).view(-1, 1, 1), own(images, levels), tables)
    return tables


def _blended(images: Tensor, operations: Tensor, factors: Tensor) -> Tensor:
    """Color and Sharpness in one blend: with itself an image is the identity at any factor."""
    whole = images.float()
    under = torch.where(_is("Color", operations), gray(images).float(), whole)
    inner = under[..., 1:-1, 1:-1]
    under[..., 1:-1, 1:-1] = torch.where(_is("Sharpness", operations), smooth(images), inner)
    return blend(under, whole, factors.view(-1, 1, 1, 1))


def _is(name: str, operations: Tensor) -> Tensor:
    return (operations == INDEX[name]).view(-1, 1, 1, 1)
