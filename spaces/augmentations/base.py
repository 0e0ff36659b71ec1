"""Base class of augmentations, and the view of a batch that they return."""

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

from spaces.core.validation import check_choice

Draw: TypeAlias = Literal["sample", "batch"]
"""Random numbers per image, or one draw for the whole batch."""

Predict: TypeAlias = Callable[[Tensor], Tensor]
"""Function from uint8 images (B, C, H, W) to logits (B, K), without gradients."""


@dataclass(frozen=True)
class View:
    """Augmented view of a batch.

    Letters: V images in the view (as many as in the batch), K classes.

    Args:
        images: Images (V, C, H, W), uint8.
        first: Index (V,) int64 of the image in the batch that each one shows.
        second: Index (V,) int64 of the image that is mixed in; equal to `first` where nothing is mixed.
        weight: Weight of `first` (V,), float32 in [0, 1].
        logits: Logits (V, K) by which the images were selected, so that they need not be computed again; None if the
            augmentation uses no logits.

    Example:
        >>> import torch
        >>> from spaces.augmentations import View
        >>> view = View.unmixed(torch.zeros(2, 1, 4, 4, dtype=torch.uint8))
        >>> view.matches_label(torch.tensor([3, 1]), labels=torch.tensor([3, 5])).tolist()
        [True, False]
    """

    images: Tensor
    first: Tensor
    second: Tensor
    weight: Tensor
    logits: Tensor | None = None

    @classmethod
    def unmixed(cls, images: Tensor) -> View:
        """Return a view in which nothing is mixed."""
        rows = torch.arange(len(images), device=images.device)
        return cls(images, rows, rows, torch.ones(len(images), device=images.device))

    def matches_label(self, classes: Tensor, labels: Tensor) -> Tensor:
        """Return True (V,) where `classes` (V,) equals the label, in `labels` (B,), of either image of the mix."""
        first = (classes == labels[self.first]) & (self.weight > 0)
        return first | ((classes == labels[self.second]) & (self.weight < 1))


@dataclass(frozen=True)
class Augmentation(ABC):
    """Augmentation of the catalog with its parameters: a callable that makes a view of a batch.

    Args:
        draw: `sample` for random numbers per image, `batch` for one draw per batch.

    Attributes:
        kind: Name in the catalog.
        unlabeled: Names of parameters that `label` leaves out.

    Example:
        >>> from spaces.augmentations import augmentation
        >>> cutout = augmentation({"kind": "cutout", "draw": "batch"})
        >>> cutout.kind, cutout.draw, cutout.learns
        ('cutout', 'batch', False)
    """

    kind: ClassVar[str]
    unlabeled: ClassVar[tuple[str, ...]] = ()

    draw: Draw = "sample"

    def __post_init__(self) -> None:
        """Check the parameters."""
        check_choice("draw", self.draw, ("sample", "batch"))

    @property
    def label(self) -> str:
        """Name, with the parameters that differ from their defaults."""
        content, defaults = self.to_json(), type(self)().to_json()
        kind = content.pop("kind")
        changed = [
            f"{name}={_short(getattr(self, name, value))}"
            for name, value in content.items()
            if value != defaults.get(name) and name not in self.unlabeled
        ]
        return f"{kind}({', '.join(changed)})" if changed else kind

    @property
    def learns(self) -> bool:
        """True if the augmentation must be learned in a game against a student before it can be applied."""
        return False

    def explore(self, generator: np.random.Generator) -> Augmentation:
        """Return a perturbed copy; augmentations without searchable numbers return themselves and draw nothing."""
        del generator
        return self

    @property
    def scored_by(self) -> str:
        """Network whose logits the augmentation needs: `teacher`, `student`, or an empty string for none."""
        return ""

    @abstractmethod
    def __call__(
        self, images: Tensor, fill: Sequence[int], generator: torch.Generator, predict: Predict | None = None
    ) -> View:
        """Make a view of a batch.

        Args:
            images: Images (B, C, H, W), uint8. Never modified.
            fill: Color of uncovered pixels, C integers from 0 to 255.
            generator: Source of all random numbers, on the CPU.
            predict: Function to the logits of the network that `scored_by` names.

        Raises:
            RequestError: The batch is too small, or `predict` is missing.
        """

    def to_json(self) -> dict[str, Any]:
        """Return name and parameters as JSON data; `spaces.augmentations.augmentation` is the inverse."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        plain = {name: value.to_json() if hasattr(value, "to_json") else value for name, value in values.items()}
        return {"kind": self.kind, **plain}


def _short(value: Any) -> str:
    """Return a parameter as text for a label: the label of an augmentation, a checksum of a policy."""
    if isinstance(value, Augmentation):
        return value.label
    if isinstance(value, tuple) and any(isinstance(part, Augmentation) for part in value):
        return "+".join(map(_short, value))
    if hasattr(value, "to_json"):
        return f"#{zlib.crc32(json.dumps(value.to_json()).encode()):08x}"
    return str(value)


def draw_count(draw: Draw, batch: int) -> int:
    """Return the number of draws for a batch."""
    return batch if draw == "sample" else 1
