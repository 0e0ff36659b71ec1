"""The callback of a sweep: what Ray Tune reports goes to the journal and to the terminal, and hung workers end."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Sequence
from itertools import takewhile
from typing import Any

import ray
from ray.tune.experiment import Trial
from rich.markup import escape

from results.runlog.members import METRIC, Report
from search.execution.journal import Journal, Progress
from search.execution.members import Member, member_name, rankable
from search.execution.progress import ProgressReporter
from search.execution.trials import JournalCallback
from trainables.task import Task

SLOWER, LEAST = 20, 600.0
"""Without a limit, an epoch may take this many times as long as the slowest so far, and at least this many seconds."""


class SweepCallback(JournalCallback):
    """Records trials in the journal, shows progress, and ends workers that hang.

    Args:
        journal: Journal of the sweep.
        reporter: Progress on the terminal.
        limit: Seconds that an epoch may take before its worker is ended; None derives it from the slowest epoch.
    """

    def __init__(self, journal: Journal, reporter: ProgressReporter, limit: float | None = None) -> None:
        super().__init__(journal)
        self._reporter = reporter
        self._watchdog = EpochWatchdog(limit)

    def begin(self, task: Task, members: Sequence[Member]) -> None:
        """Prepare for trials of `task`, and count what an earlier session has trained of `members`."""
        super().begin(task, members)
        for member in members:
            progress = self.journal.progress(member.name)
            self._reporter.skip(progress.epoch)
            if progress.over(task.epochs):
                self._skip_rest(progress)

    # What Ray calls ---------------------------------------------------------------------------------------------------

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Record the first start."""
        self._watchdog.record_activity(trial)
        super().on_trial_start(iteration, trials, trial, **info)

    def on_trial_restore(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Note that the worker is alive."""
        self._watchdog.record_activity(trial)

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """Record the epoch."""
        self._watchdog.record_activity(trial, result.get("time_this_iter_s", 0.0))
        super().on_trial_result(iteration, trials, trial, result, **info)

    def on_trial_save(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Record the checkpoint."""
        self._watchdog.record_activity(trial)
        super().on_trial_save(iteration, trials, trial, **info)

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Show that a trial is started again."""
        name, epoch = member_name(trial), self.journal.progress(member_name(trial)).epoch
        self._reporter.say(f"  [yellow]{name} goes on from epoch {epoch}[/yellow], after: {escape(self.why(trial))}")

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """End the workers that hang."""
        self._watchdog.check()

    # What the journal's callback calls --------------------------------------------------------------------------------

    def reported(self, trial: Trial, report: Report) -> None:
        """Show the epoch."""
        self._reporter.epoch(report.metrics.get(METRIC, math.nan))

    def why(self, trial: Trial) -> str:
        """Return why a trial failed, in one line."""
        return self._watchdog.why(trial) or super().why(trial)

    def ended(self, trial: Trial, progress: Progress) -> None:
        """Show a failure, and count the epochs that will not come."""
        if progress.error:
            self._reporter.say(f"  [red]{progress.name} failed[/red]: {escape(progress.error)}")
        self._skip_rest(progress)

    def _skip_rest(self, progress: Progress) -> None:
        epochs = self.task.epochs if self.task is not None else 0
        if not progress.over(epochs) or progress.stopped or progress.error:
            self._reporter.skip(epochs - (progress.last.epoch if progress.last else 0))

    # What a search calls ----------------------------------------------------------------------------------------------

    def rung(self, epoch: int, scores: dict[str, float], kept: Sequence[str]) -> None:
        """Show that trials were compared on a rung, and that those in `kept` go on."""
        best = max(scores, key=lambda name: rankable(scores[name]), default=None)
        accuracy = math.nan if best is None else self._accuracy(best)
        self._reporter.say(f"  epoch {epoch}  best {accuracy:.3f}  {len(kept)} of {len(scores)} go on")

    def generation(self, number: int, count: int, scores: dict[str, float], copies: int) -> None:
        """Show that the population was perturbed, for the `number`-th time of `count`."""
        self._reporter.generation(number, count, list(scores.values()), list(map(self._accuracy, scores)), copies)

    def _accuracy(self, name: str) -> float:
        last = self.journal.progress(name).last
        return math.nan if last is None else last.metrics.get(METRIC, math.nan)


class EpochWatchdog:
    """Ends workers whose epoch takes too long, by a clock that nobody sets.

    Args:
        limit: Seconds; None for `SLOWER` times the slowest epoch and at least `LEAST`, without a limit before the
            first report.
    """

    def __init__(self, limit: float | None) -> None:
        self._limit, self._slowest = limit, 0.0
        self._since: OrderedDict[str, tuple[float, Trial]] = OrderedDict()  # the one that is silent for longest first
        self._ended: dict[str, str] = {}

    def record_activity(self, trial: Trial, seconds: float = 0.0) -> None:
        """Note that a trial's worker is alive.

        Args:
            trial: The trial.
            seconds: Duration of the epoch that it reported, if it did.
        """
        self._since[trial.trial_id] = time.monotonic(), trial
        self._since.move_to_end(trial.trial_id)
        self._slowest = max(self._slowest, seconds)
        self._ended.pop(trial.trial_id, None)

    def why(self, trial: Trial) -> str:
        """Return why a trial's worker was ended; empty if it was not ended here."""
        return self._ended.get(trial.trial_id, "")

    def check(self) -> None:
        """End the workers that have been silent for too long: their trials fail, or are started again."""
        limit = self._limit or (max(LEAST, SLOWER * self._slowest) if self._slowest else math.inf)
        now = time.monotonic()
        for _, trial in list(takewhile(lambda seen: now - seen[0] > limit, self._since.values())):
            if trial.status != Trial.RUNNING or self.why(trial):  # it waits, has ended, or its worker has been ended
                del self._since[trial.trial_id]
            elif (actor := trial.temporary_state.ray_actor) is not None:
                hint = "raise resources.epoch_limit if it was no hang"
                self._ended[trial.trial_id] = f"an epoch took more than {limit:g} s, so its worker was ended; {hint}"
                ray.kill(actor)
