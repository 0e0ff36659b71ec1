"""Rank augmentations by T. stddev with the teacher alone, before any student is trained.

Source: Wang et al. 2022 (NeurIPS), https://arxiv.org/abs/2012.02909. Images are drawn with replacement, so that a small
set's spread is not made smaller by drawing without (the authors' sets are large, and their code draws without).
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
"""Images a batch, as in the authors' code."""

KNOWS = 0.05
"""A teacher whose agreement is less above chance than this knows nothing that an augmentation could spoil."""

REPLICATES = 400
LEAST_MEANS = 20
"""Fewer means give no interval to stop by."""

ROUNDING = 1e-7
"""A spread below it is that of rounding: answers that are all the same have one of 1e-9 or so."""


@dataclass(frozen=True)
class Precision:
    """How long to look.

    Args:
        images: drawn for a mean, with replacement; None: 5 batches of 64, or as many of them as half of the set has.
        means: at most.
        half_width: stop when half of every ratio's 95 % interval is below this share of it.
        guard: an augmentation is uninformative when the teacher's agreement, above chance, is below this share of
            what it is without augmentation.
    """

    __pydantic_config__ = {"extra": "forbid", "strict": True}  # noqa: RUF012 - what a sweep file may not say; plain data

    images: int | None = None
    means: int = 300
    half_width: float = 0.02
    guard: float = 0.5

    def __post_init__(self) -> None:
        """Refuse what measures nothing."""
        if self.images is not None and self.images < 1:
            raise RequestError("a mean takes one image or more", value=self.images)
        if self.means < 2:
            raise RequestError("a spread takes two means or more", value=self.means)
        for name in ("half_width", "guard"):
            if not 0 <= getattr(self, name) <= 1:
                raise RequestError(f"{name} lies in [0, 1]", value=getattr(self, name))


@dataclass(frozen=True)
class Row:
    """One augmentation as the teacher sees it.

    Args:
        label: its name, with what differs from the defaults.
        augment: as plain data.
        t_stddev: lower is better.
        low: of its 95 % interval.
        high: of its 95 % interval.
        ratio: over identity's; below 1 is better than nothing.
        ratio_low: of the ratio's 95 % interval, paired.
        ratio_high: of the ratio's 95 % interval, paired.
        agreement: share of images whose top-1 answer is the label, or either label of a mix.
        entropy: mean of the teacher's answers, nats.
        informative: False: the teacher no longer knows what it sees, or never did, and the ratio means nothing.
        seconds: spent on this one.
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
    """The ranking, and what it rests on.

    Args:
        rows: the informative ones, best first, then the others.
        images: drawn for a mean; a mean is over twice as many answers.
        means: taken.
        stopped_early: whether every interval was narrow enough before all means were taken.
    """

    rows: tuple[Row, ...]
    images: int
    means: int
    stopped_early: bool


class _Contestant:
    """What is known so far of one augmentation."""

    def __init__(self, augment: Augmentation, rows: int, seed: int, index: int) -> None:
        self.augment = augment
        self.generator = seeded_generator(seed, index, 1)
        self.metric = TStddev(rows, seed=seed, replicates=REPLICATES)  # one seed for all: the ratios are paired
        self.right = self.uncertainty = self.chance = 0.0
        self.shown, self.seconds = 0, 0.0

    def see(self, view: View, base: Tensor, logits: Tensor, labels: Tensor, classes: int) -> None:
        self.metric.add(torch.cat((base, logits.float().softmax(dim=1))))
        self.right += float(view.matches_label(logits.argmax(dim=1), labels).sum())
        self.uncertainty += float(entropy(logits).sum())
        both = (labels[view.first] != labels[view.second]) & (view.weight < 1)
        self.chance += float((1 + both.float()).sum()) / classes
        self.shown += len(labels)


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
    """Show the teacher the same images under every augmentation, side by side, and rank these.

    Args:
        teacher: frozen; it is asked in evaluation mode.
        data: says what there is to know of the images.
        images: that are drawn from, usually those the teacher was trained on.
        augmentations: what is ranked; identity is added where it is missing.
        precision: how long to look.
        seed: of every draw.
        device: where the teacher is asked.
        channels_last: as in `Recipe`.
        on_mean: is told, after each mean, how many there are and how many there will be at most.

    Raises:
        RequestError: more images a mean than there are, an augmentation that asks a student, or a teacher whose
            classes are not the data's.
    """
    precision = precision or Precision()
    augmentations = tuple(dict.fromkeys((Identity(), *augmentations)))
    check_request(augmentations, precision, len(images))
    sizes = _batches(precision.images, len(images))
    teacher, channels_last = on_device(teacher, device, channels_last, (data.channels, data.size, data.size))
    normalize = Normalize(data, device, channels_last=channels_last)

    @torch.no_grad()
    def answers(shown: Tensor) -> Tensor:
        logits: Tensor = teacher(normalize(shown))
        return logits

    contestants = [_Contestant(augment, 2 * sum(sizes), seed, index) for index, augment in enumerate(augmentations)]
    generator, base = seeded_generator(seed, 0), BaseAugmentation(data.crop, data.flip)
    done, stopped = 0, False
    while done < precision.means and not stopped:
        for batch in sizes:
            rows = torch.randint(len(images), (batch,), generator=generator)
            raw, labels = next(iter(images.subset(rows).batches(batch)))
            raw, labels = base(raw.to(device), normalize.fill, generator), labels.to(device)
            logits = answers(raw)
            if logits.shape[1] != data.classes:
                rule = f"the teacher answers with the data's {data.classes} classes"
                raise RequestError(rule, value=logits.shape[1], hint="give the teacher that was trained on this data")
            plain = logits.float().softmax(dim=1)
            for contestant in contestants:
                started = time.perf_counter()
                view = contestant.augment(raw, normalize.fill, contestant.generator, answers)
                known = logits if view.images is raw else view.logits
                seen = answers(view.images) if known is None else known
                contestant.see(view, plain, seen, labels, data.classes)
                contestant.seconds += time.perf_counter() - started
        done += 1
        on_mean(done, precision.means)
        enough = done >= LEAST_MEANS and done % 10 == 0 and done < precision.means
        stopped = enough and all(
            row.ratio_high - row.ratio_low <= 2 * precision.half_width * row.ratio
            for row in _rows(contestants, precision.guard)
        )
    ranked = sorted(_rows(contestants, precision.guard), key=lambda row: (not row.informative, row.ratio))
    return Screening(tuple(ranked), sum(sizes), done, stopped)


def check_request(augmentations: Sequence[Augmentation], precision: Precision, total: int) -> None:
    """Refuse what can be known to fail before there is a teacher.

    Raises:
        RequestError: an augmentation asks a student or cannot be imported, or a mean takes more than `total` images.
    """
    for augment in augmentations:
        resolve(augment)
        if augment.learns:
            rule = "there is no student to learn against while augmentations are screened"
            hint = "screen what it has learned: --policy with the policy file of a search"
            raise RequestError(rule, value=augment.label, hint=hint)
        if augment.scored_by == "student":
            rule = "there is no student to ask while augmentations are screened"
            raise RequestError(rule, value=augment.label, hint="screen it with pick_by: teacher")
    if precision.images is not None and precision.images > total:
        raise RequestError(f"a mean takes at most the {total} images that there are", value=precision.images)


def _batches(images: int | None, total: int) -> list[int]:
    """The sizes of a mean's batches: as near to each other as the images that were asked for allow."""
    if images is None:
        wanted = min(BATCHES * BATCH, max(2, total // 2))
        return [BATCH] * (wanted // BATCH) or [wanted]
    count = math.ceil(images / BATCH)
    return [images // count + (place < images % count) for place in range(count)]


def _rows(contestants: Sequence[_Contestant], guard: float) -> list[Row]:
    identity = contestants[0]
    reference = identity.metric.replicates()
    certain = (identity.right - identity.chance) / identity.shown
    rows = []
    for contestant in contestants:
        values = contestant.metric.replicates()
        ratios = values / reference if float(reference[0]) > ROUNDING else torch.full_like(values, math.nan)
        low, high = percentiles(values[1:], 0.95)
        ratio_low, ratio_high = percentiles(ratios[1:], 0.95)
        above = (contestant.right - contestant.chance) / contestant.shown
        rows.append(
            Row(
                label=contestant.augment.label,
                augment=contestant.augment.to_json(),
                t_stddev=float(values[0]),
                low=low,
                high=high,
                ratio=float(ratios[0]),
                ratio_low=ratio_low,
                ratio_high=ratio_high,
                agreement=contestant.right / contestant.shown,
                entropy=contestant.uncertainty / contestant.shown,
                informative=certain > KNOWS and above >= guard * certain,
                seconds=contestant.seconds,
            )
        )
    return rows
