"""What an augmentation of the catalog is: a choice by name, with parameters, that makes a second view of a batch."""

from __future__ import annotations

import json
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from spaces.core.errors import RequestError

Draw: TypeAlias = Literal["sample", "batch"]
"""Whether every image has random numbers of its own, or one draw serves the whole batch."""

Answers: TypeAlias = Callable[[Tensor], Tensor]
"""A network as an augmentation sees it: uint8 images (B, C, H, W) → logits (B, K), without gradients."""


@dataclass(frozen=True)
class View:
    """What an augmentation made of a batch.

    Letters: V images in the view (as many as in the batch), K classes.

    Args:
        images: (V, C, H, W) uint8.
        first: (V,) int64: which image of the batch each one shows.
        second: (V,) int64: which other image is mixed in; where nothing is mixed, the same.
        weight: (V,) float32 in [0, 1]: the share of `first`.
        logits: (V, K), the answers that the view was chosen by, so that nobody has to ask again; None: nobody asked.
    """

    images: Tensor
    first: Tensor
    second: Tensor
    weight: Tensor
    logits: Tensor | None = None

    @classmethod
    def alone(cls, images: Tensor) -> View:
        """A view in which nothing is mixed."""
        rows = torch.arange(len(images), device=images.device)
        return cls(images, rows, rows, torch.ones(len(images), device=images.device))

    def agrees(self, classes: Tensor, labels: Tensor) -> Tensor:
        """Whether `classes` (V,) name what is shown: the label (of `labels`, (B,)) of either image of the mix."""
        first = (classes == labels[self.first]) & (self.weight > 0)
        return first | ((classes == labels[self.second]) & (self.weight < 1))


@dataclass(frozen=True)
class Augmentation(ABC):
    """One entry of the catalog, with its parameters.

    Args:
        draw: `sample`: every image has its own random numbers; `batch`: one draw for the whole batch.

    Attributes:
        kind: its name in the catalog.
        asks: whose answers it needs: nobody's (""), the `teacher`'s or the `student`'s.
        unlabeled: parameters that its label leaves out.
    """

    kind: ClassVar[str]
    unlabeled: ClassVar[tuple[str, ...]] = ()

    draw: Draw = "sample"

    def __post_init__(self) -> None:
        """Refuse a draw that there is not."""
        if self.draw not in ("sample", "batch"):
            raise RequestError("draw is sample or batch", value=self.draw)

    @property
    def label(self) -> str:
        """Its name, with the parameters that differ from the defaults."""
        content, usual = self.to_json(), type(self)().to_json()
        kind = content.pop("kind")
        changed = [
            f"{name}={_short(getattr(self, name, value))}"
            for name, value in content.items()
            if value != usual.get(name) and name not in self.unlabeled
        ]
        return f"{kind}({', '.join(changed)})" if changed else kind

    @property
    def learns(self) -> bool:
        """Whether it is yet to be learned, in a game against a student."""
        return False

    def explored(self, generator: np.random.Generator) -> Augmentation:
        """A neighbor of the same kind; what has nothing to move, and so draws nothing, is its own."""
        del generator
        return self

    @property
    def asks(self) -> str:
        """Whose answers it needs: nobody's (""), the `teacher`'s or the `student`'s."""
        return ""

    @abstractmethod
    def __call__(
        self, images: Tensor, fill: Sequence[int], generator: torch.Generator, answers: Answers | None = None
    ) -> View:
        """Make a view of a batch.

        Args:
            images: (B, C, H, W) uint8; left as they are.
            fill: the color of uncovered pixels, C numbers from 0 to 255.
            generator: of all random numbers, on the CPU.
            answers: of the network that `asks` names.

        Raises:
            RequestError: the batch is too small, or answers are missing.
        """

    def to_json(self) -> dict[str, Any]:
        """Its name and parameters as plain data; `spaces.augmentations.augmentation` gives it back."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        plain = {name: value.to_json() if hasattr(value, "to_json") else value for name, value in values.items()}
        return {"kind": self.kind, **plain}


def _short(value: Any) -> str:
    """A parameter in a label: of one augmentation its label, of a policy a mark that tells it from others."""
    if isinstance(value, Augmentation):
        return value.label
    if isinstance(value, tuple) and any(isinstance(part, Augmentation) for part in value):
        return "+".join(map(_short, value))
    if hasattr(value, "to_json"):
        return f"#{zlib.crc32(json.dumps(value.to_json()).encode()):08x}"
    return str(value)


def draws(draw: Draw, batch: int) -> int:
    """How many draws a batch needs."""
    return batch if draw == "sample" else 1


def check_range(what: str, value: object, low: float, high: float) -> float:
    """Refuse a parameter that is no number in [low, high]; of equal ones there is one form, 1.0 for 1, 0.0 for -0.0."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise RequestError(f"{what} is a number from {low:g} to {high:g}", value=value)
    return float(value) + 0.0


def check_whole(what: str, value: object, low: int, high: int) -> None:
    """Refuse a parameter that is no whole number in [low, high]."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise RequestError(f"{what} is a whole number from {low} to {high}", value=value)
