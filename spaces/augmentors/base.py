"""What an augmentor is: a module with learnable parameters that changes images differentiably."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Drawn:
    """What an augmentor made of a batch.

    Letters: B images, P parameters.

    Args:
        images: (B, C, H, W) floating point in [0, 1].
        entropy: (), nats: of what was drawn, at most 0, which is at its widest (for a VAE: as wide as the VAE itself).
        parameters: (B, P) in [-1, 1]: what was drawn, as shares of the bounds; no gradient is wanted.
        partner: (B,) int64, which other image is mixed in; None: nothing is mixed.
        weight: (B,) in [0, 1], the image's own share of the mix; None: nothing is mixed.
    """

    images: Tensor
    entropy: Tensor
    parameters: Tensor
    partner: Tensor | None = None
    weight: Tensor | None = None


class Augmentor(nn.Module, ABC):
    """g_φ of HARD (Nix, Burg, Sinz 2023, https://arxiv.org/abs/2305.14890): a learned change of images.

    Its bounds hold whatever its parameters are, and its gradient reaches them through the images.

    Attributes:
        names: of the P parameters that it draws for each image, for tables and plots.
    """

    names: tuple[str, ...]

    @abstractmethod
    def forward(self, images: Tensor, fill: Tensor, generator: torch.Generator) -> Drawn:
        """Change a batch.

        Args:
            images: (B, C, H, W) float32 in [0, 1]; left as they are.
            fill: the color of what has no pixels, (C,) in [0, 1].
            generator: of all random numbers, on the CPU.
        """

    def learnable(self) -> dict[str, Tensor]:
        """What is learned, by name: all of the state but what came ready-made."""
        return {name: value.detach().clone() for name, value in self.state_dict().items()}
