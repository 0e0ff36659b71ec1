"""A small convolutional network."""

from __future__ import annotations

from torch import nn


def cnn(*, classes: int, channels: int, size: int, width: int = 16) -> nn.Module:  # noqa: ARG001 - the common signature
    """Build three 3×3 convolutions of `width`, 2·`width` and 4·`width` channels, global pooling and one linear layer.

    (B, channels, size, size) → (B, classes), for any size >= 4.

    Example:
        >>> import torch
        >>> tuple(cnn(classes=3, channels=1, size=8)(torch.zeros(2, 1, 8, 8)).shape)
        (2, 3)
    """
    return nn.Sequential(
        *_block(channels, width, stride=1),
        *_block(width, 2 * width, stride=2),
        *_block(2 * width, 4 * width, stride=2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4 * width, classes),
    )


def _block(inputs: int, outputs: int, stride: int) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
    return convolution, nn.BatchNorm2d(outputs), nn.ReLU()
