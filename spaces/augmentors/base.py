"""Base class of augmentors: modules with learnable parameters that change images differentiably."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class AugmentorOutput:
    """Output of an augmentor for one batch.

    Letters: B images, P parameters.

    Args:
        images: Augmented images (B, C, H, W), floating point in [0, 1].
        entropy: Entropy of the sampling distribution in nats, (); 0 is the maximum, the uniform distribution within
            the bounds (for a VAE, its own posterior).
        parameters: Sampled parameters (B, P), as fractions of the bounds in [-1, 1]; detached.
        partner: Index (B,) int64 of the image that is mixed in; None if nothing is mixed.
        weight: Weight (B,) in [0, 1] of the first image of the mix; None if nothing is mixed.
    """

    images: Tensor
    entropy: Tensor
    parameters: Tensor
    partner: Tensor | None = None
    weight: Tensor | None = None


class Augmentor(nn.Module, ABC):
    """Augmentor g_φ of HARD (Nix, Burg, Sinz 2023, https://arxiv.org/abs/2305.14890).

    The bounds hold for all values of the parameters φ. Gradients flow from the images to φ.

    Attributes:
        names: Names of the P parameters per image, for tables and plots.
    """

    names: tuple[str, ...]

    @abstractmethod
    def forward(self, images: Tensor, fill: Tensor, generator: torch.Generator) -> AugmentorOutput:
        """Augment a batch.

        Args:
            images: Images (B, C, H, W), float32 in [0, 1]. Never modified.
            fill: Color of uncovered pixels (C,), in [0, 1].
            generator: Source of all random numbers, on the CPU.
        """

    def learnable(self) -> dict[str, Tensor]:
        """Return a copy of the learned tensors by name, without pretrained parts."""
        return {name: value.detach().clone() for name, value in self.state_dict().items()}
