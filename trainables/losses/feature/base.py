"""The base classes of losses that compare layers of two networks."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isqrt
from typing import ClassVar, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spaces.core.errors import RequestError, unknown
from trainables.losses.base import Criterion, DistillBatch, Loss, NetworkPair
from trainables.losses.checks import check_layer_names, require_teacher, without_autocast
from trainables.losses.feature.projector import Kind, Normalization, Projection

Shape = tuple[int, ...]


@dataclass(frozen=True)
class FeatureLoss(Loss):
    """A loss that compares pairs of layers, summed over the pairs and computed in float32.

    Features may be maps (B, C, H, W), vectors (B, D) or tokens (B, N, D). Of two maps, the larger one is
    average-pooled to the resolution of the smaller one.

    Args:
        projection: Projection that makes the two comparable, see `Projection`.
        normalization: Normalization of both before the projection; None for `batch` under the projections `student`
            and `inverted`, else `none`, since below its mean a feature would never pass an ensemble's ReLU.
        pool: Compare means over all positions instead of maps.
        student: Layers of the student; empty for its last stage.
        teacher: As many layers of the teacher; empty for its last stage.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"teacher", "features"})
    same_width: ClassVar[bool] = False
    """True if the loss compares channel by channel."""

    projection: Kind = "none"
    normalization: Normalization | None = None
    pool: bool = False
    student: tuple[str, ...] = ()
    teacher: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check the options."""
        if self.projection not in get_args(Kind):
            raise unknown(f"projection of {self.kind}", self.projection, get_args(Kind))
        if self.normalization is not None and self.normalization not in get_args(Normalization):
            raise unknown(f"normalization of {self.kind}", self.normalization, get_args(Normalization))
        if not isinstance(self.pool, bool):
            raise RequestError(f"pool of {self.kind} must be true or false", value=self.pool)
        check_layer_names(self, "student")
        check_layer_names(self, "teacher")

    def layers(self, pair: NetworkPair) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the named layers, or else the last one of each network.

        Raises:
            RequestError: The numbers of layers differ.
        """
        names = self.student or tuple(pair.student)[-1:], self.teacher or tuple(pair.teacher)[-1:]
        return check_pairing(self, *names)

    def shapes(self, pair: NetworkPair) -> list[tuple[Shape, Shape]]:
        """Return the shapes, without the batch, of each pair of layers before any projection.

        Raises:
            RequestError: A layer does not exist, its tokens form no square map, or the widths must be equal and differ.
        """
        both = []
        for names in zip(*self.layers(pair), strict=True):
            student, teacher = (
                feature_shape(self, name, shapes)
                for name, shapes in zip(names, (pair.student, pair.teacher), strict=True)
            )
            if self.same_width and self.projection == "none" and student[0] != teacher[0]:
                rule = f"layers compared by {self.kind} must have the same width"
                value = f"{student[0]} in the student's {names[0]}, {teacher[0]} in the teacher's {names[1]}"
                raise RequestError(rule, value=value, hint="set projection: student or projection: inverted")
            both.append((student, teacher))
        return both


class FeatureCriterion(Criterion):
    """A `FeatureLoss` built for two networks.

    Args:
        options: The loss.
        pair: The networks.
    """

    def __init__(self, options: FeatureLoss, pair: NetworkPair) -> None:
        """Draw the projections."""
        super().__init__()
        self.options = options
        self.layers = tuple(zip(*options.layers(pair), strict=True))
        normalization = options.normalization
        if normalization is None:
            normalization = "batch" if options.projection in ("student", "inverted") else "none"
        self.projections = nn.ModuleList(
            Projection(options.projection, student[0], teacher[0], normalization)
            for student, teacher in options.shapes(pair)
        )

    def forward(self, batch: DistillBatch) -> dict[str, Tensor]:
        """Return `loss`, the sum over the pairs of layers."""
        with without_autocast(batch.student):
            losses = [self.compare(index, *self._features(index, batch), batch) for index in range(len(self.layers))]
            return {"loss": torch.stack(losses).sum()}

    @abstractmethod
    def compare(self, index: int, student: Tensor, teacher: Tensor, batch: DistillBatch) -> Tensor:
        """Compute the scalar loss of one pair of layers.

        Args:
            index: Number of the pair.
            student: Student's features, (B, C, H, W) or (B, C), float32.
            teacher: Teacher's features, of the same number of dimensions, float32.
            batch: The batch.
        """

    def report(self) -> dict[str, float]:
        """Return the report of each projection; of several, as `<student's layer>/<part>`."""
        reports = [projection.report() for projection in self.projections if isinstance(projection, Projection)]
        return by_layer([names[0] for names in self.layers], reports)

    def _features(self, index: int, batch: DistillBatch) -> tuple[Tensor, Tensor]:
        """Return both layers' features, brought to one resolution and projected."""
        names = self.layers[index]
        student, teacher = batch.student_features[names[0]].float(), batch.teacher_features[names[1]].detach().float()
        if self.options.pool:
            student, teacher = pooled(student), pooled(teacher)
        else:
            student, teacher = match_resolution(as_map(student), as_map(teacher))
        projected: tuple[Tensor, Tensor] = self.projections[index](student, teacher)
        return projected


@dataclass(frozen=True)
class StatelessFeatureLoss(FeatureLoss):
    """A `FeatureLoss` that is a function of two batches of features."""

    @abstractmethod
    def compare(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compute the scalar loss of features (B, C, H, W) or (B, C), float32."""

    def build(self, pair: NetworkPair) -> Criterion:
        """Draw the projections.

        Raises:
            RequestError: There is no teacher, or layers do not fit each other.
        """
        require_teacher(self, pair)
        return StatelessFeatureCriterion(self, pair)


class StatelessFeatureCriterion(FeatureCriterion):
    """A `StatelessFeatureLoss` built for two networks."""

    def __init__(self, options: StatelessFeatureLoss, pair: NetworkPair) -> None:
        """Draw the projections."""
        super().__init__(options, pair)
        self._compare = options.compare

    def compare(self, index: int, student: Tensor, teacher: Tensor, batch: DistillBatch) -> Tensor:
        """Call the loss's own `compare`."""
        del index, batch
        return self._compare(student, teacher)


def as_map(features: Tensor) -> Tensor:
    """Return features as a map (B, C, H, W).

    A vector becomes a map of one position, tokens become a square in reading order. One leading token is dropped as
    a class token if the others form a square.

    Raises:
        RequestError: The tokens form no square.

    Example:
        >>> tuple(as_map(torch.zeros(2, 10, 6)).shape), tuple(as_map(torch.zeros(2, 6)).shape)
        ((2, 6, 3, 3), (2, 6, 1, 1))
    """
    if features.ndim == 4:
        return features
    if features.ndim == 2:
        return features[:, :, None, None]
    tokens = _without_class_token(features)
    side = isqrt(tokens.shape[1])
    if side * side != tokens.shape[1]:
        rule = "tokens must form a square map, with or without a class token in front"
        raise RequestError(rule, value=f"{tokens.shape[1]} tokens", hint="set pool: true")
    return tokens.transpose(1, 2).reshape(len(tokens), tokens.shape[2], side, side)


def pooled(features: Tensor) -> Tensor:
    """Return the mean of features over all positions, without a class token, (B, C).

    Example:
        >>> tuple(pooled(torch.zeros(2, 6, 4, 4)).shape), tuple(pooled(torch.zeros(2, 10, 6)).shape)
        ((2, 6), (2, 6))
    """
    if features.ndim == 4:
        return features.mean((2, 3))
    return features if features.ndim == 2 else _without_class_token(features).mean(1)


def match_resolution(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Return both maps, average-pooled to the smaller height and the smaller width."""
    size = min(first.shape[2], second.shape[2]), min(first.shape[3], second.shape[3])
    first, second = (side if side.shape[2:] == size else F.adaptive_avg_pool2d(side, size) for side in (first, second))
    return first, second


def check_pairing(
    loss: FeatureLoss, student: tuple[str, ...], teacher: tuple[str, ...]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return both lists of layers.

    Raises:
        RequestError: Their lengths differ.
    """
    if len(student) != len(teacher):
        rule = f"{loss.kind} must name as many layers of the student as of the teacher"
        raise RequestError(rule, value=f"{len(student)} and {len(teacher)}")
    return student, teacher


def feature_shape(loss: FeatureLoss, name: str, shapes: Mapping[str, Shape]) -> Shape:
    """Return the shape in which the loss sees the layer `name`: (C, H, W), or (C,) where it pools.

    Raises:
        RequestError: The layer does not exist, or its output is no map, vector or tokens.
    """
    if name not in shapes:
        raise unknown("layer", name, shapes)
    if len(shapes[name]) not in (1, 2, 3):
        rule = f"a layer compared by {loss.kind} must give maps (C, H, W), tokens (N, D) or vectors (D,)"
        raise RequestError(rule, value=f"{shapes[name]} from {name}", hint="name another layer")
    example = torch.zeros(1, *shapes[name])
    return tuple((pooled if loss.pool else as_map)(example).shape[1:])


def by_layer(layers: Sequence[str], reports: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Merge reports under their layers' names; the report of a single layer keeps its own names."""
    if len(reports) == 1:
        return dict(reports[0])
    return {
        f"{layer}/{name}": value
        for layer, report in zip(layers, reports, strict=True)
        for name, value in report.items()
    }


def _without_class_token(tokens: Tensor) -> Tensor:
    rest = tokens.shape[1] - 1
    return tokens[:, 1:] if rest and isqrt(rest) ** 2 == rest else tokens
