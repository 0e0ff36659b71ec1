"""Operations on values: tables of 256 entries per sample and channel with one look-up for all, and Color.

Source: PBA, Ho et al. 2019, https://arxiv.org/abs/1905.05393. Parity: Pillow's `ImageOps` (posterize,
solarize, autocontrast, equalize, invert) and `ImageEnhance` (Brightness, Contrast, Color) on L and RGB
images, byte for byte.
Letters: B samples, C channels, H rows, W columns; a level L is in 0…9.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TypeAlias

import torch
from torch import Tensor

SharedTable: TypeAlias = Callable[[Tensor], Tensor]
"""levels (B,) → tables (B, 256) uint8, the same for all images and channels."""

OwnTable: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""(images (B, C, H, W), levels (B,)) → tables (B, C, 256) uint8."""


def posterize(levels: Tensor) -> Tensor:
    """Keep the 4 - int(0.4·L) highest bits: 4 at level 0, so it is not the identity, and 1 at levels 8, 9."""
    bits = 4 - levels * 4 // 10
    step = 2 ** (8 - bits).unsqueeze(1)
    return (_values(levels) // step * step).to(torch.uint8)


def solarize(levels: Tensor) -> Tensor:
    """Invert the values from 256 - int(25.6·L) up: none at level 0."""
    threshold = (256 - levels * 256 // 10).unsqueeze(1)
    values = _values(levels)
    return torch.where(values < threshold, values, 255 - values).to(torch.uint8)


def invert(levels: Tensor) -> Tensor:
    """255 - value; the level has no meaning."""
    return (255 - _values(levels)).to(torch.uint8).expand(len(levels), 256)


def brightness(levels: Tensor) -> Tensor:
    """Blend black with the image by 0.1 + 0.18·L: identity at level 5, and not at level 0."""
    values = _values(levels).float()
    return blend(torch.zeros_like(values), values, factors(levels).unsqueeze(1))


def contrast(images: Tensor, levels: Tensor) -> Tensor:
    """Blend the mean gray with the image by 0.1 + 0.18·L: identity at level 5, and not at level 0."""
    pixels = images.shape[-2] * images.shape[-1]
    # int(mean + 0.5) without leaving the integers
    mean = (2 * gray(images).sum(dim=(1, 2, 3)) + pixels) // (2 * pixels)
    values = _values(images).float()
    table = blend(mean.float().unsqueeze(1), values, factors(levels).unsqueeze(1))
    return table.unsqueeze(1).expand(-1, images.shape[1], -1)


def auto_contrast(images: Tensor, levels: Tensor) -> Tensor:
    """Stretch each channel to 0…255, identity where it is constant; the level has no meaning."""
    low, high = (side.double().unsqueeze(2) for side in (images.amin(dim=(2, 3)), images.amax(dim=(2, 3))))
    # Not `255.0 / span`: torch makes that 255 times a reciprocal, which differs from Pillow by one level.
    scale = torch.div(torch.full_like(low, 255.0), (high - low).clamp(min=1))
    values = _values(images)
    stretched = (values * scale + -low * scale).clamp(0, 255)
    return torch.where(high > low, stretched, values).to(torch.uint8)


def equalize(images: Tensor, levels: Tensor) -> Tensor:
    """Flatten each channel's histogram; the level has no meaning.

    Identity where Pillow's step is 0: where under 255 pixels have another value than the channel's highest,
    so on a constant channel and on any image of under 256 pixels.
    """
    counts = _histograms(images)
    highest = counts.gather(2, images.amax(dim=(2, 3)).long().unsqueeze(2))
    step = (images.shape[-2] * images.shape[-1] - highest) // 255
    below = counts.cumsum(2, dtype=torch.int32) - counts
    flat = ((step // 2 + below) // step.clamp(min=1)).clamp(max=255)
    return torch.where(step > 0, flat, _values(images)).to(torch.uint8)


SHARED_TABLES: Mapping[str, SharedTable] = MappingProxyType(
    {"Brightness": brightness, "Invert": invert, "Posterize": posterize, "Solarize": solarize}
)

OWN_TABLES: Mapping[str, OwnTable] = MappingProxyType(
    {"AutoContrast": auto_contrast, "Contrast": contrast, "Equalize": equalize}
)


def look_up(images: Tensor, tables: Tensor) -> Tensor:
    """Replace each value by its entry in its own table.

    Args:
        images: (B, C, H, W) uint8.
        tables: (B, C, 256) uint8.

    Returns:
        (B, C, H, W) uint8, a new tensor.
    """
    return tables.reshape(-1).index_select(0, _slots(images)).view(images.shape)


def color(images: Tensor, levels: Tensor) -> Tensor:
    """Blend the gray image with the image by 0.1 + 0.18·L: identity at level 5, and not at level 0.

    A gray image (C = 1) is its own gray image, so there Color is the identity at every level.

    Args:
        images: (B, C, H, W) uint8.
        levels: (B,) in 0…9.

    Returns:
        (B, C, H, W) uint8, a new tensor.
    """
    if images.shape[1] == 1:
        return images.clone()
    return blend(gray(images).float(), images.float(), factors(levels).view(-1, 1, 1, 1))


def factors(levels: Tensor) -> Tensor:
    """The enhancers' factor 0.1 + 0.18·L, (B,) float32, in PBA's order of operations."""
    return (levels.double() * 1.8 / 10 + 0.1).float()


def blend(under: Tensor, over: Tensor, factor: Tensor) -> Tensor:
    """`under + factor · (over - under)`, truncated to uint8, as Pillow's `Image.blend`.

    All float32, and rounded three times: a fused multiply-add, as `torch.lerp` or a compiler may use, gives
    other bytes. (So would a Pillow compiled to fuse: parity is with its x86-64 build.)
    """
    return (under + factor * (over - under)).clamp(0, 255).to(torch.uint8)


def gray(images: Tensor) -> Tensor:
    """The luma (B, 1, H, W) int32 of Pillow's `convert("L")`: ITU-R 601 weights in 16 bits, rounded."""
    if images.shape[1] == 1:
        return images.int()
    red, green, blue = images.int().unbind(1)
    return ((19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16).unsqueeze(1)


def _values(beside: Tensor) -> Tensor:
    """0…255, (256,) int32, on the device of `beside`."""
    return torch.arange(256, dtype=torch.int32, device=beside.device)


def _slots(images: Tensor) -> Tensor:
    """For each pixel the place of its value's entry among all B·C tables, (B·C·H·W,) int32."""
    planes = torch.arange(images.shape[0] * images.shape[1], dtype=torch.int32, device=images.device) * 256
    return (images.int() + planes.view(*images.shape[:2], 1, 1)).reshape(-1)


def _histograms(images: Tensor) -> Tensor:
    """How often each value occurs, (B, C, 256) int32; unlike `bincount`, without waiting for the device."""
    batch, channels = images.shape[:2]
    counts = torch.zeros(batch * channels * 256, dtype=torch.int32, device=images.device)
    slots = _slots(images)
    return counts.index_add_(0, slots, torch.ones_like(slots)).view(batch, channels, 256)
