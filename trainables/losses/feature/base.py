"""What the losses that compare layers of two networks share."""

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
from trainables.losses.base import Criterion, DistillBatch, Loss, Pair
from trainables.losses.checks import layer_names, need_teacher, without_autocast
from trainables.losses.feature.projector import Kind, Normalization, Projection

Shape = tuple[int, ...]


@dataclass(frozen=True)
class FeatureLoss(Loss):
    """A loss that compares pairs of layers, and sums over the pairs.

    Features may be maps (B, C, H, W), vectors (B, D) or tokens (B, N, D). Of two maps, the larger is average-pooled to
    the smaller one's resolution. All is computed in float32.

    Args:
        projection: what makes the two comparable, as `trainables.losses.feature.projector.Projection` has it.
        normalization: of both before; None: `batch` under the projections `student` and `inverted`, else `none`, since
            an ensemble's ReLUs would reach nothing that lies below a mean.
        pool: compare the means over all positions rather than maps.
        student: layers of the student; empty: the last of its stages.
        teacher: as many layers of the teacher; empty: the last of its stages.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"teacher", "features"})
    same_width: ClassVar[bool] = False
    """Whether it compares channel by channel."""

    projection: Kind = "none"
    normalization: Normalization | None = None
    pool: bool = False
    student: tuple[str, ...] = ()
    teacher: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse options that there are not."""
        if self.projection not in get_args(Kind):
            raise unknown(f"projection of {self.kind}", self.projection, get_args(Kind))
        if self.normalization is not None and self.normalization not in get_args(Normalization):
            raise unknown(f"normalization of {self.kind}", self.normalization, get_args(Normalization))
        if not isinstance(self.pool, bool):
            raise RequestError(f"{self.kind}'s pool is true or false", value=self.pool)
        layer_names(self, "student")
        layer_names(self, "teacher")

    def layers(self, pair: Pair) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Those that it names, else the last of each network.

        Raises:
            RequestError: they do not pair up.
        """
        names = self.student or tuple(pair.student)[-1:], self.teacher or tuple(pair.teacher)[-1:]
        return paired(self, *names)

    def shapes(self, pair: Pair) -> list[tuple[Shape, Shape]]:
        """Of each two layers as they are compared before any projection, without the batch.

        Raises:
            RequestError: a layer is not there, its tokens make no map, or two widths must be equal and are not.
        """
        both = []
        for names in zip(*self.layers(pair), strict=True):
            student, teacher = (
                shown(self, name, shapes) for name, shapes in zip(names, (pair.student, pair.teacher), strict=True)
            )
            if self.same_width and self.projection == "none" and student[0] != teacher[0]:
                rule = f"{self.kind} compares layers of one width"
                got = f"{student[0]} of the student's {names[0]} and {teacher[0]} of the teacher's {names[1]}"
                raise RequestError(rule, value=got, hint="set projection: student, or inverted")
            both.append((student, teacher))
        return both


class FeatureCriterion(Criterion):
    """A `FeatureLoss` at work.

    Args:
        options: which.
        pair: the networks.
    """

    def __init__(self, options: FeatureLoss, pair: Pair) -> None:
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

    def forward(self, seen: DistillBatch) -> dict[str, Tensor]:
        """`loss` alone: the sum over the pairs of layers."""
        with without_autocast(seen.student):
            each = [self.compare(index, *self._comparable(index, seen), seen) for index in range(len(self.layers))]
            return {"loss": torch.stack(each).sum()}

    @abstractmethod
    def compare(self, index: int, student: Tensor, teacher: Tensor, seen: DistillBatch) -> Tensor:
        """A scalar for the pair of layers number `index`: (B, C, H, W) both or (B, C) both, float32."""

    def report(self) -> dict[str, float]:
        """What `Projection.report` says; where there are several, as `<the student's layer>/<part>`."""
        said = [projection.report() for projection in self.projections if isinstance(projection, Projection)]
        return by_layer([names[0] for names in self.layers], said)

    def _comparable(self, index: int, seen: DistillBatch) -> tuple[Tensor, Tensor]:
        names = self.layers[index]
        student, teacher = seen.student_features[names[0]].float(), seen.teacher_features[names[1]].detach().float()
        if self.options.pool:
            student, teacher = pooled(student), pooled(teacher)
        else:
            student, teacher = matched(as_map(student), as_map(teacher))
        made: tuple[Tensor, Tensor] = self.projections[index](student, teacher)
        return made


@dataclass(frozen=True)
class Comparison(FeatureLoss):
    """A `FeatureLoss` that is a function of two batches of features, and keeps nothing."""

    @abstractmethod
    def compare(self, student: Tensor, teacher: Tensor) -> Tensor:
        """A scalar for (B, C, H, W) both or (B, C) both, float32."""

    def build(self, pair: Pair) -> Criterion:
        """Draw the projections.

        Raises:
            RequestError: there is no teacher, or layers do not fit each other.
        """
        need_teacher(self, pair)
        return ComparisonCriterion(self, pair)


class ComparisonCriterion(FeatureCriterion):
    """A `Comparison` at work."""

    def __init__(self, options: Comparison, pair: Pair) -> None:
        """Draw the projections."""
        super().__init__(options, pair)
        self._compare = options.compare

    def compare(self, index: int, student: Tensor, teacher: Tensor, seen: DistillBatch) -> Tensor:
        """As its options have it."""
        del index, seen
        return self._compare(student, teacher)


def as_map(features: Tensor) -> Tensor:
    """Features as a map (B, C, H, W): a vector is one of a single position, tokens are a square in reading order.

    One leading token is dropped where the others make a square, as a class token.

    Raises:
        RequestError: tokens make no square, or the shape is no feature's.
    """
    if features.ndim == 4:
        return features
    if features.ndim == 2:
        return features[:, :, None, None]
    tokens = _without_class_token(features)
    side = isqrt(tokens.shape[1])
    if side * side != tokens.shape[1]:
        rule = "tokens are compared as a square map, with or without a class token before it"
        raise RequestError(rule, value=f"{tokens.shape[1]} tokens", hint="set pool: true")
    return tokens.transpose(1, 2).reshape(len(tokens), tokens.shape[2], side, side)


def pooled(features: Tensor) -> Tensor:
    """Features' mean over all positions, a class token aside: (B, C).

    Raises:
        RequestError: the shape is no feature's.
    """
    if features.ndim == 4:
        return features.mean((2, 3))
    return features if features.ndim == 2 else _without_class_token(features).mean(1)


def matched(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Two maps, average-pooled to the smaller height and the smaller width."""
    size = min(first.shape[2], second.shape[2]), min(first.shape[3], second.shape[3])
    first, second = (side if side.shape[2:] == size else F.adaptive_avg_pool2d(side, size) for side in (first, second))
    return first, second


def paired(
    loss: FeatureLoss, student: tuple[str, ...], teacher: tuple[str, ...]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Both, as many as each other.

    Raises:
        RequestError: they are not.
    """
    if len(student) != len(teacher):
        rule = f"{loss.kind} pairs each layer of the student with one of the teacher"
        raise RequestError(rule, value=f"{len(student)} and {len(teacher)}", hint="name as many of both")
    return student, teacher


def shown(loss: FeatureLoss, name: str, shapes: Mapping[str, Shape]) -> Shape:
    """The shape in which the loss sees the layer `name`: (C, H, W), or (C,) where it pools.

    Raises:
        RequestError: there is no such layer, or its features are neither map, vector nor tokens.
    """
    if name not in shapes:
        raise unknown("layer", name, shapes)
    if len(shapes[name]) not in (1, 2, 3):
        rule = f"{loss.kind} compares maps (C, H, W), tokens (N, D) or vectors (D,)"
        raise RequestError(rule, value=f"{shapes[name]} of the layer {name}", hint="name another layer")
    example = torch.zeros(1, *shapes[name])
    return tuple((pooled if loss.pool else as_map)(example).shape[1:])


def by_layer(layers: Sequence[str], said: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """What is said of several layers, under their names; of a single one, as it is."""
    if len(said) == 1:
        return dict(said[0])
    return {f"{layer}/{name}": value for layer, part in zip(layers, said, strict=True) for name, value in part.items()}


def _without_class_token(tokens: Tensor) -> Tensor:
    rest = tokens.shape[1] - 1
    return tokens[:, 1:] if rest and isqrt(rest) ** 2 == rest else tokens
