"""How a batch is augmented fast: a native kernel on the CPU, a dense plan everywhere else, the same bytes.

What an operation means is said once, in `spaces.operations`; the engine holds no meaning of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, lru_cache
from types import ModuleType

import torch
from torch import Tensor

from spaces.core.errors import RequestError
from spaces.engine import dense
from spaces.operations.images import check_images, on_bytes
from spaces.policy.sampling import Parameters

__all__ = ["apply", "crop"]


def apply(images: Tensor, parameters: Parameters, fill: Sequence[int]) -> Tensor:
    """Change images (B, C, H, W) as `parameters` say; the same parameters give the same bytes on every device.

    On a GPU the host waits for nothing.

    Args:
        images: uint8, or floating point in [0, 1], which stands for the bytes it rounds to; left as they are.
        parameters: for exactly B images.
        fill: the color of uncovered pixels, C numbers from 0 to 255.

    Returns:
        (B, C, H, W), a new tensor of the same dtype on the same device.

    Raises:
        RequestError: the images are no batch, the parameters are for another number of images or, on a CPU, out of
            range, or the color is none.
    """
    check_images(images)
    parameters.check(len(images))
    color = _color(tuple(fill), images.shape[1], images.device)
    here = parameters.to(images.device)
    path = _path(images.device)
    return on_bytes(lambda pixels: path.apply(pixels, here, color), images)


def crop(images: Tensor, top: Tensor, left: Tensor, mirrored: Tensor, fill: Sequence[int]) -> Tensor:
    """Read uint8 images (B, C, H, W) from `top` rows further down and `left` columns further right; mirror some.

    Args:
        images: left as they are.
        top: (B,) int64, pixels; negative is further up.
        left: (B,) int64, pixels.
        mirrored: (B,) bool.
        fill: the color of what lies outside, C numbers from 0 to 255.
    """
    device = images.device
    parts = (part.to(device, non_blocking=True) for part in (top, left, mirrored))
    result: Tensor = _path(device).crop(images, *parts, _color(tuple(fill), images.shape[1], device))
    return result


@lru_cache(maxsize=64)
def _color(fill: tuple[int, ...], channels: int, device: torch.device) -> Tensor:
    if len(fill) != channels or not all(0 <= value <= 255 for value in fill):
        raise RequestError(f"a fill color is {channels} numbers from 0 to 255", value=list(fill))
    return torch.tensor(fill, dtype=torch.uint8).to(device, non_blocking=True)


def _path(device: torch.device) -> ModuleType:
    return _on_cpu() if device.type == "cpu" else dense


@cache
def _on_cpu() -> ModuleType:
    """The kernel, imported when a batch first needs it: what only reads schedules does without a compiler."""
    try:
        from spaces.engine import cpu
    except ImportError:  # a machine without numba: the dense plan gives the same bytes, slower
        return dense
    return cpu
