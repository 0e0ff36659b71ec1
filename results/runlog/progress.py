"""How far a trial is, folded from the events of a sweep's journal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from results.runlog.events import TrialStarted
from results.runlog.lineage import Exploit, Slice
from results.runlog.members import METRIC, MemberHistory, Report, is_loss, score_of


@dataclass
class Progress:
    """How far a trial is.

    Args:
        name: Name of the trial.
        epoch: Epochs of training in its checkpoint; 0 if there is none.
        checkpoint: Folder of the state that it goes on from: its own, or that of the trial that it copied.
        genome: Its present genome as plain data; None if it is still the one that it started with.
        boundary: Epoch of the last perturbation that it took part in.
        scores: (epoch, score) of the weights that it has now, see `results.runlog.members.score_of`.
        accuracies: (epoch, validation accuracy) of these weights.
        last: Its last report.
        ended_at: Time of its end in ms since 1970; None if it has not ended.
        stopped: True if a scheduler stopped it early.
        error: Why it failed, one line; empty if it did not.
        unsaved: Epochs reported since the checkpoint; after a retry they come again.
        started: Its first start.
        reports: All its reports, where the history keeps them.
    """

    name: str
    epoch: int = 0
    checkpoint: Path | None = None
    genome: Mapping[str, Any] | None = None
    boundary: int = 0
    scores: list[tuple[int, float]] = field(default_factory=list)
    accuracies: list[tuple[int, float]] = field(default_factory=list)
    last: Report | None = None
    ended_at: int | None = None
    stopped: bool = False
    error: str = ""
    unsaved: set[int] = field(default_factory=set)
    started: TrialStarted | None = None
    reports: list[Report] = field(default_factory=list)
    _slice_start: int = 0
    _slice: list[Report] = field(default_factory=list)

    @property
    def ended(self) -> bool:
        """True if the trial has ended."""
        return self.ended_at is not None

    def score(self, window: int) -> float:
        """Return the last score if it is of the last `window` epochs, else NaN.

        Not the best score, which is luck of one epoch, of weights that are gone.
        """
        return self._recent(self.scores, window)

    def accuracy(self, window: int) -> float:
        """Return the last validation accuracy if it is of the last `window` epochs, else NaN."""
        return self._recent(self.accuracies, window)

    def _recent(self, values: Sequence[tuple[int, float]], window: int) -> float:
        recent = (value for epoch, value in reversed(values) if epoch > self.epoch - window)
        return next((value for value in recent if not math.isnan(value)), math.nan)

    def over(self, epochs: int) -> bool:
        """Return True if nothing is left to do of a training of `epochs` epochs."""
        return self.epoch >= epochs or (self.ended and (bool(self.error) or self.stopped))

    def add(self, report: Report, *, keep: bool) -> None:
        """Take in the next report."""
        self.last = report
        self.unsaved.add(report.epoch)
        if METRIC in report.metrics:
            self.scores.append((report.epoch, score_of(report.metrics)))
            self.accuracies.append((report.epoch, report.metrics[METRIC]))
        if keep:
            self.reports.append(report)
            self._slice.append(report)

    def copy(self, exploit: Exploit, donor: Progress) -> None:
        """Go on from the donor's checkpoint with an explored genome."""
        self.epoch = self.boundary = self._slice_start = exploit.epoch
        self.genome = exploit.after.to_json()
        self.scores, self.accuracies = [], []
        self.unsaved.clear()
        self.checkpoint = donor.checkpoint

    def open_slice(self, score: float | None = None) -> Slice | None:
        """Return what it trained since the last perturbation; `score` replaces the last accuracy that it reported.

        A negative cross-entropy does not: a slice shows accuracy.
        """
        if not self._slice:
            return None
        scores = [report.metrics.get(METRIC, math.nan) for report in self._slice]
        last = next((each for each in reversed(scores) if not math.isnan(each)), math.nan)
        return Slice(
            self.name, self._slice_start, self._slice[-1].epoch, last if score is None or is_loss(score) else score
        )

    def close_slice(self, score: float) -> list[Slice]:
        """Return what it trained since the last perturbation, if anything, and begin the next slice."""
        found = self.open_slice(score)
        self._slice = []
        if found is None:
            return []
        self._slice_start = found.end
        return [found]

    def history(self) -> MemberHistory:
        """Return a frozen view."""
        return MemberHistory(
            self.name, tuple(self.reports), self.ended_at, self.stopped, self.error, started=self.started
        )
