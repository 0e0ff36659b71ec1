"""The memory format of a network's images and convolution weights."""

from __future__ import annotations

import warnings
from copy import deepcopy
from typing import TypeVar

import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)


def on_device(
    model: M, device: torch.device | str, channels_last: bool | None, shape: tuple[int, int, int]
) -> tuple[M, bool]:
    """Move `model` to `device` and its weights to the wanted memory format.

    Args:
        model: Network that takes (B, C, H, W) float images.
        device: Target device.
        channels_last: Use channels-last; None to use it where `suits_channels_last` returns True.
        shape: Shape (C, H, W) of an image.

    Returns:
        `model`, and True if it is in channels-last format, in which its images should be given too.
    """
    model = model.to(device)
    if channels_last is None:
        channels_last = suits_channels_last(model, shape)
    return (model.to(memory_format=torch.channels_last) if channels_last else model), channels_last


def suits_channels_last(model: nn.Module, shape: tuple[int, int, int]) -> bool:
    """Return True if `model` has 2-d convolutions and accepts images in channels-last format.

    Such networks train in 0.8 to 0.9 of the time (benchmarks/training/step.py). A network that calls `Tensor.view` on
    its feature maps may refuse the format, so a copy is tried in evaluation mode.

    Args:
        model: Network on its final device.
        shape: Shape (C, H, W) of an image.

    Example:
        >>> from torch import nn
        >>> suits_channels_last(nn.Conv2d(1, 2, 3), (1, 8, 8)), suits_channels_last(nn.Linear(8, 2), (1, 8, 8))
        (True, False)
    """
    if not any(isinstance(module, nn.Conv2d) for module in model.modules()):
        return False
    device = next(model.parameters()).device
    images = torch.zeros(2, *shape, device=device).to(memory_format=torch.channels_last)
    devices = [device] if device.type == "cuda" else []
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=devices), warnings.catch_warnings(action="ignore"):
            deepcopy(model).eval().to(memory_format=torch.channels_last)(images)
    except Exception:  # a user's own forward may raise anything
        return False
    return True
