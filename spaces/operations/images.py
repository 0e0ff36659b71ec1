"""Checks of image batches: uint8, or floating point in [0, 1] that stands for the bytes it rounds to."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from spaces.core.errors import RequestError


def check_images(images: Tensor, channels: int | None = None) -> None:
    """Refuse images that no operation can process.

    Args:
        images: Object to check.
        channels: Expected C; None for 1 or 3.

    Raises:
        RequestError: `images` is not a uint8 or floating-point tensor (B, C, H, W) with C = 1 or 3, or is empty.
    """
    if not isinstance(images, Tensor):
        raise RequestError("images must be a tensor of shape (B, C, H, W)", value=type(images).__name__)
    if images.dtype != torch.uint8 and not images.is_floating_point():
        raise RequestError("images must be uint8, or floating point in [0, 1]", value=str(images.dtype))
    if images.ndim != 4:
        raise RequestError("images must have the shape (B, C, H, W)", value=tuple(images.shape))
    if images.shape[1] not in (1, 3):
        raise RequestError("images must have 1 (gray) or 3 (RGB) channels", value=tuple(images.shape))
    if channels is not None and images.shape[1] != channels:
        raise RequestError(f"images must have {channels} channels", value=tuple(images.shape))
    if images.numel() == 0:
        raise RequestError("a batch must hold at least one image of at least one pixel", value=tuple(images.shape))


def on_bytes(change: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Call `change`, a function from uint8 images to uint8 images, on uint8 or floating-point images.

    Floating-point images are rounded to bytes, changed, and divided by 255 in their own dtype. Images that came from
    bytes lose nothing, others at most half a level (1/510). There is no gradient.

    Raises:
        RequestError: A pixel is NaN or outside [0, 1]. Not raised on a GPU, where the host would wait for the check:
            there pixels are clamped, and NaN counts as 0.
    """
    if images.dtype == torch.uint8:
        return change(images)
    check_pixel_range(images)
    wide = images.detach().float()
    levels = (wide.nan_to_num(0.0).clamp(0, 1) * 255).round()
    return (change(levels.to(torch.uint8)).float() / 255).to(images.dtype)


def check_pixel_range(images: Tensor) -> None:
    """Refuse floating-point images with a pixel that is NaN or outside [0, 1]; do nothing on a GPU.

    Raises:
        RequestError: A pixel is out of range.
    """
    if images.dtype == torch.uint8 or images.is_cuda:
        return
    low, high = (float(value) for value in images.detach().float().aminmax())
    if not (low >= 0 and high <= 1):
        hint = "augment before normalizing"
        raise RequestError("floating-point images must lie in [0, 1]", value=f"{low:g} to {high:g}", hint=hint)
