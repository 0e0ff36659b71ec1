"""Mixup and CutMix: two images in one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from spaces.augmentations.base import Answers, Augmentation, View, check_range, draws
from spaces.augmentors.pairing import partners


@dataclass(frozen=True)
class _Mix(Augmentation):
    """Each image with a partner from the same batch, never with itself.

    Args:
        draw: `batch`: one λ, and for CutMix one box, for the whole batch, as the papers' code has it.
        alpha: λ ~ Beta(α, α), α in [0.001, 100].
    """

    alpha: float = 1.0

    def __post_init__(self) -> None:
        """Refuse an alpha out of range."""
        super().__post_init__()
        object.__setattr__(self, "alpha", check_range(f"{self.kind}'s alpha", self.alpha, 1e-3, 100))

    def _shares(self, batch: int, generator: torch.Generator) -> Tensor:
        """λ for each image, (B,) float32."""
        seed = int(torch.randint(2**62, (), generator=generator))  # torch's own Beta takes no generator
        drawn = np.random.default_rng(seed).beta(self.alpha, self.alpha, draws(self.draw, batch))
        return torch.from_numpy(drawn).float().expand(batch)


@dataclass(frozen=True)
class Mixup(_Mix):
    """λ·image + (1 − λ)·partner, rounded to bytes. Zhang et al. 2017, https://arxiv.org/abs/1710.09412."""

    kind: ClassVar[str] = "mixup"

    def __call__(
        self, images: Tensor, fill: Sequence[int], generator: torch.Generator, answers: Answers | None = None
    ) -> View:
        """Mix each image with its partner; at least two images."""
        rows, partner = torch.arange(len(images)), partners(len(images), generator)
        share = self._shares(len(images), generator)
        weight, other = share.to(images.device), partner.to(images.device)
        factor = weight.view(-1, 1, 1, 1)
        mixed = factor * images.float() + (1 - factor) * images[other].float()
        return View(mixed.round().to(torch.uint8), rows.to(images.device), other, weight)


@dataclass(frozen=True)
class CutMix(_Mix):
    """A box of the partner stands in the image. Yun et al. 2019, https://arxiv.org/abs/1905.04899.

    The box has the sides √(1 − λ) of the image's and its center anywhere in it. What of it lies outside is clipped, and
    λ is then the share that is left of the image, exactly.
    """

    kind: ClassVar[str] = "cutmix"

    def __call__(
        self, images: Tensor, fill: Sequence[int], generator: torch.Generator, answers: Answers | None = None
    ) -> View:
        """Mix each image with its partner; at least two images."""
        batch, _, height, width = images.shape
        rows, partner = torch.arange(batch), partners(batch, generator)
        side = (1 - self._shares(batch, generator)).sqrt()
        center = torch.rand(2, draws(self.draw, batch), generator=generator).expand(2, batch)
        across, down = (_span(side, at, length) for at, length in ((center[0], width), (center[1], height)))
        boxed = (down.unsqueeze(2) & across.unsqueeze(1)).to(images.device)
        other = partner.to(images.device)
        mixed = torch.where(boxed.unsqueeze(1), images[other], images)
        weight = 1 - (down.sum(1) * across.sum(1)).float() / (height * width)
        return View(mixed, rows.to(images.device), other, weight.to(images.device))


def _span(side: Tensor, center: Tensor, length: int) -> Tensor:
    """Which of `length` columns (or rows) each box covers, (B, length) bool, as in the authors' code."""
    half = (side * length).long() // 2
    middle = (center * length).long()
    pixels = torch.arange(length)
    return (pixels >= (middle - half).unsqueeze(1)) & (pixels < (middle + half).unsqueeze(1))
