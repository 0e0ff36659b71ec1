"""AutoAugment, RandAugment and TrivialAugment, by torchvision."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from spaces.augmentations.base import Augmentation, Predict, View
from spaces.core.errors import RequestError, unknown
from spaces.core.validation import check_integer

_TABLES = ("cifar10", "imagenet", "svhn")


@dataclass(frozen=True)
class _Torchvision(Augmentation):
    """Base class of augmentations by torchvision."""

    def __call__(
        self, images: Tensor, fill: Sequence[int], generator: torch.Generator, predict: Predict | None = None
    ) -> View:
        """Seed the global state, which torchvision draws from, by `generator`, and restore it afterwards."""
        change = self._transform([float(value) for value in fill] * (3 // len(fill)))
        # The color operations of torchvision need three channels.
        wide = images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images
        seed = int(torch.randint(2**62, (), generator=generator))
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            changed = change(wide) if self.draw == "batch" else torch.stack([change(image) for image in wide])
        return View.unmixed(changed[:, : images.shape[1]].contiguous())

    @abstractmethod
    def _transform(self, fill: list[float]) -> Any:
        """Return the transform on tensors (C, H, W) or (B, C, H, W)."""


@dataclass(frozen=True)
class AutoAugment(_Torchvision):
    """AutoAugment (Cubuk et al. 2018, https://arxiv.org/abs/1805.09501).

    Args:
        draw: `sample` for random numbers per image, `batch` for one draw per batch.
        table: Policy table: `cifar10`, `imagenet` or `svhn`.

    Example:
        >>> from spaces.augmentations import AutoAugment
        >>> AutoAugment(table="svhn").label
        'autoaugment(table=svhn)'
    """

    kind: ClassVar[str] = "autoaugment"

    table: str = "cifar10"

    def __post_init__(self) -> None:
        """Check the parameters."""
        super().__post_init__()
        if not isinstance(self.table, str):
            raise RequestError("autoaugment table must be a string", value=self.table)
        if self.table not in _TABLES:
            raise unknown("table of autoaugment", self.table, _TABLES)

    def _transform(self, fill: list[float]) -> Any:
        from torchvision.transforms import v2

        return v2.AutoAugment(v2.AutoAugmentPolicy(self.table), fill=fill)


@dataclass(frozen=True)
class RandAugment(_Torchvision):
    """RandAugment (Cubuk et al. 2019, https://arxiv.org/abs/1909.13719).

    Args:
        draw: `sample` for random numbers per image, `batch` for one draw per batch.
        operations: Operations per image, N in the paper, 0 to 14.
        magnitude: Magnitude, M in the paper, 0 to 30.

    Example:
        >>> from spaces.augmentations import RandAugment
        >>> RandAugment(magnitude=5).label
        'randaugment(magnitude=5)'
    """

    kind: ClassVar[str] = "randaugment"

    operations: int = 2
    magnitude: int = 9

    def __post_init__(self) -> None:
        """Check the parameters."""
        super().__post_init__()
        check_integer("randaugment operations", self.operations, 0, 14)
        check_integer("randaugment magnitude", self.magnitude, 0, 30)

    def _transform(self, fill: list[float]) -> Any:
        from torchvision.transforms import v2

        return v2.RandAugment(self.operations, self.magnitude, fill=fill)


@dataclass(frozen=True)
class TrivialAugment(_Torchvision):
    """TrivialAugment, wide variant (Müller and Hutter 2021, https://arxiv.org/abs/2103.10158).

    Example:
        >>> from spaces.augmentations import TrivialAugment
        >>> TrivialAugment().to_json()
        {'kind': 'trivialaugment', 'draw': 'sample'}
    """

    kind: ClassVar[str] = "trivialaugment"

    def _transform(self, fill: list[float]) -> Any:
        from torchvision.transforms import v2

        return v2.TrivialAugmentWide(fill=fill)
