"""Building blocks of the convolutional networks."""

from __future__ import annotations

import math

from torch import nn


def convolution(
    inputs: int, outputs: int, kernel: int = 1, *, stride: int = 1, groups: int = 1, relu: bool = True
) -> tuple[nn.Module, ...]:
    """Return a convolution with `same` padding, batch normalization and, with `relu`, a ReLU."""
    layers: tuple[nn.Module, ...] = (
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    )
    return (*layers, nn.ReLU(inplace=True)) if relu else layers


def init_he(network: nn.Module) -> None:
    """Draw the weights of every convolution by He initialization (https://arxiv.org/abs/1502.01852); zero its biases.

    The standard deviation is √(2 / n), where n is the number of outputs that one input enters; in a grouped
    convolution, of its own group only.
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
