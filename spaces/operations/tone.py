"""Operations on pixel values: lookup tables of 256 entries per image and channel, and Color.

Source: PBA, Ho et al. 2019, https://arxiv.org/abs/1905.05393. Reference: Pillow's `ImageOps` (posterize,
solarize, autocontrast, equalize, invert) and `ImageEnhance` (Brightness, Contrast, Color) on L and RGB
images, byte for byte.
Letters: B images, C channels, H rows, W columns; a level L is 0 to 9.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TypeAlias

import torch
from torch import Tensor

LevelTable: TypeAlias = Callable[[Tensor], Tensor]
"""levels (B,) → tables (B, 256) uint8, for all images and channels."""

ImageTable: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""(images (B, C, H, W), levels (B,)) → tables (B, C, 256) uint8."""


def posterize(levels: Tensor) -> Tensor:
    """Keep the 4 - int(0.4·L) highest bits: 4 at level 0, which is not the identity, 1 at levels 8 and 9.

    Levels 10, 11 and 12, which only scaled policies use, keep 5, 6 and 7 bits.
    """
    bits = torch.where(levels < 10, 4 - levels * 4 // 10, levels - 5)
    step = 2 ** (8 - bits).unsqueeze(1)
    return (_values(levels) // step * step).to(torch.uint8)


def solarize(levels: Tensor) -> Tensor:
    """Invert the values from 256 - int(25.6·L) upward: none at level 0."""
    threshold = (256 - levels * 256 // 10).unsqueeze(1)
    values = _values(levels)
    return torch.where(values < threshold, values, 255 - values).to(torch.uint8)


def invert(levels: Tensor) -> Tensor:
    """Return tables of 255 - value; the level has no effect."""
    return (255 - _values(levels)).to(torch.uint8).expand(len(levels), 256)


def brightness(levels: Tensor) -> Tensor:
    """Blend black and the image by the factor 0.1 + 0.18·L: identity at level 5, not at level 0."""
    values = _values(levels).float()
    return blend(torch.zeros_like(values), values, enhancement_factors(levels).unsqueeze(1))


def contrast(images: Tensor, levels: Tensor) -> Tensor:
    """Blend the mean gray and the image by the factor 0.1 + 0.18·L: identity at level 5, not at level 0."""
    pixels = images.shape[-2] * images.shape[-1]
    # int(mean + 0.5) in integer arithmetic
    mean = (2 * gray(images).sum(dim=(1, 2, 3)) + pixels) // (2 * pixels)
    values = _values(images).float()
    table = blend(mean.float().unsqueeze(1), values, enhancement_factors(levels).unsqueeze(1))
    return table.unsqueeze(1).expand(-1, images.shape[1], -1)


def auto_contrast(images: Tensor, levels: Tensor) -> Tensor:
    """Stretch each channel to 0…255, identity if it is constant; the level has no effect."""
    low, high = (side.double().unsqueeze(2) for side in (images.amin(dim=(2, 3)), images.amax(dim=(2, 3))))
    # Not `255.0 / span`: torch computes 255 times a reciprocal, which differs from Pillow by one level.
    scale = torch.div(torch.full_like(low, 255.0), (high - low).clamp(min=1))
    values = _values(images)
    stretched = (values * scale + -low * scale).clamp(0, 255)
    return torch.where(high > low, stretched, values).to(torch.uint8)


def equalize(images: Tensor, levels: Tensor) -> Tensor:
    """Flatten the histogram of each channel; the level has no effect.

    Identity where Pillow's step is 0: where fewer than 255 pixels differ from the channel's maximum, thus on a
    constant channel and on any image of fewer than 256 pixels.
    """
    counts = _histograms(images)
    highest = counts.gather(2, images.amax(dim=(2, 3)).long().unsqueeze(2))
    step = (images.shape[-2] * images.shape[-1] - highest) // 255
    below = counts.cumsum(2, dtype=torch.int32) - counts
    flat = ((step // 2 + below) // step.clamp(min=1)).clamp(max=255)
    return torch.where(step > 0, flat, _values(images)).to(torch.uint8)


LEVEL_TABLES: Mapping[str, LevelTable] = MappingProxyType(
    {"Brightness": brightness, "Invert": invert, "Posterize": posterize, "Solarize": solarize}
)

IMAGE_TABLES: Mapping[str, ImageTable] = MappingProxyType(
    {"AutoContrast": auto_contrast, "Contrast": contrast, "Equalize": equalize}
)


def apply_tables(images: Tensor, tables: Tensor) -> Tensor:
    """Replace each value by its entry in the table of its image and channel.

    Args:
        images: Images (B, C, H, W), uint8.
        tables: Tables (B, C, 256), uint8.

    Returns:
        New images (B, C, H, W), uint8.
    """
    return tables.reshape(-1).index_select(0, _table_indices(images)).view(images.shape)


def color(images: Tensor, levels: Tensor) -> Tensor:
    """Blend the gray image and the image by the factor 0.1 + 0.18·L: identity at level 5, not at level 0.

    Color is the identity on gray images (C = 1).

    Args:
        images: Images (B, C, H, W), uint8.
        levels: Levels (B,), 0 to 9.

    Returns:
        New images (B, C, H, W), uint8.
    """
    if images.shape[1] == 1:
        return images.clone()
    return blend(gray(images).float(), images.float(), enhancement_factors(levels).view(-1, 1, 1, 1))


def enhancement_factors(levels: Tensor) -> Tensor:
    """Return the factor 0.1 + 0.18·L of the enhancement operations, (B,) float32, in PBA's order of arithmetic."""
    return (levels.double() * 1.8 / 10 + 0.1).float()


def blend(under: Tensor, over: Tensor, factor: Tensor) -> Tensor:
    """Return `under + factor · (over - under)`, truncated to uint8, like Pillow's `Image.blend`.

    All in float32, rounded three times: a fused multiply-add, as in `torch.lerp`, gives other bytes. The reference is
    Pillow's x86-64 build, which does not fuse.
    """
    return (under + factor * (over - under)).clamp(0, 255).to(torch.uint8)


def gray(images: Tensor) -> Tensor:
    """Return the luma (B, 1, H, W) int32 of Pillow's `convert("L")`: ITU-R 601 weights in 16 bits, rounded."""
    if images.shape[1] == 1:
        return images.int()
    red, green, blue = images.int().unbind(1)
    return ((19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16).unsqueeze(1)


def _values(like: Tensor) -> Tensor:
    """Return 0…255, (256,) int32, on the device of `like`."""
    return torch.arange(256, dtype=torch.int32, device=like.device)


def _table_indices(images: Tensor) -> Tensor:
    """Return the index of each pixel's entry among all B·C tables, (B·C·H·W,) int32."""
    planes = torch.arange(images.shape[0] * images.shape[1], dtype=torch.int32, device=images.device) * 256
    return (images.int() + planes.view(*images.shape[:2], 1, 1)).reshape(-1)


def _histograms(images: Tensor) -> Tensor:
    """Count each value, (B, C, 256) int32; unlike `bincount`, without waiting for the device."""
    batch, channels = images.shape[:2]
    counts = torch.zeros(batch * channels * 256, dtype=torch.int32, device=images.device)
    indices = _table_indices(images)
    return counts.index_add_(0, indices, torch.ones_like(indices)).view(batch, channels, 256)
