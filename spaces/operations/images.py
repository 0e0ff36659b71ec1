"""What an image is: uint8 in 0…255, or floating point in [0, 1], which stands for the uint8 image that it rounds to."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from spaces.core.errors import RequestError


def check_images(images: Tensor, channels: int | None = None) -> None:
    """Refuse what no operation can work on.

    Args:
        images: anything.
        channels: C, where it is known.

    Raises:
        RequestError: neither uint8 nor floating point, not of shape (B, C, H, W), C neither 1 nor 3, or no image or
            no pixel in it.
    """
    if not isinstance(images, Tensor):
        raise RequestError("images are a tensor of shape (B, C, H, W)", value=type(images).__name__)
    if images.dtype != torch.uint8 and not images.is_floating_point():
        raise RequestError("images are uint8, or floating point in [0, 1]", value=str(images.dtype))
    if images.ndim != 4:
        raise RequestError("images must have the shape (B, C, H, W)", value=tuple(images.shape))
    if images.shape[1] not in (1, 3):
        raise RequestError("images must have 1 (gray) or 3 (RGB) channels", value=tuple(images.shape))
    if channels is not None and images.shape[1] != channels:
        raise RequestError(f"images of {channels} channels are expected", value=tuple(images.shape))
    if images.numel() == 0:
        raise RequestError("a batch must hold at least one image of one pixel", value=tuple(images.shape))


def on_bytes(change: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """`change`, which takes and gives uint8 images, on images of either kind.

    Floating-point images are rounded to bytes, changed, and divided by 255 in their own dtype, so nothing is lost on
    images that came from bytes, and at most half a level (1/510) on others. They are not differentiated through.

    Raises:
        RequestError: a pixel is NaN or outside [0, 1]. On a GPU the host would have to wait for the answer, so there
            such pixels are clamped, and NaN counts as 0.
    """
    if images.dtype == torch.uint8:
        return change(images)
    check_range(images)
    wide = images.detach().float()
    levels = (wide.nan_to_num(0.0).clamp(0, 1) * 255).round()
    return (change(levels.to(torch.uint8)).float() / 255).to(images.dtype)


def check_range(images: Tensor) -> None:
    """Refuse floating-point images with a pixel that is NaN or outside [0, 1]; on a GPU nothing is looked at.

    Raises:
        RequestError: as said.
    """
    if images.dtype == torch.uint8 or images.is_cuda:
        return
    low, high = (float(value) for value in images.detach().float().aminmax())
    if not (low >= 0 and high <= 1):
        hint = "augment before normalizing"
        raise RequestError("floating-point images lie in [0, 1]", value=f"{low:g} to {high:g}", hint=hint)
