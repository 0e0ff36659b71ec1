"""What one training, and what one stage of a sweep, did: as `results.runlog.history` reads it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from results.runlog.lineage import Exploit, Family, Slice

METRIC = "validation_accuracy"

FULL = "full"
"""The kind of the stages that are no searches."""

_SECONDS = "seconds/"


@dataclass(frozen=True)
class Report:
    """What a member reported of one epoch.

    Args:
        epoch: 1, 2, 3, …
        at: when, in milliseconds since 1970, as MLflow counts.
        metrics: by name; NaN where there was none to give.
    """

    epoch: int
    at: int
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class MemberHistory:
    """One training.

    Args:
        name: the member's, as in MLflow.
        reports: in the order in which they came. Where a population does not wait, a member that copies one behind it
            falls back, and some epochs come twice.
        ended: when nothing more was to be done with it, in milliseconds since 1970; None: it runs, or died with the
            sweep.
        stopped: it ended early, because a scheduler wanted it to.
        error: why it failed, one line; empty: it did not.
    """

    name: str
    reports: tuple[Report, ...] = ()
    ended: int | None = None
    stopped: bool = False
    error: str = ""

    @property
    def epoch(self) -> int:
        """The last that it reported; 0: none."""
        return self.reports[-1].epoch if self.reports else 0

    @property
    def score(self) -> float:
        """The validation accuracy that it reported last; NaN: none."""
        return next((score for _, score in reversed(self.curve(METRIC))), math.nan)

    @property
    def span(self) -> tuple[int, int] | None:
        """When it was first and last heard of, in milliseconds since 1970; the first is the end of an epoch."""
        times = [report.at for report in self.reports] + ([] if self.ended is None else [self.ended])
        return (min(times), max(times)) if times else None

    @property
    def seconds(self) -> dict[str, float]:
        """By part of the work (`train`, `augment`, …), what all epochs took together."""
        total: dict[str, float] = {}
        for report in self.reports:
            for name, value in report.metrics.items():
                if name.startswith(_SECONDS) and not math.isnan(value):
                    part = name.removeprefix(_SECONDS)
                    total[part] = total.get(part, 0.0) + value
        return total

    def curve(self, metric: str) -> list[tuple[int, float]]:
        """(epoch, value) where there is one, by epoch; of an epoch that came twice, the last."""
        points = {report.epoch: report.metrics.get(metric, math.nan) for report in self.reports}
        return [(epoch, points[epoch]) for epoch in sorted(points) if not math.isnan(points[epoch])]


@dataclass(frozen=True)
class Perturbation:
    """A population was perturbed.

    Args:
        epoch: of the member that was furthest.
        at: when, in milliseconds since 1970.
        scores: of the members that took part, as it judged them; NaN: none.
        copies: who copied whom.
    """

    epoch: int
    at: int
    scores: Mapping[str, float]
    copies: tuple[Exploit, ...]


@dataclass(frozen=True)
class Rung:
    """Members were compared, and some of them parted.

    Args:
        epoch: at which.
        at: when, in milliseconds since 1970.
        scores: of those that were compared; NaN: none.
        kept: who went on.
    """

    epoch: int
    at: int
    scores: Mapping[str, float]
    kept: tuple[str, ...]


@dataclass(frozen=True)
class StageHistory:
    """One search, or the full trainings of one arm.

    Args:
        name: what its members' names have before their number: `student-pbt`, `student-random`, `student-full-policy`.
        members: by name, in the order of their numbers.
        perturbations: of a search whose members copy each other, in order.
        rungs: of one whose members are halved, in order.
        slices: what each member trained between two perturbations, in the order in which they ended.
        best: the member whose policy was taken; before that, the one with the best last score; empty: none has one.
    """

    name: str
    members: Mapping[str, MemberHistory]
    perturbations: tuple[Perturbation, ...] = ()
    rungs: tuple[Rung, ...] = ()
    slices: tuple[Slice, ...] = ()
    best: str = ""

    @property
    def role(self) -> str:
        """`teacher` or `student`."""
        return self.name.split("-")[0]

    @property
    def kind(self) -> str:
        """`pbt`, `random`, … of a search; else `full`."""
        return self.name.partition("-")[2].partition("-")[0]

    @property
    def arm(self) -> str:
        """Of full trainings, what they were trained with: `policy`, `none`, `random`; of a search, nothing."""
        return self.name.removeprefix(f"{self.role}-{FULL}-") if self.kind == FULL else ""

    @property
    def exploits(self) -> tuple[Exploit, ...]:
        """All copies, in the order in which they happened."""
        return tuple(copy for each in self.perturbations for copy in each.copies)

    @property
    def span(self) -> tuple[int, int] | None:
        """When a member was first and last heard of, in milliseconds since 1970."""
        spans = [span for member in self.members.values() if (span := member.span)]
        return (min(first for first, _ in spans), max(last for _, last in spans)) if spans else None

    def family(self) -> Family:
        """Who descends from whom, and the way to the best."""
        return Family.of(self.name, list(self.members), self.slices, self.exploits, self.best)
