"""A multilayer perceptron."""

from __future__ import annotations

from torch import nn


def mlp(*, classes: int, channels: int, size: int, width: int = 128) -> nn.Module:
    """Two hidden layers of `width` with batch normalization: (B, channels, size, size) → (B, classes)."""
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
