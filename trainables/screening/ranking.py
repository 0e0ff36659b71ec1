"""Ranking of augmentations by T. stddev with the teacher alone, before any student is trained.

Source: Wang et al. 2022 (NeurIPS), https://arxiv.org/abs/2012.02909. Images are drawn with replacement, so that drawing
without it does not shrink the spread of a small set (the authors' sets are large, and their code draws without).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from spaces import BaseAugmentation, RequestError
from spaces.augmentations import Augmentation, Identity, View, entropy, resolve
from spaces.core.seeding import seeded_generator
from trainables.data import DataSet, Images
from trainables.screening.t_stddev import BATCHES, TStddev, percentiles
from trainables.training.frozen_teacher import FrozenTeacher
from trainables.training.memory_format import on_device
from trainables.training.normalize import Normalize

BATCH = 64
"""Images per batch, as in the authors' code."""

MIN_AGREEMENT = 0.05
"""Least agreement above chance, without augmentation, of a teacher whose ratios mean anything."""

REPLICATES = 400
MIN_MEANS = 20
"""Fewest means after which screening may stop early."""

ROUNDING = 1e-7
"""A spread below this is rounding: identical answers have one of about 1e-9."""


@dataclass(frozen=True)
class Precision:
    """Sample size and stopping rule of a screening.

    Args:
        images: Images per mean, drawn with replacement; None for 5 batches of 64, or as many as half of the set has.
        means: Most means, >= 2.
        half_width: Stop when half of every ratio's 95 % interval is below this share of the ratio, in [0, 1].
        guard: An augmentation is uninformative if the teacher's agreement above chance is below this share of its value
            without augmentation, in [0, 1].

    Raises:
        RequestError: A value is out of its range.

    Example:
        >>> Precision(means=50).half_width
        0.02
    """

    __pydantic_config__ = {"extra": "forbid", "strict": True}  # noqa: RUF012 - pydantic reads it from the class

    images: int | None = None
    means: int = 300
    half_width: float = 0.02
    guard: float = 0.5

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.images is not None and self.images < 1:
            raise RequestError("images must be >= 1", value=self.images)
        if self.means < 2:
            raise RequestError("means must be >= 2", value=self.means)
        for name in ("half_width", "guard"):
            if not 0 <= getattr(self, name) <= 1:
                raise RequestError(f"{name} must be in [0, 1]", value=getattr(self, name))


@dataclass(frozen=True)
class Row:
    """The result for one augmentation.

    Args:
        label: Name, with the options that differ from their defaults.
        augment: The augmentation as plain data.
        t_stddev: T. stddev; lower is better.
        low: Lower bound of its 95 % interval.
        high: Upper bound of its 95 % interval.
        ratio: T. stddev over that of identity; below 1 is better than no augmentation.
        ratio_low: Lower bound of the ratio's paired 95 % interval.
        ratio_high: Upper bound of the ratio's paired 95 % interval.
        agreement: Share of images whose top-1 answer is the label, or either label of a mix.
        entropy: Mean entropy of the teacher's answers, nats.
        informative: False if the teacher no longer recognizes the images, or never did, so the ratio has no meaning.
        seconds: Time spent on this augmentation.
    """

    label: str
    augment: dict[str, Any]
    t_stddev: float
    low: float
    high: float
    ratio: float
    ratio_low: float
    ratio_high: float
    agreement: float
    entropy: float
    informative: bool
    seconds: float


@dataclass(frozen=True)
class Screening:
    """A ranking of augmentations.

    Args:
        rows: Informative augmentations, best first, then the others.
        images: Images drawn per mean; each gives two answers, with and without the augmentation.
        means: Number of means taken.
        stopped_early: True if every interval was narrow enough before all means were taken.
    """

    rows: tuple[Row, ...]
    images: int
    means: int
    stopped_early: bool


class _Candidate:
    """Running totals of one augmentation."""

    def __init__(self, augment: Augmentation, rows: int, seed: int, index: int) -> None:
        self.augment = augment
        self.generator = seeded_generator(seed, index, 1)
        self.metric = TStddev(rows, seed=seed, replicates=REPLICATES)  # one seed for all: the ratios are paired
        self.correct = self.entropy_sum = self.chance = 0.0
        self.images, self.seconds = 0, 0.0

    def add(self, view: View, base: Tensor, logits: Tensor, labels: Tensor, classes: int) -> None:
        self.metric.add(torch.cat((base, logits.float().softmax(dim=1))))
        self.correct += float(view.matches_label(logits.argmax(dim=1), labels).sum())
        self.entropy_sum += float(entropy(logits).sum())
        both = (labels[view.first] != labels[view.second]) & (view.weight < 1)
        self.chance += float((1 + both.float()).sum()) / classes
        self.images += len(labels)


def screen(
    teacher: FrozenTeacher,
    data: DataSet,
    images: Images,
    augmentations: Sequence[Augmentation],
    *,
    precision: Precision | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
    channels_last: bool | None = None,
    on_mean: Callable[[int, int], None] = lambda done, most: None,
) -> Screening:
    """Rank augmentations by T. stddev on the same images.

    Args:
        teacher: Frozen teacher.
        data: Data set that describes the images.
        images: Images to draw from, usually the teacher's training images.
        augmentations: Augmentations to rank; identity is added if missing.
        precision: Sample size and stopping rule.
        seed: Seed of all draws.
        device: Device of the teacher.
        channels_last: Memory format, as in `Recipe`.
        on_mean: Called after each mean with the number of means taken and the most there will be.

    Raises:
        RequestError: A mean takes more images than there are, an augmentation needs a student, or the teacher has other
            classes than the data.

    Example:
        >>> from spaces.augmentations import CutMix
        >>> from trainables.data import load
        >>> from trainables.models import build_model
        >>> data = load("digits", train=60, validation=20)
        >>> teacher = FrozenTeacher(build_model("mlp", classes=10, channels=1, size=8, seed=0))
        >>> result = screen(teacher, data, data.train, [CutMix()], precision=Precision(images=20, means=3))
        >>> sorted(row.label for row in result.rows), result.means
        (['cutmix', 'identity'], 3)
    """
    precision = precision or Precision()
    augmentations = tuple(dict.fromkeys((Identity(), *augmentations)))
    check_request(augmentations, precision, len(images))
    sizes = _batches(precision.images, len(images))
    teacher, channels_last = on_device(teacher, device, channels_last, (data.channels, data.size, data.size))
    normalize = Normalize(data, device, channels_last=channels_last)

    @torch.no_grad()
    def answers(pixels: Tensor) -> Tensor:
        logits: Tensor = teacher(normalize(pixels))
        return logits

    candidates = [_Candidate(augment, 2 * sum(sizes), seed, index) for index, augment in enumerate(augmentations)]
    generator, base = seeded_generator(seed, 0), BaseAugmentation(data.crop, data.flip)
    done, stopped = 0, False
    while done < precision.means and not stopped:
        for batch in sizes:
            rows = torch.randint(len(images), (batch,), generator=generator)
            raw, labels = next(iter(images.subset(rows).batches(batch)))
            raw, labels = base(raw.to(device), normalize.fill, generator), labels.to(device)
            logits = answers(raw)
            if logits.shape[1] != data.classes:
                rule = f"the teacher must have the data's {data.classes} classes"
                raise RequestError(rule, value=logits.shape[1], hint="use the teacher that was trained on this data")
            plain = logits.float().softmax(dim=1)
            for candidate in candidates:
                started = time.perf_counter()
                view = candidate.augment(raw, normalize.fill, candidate.generator, answers)
                view_logits = logits if view.images is raw else view.logits
                view_logits = answers(view.images) if view_logits is None else view_logits
                candidate.add(view, plain, view_logits, labels, data.classes)
                candidate.seconds += time.perf_counter() - started
        done += 1
        on_mean(done, precision.means)
        enough = done >= MIN_MEANS and done % 10 == 0 and done < precision.means
        stopped = enough and all(
            row.ratio_high - row.ratio_low <= 2 * precision.half_width * row.ratio
            for row in _rows(candidates, precision.guard)
        )
    ranked = sorted(_rows(candidates, precision.guard), key=lambda row: (not row.informative, row.ratio))
    return Screening(tuple(ranked), sum(sizes), done, stopped)


def check_request(augmentations: Sequence[Augmentation], precision: Precision, total: int) -> None:
    """Check a screening before there is a teacher.

    Raises:
        RequestError: An augmentation needs a student or cannot be imported, or a mean takes more than `total` images.
    """
    for augment in augmentations:
        resolve(augment)
        if augment.learns:
            rule = "a screened augmentation must not learn against a student"
            hint = "screen a learned one: --policy with the policy file of a search"
            raise RequestError(rule, value=augment.label, hint=hint)
        if augment.scored_by == "student":
            rule = "a screened augmentation must not ask a student"
            raise RequestError(rule, value=augment.label, hint="set pick_by: teacher")
    if precision.images is not None and precision.images > total:
        raise RequestError(f"images must be at most {total}, the images of the set", value=precision.images)


def _batches(images: int | None, total: int) -> list[int]:
    """Return the sizes of a mean's batches, as equal as possible."""
    if images is None:
        size = min(BATCHES * BATCH, max(2, total // 2))
        return [BATCH] * (size // BATCH) or [size]
    count = math.ceil(images / BATCH)
    return [images // count + (place < images % count) for place in range(count)]


def _rows(candidates: Sequence[_Candidate], guard: float) -> list[Row]:
    identity = candidates[0]
    reference = identity.metric.replicates()
    baseline = (identity.correct - identity.chance) / identity.images
    rows = []
    for candidate in candidates:
        values = candidate.metric.replicates()
        ratios = values / reference if float(reference[0]) > ROUNDING else torch.full_like(values, math.nan)
        low, high = percentiles(values[1:], 0.95)
        ratio_low, ratio_high = percentiles(ratios[1:], 0.95)
        above = (candidate.correct - candidate.chance) / candidate.images
        rows.append(
            Row(
                label=candidate.augment.label,
                augment=candidate.augment.to_json(),
                t_stddev=float(values[0]),
                low=low,
                high=high,
                ratio=float(ratios[0]),
                ratio_low=ratio_low,
                ratio_high=ratio_high,
                agreement=candidate.correct / candidate.images,
                entropy=candidate.entropy_sum / candidate.images,
                informative=baseline > MIN_AGREEMENT and above >= guard * baseline,
                seconds=candidate.seconds,
            )
        )
    return rows
