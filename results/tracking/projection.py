"""The projection of a sweep's events onto MLflow: which calls make its runs show them.

Nothing here talks to MLflow. The calls follow from the events and their order alone, so a process that reads the
journal again arrives at the same calls, and each of them may be made twice (see `results.tracking.client`).
"""

from __future__ import annotations

import math
import posixpath
import re
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import Any

from results.runlog import events
from results.runlog.events import Event
from results.runlog.members import METRIC
from results.tracking.store import cut

BATCH = 1000
"""Metrics and tags that MLflow takes in one call."""


class Op(StrEnum):
    """A kind of call to MLflow."""

    START = "start"
    REOPEN = "reopen"
    PARAMS = "params"
    LOG = "log"
    ARTIFACT = "artifact"
    TEXT = "text"
    MODEL = "model"
    FINISH = "finish"


UPLOADS = frozenset((Op.ARTIFACT, Op.TEXT, Op.MODEL))
"""Calls that need the artifact store."""


@dataclass(frozen=True)
class RunKey:
    """How a run is found again: by its uuid, in the tag `roletune.uuid`.

    Args:
        name: Name of the run.
        uuid: Hexadecimal identifier.
        parent: The uuid of the run above it; None if there is none. MLflow's page shows one level.
    """

    name: str
    uuid: str
    parent: str | None = None


@dataclass
class Call:
    """One call to MLflow.

    Args:
        op: Kind of the call.
        run: Run that it concerns.
        data: Arguments by name.
        offsets: Places of the events in the journal, in bytes, that it belongs to.
        events: Number of events that are delivered once it is made.
        tries: Number of attempts that failed.
    """

    op: Op
    run: RunKey
    data: dict[str, Any] = field(default_factory=dict)
    offsets: list[int] = field(default_factory=list)
    events: int = 0
    tries: int = 0

    @property
    def size(self) -> int:
        """Entities that MLflow counts against `BATCH`."""
        return len(self.data["metrics"]) + len(self.data["tags"]) if self.op is Op.LOG else 0


@dataclass
class _Run:
    """The state of a run that the translation of its next event needs."""

    key: RunKey
    open: bool = True
    params: frozenset[str] = frozenset()
    nonfinite: set[str] = field(default_factory=set)
    epochs: int = 0
    best: float = math.nan
    last: tuple[int, int, dict[str, float]] | None = None  # epoch, time, metrics that the table of runs shows


class Projection:
    """Translates a journal's events to calls, one after the other.

    Args:
        folder: Folder of the journal, which paths in it are relative to.
        user: Name that MLflow shows as the runs' user.

    Example:
        >>> from pathlib import Path
        >>> from results.runlog.events import MetricsLogged, RunStarted, SessionStarted
        >>> projection = Projection(Path("runs/digits-001"), "ada")
        >>> _ = projection.calls(SessionStarted(session=1, uuid="0" * 32))
        >>> [call.op.value for call in projection.calls(RunStarted(run="digits-001"))]
        ['start']
        >>> projection.calls(MetricsLogged(run="digits-001", metrics={"seconds": 2.0}, at=5))[0].data
        {'metrics': [('seconds', 2.0, 5, 0)], 'tags': {}}
    """

    def __init__(self, folder: Path, user: str) -> None:
        self._folder, self._user = folder, user
        self._uuid = ""
        self._root = ""
        self._runs: dict[str, _Run] = {}

    def calls(self, event: Event) -> list[Call]:
        """Return the calls that show the next event; none if MLflow shows nothing of it."""
        translate = _TRANSLATE.get(type(event))
        found = [] if translate is None else translate(self, event)
        if found:
            found[-1].events = 1
        return found

    # Runs -------------------------------------------------------------------------------------------------------------

    def _session_started(self, event: events.SessionStarted) -> list[Call]:
        self._uuid = event.uuid
        return []

    def _session_ended(self, event: events.SessionEnded) -> list[Call]:
        still_open = [run for run in self._runs.values() if run.open]
        return [call for run in reversed(still_open) for call in self._end(run, event.status, event.error, event.at)]

    def _run_started(self, event: events.RunStarted) -> list[Call]:
        if event.parent is None and not self._root:
            self._root = event.run
        note = {"mlflow.note.content": event.description} if event.description else {}
        return self._begin(event.run, event.parent, {**note, **event.tags}, event.params, event.at)

    def _run_ended(self, event: events.RunEnded) -> list[Call]:
        run = self._runs.get(event.run)
        return [] if run is None or not run.open else self._end(run, event.status, event.error, event.at)

    def _begin(
        self, name: str, parent: str | None, tags: Mapping[str, str], params: Mapping[str, str], at: int
    ) -> list[Call]:
        """Create a run, or open it again; MLflow's parameters never change, so those that it has stay."""
        run = self._runs.get(name)
        found = []
        if run is None:
            run = self._runs[name] = _Run(self._key(name, parent))
            fixed = {"mlflow.source.name": "roletune", "mlflow.user": self._user, "roletune.uuid": run.key.uuid}
            found = [Call(Op.START, run.key, {"tags": legal_tags({**fixed, **tags}), "at": at})]
        elif not run.open:
            run.open = True
            found = [Call(Op.REOPEN, run.key)]
        values = {legal_name(key): cut(str(value), 6000) for key, value in params.items()}
        if new := {key: value for key, value in values.items() if key not in run.params}:
            run.params |= new.keys()
            found.append(Call(Op.PARAMS, run.key, {"params": new}))
        return found

    def _key(self, name: str, parent: str | None) -> RunKey:
        if name == self._root:
            return RunKey(name, self._uuid)
        above = self._runs[parent].key if parent in self._runs else None
        top = None if above is None else above.parent or above.uuid
        return RunKey(name, uuid.uuid5(uuid.UUID(self._uuid), name).hex, top)

    def _end(self, run: _Run, status: str, error: str, at: int) -> list[Call]:
        run.open = False
        tagged = self._tag(run, {"error": error}) if error else []
        return [*tagged, Call(Op.FINISH, run.key, {"status": status, "at": at})]

    # Trials -----------------------------------------------------------------------------------------------------------

    def _trial_started(self, event: events.TrialStarted) -> list[Call]:
        tags = {"role": event.role, "stage": event.stage, "member": event.trial, "generation": "0"}
        tags |= {"arm": event.arm} if event.arm else {}
        params = {"seed": str(event.seed), "epochs": str(event.epochs), **event.choices}
        found = self._begin(event.trial, self._root or None, tags, params, event.at)
        self._runs[event.trial].epochs = event.epochs
        return found

    def _trial_reported(self, event: events.TrialReported) -> list[Call]:
        if (run := self._runs.get(event.trial)) is None:
            return []
        score = event.metrics.get(METRIC, math.nan)
        if not math.isnan(score):
            run.best = score if math.isnan(run.best) else max(run.best, score)
        shown = {name: value for name, value in event.metrics.items() if "/" not in name}
        run.last = event.epoch, event.at, shown
        return self._log(run, event.metrics, event.epoch, event.at)

    def _trial_ended(self, event: events.TrialEnded) -> list[Call]:
        """Log what the table of runs shows, the last values and the best score, and end the run."""
        if (run := self._runs.get(event.trial)) is None:
            return []
        found = []
        if event.error:
            found.append(Call(Op.TEXT, run.key, {"text": event.traceback, "name": "error.txt"}))
        if run.last is not None:
            epoch, at, metrics = run.last
            final = {f"final_{name}": value for name, value in metrics.items()}
            if not math.isnan(run.best):
                final["best_validation_accuracy"] = run.best
            found += self._log(run, final, epoch, at)
        if event.stopped:
            found += self._tag(run, {"stopped_at_epoch": str(event.epoch)})
        return [*found, *self._end(run, "FAILED" if event.error else "FINISHED", event.error, event.at)]

    def _trial_tested(self, event: events.TrialTested) -> list[Call]:
        if (run := self._runs.get(event.trial)) is None:
            return []
        final = {f"final_test_{name}": value for name, value in event.scores.items()}
        return self._log(run, final, run.epochs, event.at)

    def _population_perturbed(self, event: events.PopulationPerturbed) -> list[Call]:
        """Tag each trial with its generation, and a copy with its source; tags of earlier copies stay."""
        found: list[Call] = []
        for copy in event.exploits:
            if (run := self._runs.get(copy.target)) is not None:
                scores = f"{copy.target_score:.4f} < {copy.donor_score:.4f}"
                latest = {"exploited_from": copy.donor, "exploited_at_epoch": str(copy.epoch)}
                place = f"exploit.{copy.epoch:04d}"
                found += self._tag(run, {**latest, place: f"epoch {copy.epoch}: copied {copy.donor} ({scores})"})
        for name in event.scores:
            if (run := self._runs.get(name)) is not None:
                found += self._tag(run, {"generation": str(event.generation)})
        return found

    def _headroom_measured(self, event: events.HeadroomMeasured) -> list[Call]:
        name = f"headroom_{event.role}"
        return self._of_the_sweep({name: event.difference, f"{name}_half_width": event.half_width}, event.at)

    def _policy_confirmed(self, event: events.PolicyConfirmed) -> list[Call]:
        """Log the difference of the last round, and the accuracy of each candidate, in the sweep's run."""
        name = f"confirmed_{event.role}"
        accuracies = {f"{name}_validation_accuracy/{each}": value for each, value in event.accuracies.items()}
        difference = {f"{name}_difference": event.difference, f"{name}_difference_half_width": event.half_width}
        exported = {f"confirmed.{event.role}": event.winner}
        run = self._runs.get(self._root)
        tags = [] if run is None else self._tag(run, exported)
        return [*tags, *self._of_the_sweep({**difference, **accuracies}, event.at)]

    def _of_the_sweep(self, metrics: Mapping[str, float], at: int) -> list[Call]:
        """Log metrics to the sweep's own run; a half width that one seed cannot give is left out."""
        run = self._runs.get(self._root)
        known = {name: value for name, value in metrics.items() if not math.isnan(value)}
        return [] if run is None else self._log(run, known, 0, at)

    # What a run logs --------------------------------------------------------------------------------------------------

    def _metrics_logged(self, event: events.MetricsLogged) -> list[Call]:
        run = self._runs.get(event.run)
        return [] if run is None else self._log(run, event.metrics, event.step, event.at)

    def _tags_set(self, event: events.TagsSet) -> list[Call]:
        run = self._runs.get(event.run)
        return [] if run is None else self._tag(run, event.tags)

    def _artifact_written(self, event: events.ArtifactWritten) -> list[Call]:
        run = self._runs.get(event.run)
        return [] if run is None else [Call(Op.ARTIFACT, run.key, {"path": str(self._folder / event.path)})]

    def _text_written(self, event: events.TextWritten) -> list[Call]:
        run = self._runs.get(event.run)
        return [] if run is None else [Call(Op.TEXT, run.key, {"text": event.text, "name": event.name})]

    def _model_exported(self, event: events.ModelExported) -> list[Call]:
        if (run := self._runs.get(event.run)) is None:
            return []
        data = {"path": str(self._folder / event.path), "name": event.name, "tags": legal_tags(event.tags)}
        return [Call(Op.MODEL, run.key, {**data, "description": event.description, "metrics": event.metrics})]

    def _log(self, run: _Run, metrics: Mapping[str, float], step: int, at: int) -> list[Call]:
        """Log metrics; the first NaN or infinity of one becomes a tag.

        MLflow keeps NaN in SQLite as 0 with a flag and infinity as 1.8e308, which spoils plots and sorting.
        """
        values = {legal_name(name): value for name, value in metrics.items()}
        odd = {name: v for name, v in values.items() if not math.isfinite(v) and name not in run.nonfinite}
        run.nonfinite |= odd.keys()
        found = self._tag(run, {f"nonfinite/{name}": f"{value} at step {step}" for name, value in odd.items()})
        points = [(name, value, at, step) for name, value in values.items() if math.isfinite(value)]
        for place in range(0, len(points), BATCH):
            found.append(Call(Op.LOG, run.key, {"metrics": points[place : place + BATCH], "tags": {}}))
        return found

    def _tag(self, run: _Run, tags: Mapping[str, str]) -> list[Call]:
        return [Call(Op.LOG, run.key, {"metrics": [], "tags": legal_tags(tags)})] if tags else []


_TRANSLATE: dict[type[Event], Callable[[Projection, Any], list[Call]]] = {
    events.SessionStarted: Projection._session_started,
    events.SessionEnded: Projection._session_ended,
    events.RunStarted: Projection._run_started,
    events.RunEnded: Projection._run_ended,
    events.TrialStarted: Projection._trial_started,
    events.TrialReported: Projection._trial_reported,
    events.TrialEnded: Projection._trial_ended,
    events.TrialTested: Projection._trial_tested,
    events.PopulationPerturbed: Projection._population_perturbed,
    events.HeadroomMeasured: Projection._headroom_measured,
    events.PolicyConfirmed: Projection._policy_confirmed,
    events.MetricsLogged: Projection._metrics_logged,
    events.TagsSet: Projection._tags_set,
    events.ArtifactWritten: Projection._artifact_written,
    events.TextWritten: Projection._text_written,
    events.ModelExported: Projection._model_exported,
}


def merge_calls(calls: Iterable[Call]) -> list[Call]:
    """Merge what is logged for one run into calls of at most `BATCH` entities; the order within a run stays.

    Example:
        >>> run = RunKey("student-pbt-00", "0" * 32)
        >>> log = [Call(Op.LOG, run, {"metrics": [("loss", 0.5, 5, step)], "tags": {}}) for step in range(3)]
        >>> [len(call.data["metrics"]) for call in merge_calls(log)]
        [3]
    """
    merged: list[Call] = []
    latest: dict[RunKey, Call] = {}
    for call in calls:
        last = latest.get(call.run)
        if last is not None and last.op is call.op is Op.LOG and last.size + call.size <= BATCH:
            last.data["metrics"] += call.data["metrics"]
            last.data["tags"] |= call.data["tags"]
            last.offsets += call.offsets
            last.events += call.events
        else:
            merged.append(call)
            latest[call.run] = call
    return merged


@lru_cache(maxsize=10_000)
def legal_name(name: str) -> str:
    """Return `name` as MLflow takes it: without odd characters, and without a path that means another one.

    Example:
        >>> legal_name("acc@1")
        'acc_1'
    """
    return posixpath.normpath(re.sub(r"[^/\w.\- :]", "_", name)).lstrip("/.")[:250] or "_"


def legal_tags(tags: Mapping[str, object]) -> dict[str, str]:
    """Return tags with legal names and values cut to MLflow's limit."""
    return {legal_name(name): cut(str(value), 8000) for name, value in tags.items()}
