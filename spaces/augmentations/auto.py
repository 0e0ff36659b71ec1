"""AutoAugment, RandAugment and TrivialAugment, as torchvision has them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from spaces.augmentations.base import Answers, Augmentation, View, check_whole
from spaces.core.errors import RequestError, unknown

_TABLES = ("cifar10", "imagenet", "svhn")


@dataclass(frozen=True)
class _Torchvision(Augmentation):
    """One of torchvision's, for each image, or once for the whole batch."""

    def __call__(
        self, images: Tensor, fill: Sequence[int], generator: torch.Generator, answers: Answers | None = None
    ) -> View:
        """The global state that torchvision draws from is seeded from `generator` here and put back after."""
        change = self._transform([float(value) for value in fill] * (3 // len(fill)))
        # Its operations on color want three channels of a gray image.
        wide = images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images
        seed = int(torch.randint(2**62, (), generator=generator))
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            changed = change(wide) if self.draw == "batch" else torch.stack([change(image) for image in wide])
        return View.alone(changed[:, : images.shape[1]].contiguous())

    @abstractmethod
    def _transform(self, fill: list[float]) -> Any:
        """The transform on tensors (C, H, W) or (B, C, H, W)."""


@dataclass(frozen=True)
class AutoAugment(_Torchvision):
    """AutoAugment's policies. Cubuk et al. 2018, https://arxiv.org/abs/1805.09501.

    Args:
        draw: as for every augmentation.
        table: which of the three: `cifar10`, `imagenet`, `svhn`.
    """

    kind: ClassVar[str] = "autoaugment"

    table: str = "cifar10"

    def __post_init__(self) -> None:
        """Refuse an unknown table."""
        super().__post_init__()
        if not isinstance(self.table, str):
            raise RequestError("autoaugment's table is a name", value=self.table)
        if self.table not in _TABLES:
            raise unknown("table of autoaugment", self.table, _TABLES)

    def _transform(self, fill: list[float]) -> Any:
        from torchvision.transforms import v2

        return v2.AutoAugment(v2.AutoAugmentPolicy(self.table), fill=fill)


@dataclass(frozen=True)
class RandAugment(_Torchvision):
    """RandAugment. Cubuk et al. 2019, https://arxiv.org/abs/1909.13719.

    Args:
        draw: as for every augmentation.
        operations: how many an image gets, the paper's N, 0 … 14.
        magnitude: the paper's M, 0 … 30.
    """

    kind: ClassVar[str] = "randaugment"

    operations: int = 2
    magnitude: int = 9

    def __post_init__(self) -> None:
        """Refuse parameters out of range."""
        super().__post_init__()
        check_whole("randaugment's operations", self.operations, 0, 14)
        check_whole("randaugment's magnitude", self.magnitude, 0, 30)

    def _transform(self, fill: list[float]) -> Any:
        from torchvision.transforms import v2

        return v2.RandAugment(self.operations, self.magnitude, fill=fill)


@dataclass(frozen=True)
class TrivialAugment(_Torchvision):
    """TrivialAugment, the wide variant. Müller and Hutter 2021, https://arxiv.org/abs/2103.10158."""

    kind: ClassVar[str] = "trivialaugment"

    def _transform(self, fill: list[float]) -> Any:
        from torchvision.transforms import v2

        return v2.TrivialAugmentWide(fill=fill)
