"""The one listener in the driver: what Ray Tune reports goes to the journal, then to MLflow and to the terminal."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from itertools import takewhile
from typing import Any

import ray
from ray.tune.experiment import Trial
from rich.markup import escape

from results.analysis.choices import describe_choices
from results.runlog.lineage import Exploit
from results.runlog.members import METRIC, Report
from results.tracking.tracker import Run, Tracker
from search.execution.journal import Journal, Progress
from search.execution.members import member_name, rankable
from search.execution.progress import ProgressReporter
from search.execution.trials import JournalCallback, Member, error_text
from spaces import Genome

SLOWER, LEAST = 20, 600.0
"""Where no limit is set, an epoch may take so many times as long as the slowest so far, and at least this, in s."""


class SweepCallback(JournalCallback):
    """Follows the trials of one stage.

    Args:
        journal: of the sweep; what it holds of an earlier life is made good in MLflow when a member is recalled.
        tracker: to MLflow.
        parent: the sweep's run.
        role: of the trials.
        ticker: to the terminal.
        epochs: that each trial is trained.
        limit: seconds that an epoch may take before its worker is ended; None: as `SLOWER` and `LEAST` say.
    """

    def __init__(
        self,
        journal: Journal,
        tracker: Tracker,
        parent: Run,
        role: str,
        ticker: ProgressReporter,
        epochs: int,
        limit: float | None = None,
    ) -> None:
        """Know nothing of any trial yet."""
        super().__init__(journal)
        self._tracker, self._parent, self._role, self._ticker = tracker, parent, role, ticker
        self._epochs = epochs
        self.runs: dict[str, Run] = {}
        self._best: dict[str, float] = {}
        self._copies = 0
        self._alarm = EpochWatchdog(limit)

    # An earlier life ------------------------------------------------------------------------------------------------

    def recall(self, members: Iterable[Member], copies: Iterable[Exploit] = ()) -> None:
        """Tell MLflow what it missed of members that were trained before, and go on from there."""
        for member in members:
            progress = self.journal.progress(member.name)
            if not progress.reports and not progress.ended:
                continue
            run = self._open(member.config())
            for report in progress.reports[self._tracker.points(run, "loss") :]:
                self._log(member.name, report)
            self._best[member.name] = max((r.metrics.get(METRIC, math.nan) for r in progress.reports), key=rankable)
            self._ticker.skip(progress.epoch)
            if progress.over(self._epochs):
                self._close(progress)
            progress.reports.clear()
        for event in copies:
            self.exploited(event)
        self._copies = 0

    # What Ray and the keeper call -----------------------------------------------------------------------------------

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Open the trial's run, the first time that it starts."""
        self._alarm.heard(trial)
        if member_name(trial) not in self.runs:
            self._open(trial.config["member"])

    def on_trial_restore(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """It has taken a checkpoint up."""
        self._alarm.heard(trial)

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """It is alive."""
        self._alarm.heard(trial, result.get("time_this_iter_s", 0.0))
        super().on_trial_result(iteration, trials, trial, result, **info)

    def on_trial_save(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """It is alive."""
        self._alarm.heard(trial)
        super().on_trial_save(iteration, trials, trial, **info)

    def reported(self, trial: Trial, report: Report) -> None:
        """Log the epoch."""
        name, score = member_name(trial), report.metrics.get(METRIC, math.nan)
        self._best[name] = max(self._best.get(name, math.nan), score, key=rankable)
        self._log(name, report)
        self._ticker.epoch(score)

    def why(self, trial: Trial) -> str:
        """Why a trial failed, in one line."""
        return self._alarm.why(trial) or super().why(trial)

    def ended(self, trial: Trial, progress: Progress) -> None:
        """Log the summaries, and close the run."""
        if progress.name not in self.runs:  # it failed before it started, in its actor's setup
            self._open(trial.config["member"])
        if progress.error:
            self._tracker.text(self.runs[progress.name], error_text(trial), "error.txt")
            self._ticker.say(f"  [red]{progress.name} failed[/red]: {escape(progress.error)}")
        self._close(progress)

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Say that a trial is started again."""
        name, epoch = member_name(trial), self.journal.progress(member_name(trial)).epoch
        self._ticker.say(f"  [yellow]{name} goes on from epoch {epoch}[/yellow], after: {escape(self.why(trial))}")

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """End the workers that hang."""
        self._alarm.look()

    # What the stage calls -------------------------------------------------------------------------------------------

    def exploited(self, event: Exploit) -> None:
        """Note on the target's run whom it copied, and when; earlier copies stay readable beside the latest."""
        self._copies += 1
        run, place = self.runs[event.target], f"exploit.{event.epoch:04d}"
        scores = f"{event.target_score:.4f} < {event.donor_score:.4f}"
        latest = {"exploited_from": event.donor, "exploited_at_epoch": str(event.epoch)}
        self._tracker.tag(run, {**latest, place: f"epoch {event.epoch}: copied {event.donor} ({scores})"})

    def parted(self, epoch: int, scores: dict[str, float], kept: Sequence[str]) -> None:
        """Members were compared on a rung, and some of them go on."""
        best = max(scores.values(), key=rankable, default=math.nan)
        self._ticker.say(f"  epoch {epoch}  best {best:.3f}  {len(kept)} of {len(scores)} go on")

    def generation(self, number: int, count: int, scores: dict[str, float]) -> None:
        """The population was perturbed."""
        for name in scores:
            self._tracker.tag(self.runs[name], {"generation": str(number)})
        self._ticker.generation(number, count, scores, self._copies)
        self._copies = 0

    # Its runs in MLflow ---------------------------------------------------------------------------------------------

    def _open(self, member: dict[str, Any]) -> Run:
        name = member["name"]
        params = {"seed": member["seed"], "epochs": self._epochs} | _chosen(member)
        tags = {"role": self._role, "stage": member["stage"], "member": name, "generation": "0"}
        tags |= {"arm": member["arm"]} if member["arm"] else {}
        self.runs[name] = self._tracker.start(name, parent=self._parent, tags=tags, params=params)
        return self.runs[name]

    def _log(self, name: str, report: Report) -> None:
        self._tracker.log(self.runs[name], report.metrics, step=report.epoch, at=report.at)

    def _close(self, progress: Progress) -> None:
        """Log what the run table shows, the last values and the best score, and end the run."""
        run, last = self.runs[progress.name], progress.last
        if last is not None:
            final = {f"final_{key}": value for key, value in last.metrics.items() if "/" not in key}
            if not math.isnan(best := self._best.get(progress.name, math.nan)):
                final["best_validation_accuracy"] = best
            self._tracker.log(run, final, step=last.epoch, at=last.at)
        if progress.stopped:
            self._tracker.tag(run, {"stopped_at_epoch": str(progress.epoch)})
        if not progress.over(self._epochs) or progress.stopped or progress.error:
            self._ticker.skip(self._epochs - (last.epoch if last else 0))
        self._tracker.finish(run, "FAILED" if progress.error else "FINISHED", error=progress.error)


class EpochWatchdog:
    """Ends workers whose epoch takes too long; a clock that is set meanwhile does not matter.

    Args:
        limit: seconds; None: as `SLOWER` and `LEAST` say, and no limit before anything was reported.
    """

    def __init__(self, limit: float | None) -> None:
        """Nobody runs."""
        self._limit, self._slowest = limit, 0.0
        self._since: OrderedDict[str, tuple[float, Trial]] = OrderedDict()  # whoever was silent for longest is first
        self._ended: dict[str, str] = {}

    def heard(self, trial: Trial, seconds: float = 0.0) -> None:
        """A trial gave a sign of life; of an epoch that took `seconds`, if that was what it said."""
        self._since[trial.trial_id] = time.monotonic(), trial
        self._since.move_to_end(trial.trial_id)
        self._slowest = max(self._slowest, seconds)
        self._ended.pop(trial.trial_id, None)

    def why(self, trial: Trial) -> str:
        """Why its worker was ended; empty: it was not ended here."""
        return self._ended.get(trial.trial_id, "")

    def look(self) -> None:
        """End the workers that have been silent for too long: the trial fails, or is started again."""
        limit = self._limit or (max(LEAST, SLOWER * self._slowest) if self._slowest else math.inf)
        now = time.monotonic()
        for _, trial in list(takewhile(lambda heard: now - heard[0] > limit, self._since.values())):
            if trial.status != Trial.RUNNING or self.why(trial):  # it waits, is over, or has been ended
                del self._since[trial.trial_id]
            elif (actor := trial.temporary_state.ray_actor) is not None:
                hint = "raise resources.epoch_limit if it was no hang"
                self._ended[trial.trial_id] = f"an epoch took more than {limit:g} s, so its worker was ended; {hint}"
                ray.kill(actor)


def _chosen(member: dict[str, Any]) -> dict[str, str]:
    """What a trial has from end to end: its augmentation, its distillation; one that a population moves has none."""
    if member["evolves"] or "genome" not in member:
        return {}
    return {name: str(value) for name, value in describe_choices(Genome.from_json(member["genome"])).items()}
