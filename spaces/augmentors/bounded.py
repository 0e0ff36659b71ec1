"""Bounded random numbers with learned location and spread."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MIN_SPREAD = 1e-3
"""Lower bound of the spread, which keeps its logarithm finite."""


class BoundedNormal(nn.Module):
    """P random numbers per image, tanh(μ + softplus(ρ)·ε) with ε ~ N(0, 1), thus in [-1, 1].

    Args:
        count: Number P.
        channels: Channels of the images that μ and ρ depend on, by a small network whose output is initially 0; None
            for μ and ρ that are the same for all images.
        start: Initial tanh(μ), in (-1, 1).
        spread: Initial softplus(ρ).
    """

    def __init__(self, count: int, *, channels: int | None = None, start: float = 0.0, spread: float = 0.1) -> None:
        super().__init__()
        self.location = nn.Parameter(torch.full((count,), math.atanh(start)))
        self.scale = nn.Parameter(torch.full((count,), math.log(math.expm1(spread))))
        self.network = None if channels is None else _network(channels, 2 * count)

    def forward(self, images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Sample the numbers (B, P).

        Returns:
            The numbers, and the entropy of their distribution in nats: summed over the P numbers, averaged over the
            images, 0 for the uniform distribution on [-1, 1] and negative otherwise.
        """
        location, scale = self.location, self.scale
        if self.network is not None:
            location_shift, scale_shift = self.network(images - 0.5).chunk(2, dim=1)
            location, scale = location + location_shift, scale + scale_shift
        spread = F.softplus(scale) + MIN_SPREAD
        noise = torch.randn(len(images), len(self.location), generator=generator).to(images.device)
        drawn = location + spread * noise
        # log(1 - tanh²) without cancellation, plus the entropy of the normal, minus that of the uniform, log 2.
        log_slope = 2 * (math.log(2) - drawn - F.softplus(-2 * drawn))
        entropy = spread.log() + log_slope + 0.5 * math.log(2 * math.pi * math.e) - math.log(2)
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
        nn.AdaptiveAvgPool2d(2),  # keeps coarse positions
        nn.Conv2d(32, 32, 2),
        nn.ReLU(),
        nn.Flatten(),
        last,
    )
