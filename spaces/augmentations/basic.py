"""What every distillation begins with: nothing at all, flips, crops, Cutout, and a policy of ours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from spaces.augmentations.base import Answers, Augmentation, Draw, View, check_range, draws
from spaces.engine import apply, crop
from spaces.operations import OPERATIONS
from spaces.operations.cutout import square
from spaces.policy.policy import Entry, Policy
from spaces.policy.sampling import sample


@dataclass(frozen=True)
class Identity(Augmentation):
    """The images as they are."""

    kind: ClassVar[str] = "identity"

    draw: Draw = field(default="sample", compare=False)  # nothing is drawn, so all are equal

    def __call__(
        self, images: Tensor, fill: Sequence[int], generator: torch.Generator, answers: Answers | None = None
    ) -> View:
        """The same tensor."""
        return View.alone(images)


@dataclass(frozen=True)
class Flip(Augmentation):
    """Mirror half of the images."""

    kind: ClassVar[str] = "flip"

    def __call__(
        self, images: Tensor, fill: Sequence[int], generator: torch.Generator, answers: Answers | None = None
    ) -> View:
        """Mirror each image, or with `draw: batch` all of them, with probability ½."""
        mirrored = _coin(self.draw, len(images), generator)
        nowhere = torch.zeros(len(images), dtype=torch.int64)
        return View.alone(crop(images, nowhere, nowhere, mirrored, fill))


@dataclass(frozen=True)
class CropFlip(Augmentation):
    """Pad, crop back at random, mirror half of the images.

    Args:
        draw: as for every augmentation.
        padding: share of the image's sides, [0, 1]; 0.125 is the usual 4 pixels on 32.
    """

    kind: ClassVar[str] = "crop_flip"

    padding: float = 0.125

    def __post_init__(self) -> None:
        """Refuse a padding out of range."""
        super().__post_init__()
        object.__setattr__(self, "padding", check_range("crop_flip's padding", self.padding, 0, 1))

    def __call__(
        self, images: Tensor, fill: Sequence[int], generator: torch.Generator, answers: Answers | None = None
    ) -> View:
        """Move by up to `padding` either way, at least one pixel of room; then mirror with probability ½."""
        top, left = (self._offsets(side, len(images), generator) for side in images.shape[-2:])
        return View.alone(crop(images, top, left, _coin(self.draw, len(images), generator), fill))

    def _offsets(self, side: int, batch: int, generator: torch.Generator) -> Tensor:
        room = max(1, round(self.padding * side)) if self.padding else 0
        return torch.randint(-room, room + 1, (draws(self.draw, batch),), generator=generator).expand(batch)


@dataclass(frozen=True)
class Cutout(Augmentation):
    """Cover one square. DeVries and Taylor 2017, https://arxiv.org/abs/1708.04552.

    Args:
        draw: as for every augmentation.
        side: of the square, as a share of the image's smaller side, [0, 1]; ½ is the paper's 16 pixels on 32.
    """

    kind: ClassVar[str] = "cutout"

    side: float = 0.5

    def __post_init__(self) -> None:
        """Refuse a side out of range."""
        super().__post_init__()
        object.__setattr__(self, "side", check_range("cutout's side", self.side, 0, 1))

    def __call__(
        self, images: Tensor, fill: Sequence[int], generator: torch.Generator, answers: Answers | None = None
    ) -> View:
        """The center is anywhere in the image, so at the border less is covered, as in the paper."""
        batch, _, height, width = images.shape
        positions = torch.rand(draws(self.draw, batch), 2, generator=generator).expand(batch, 2)
        sides = torch.full((batch,), round(self.side * min(height, width)))
        covered = square(sides.to(images.device), positions.to(images.device), height, width)
        color = torch.tensor(fill, dtype=images.dtype, device=images.device).view(1, -1, 1, 1)
        return View.alone(torch.where(covered.unsqueeze(1), color, images))


def _mild() -> Policy:
    return Policy(tuple(Entry(op, 3, 4) for op in OPERATIONS))


@dataclass(frozen=True)
class PolicyAugmentation(Augmentation):
    """A policy of ours, such as one phase of a schedule that was found.

    Args:
        draw: as for every augmentation.
        policy: its entries; by default every operation with probability 0.3 at level 4 (our choice).
    """

    kind: ClassVar[str] = "policy"

    policy: Policy = field(default_factory=_mild)

    def __call__(
        self, images: Tensor, fill: Sequence[int], generator: torch.Generator, answers: Answers | None = None
    ) -> View:
        """PBA's walk over the entries, for each image or once for all."""
        parameters = sample(self.policy, draws(self.draw, len(images)), generator)
        if self.draw == "batch":
            parameters = parameters[torch.zeros(len(images), dtype=torch.int64)]
        return View.alone(apply(images, parameters, fill))


def _coin(draw: Draw, batch: int, generator: torch.Generator) -> Tensor:
    return (torch.rand(draws(draw, batch), generator=generator) < 0.5).expand(batch)
