"""Random numbers with learned location and spread that never leave their bounds."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEAST_SPREAD = 1e-3
"""Below it a number is as good as fixed; the logarithm of the spread stays finite."""


class Bounded(nn.Module):
    """P numbers an image, tanh(μ + softplus(ρ)·ε) with ε ~ N(0, 1), so always in [-1, 1].

    Args:
        count: P.
        channels: of the images that μ and ρ depend on, through a small network that starts at nothing; None: they are
            the same for all images.
        start: tanh(μ) at the start, in (-1, 1).
        spread: softplus(ρ) at the start.
    """

    def __init__(self, count: int, *, channels: int | None = None, start: float = 0.0, spread: float = 0.1) -> None:
        """Start at `start` with `spread`; random weights are drawn only for a network's first layers."""
        super().__init__()
        self.location = nn.Parameter(torch.full((count,), math.atanh(start)))
        self.scale = nn.Parameter(torch.full((count,), math.log(math.expm1(spread))))
        self.network = None if channels is None else _network(channels, 2 * count)

    def forward(self, images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """The numbers, (B, P), and the entropy of their distribution.

        Returns:
            The entropy is one number, in nats: summed over the P numbers, averaged over the images, 0 if all of them
            were uniform over [-1, 1] and below 0 otherwise.
        """
        location, scale = self.location, self.scale
        if self.network is not None:
            moved, widened = self.network(images - 0.5).chunk(2, dim=1)
            location, scale = location + moved, scale + widened
        spread = F.softplus(scale) + LEAST_SPREAD
        noise = torch.randn(len(images), len(self.location), generator=generator).to(images.device)
        drawn = location + spread * noise
        # log(1 - tanh²) without the cancellation; the normal's own entropy; minus that of the uniform one, log 2.
        bent = 2 * (math.log(2) - drawn - F.softplus(-2 * drawn))
        entropy = spread.log() + bent + 0.5 * math.log(2 * math.pi * math.e) - math.log(2)
        return drawn.tanh(), entropy.sum(dim=-1).mean()


def _network(channels: int, outputs: int) -> nn.Module:
    last = nn.Linear(32, outputs)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(
        nn.Conv2d(channels, 16, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),  # where something is still counts
        nn.Conv2d(32, 32, 2),
        nn.ReLU(),
        nn.Flatten(),
        last,
    )
