"""Mixup and CutMix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from spaces.augmentations.base import Augmentation, Predict, View, draw_count
from spaces.augmentors.pairing import random_partners
from spaces.core.validation import check_number


@dataclass(frozen=True)
class _Mix(Augmentation):
    """Mix of each image with another one of the batch.

    Args:
        draw: `sample` for λ per image; `batch` for one λ, and one box, per batch, as in the papers' code.
        alpha: α of λ ~ Beta(α, α), 0.001 to 100.
    """

    alpha: float = 1.0

    def __post_init__(self) -> None:
        """Check the parameters."""
        super().__post_init__()
        object.__setattr__(self, "alpha", check_number(f"{self.kind} alpha", self.alpha, 1e-3, 100))

    def _weights(self, batch: int, generator: torch.Generator) -> Tensor:
        """Draw λ for each image, (B,) float32."""
        seed = int(torch.randint(2**62, (), generator=generator))  # torch's Beta takes no generator
        drawn = np.random.default_rng(seed).beta(self.alpha, self.alpha, draw_count(self.draw, batch))
        return torch.from_numpy(drawn).float().expand(batch)


@dataclass(frozen=True)
class Mixup(_Mix):
    """Mixup, λ·image + (1 - λ)·partner, rounded to bytes (Zhang et al. 2017, https://arxiv.org/abs/1710.09412).

    Args:
        draw: `sample` for λ per image, `batch` for one λ per batch, as in the paper's code.
        alpha: α of λ ~ Beta(α, α), 0.001 to 100.

    Example:
        >>> import torch
        >>> from spaces.augmentations import Mixup
        >>> images = torch.zeros(4, 1, 8, 8, dtype=torch.uint8)
        >>> view = Mixup()(images, fill=(0,), generator=torch.Generator().manual_seed(0))
        >>> view.second.shape, view.weight.shape
        (torch.Size([4]), torch.Size([4]))
    """

    kind: ClassVar[str] = "mixup"

    def __call__(
        self, images: Tensor, fill: Sequence[int], generator: torch.Generator, predict: Predict | None = None
    ) -> View:
        """Mix each image with its partner; the batch must hold at least two images."""
        rows, partner = torch.arange(len(images)), random_partners(len(images), generator)
        weights = self._weights(len(images), generator)
        weight, other = weights.to(images.device), partner.to(images.device)
        factor = weight.view(-1, 1, 1, 1)
        mixed = factor * images.float() + (1 - factor) * images[other].float()
        return View(mixed.round().to(torch.uint8), rows.to(images.device), other, weight)


@dataclass(frozen=True)
class CutMix(_Mix):
    """CutMix, a box of the partner pasted into the image (Yun et al. 2019, https://arxiv.org/abs/1905.04899).

    The sides of the box are √(1 - λ) of the image's, and its center is uniform. The box is clipped to the image, and
    the weight of the view is the remaining fraction of the image.

    Args:
        draw: `sample` for λ and a box per image, `batch` for one of each per batch, as in the paper's code.
        alpha: α of λ ~ Beta(α, α), 0.001 to 100.

    Example:
        >>> import torch
        >>> from spaces.augmentations import CutMix
        >>> images = torch.zeros(4, 1, 8, 8, dtype=torch.uint8)
        >>> view = CutMix()(images, fill=(0,), generator=torch.Generator().manual_seed(0))
        >>> view.second.shape, view.weight.shape
        (torch.Size([4]), torch.Size([4]))
    """

    kind: ClassVar[str] = "cutmix"

    def __call__(
        self, images: Tensor, fill: Sequence[int], generator: torch.Generator, predict: Predict | None = None
    ) -> View:
        """Mix each image with its partner; the batch must hold at least two images."""
        batch, _, height, width = images.shape
        rows, partner = torch.arange(batch), random_partners(batch, generator)
        side = (1 - self._weights(batch, generator)).sqrt()
        center = torch.rand(2, draw_count(self.draw, batch), generator=generator).expand(2, batch)
        across, down = (_span(side, at, length) for at, length in ((center[0], width), (center[1], height)))
        boxed = (down.unsqueeze(2) & across.unsqueeze(1)).to(images.device)
        other = partner.to(images.device)
        mixed = torch.where(boxed.unsqueeze(1), images[other], images)
        weight = 1 - (down.sum(1) * across.sum(1)).float() / (height * width)
        return View(mixed, rows.to(images.device), other, weight.to(images.device))


def _span(side: Tensor, center: Tensor, length: int) -> Tensor:
    """Return the mask (B, length) of the columns (or rows) that each box covers, as in the authors' code."""
    half = (side * length).long() // 2
    middle = (center * length).long()
    pixels = torch.arange(length)
    return (pixels >= (middle - half).unsqueeze(1)) & (pixels < (middle + half).unsqueeze(1))
