"""A multilayer perceptron."""

from __future__ import annotations

from torch import nn


def mlp(*, classes: int, channels: int, size: int, width: int = 128) -> nn.Module:
    """Build two hidden layers of `width` with batch normalization: (B, channels, size, size) → (B, classes).

    Example:
        >>> import torch
        >>> tuple(mlp(classes=3, channels=1, size=8)(torch.zeros(2, 1, 8, 8)).shape)
        (2, 3)
    """
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(channels * size * size, width),
        nn.BatchNorm1d(width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.BatchNorm1d(width),
        nn.ReLU(),
        nn.Linear(width, classes),
    )
