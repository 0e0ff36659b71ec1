"""Attention transfer (Zagoruyko & Komodakis 2016, https://arxiv.org/abs/1612.03928)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from spaces.core.errors import RequestError
from trainables.losses.base import NetworkPair
from trainables.losses.feature.base import Shape, StatelessFeatureLoss, check_pairing, feature_shape


@dataclass(frozen=True)
class Attention(StatelessFeatureLoss):
    """The mean squared error between attention maps: squared features, averaged over channels, L2-normalized.

    This follows the authors' code; their paper takes the L2 distance. By default all stages with more than one
    position are compared, paired from the last one backwards.

    Example:
        >>> import torch
        >>> features = torch.rand(2, 3, 4, 4)
        >>> float(Attention().compare(features, 2 * features))  # maps, whatever their scale
        0.0
    """

    kind: ClassVar[str] = "attention"

    def __post_init__(self) -> None:
        """Check the options; pooling would leave no map."""
        super().__post_init__()
        if self.pool:
            raise RequestError("pool of attention must be false", value=True, hint="leave pool out")

    def layers(self, pair: NetworkPair) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the named layers, or else all maps that both networks have."""
        student, teacher = (
            named or tuple(name for name in stages if _is_map(feature_shape(self, name, stages)))
            for named, stages in ((self.student, pair.student), (self.teacher, pair.teacher))
        )
        if not self.student and not self.teacher:
            count = min(len(student), len(teacher))
            student, teacher = student[len(student) - count :], teacher[len(teacher) - count :]
        return check_pairing(self, student, teacher)

    def shapes(self, pair: NetworkPair) -> list[tuple[Shape, Shape]]:
        """Return the shapes of each pair of maps.

        Raises:
            RequestError: A layer gives no map of more than one position.
        """
        both = super().shapes(pair)
        if not both or not all(_is_map(shape) for shapes in both for shape in shapes):
            hint = "name convolutional layers, or choose another loss"
            raise RequestError("attention must compare maps of more than one position", value=both, hint=hint)
        return both

    def compare(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compute the mean over all positions."""
        return F.mse_loss(_attention_map(student), _attention_map(teacher))


def _attention_map(features: Tensor) -> Tensor:
    return F.normalize(features.square().mean(1).flatten(1))


def _is_map(shape: Shape) -> bool:
    return shape[1] * shape[2] > 1
