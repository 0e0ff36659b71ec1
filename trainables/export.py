"""Export of a trained network with its normalization inside: images in, logits out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from trainables.quantization import FULL, Bits, quantize
from trainables.task import Task


class ExportedClassifier(nn.Module):
    """A classifier of float32 images (B, C, H, W) in [0, 1] that normalizes them itself and returns logits (B, K).

    Args:
        network: Trained network; set to evaluation mode, without gradients.
        mean: Mean of each channel of the training images.
        std: Standard deviation of each channel.

    Example:
        >>> network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
        >>> classifier = ExportedClassifier(network, mean=(0.5,), std=(0.25,))
        >>> tuple(classifier(torch.rand(2, 1, 2, 2)).shape)
        (2, 3)
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
        """Return the logits of a batch."""
        logits: Tensor = self.network((images - self.mean) / self.std)
        return logits


def export_classifier(task: Task, weights: Mapping[str, Tensor]) -> ExportedClassifier:
    """Build the exported network of `task`, with quantized weights and activations where its bits say so.

    Args:
        task: Task of the learner.
        weights: The learner's weights, `state_dict()["model"]`.
    """
    network = replace(task, bits=Bits()).network(task.exported_weights(weights))
    return ExportedClassifier(quantize(network, Bits(FULL, task.bits.activations)), task.data.mean, task.data.std)
