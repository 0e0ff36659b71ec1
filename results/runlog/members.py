"""Reports, trainings and stages of a sweep, as `results.runlog.history.History` shows them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from results.runlog.events import TrialStarted
from results.runlog.lineage import Exploit, Lineage, Slice
from spaces import Genome

METRIC = "validation_accuracy"

SCORE = "score"
"""Metric that members are selected by, higher is better, where it is not the validation accuracy."""


def score_of(metrics: Mapping[str, float]) -> float:
    """Return what a member is selected by, higher is better; NaN if it was not scored.

    Example:
        >>> score_of({"validation_accuracy": 0.5, "score": -1.25}), score_of({"validation_accuracy": 0.5})
        (-1.25, 0.5)
    """
    return float(metrics.get(SCORE, metrics.get(METRIC, math.nan)))


def is_loss(score: float) -> bool:
    """Return True for a score that is a negative cross-entropy: an accuracy is never below 0."""
    return score < 0


FULL = "full"
"""Kind of the stages that are final trainings, not searches."""

CONFIRM, HEADROOM = "confirm", "headroom"
"""Kinds of the stages that compare a policy, or augmentation at all, with baselines."""

_SECONDS = "seconds/"


@dataclass(frozen=True)
class Report:
    """A trial's metrics of one epoch.

    Args:
        epoch: Number of the epoch, from 1.
        at: Time in ms since 1970.
        metrics: Metrics by name; NaN where there was none.
    """

    epoch: int
    at: int
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class MemberHistory:
    """The training of one trial.

    Args:
        name: Name of the trial, as in MLflow.
        reports: Reports in order. In an asynchronous population, a trial that copies one behind it falls back, and
            some epochs come twice.
        ended: Time of its end in ms since 1970; None if it runs, or died with the sweep.
        stopped: True if a scheduler stopped it early.
        error: Why it failed, one line; empty if it did not.
        started: Its first start; None if it has none.
    """

    name: str
    reports: tuple[Report, ...] = ()
    ended: int | None = None
    stopped: bool = False
    error: str = ""
    started: TrialStarted | None = None

    @property
    def epoch(self) -> int:
        """Last epoch that it reported; 0 if there is none."""
        return self.reports[-1].epoch if self.reports else 0

    @property
    def score(self) -> float:
        """Validation accuracy that it reported last; NaN if there is none."""
        return next((score for _, score in reversed(self.curve(METRIC))), math.nan)

    @property
    def span(self) -> tuple[int, int] | None:
        """Times of its first and last event in ms since 1970; the first is the end of an epoch."""
        times = [report.at for report in self.reports] + ([] if self.ended is None else [self.ended])
        return (min(times), max(times)) if times else None

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds over all epochs by part of the work (`train`, `augment`, …)."""
        total: dict[str, float] = {}
        for report in self.reports:
            for name, value in report.metrics.items():
                if name.startswith(_SECONDS) and not math.isnan(value):
                    part = name.removeprefix(_SECONDS)
                    total[part] = total.get(part, 0.0) + value
        return total

    def curve(self, metric: str) -> list[tuple[int, float]]:
        """Return the (epoch, value) pairs of a metric by epoch, without NaN; of an epoch that came twice, the last."""
        points = {report.epoch: report.metrics.get(metric, math.nan) for report in self.reports}
        return [(epoch, points[epoch]) for epoch in sorted(points) if not math.isnan(points[epoch])]


@dataclass(frozen=True)
class Perturbation:
    """A perturbation of a population.

    Args:
        epoch: Epoch of the trial that was furthest.
        at: Time in ms since 1970.
        scores: Score of the trials that took part, an accuracy or a negative loss; NaN where there was none.
        copies: The copies, in order.
    """

    epoch: int
    at: int
    scores: Mapping[str, float]
    copies: tuple[Exploit, ...]


@dataclass(frozen=True)
class Rung:
    """A decision of successive halving.

    Args:
        epoch: Epoch of the rung.
        at: Time in ms since 1970.
        scores: Score of the trials that were compared, an accuracy or a negative loss; NaN where there was none.
        kept: Names of the trials that went on.
    """

    epoch: int
    at: int
    scores: Mapping[str, float]
    kept: tuple[str, ...]


@dataclass(frozen=True)
class StageHistory:
    """One search, or the final trainings of one arm.

    Args:
        name: What its trials' names have before their number: `student-pbt`, `student-random`, `student-full-policy`.
        members: Trials by name, in the order of their numbers.
        perturbations: Perturbations of a population, in order.
        rungs: Decisions of successive halving, in order.
        slices: What each trial trained between two perturbations, in the order in which the slices ended.
        best: Trial whose policy was taken; before that, the one with the best last score; empty if none has a score.
        standings: (epoch, score) of each trial at its end, or else at the last perturbation or rung that it took part
            in; NaN for one that has copied another since.
    """

    name: str
    members: Mapping[str, MemberHistory]
    perturbations: tuple[Perturbation, ...] = ()
    rungs: tuple[Rung, ...] = ()
    slices: tuple[Slice, ...] = ()
    best: str = ""
    standings: Mapping[str, tuple[int, float]] = field(default_factory=dict)

    @property
    def role(self) -> str:
        """`teacher` or `student`."""
        return self.name.split("-")[0]

    @property
    def kind(self) -> str:
        """Kind of the search, such as `pbt` or `random`; `full` for final trainings."""
        return self.name.partition("-")[2].partition("-")[0]

    @property
    def arm(self) -> str:
        """Arm of final trainings: `policy`, `none`, `random`; empty for a search."""
        return self.name.removeprefix(f"{self.role}-{FULL}-") if self.kind == FULL else ""

    @property
    def exploits(self) -> tuple[Exploit, ...]:
        """Copies, in order."""
        return tuple(copy for each in self.perturbations for copy in each.copies)

    @property
    def span(self) -> tuple[int, int] | None:
        """Times of the first and last event of its trials in ms since 1970."""
        spans = [span for member in self.members.values() if (span := member.span)]
        return (min(first for first, _ in spans), max(last for _, last in spans)) if spans else None

    def starts(self) -> dict[str, Genome]:
        """Return the genome that each member started with, of those that are known to have started."""
        started = {name: member.started for name, member in self.members.items()}
        return {
            name: Genome.from_json(event.genome)
            for name, event in started.items()
            if event and event.genome is not None
        }

    def lineage(self) -> Lineage:
        """Return the lineage of its trials, with the path to the best one."""
        return Lineage.of(self.name, list(self.members), self.slices, self.exploits, self.best)
