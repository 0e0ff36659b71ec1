"""Basic augmentations: identity, flip, padded crop, Cutout, and a policy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from spaces.augmentations.base import Augmentation, Draw, Predict, View, draw_count
from spaces.core.validation import check_number
from spaces.engine import apply, crop
from spaces.operations import OPERATIONS
from spaces.operations.cutout import square_mask
from spaces.policy.policy import Entry, Policy
from spaces.policy.sampling import sample
from spaces.policy.scaled import AnyPolicy


@dataclass(frozen=True)
class Identity(Augmentation):
    """Identity: no second view."""

    kind: ClassVar[str] = "identity"

    draw: Draw = field(default="sample", compare=False)  # has no effect, so all are equal

    def __call__(
        self, images: Tensor, fill: Sequence[int], generator: torch.Generator, predict: Predict | None = None
    ) -> View:
        """Return a view of the same tensor."""
        return View.unmixed(images)


@dataclass(frozen=True)
class Flip(Augmentation):
    """Horizontal flip of half of the images.

    Example:
        >>> import torch
        >>> from spaces.augmentations import Flip
        >>> images = torch.zeros(4, 1, 8, 8, dtype=torch.uint8)
        >>> view = Flip()(images, fill=(0,), generator=torch.Generator().manual_seed(0))
        >>> view.images.shape
        torch.Size([4, 1, 8, 8])
    """

    kind: ClassVar[str] = "flip"

    def __call__(
        self, images: Tensor, fill: Sequence[int], generator: torch.Generator, predict: Predict | None = None
    ) -> View:
        """Mirror each image, or all of them with `draw: batch`, with probability 1/2."""
        mirrored = _coin(self.draw, len(images), generator)
        zeros = torch.zeros(len(images), dtype=torch.int64)
        return View.unmixed(crop(images, zeros, zeros, mirrored, fill))


@dataclass(frozen=True)
class CropFlip(Augmentation):
    """Padded random crop and horizontal flip of half of the images.

    Args:
        draw: `sample` for random numbers per image, `batch` for one draw per batch.
        padding: Padding as a fraction of the image's sides, 0 to 1; 0.125 is the usual 4 pixels on 32.

    Example:
        >>> import torch
        >>> from spaces.augmentations import CropFlip
        >>> images = torch.zeros(4, 1, 8, 8, dtype=torch.uint8)
        >>> view = CropFlip()(images, fill=(0,), generator=torch.Generator().manual_seed(0))
        >>> view.images.shape
        torch.Size([4, 1, 8, 8])
    """

    kind: ClassVar[str] = "crop_flip"

    padding: float = 0.125

    def __post_init__(self) -> None:
        """Check the parameters."""
        super().__post_init__()
        object.__setattr__(self, "padding", check_number("crop_flip padding", self.padding, 0, 1))

    def __call__(
        self, images: Tensor, fill: Sequence[int], generator: torch.Generator, predict: Predict | None = None
    ) -> View:
        """Shift by up to `padding` in each direction, at least one pixel, then mirror with probability 1/2."""
        top, left = (self._offsets(side, len(images), generator) for side in images.shape[-2:])
        return View.unmixed(crop(images, top, left, _coin(self.draw, len(images), generator), fill))

    def _offsets(self, side: int, batch: int, generator: torch.Generator) -> Tensor:
        room = max(1, round(self.padding * side)) if self.padding else 0
        return torch.randint(-room, room + 1, (draw_count(self.draw, batch),), generator=generator).expand(batch)


@dataclass(frozen=True)
class Cutout(Augmentation):
    """Cutout, one filled square per image (DeVries and Taylor 2017, https://arxiv.org/abs/1708.04552).

    Args:
        draw: `sample` for random numbers per image, `batch` for one draw per batch.
        side: Side of the square as a fraction of the smaller side of the image, 0 to 1; 0.5 is 16 pixels on 32, as in
            the paper.

    Example:
        >>> import torch
        >>> from spaces.augmentations import Cutout
        >>> images = torch.zeros(4, 1, 8, 8, dtype=torch.uint8)
        >>> view = Cutout()(images, fill=(0,), generator=torch.Generator().manual_seed(0))
        >>> view.images.shape
        torch.Size([4, 1, 8, 8])
    """

    kind: ClassVar[str] = "cutout"

    side: float = 0.5

    def __post_init__(self) -> None:
        """Check the parameters."""
        super().__post_init__()
        object.__setattr__(self, "side", check_number("cutout side", self.side, 0, 1))

    def __call__(
        self, images: Tensor, fill: Sequence[int], generator: torch.Generator, predict: Predict | None = None
    ) -> View:
        """Fill a square around a uniform center, clipped at the border as in the paper."""
        batch, _, height, width = images.shape
        positions = torch.rand(draw_count(self.draw, batch), 2, generator=generator).expand(batch, 2)
        sides = torch.full((batch,), round(self.side * min(height, width)))
        covered = square_mask(sides.to(images.device), positions.to(images.device), height, width)
        color = torch.tensor(fill, dtype=images.dtype, device=images.device).view(1, -1, 1, 1)
        return View.unmixed(torch.where(covered.unsqueeze(1), color, images))


def _default_policy() -> Policy:
    return Policy(tuple(Entry(op, 3, 4) for op in OPERATIONS))


@dataclass(frozen=True)
class PolicyAugmentation(Augmentation):
    """Policy as an augmentation, such as one phase of a searched schedule.

    Args:
        draw: `sample` for random numbers per image, `batch` for one draw per batch.
        policy: Policy; the default has each operation with probability 0.3 at level 4, a choice of this project.

    Example:
        >>> import torch
        >>> from spaces.augmentations import PolicyAugmentation
        >>> images = torch.zeros(4, 1, 8, 8, dtype=torch.uint8)
        >>> view = PolicyAugmentation()(images, fill=(0,), generator=torch.Generator().manual_seed(0))
        >>> view.images.shape
        torch.Size([4, 1, 8, 8])
    """

    kind: ClassVar[str] = "policy"

    policy: AnyPolicy = field(default_factory=_default_policy)

    def __call__(
        self, images: Tensor, fill: Sequence[int], generator: torch.Generator, predict: Predict | None = None
    ) -> View:
        """Sample operations for each image, or once for the batch, and apply them."""
        parameters = sample(self.policy, draw_count(self.draw, len(images)), generator)
        if self.draw == "batch":
            parameters = parameters[torch.zeros(len(images), dtype=torch.int64)]
        return View.unmixed(apply(images, parameters, fill))


def _coin(draw: Draw, batch: int, generator: torch.Generator) -> Tensor:
    return (torch.rand(draw_count(draw, batch), generator=generator) < 0.5).expand(batch)
