"""Choice of the backend by device: compiled kernels on the CPU, dense PyTorch elsewhere.

Both give the same bytes. The operations are defined in `spaces.operations`; the engine takes its constants from there.
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
    """Apply sampled operations to a batch; the same parameters give the same bytes on every device.

    On a GPU the host does not wait for the device.

    Args:
        images: Images (B, C, H, W), uint8, or floating point in [0, 1], rounded to bytes. Never modified.
        parameters: Parameters for B images, from `sample`.
        fill: Color of uncovered pixels, C integers from 0 to 255.

    Returns:
        New images (B, C, H, W) of the same dtype on the same device.

    Raises:
        RequestError: `images` is not a batch, the parameters are for another number of images or, on a CPU, out of
            range, or the color is invalid.

    Example:
        >>> import torch
        >>> from spaces import Entry, Policy, apply, sample
        >>> images = torch.zeros(4, 3, 8, 8, dtype=torch.uint8)
        >>> parameters = sample(Policy((Entry("Invert", 10, 0),)), 4, torch.Generator().manual_seed(0))
        >>> apply(images, parameters, fill=(0, 0, 0)).shape
        torch.Size([4, 3, 8, 8])
    """
    check_images(images)
    parameters.check(len(images))
    color = _color(tuple(fill), images.shape[1], images.device)
    parameters = parameters.to(images.device)
    backend = _backend(images.device)
    return on_bytes(lambda pixels: backend.apply(pixels, parameters, color), images)


def crop(images: Tensor, top: Tensor, left: Tensor, mirrored: Tensor, fill: Sequence[int]) -> Tensor:
    """Shift uint8 images (B, C, H, W) by whole pixels, then mirror some of them.

    Args:
        images: Images. Never modified.
        top: Rows to shift up by, (B,) int64; negative values shift down.
        left: Columns to shift left by, (B,) int64; negative values shift right.
        mirrored: Images to mirror, (B,) bool.
        fill: Color of uncovered pixels, C integers from 0 to 255.

    Returns:
        New images (B, C, H, W), uint8.

    Example:
        >>> import torch
        >>> from spaces.engine import crop
        >>> images = torch.tensor([[[[1, 2, 3]]]], dtype=torch.uint8)
        >>> zero, one = torch.tensor([0]), torch.tensor([1])
        >>> crop(images, zero, one, torch.tensor([False]), fill=(9,)).tolist()
        [[[[2, 3, 9]]]]
    """
    device = images.device
    parts = (part.to(device, non_blocking=True) for part in (top, left, mirrored))
    result: Tensor = _backend(device).crop(images, *parts, _color(tuple(fill), images.shape[1], device))
    return result


@lru_cache(maxsize=64)
def _color(fill: tuple[int, ...], channels: int, device: torch.device) -> Tensor:
    if len(fill) != channels or not all(0 <= value <= 255 for value in fill):
        raise RequestError(f"a fill color must have {channels} numbers from 0 to 255", value=list(fill))
    return torch.tensor(fill, dtype=torch.uint8).to(device, non_blocking=True)


def _backend(device: torch.device) -> ModuleType:
    return _cpu_backend() if device.type == "cpu" else dense


@cache
def _cpu_backend() -> ModuleType:
    """Return the compiled backend, imported by the first batch: programs that only read schedules skip numba."""
    try:
        from spaces.engine import cpu
    except ImportError:  # without numba the dense backend gives the same bytes, slower
        return dense
    return cpu
