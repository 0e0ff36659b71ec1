"""A trained network that needs to know nothing of how it was trained: images in, logits out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from trainables.quantization import FULL, Bits, quantize
from trainables.task import Task


class Portable(nn.Module):
    """float32 images (B, C, H, W) in [0, 1] → logits (B, classes), the data's normalization inside.

    Args:
        network: in evaluation mode from here on, without gradients.
        mean: of the data it was trained on, by channel.
        std: its deviation.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        """Take the network over."""
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of a batch."""
        logits: Tensor = self.network((images - self.mean) / self.std)
        return logits


def portable(task: Task, weights: Mapping[str, Tensor]) -> Portable:
    """The network of `task` with a learner's `weights`: low-bit ones at their levels, low-bit activations at theirs."""
    network = replace(task, bits=Bits()).network(task.exported(weights))
    return Portable(quantize(network, Bits(FULL, task.bits.activations)), task.data.mean, task.data.std)
