"""What the convolutional networks are built of."""

from __future__ import annotations

import math

from torch import nn


def convolution(
    inputs: int, outputs: int, kernel: int = 1, *, stride: int = 1, groups: int = 1, relu: bool = True
) -> tuple[nn.Module, ...]:
    """A convolution that keeps H and W but for its stride, batch normalization and, with `relu`, the activation."""
    layers: tuple[nn.Module, ...] = (
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    )
    return (*layers, nn.ReLU(inplace=True)) if relu else layers


def start_as_he(network: nn.Module) -> None:
    """Draw the weights of every convolution as He et al. do (https://arxiv.org/abs/1502.01852); biases are zero.

    Their deviation is √(2 / n), n the number of outputs that one input goes into: in a convolution of groups, those of
    its own group only.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            if module.groups == 1:
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            else:
                outputs = module.weight[:, 0].numel() / module.groups
                nn.init.normal_(module.weight, std=math.sqrt(2 / outputs))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
