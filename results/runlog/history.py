"""The history of a sweep: its journal's events folded into what is known of stages and trials."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from results.runlog import events
from results.runlog.events import JOURNAL_FILE, Event, read_events
from results.runlog.lineage import Exploit, Slice
from results.runlog.members import CONFIRM, FULL, HEADROOM, Perturbation, Report, Rung, StageHistory
from results.runlog.progress import Progress
from spaces.core.errors import RequestError, unknown


@dataclass(frozen=True)
class Session:
    """A process that worked on the sweep, from its start to its last event.

    Args:
        started: Time in ms since 1970.
        last_event: Time in ms since 1970.
        slots: Number of trials that ran at once; None if it was not recorded.
    """

    started: int
    last_event: int
    slots: int | None = None


@dataclass
class _Stage:
    """A stage while events are folded."""

    name: str
    trials: dict[str, Progress] = field(default_factory=dict)
    perturbations: list[Perturbation] = field(default_factory=list)
    rungs: list[events.RungDecided] = field(default_factory=list)
    suggestions: list[events.GenomeSuggested] = field(default_factory=list)
    slices: list[Slice] = field(default_factory=list)
    standings: dict[str, tuple[int, float]] = field(default_factory=dict)


class History:
    r"""The course of a sweep, read from its journal; the only reader that there is.

    A journal feeds its own events to a history as it writes them; everybody else reads the file.

    Args:
        folder: Folder of the sweep.
        keep_reports: True to keep every report and slice; False bounds the memory to scores and copies.

    Attributes:
        trials: How far each trial is, by name, in the order of their first events.
        sessions: One for each process that worked on the sweep.
        tests: Test of each final training, by name.
        screened: Labels of the augmentations that screening dropped; None before it has run.
        headroom: What augmentation gains before a search, by role.
        confirmations: Outcome of the confirmation of each role's policy.
        uuid: Identifier of the sweep; empty before its first session.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> folder = Path(tempfile.mkdtemp())
        >>> lines = ['{"event": "session_started", "at": 1, "session": 1, "uuid": "a"}',
        ...          '{"event": "trial_reported", "at": 2, "trial": "student-pbt-00", "epoch": 1,'
        ...          ' "metrics": {"validation_accuracy": 0.5}}']
        >>> _ = (folder / "journal.jsonl").write_text("\n".join(lines) + "\n")
        >>> history = History.read(folder)
        >>> history.stage("student-pbt").members["student-pbt-00"].score
        0.5
    """

    def __init__(self, folder: Path, *, keep_reports: bool = True) -> None:
        self.folder = folder
        self.trials: dict[str, Progress] = {}
        self.sessions: list[Session] = []
        self.tests: dict[str, events.TrialTested] = {}
        self.screened: tuple[str, ...] | None = None
        self.headroom: dict[str, events.HeadroomMeasured] = {}
        self.confirmations: dict[str, events.PolicyConfirmed] = {}
        self.uuid = ""
        self._keep_reports = keep_reports
        self._stages: dict[str, _Stage] = {}
        self._views: dict[str, StageHistory] | None = None

    @classmethod
    def read(cls, folder: Path | str) -> History:
        """Read the journal in `folder`, of a sweep that runs, has ended, or was killed.

        Raises:
            RequestError: If there is no journal, it is damaged, or an earlier version of roletune wrote it.
        """
        history = cls(Path(folder))
        path = history.folder / JOURNAL_FILE
        if not path.is_file():
            raise RequestError(
                f"{folder} must be a sweep's folder, but has no {JOURNAL_FILE}", hint="try runs/digits-001"
            )
        history.load(path)
        return history

    def load(self, path: Path) -> int:
        """Apply all complete lines of the journal at `path`; return the offset behind the last one in bytes.

        Raises:
            RequestError: If the journal is damaged, or an earlier version of roletune wrote it.
        """
        offset = 0
        for number, (end, event) in enumerate(read_events(path), start=1):
            try:
                self.apply(event)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise RequestError(f"line {number} of {path} is damaged: {error!r}") from error
            offset = end
        return offset

    def apply(self, event: Event) -> None:
        """Fold the next event in."""
        self._views = None
        if isinstance(event, events.SessionStarted) or not self.sessions:
            self.sessions.append(Session(event.at, event.at))
        last = self.sessions[-1]
        self.sessions[-1] = replace(last, last_event=max(last.last_event, event.at))
        if (fold := _FOLDS.get(type(event))) is not None:
            fold(self, event)

    # What is known ----------------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.folder.resolve().name

    @property
    def finished(self) -> bool:
        """True if there is a result; a sweep that is resumed with more to do has an earlier one."""
        return (self.folder / "result.json").is_file()

    @property
    def dropped(self) -> tuple[str, ...]:
        """Labels of the augmentations that screening dropped."""
        return self.screened or ()

    @property
    def started(self) -> int | None:
        """Time of the first event in ms since 1970."""
        return self.sessions[0].started if self.sessions else None

    @property
    def last_event(self) -> int | None:
        """Time of the last event in ms since 1970."""
        return self.sessions[-1].last_event if self.sessions else None

    @property
    def stages(self) -> Mapping[str, StageHistory]:
        """The stages by name, in the order of their first events."""
        if self._views is None:
            self._views = {name: self._view(stage) for name, stage in self._stages.items()}
        return self._views

    @property
    def searches(self) -> tuple[StageHistory, ...]:
        """The stages that are searches."""
        return tuple(stage for stage in self.stages.values() if stage.kind not in (FULL, CONFIRM, HEADROOM))

    @property
    def trainings(self) -> tuple[StageHistory, ...]:
        """The stages that are final trainings, one an arm."""
        return tuple(stage for stage in self.stages.values() if stage.kind == FULL)

    def stage(self, name: str) -> StageHistory:
        """Return the stage of this name.

        Raises:
            RequestError: If there is none.
        """
        if name not in self.stages:
            raise unknown("stage", name, self.stages)
        return self.stages[name]

    def progress(self, trial: str) -> Progress:
        """Return how far a trial is; one without events has not begun."""
        return self.trials.get(trial) or Progress(trial)

    def perturbations(self, stage: str) -> list[Perturbation]:
        """Return the perturbations of a search, in order."""
        return self._stages[stage].perturbations if stage in self._stages else []

    def exploits(self, stage: str) -> list[Exploit]:
        """Return the copies of a search, in order."""
        return [copy for each in self.perturbations(stage) for copy in each.copies]

    def rungs(self, stage: str) -> list[events.RungDecided]:
        """Return the decisions of successive halving in a search, in order."""
        return self._stages[stage].rungs if stage in self._stages else []

    def suggestions(self, stage: str) -> list[events.GenomeSuggested]:
        """Return the genomes that were suggested in a search, in order."""
        return self._stages[stage].suggestions if stage in self._stages else []

    # How events are folded --------------------------------------------------------------------------------------------

    def _stage(self, name: str) -> _Stage:
        return self._stages.setdefault(name, _Stage(name))

    def _trial(self, name: str) -> Progress:
        known = self.trials.get(name)
        if known is None:
            known = self.trials[name] = Progress(name)
            self._stage(stage_name(name)).trials[name] = known
        return known

    def _session_started(self, event: events.SessionStarted) -> None:
        self.uuid = event.uuid

    def _slots_placed(self, event: events.SlotsPlaced) -> None:
        self.sessions[-1] = replace(self.sessions[-1], slots=int(event.slots))

    def _trial_started(self, event: events.TrialStarted) -> None:
        trial = self._trial(event.trial)
        if trial.started is None:  # a later session starts from another genome
            trial.started = event if self._keep_reports else replace(event, genome=None)

    def _trial_reported(self, event: events.TrialReported) -> None:
        report = Report(int(event.epoch), event.at, event.metrics)
        self._trial(event.trial).add(report, keep=self._keep_reports)

    def _checkpoint_saved(self, event: events.CheckpointSaved) -> None:
        trial = self._trial(event.trial)
        trial.epoch, trial.checkpoint = event.epoch, self.folder / event.checkpoint
        trial.unsaved.clear()

    def _population_perturbed(self, event: events.PopulationPerturbed) -> None:
        stage, copies = self._stage(event.stage), event.exploits
        stage.perturbations.append(Perturbation(event.epoch, event.at, event.scores, copies))
        for name, score in event.scores.items():
            trial = self._trial(name)
            trial.boundary = trial.epoch
            stage.standings[name] = trial.epoch or event.epoch, score
            if self._keep_reports:
                stage.slices += trial.close_slice(score)
        for copy in copies:
            self._trial(copy.target).copy(copy, self._trial(copy.donor))
            stage.standings[copy.target] = copy.epoch, math.nan

    def _rung_decided(self, event: events.RungDecided) -> None:
        stage = self._stage(event.stage)
        stage.rungs.append(event)
        for name, (_, score, _) in event.standings.items():
            stage.standings[name] = event.epoch, score

    def _genome_suggested(self, event: events.GenomeSuggested) -> None:
        self._stage(event.stage).suggestions.append(event)

    def _headroom_measured(self, event: events.HeadroomMeasured) -> None:
        self.headroom[event.role] = event

    def _policy_confirmed(self, event: events.PolicyConfirmed) -> None:
        self.confirmations[event.role] = event

    def _augmentations_screened(self, event: events.AugmentationsScreened) -> None:
        self.screened = event.dropped

    def _trial_ended(self, event: events.TrialEnded) -> None:
        trial = self._trial(event.trial)
        trial.ended_at, trial.stopped, trial.error = event.at, bool(event.stopped), str(event.error)
        standings = self._stage(stage_name(event.trial)).standings
        score = trial.score(trial.epoch - trial.boundary)
        if event.trial in standings and not (trial.stopped or trial.error or math.isnan(score)):
            standings[event.trial] = trial.epoch, score

    def _trial_retried(self, event: events.TrialRetried) -> None:
        trial = self._trial(event.trial)
        trial.ended_at, trial.stopped, trial.error = None, False, ""

    def _trial_tested(self, event: events.TrialTested) -> None:
        self.tests[event.trial] = event

    def _view(self, stage: _Stage) -> StageHistory:
        trials = {name: stage.trials[name] for name in sorted(stage.trials, key=_number)}
        slices = (*stage.slices, *(last for trial in trials.values() if (last := trial.open_slice())))
        known = {name: trial.history() for name, trial in trials.items()}
        latest = {each.member: each.score for each in slices if not math.isnan(each.score)}
        complete = [name for name in known if name in latest and not (known[name].error or known[name].stopped)]
        winner = _winner(self.folder, stage.name)
        best = winner if winner in known else max(complete, key=lambda name: latest[name], default="")
        rungs = tuple(
            Rung(each.epoch, each.at, {name: standing[1] for name, standing in each.standings.items()}, each.kept)
            for each in stage.rungs
        )
        return StageHistory(
            name=stage.name,
            members=known,
            perturbations=tuple(stage.perturbations),
            rungs=rungs,
            slices=slices,
            best=best,
            standings=dict(stage.standings),
        )


_FOLDS: dict[type[Event], Callable[[History, Any], None]] = {
    events.SessionStarted: History._session_started,
    events.SlotsPlaced: History._slots_placed,
    events.TrialStarted: History._trial_started,
    events.TrialReported: History._trial_reported,
    events.CheckpointSaved: History._checkpoint_saved,
    events.PopulationPerturbed: History._population_perturbed,
    events.RungDecided: History._rung_decided,
    events.GenomeSuggested: History._genome_suggested,
    events.AugmentationsScreened: History._augmentations_screened,
    events.HeadroomMeasured: History._headroom_measured,
    events.PolicyConfirmed: History._policy_confirmed,
    events.TrialEnded: History._trial_ended,
    events.TrialRetried: History._trial_retried,
    events.TrialTested: History._trial_tested,
}


def stage_name(trial: str) -> str:
    """Return the name of a trial's stage: what its name has before the number.

    Example:
        >>> stage_name("student-full-policy-0")
        'student-full-policy'
    """
    return re.sub(r"-\d+$", "", trial)


def _winner(folder: Path, stage: str) -> str:
    """The trial whose policy was taken, as the role's policy file says; empty if there is none yet."""
    try:
        policy = json.loads((folder / f"policy.{stage.split('-')[0]}.json").read_text("utf-8"))
        return str(policy["provenance"]["run"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _number(name: str) -> tuple[int, str]:
    found = re.search(r"\d+$", name)
    return (int(found.group()) if found else -1, name)
