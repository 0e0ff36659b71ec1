"""The events of a sweep's journal: one frozen dataclass a kind, each written as one line of JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from sys import intern
from typing import Any, ClassVar, Self, TypeVar

from results.runlog.lineage import Exploit
from spaces.core.errors import RequestError

E = TypeVar("E", bound="type[Event]")

JOURNAL_FILE = "journal.jsonl"
"""Name of the journal in a sweep's folder."""

_KEY = "event"
_BEFORE = "started"  # the kind of the first line in journals of roletune 0.1
_KINDS: dict[str, type[Event]] = {}


def _register(kind: E) -> E:
    _KINDS[kind.kind] = kind
    return kind


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened in a sweep.

    Args:
        at: Time in ms since 1970; set by the journal when it writes the event.
    """

    kind: ClassVar[str]
    durable: ClassVar[bool] = False
    """True if the event must be on disk (fsync) before the sweep acts on it."""

    at: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return the event as plain data; NaN becomes null."""
        values = {each.name: _encoder(each)(getattr(self, each.name)) for each in _fields(type(self))}
        return {_KEY: self.kind, **values}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Return the event that `to_json` wrote; keys of later versions are ignored."""
        given = {each.name: _decoder(each)(data[each.name]) for each in _fields(cls) if each.name in data}
        return cls(**{"at": data["at"], **given})


def parse_event(line: bytes | str) -> Event:
    """Return the event in a journal's line; a kind that a later version defines gives a plain `Event`.

    Raises:
        ValueError, TypeError, KeyError: If the line is damaged.

    Example:
        >>> parse_event('{"event": "trial_retried", "at": 5, "trial": "student-pbt-00"}')
        TrialRetried(at=5, trial='student-pbt-00')
    """
    data = json.loads(line)
    kind = _KINDS.get(data[_KEY])
    return Event(at=int(data["at"])) if kind is None else kind.from_json(data)


def read_events(path: Path) -> Iterator[tuple[int, Event]]:
    """Yield each complete line of a journal as (offset of its end in bytes, event).

    A last line that is still being written, or was cut off by a crash, is left out.

    Raises:
        RequestError: If the journal cannot be read, a line is damaged, or an earlier version wrote it.
    """
    offset = 0
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    return
                offset += len(line)
                yield offset, _checked(path, number, line)
    except OSError as error:
        raise RequestError(f"the journal {path} must be readable", value=error.strerror or str(error)) from error


def _checked(path: Path, number: int, line: bytes) -> Event:
    try:
        if number == 1 and json.loads(line).get(_KEY) == _BEFORE:
            raise RequestError(f"{path} was written by an earlier version of roletune; start a new sweep")
        return parse_event(line)
    except RequestError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RequestError(f"line {number} of {path} is damaged: {error!r}") from error


# How fields are written -----------------------------------------------------------------------------------------------


def _number(value: float) -> float | str | None:
    """JSON has neither NaN nor infinity: null, and the value as text."""
    if math.isfinite(value):
        return value
    return None if math.isnan(value) else str(value)


def _float(value: float | str | None) -> float:
    return math.nan if value is None else float(value)


def _encode_numbers(values: Mapping[str, float]) -> dict[str, float | str | None]:
    return {name: _number(value) for name, value in values.items()}


def _decode_numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return {intern(name): _float(value) for name, value in values.items()}


def _encode_standings(standings: Mapping[str, tuple[int, float, float]]) -> dict[str, list[Any]]:
    return {name: [index, _number(score), _number(tie)] for name, (index, score, tie) in standings.items()}


def _decode_standings(standings: Mapping[str, Sequence[Any]]) -> dict[str, tuple[int, float, float]]:
    return {name: (index, _float(score), _float(tie)) for name, (index, score, tie) in standings.items()}


def _codec(encode: Callable[[Any], Any], decode: Callable[[Any], Any]) -> Any:
    return field(metadata={"encode": encode, "decode": decode})


def _numbers() -> Any:
    return _codec(_encode_numbers, _decode_numbers)


def _encoder(each: Field[Any]) -> Callable[[Any], Any]:
    return each.metadata.get("encode", _same)  # type: ignore[no-any-return]


def _decoder(each: Field[Any]) -> Callable[[Any], Any]:
    return each.metadata.get("decode", _same)  # type: ignore[no-any-return]


def _same(value: Any) -> Any:
    return value


def _fields(kind: type[Event]) -> tuple[Field[Any], ...]:
    if kind not in _FIELDS:
        _FIELDS[kind] = fields(kind)
    return _FIELDS[kind]


_FIELDS: dict[type[Event], tuple[Field[Any], ...]] = {}


# A session ------------------------------------------------------------------------------------------------------------


@_register
@dataclass(frozen=True, kw_only=True)
class SessionStarted(Event):
    """A process began to work on the sweep.

    Args:
        session: Number of the session, from 1.
        uuid: Identifier of the sweep, the same in all sessions; MLflow finds its run again by it.
    """

    kind: ClassVar[str] = "session_started"
    session: int
    uuid: str


@_register
@dataclass(frozen=True, kw_only=True)
class SlotsPlaced(Event):
    """The cluster offers this many trials at once."""

    kind: ClassVar[str] = "slots_placed"
    durable: ClassVar[bool] = True
    slots: int


@_register
@dataclass(frozen=True, kw_only=True)
class SessionEnded(Event):
    """The process stopped working on the sweep; runs still open end with `status`.

    Args:
        status: FINISHED, FAILED or KILLED.
        error: One line, or empty.
    """

    kind: ClassVar[str] = "session_ended"
    durable: ClassVar[bool] = True
    status: str
    error: str = ""


# Trials ---------------------------------------------------------------------------------------------------------------


@_register
@dataclass(frozen=True, kw_only=True)
class TrialStarted(Event):
    """A trial started; written once in each session that trains it.

    Args:
        trial: Name of the trial, as in MLflow.
        role: `teacher` or `student`.
        stage: What the trial is part of, as its MLflow tag says: `pbt search`, `full training`, …
        seed: Seed of weights, image order and augmentation.
        epochs: Epochs that it is to be trained.
        image: The images as plain data (size, channels, fill).
        genome: The genome that it starts with, as plain data; None if it replays a schedule.
        choices: Parameters that it keeps from end to end, by name.
        arm: What a final training is trained with: `policy`, or the name of a baseline; empty for a search.
    """

    kind: ClassVar[str] = "trial_started"
    trial: str
    role: str
    stage: str
    seed: int
    epochs: int
    image: Mapping[str, Any]
    genome: Mapping[str, Any] | None = None
    choices: Mapping[str, str] = field(default_factory=dict)
    arm: str = ""


@_register
@dataclass(frozen=True, kw_only=True)
class TrialReported(Event):
    """A trial finished an epoch, counted from 1."""

    kind: ClassVar[str] = "trial_reported"
    trial: str
    epoch: int
    metrics: Mapping[str, float] = _numbers()


@_register
@dataclass(frozen=True, kw_only=True)
class CheckpointSaved(Event):
    """A trial's checkpoint, after `epoch` epochs, is on disk.

    Args:
        trial: Name of the trial.
        epoch: Epochs of training in the checkpoint.
        checkpoint: Path relative to the sweep's folder.
    """

    kind: ClassVar[str] = "checkpoint_saved"
    durable: ClassVar[bool] = True
    trial: str
    epoch: int
    checkpoint: str


@_register
@dataclass(frozen=True, kw_only=True)
class PopulationPerturbed(Event):
    """A population was perturbed: some trials copied others and explored.

    Args:
        stage: Name of the search.
        epoch: Epoch of the trial that was furthest.
        generation: Number of the perturbation, from 1.
        scores: Validation accuracy of the trials that took part; NaN where there was none.
        copies: Copies as plain data; see `exploits`.
    """

    kind: ClassVar[str] = "population_perturbed"
    durable: ClassVar[bool] = True
    stage: str
    epoch: int
    generation: int = 0
    scores: Mapping[str, float] = _numbers()
    copies: tuple[Mapping[str, Any], ...] = _codec(list, tuple)

    @property
    def exploits(self) -> tuple[Exploit, ...]:
        """The copies, in order."""
        return tuple(map(Exploit.from_json, self.copies))


@_register
@dataclass(frozen=True, kw_only=True)
class RungDecided(Event):
    """Trials were compared on a rung of successive halving.

    Args:
        stage: Name of the search.
        epoch: Epoch of the rung.
        standings: (index, score, tie break) of the trials that were compared.
        kept: Names of the trials that go on.
    """

    kind: ClassVar[str] = "rung_decided"
    durable: ClassVar[bool] = True
    stage: str
    epoch: int
    standings: Mapping[str, tuple[int, float, float]] = _codec(_encode_standings, _decode_standings)
    kept: tuple[str, ...] = _codec(list, tuple)


@_register
@dataclass(frozen=True, kw_only=True)
class GenomeSuggested(Event):
    """A search algorithm suggested the next trial.

    Args:
        stage: Name of the search.
        genome: The genome as plain data.
        cohort: Number of the group of trials that are compared with each other.
        params: Optuna's parameters by name.
        distributions: Optuna's distributions by name, as JSON text.
    """

    kind: ClassVar[str] = "genome_suggested"
    durable: ClassVar[bool] = True
    stage: str
    genome: Mapping[str, Any]
    cohort: int
    params: Mapping[str, Any]
    distributions: Mapping[str, str]


@_register
@dataclass(frozen=True, kw_only=True)
class AugmentationsScreened(Event):
    """Screening left these augmentations out of the search, by label."""

    kind: ClassVar[str] = "augmentations_screened"
    durable: ClassVar[bool] = True
    dropped: tuple[str, ...] = _codec(list, tuple)


@_register
@dataclass(frozen=True, kw_only=True)
class TrialEnded(Event):
    """A trial is complete, was stopped early, or failed.

    Args:
        trial: Name of the trial.
        epoch: Epochs of training in its last checkpoint.
        stopped: True if a scheduler stopped it early.
        error: Why it failed, one line; empty if it did not.
        traceback: The traceback of a failure, without credentials.
    """

    kind: ClassVar[str] = "trial_ended"
    durable: ClassVar[bool] = True
    trial: str
    epoch: int = 0
    stopped: bool = False
    error: str = ""
    traceback: str = ""


@_register
@dataclass(frozen=True, kw_only=True)
class TrialRetried(Event):
    """A trial that failed in an earlier session is tried again."""

    kind: ClassVar[str] = "trial_retried"
    trial: str


@_register
@dataclass(frozen=True, kw_only=True)
class TrialTested(Event):
    """A final training was scored on the test set, once."""

    kind: ClassVar[str] = "trial_tested"
    durable: ClassVar[bool] = True
    trial: str
    scores: Mapping[str, float] = _numbers()


# What MLflow shows beside the trials ----------------------------------------------------------------------------------


@_register
@dataclass(frozen=True, kw_only=True)
class RunStarted(Event):
    """A run that is no trial began, such as that of the sweep itself, or went on in a later session.

    Args:
        run: Name of the run.
        parent: Name of the run above it; None for the sweep's own.
        tags: Tags by name.
        params: Parameters by name, flat.
        description: Markdown.
    """

    kind: ClassVar[str] = "run_started"
    run: str
    parent: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)
    description: str = ""


@_register
@dataclass(frozen=True, kw_only=True)
class MetricsLogged(Event):
    """Metrics of a run, or of a trial beside what it reports."""

    kind: ClassVar[str] = "metrics_logged"
    run: str
    step: int = 0
    metrics: Mapping[str, float] = _numbers()


@_register
@dataclass(frozen=True, kw_only=True)
class TagsSet(Event):
    """Tags of a run; a later value replaces an earlier one."""

    kind: ClassVar[str] = "tags_set"
    run: str
    tags: Mapping[str, str]


@_register
@dataclass(frozen=True, kw_only=True)
class ArtifactWritten(Event):
    """A file or folder that belongs to a run.

    Args:
        run: Name of the run.
        path: Path relative to the journal's folder, or absolute.
    """

    kind: ClassVar[str] = "artifact_written"
    run: str
    path: str


@_register
@dataclass(frozen=True, kw_only=True)
class TextWritten(Event):
    """A small text that MLflow keeps as the artifact `name` of a run."""

    kind: ClassVar[str] = "text_written"
    run: str
    name: str
    text: str


@_register
@dataclass(frozen=True, kw_only=True)
class ModelExported(Event):
    """A trained network was written as an MLflow model, to be registered.

    Args:
        run: Name of the run that trained it.
        path: Folder of the model, relative to the journal's folder, or absolute.
        name: Name of the registered model.
        tags: Tags of the version.
        description: Description of the version in Markdown.
        metrics: Metrics of the model: (name, value, time in ms since 1970, step).
    """

    kind: ClassVar[str] = "model_exported"
    run: str
    path: str
    name: str
    tags: Mapping[str, str]
    description: str = ""
    metrics: tuple[tuple[str, float, int, int], ...] = ()


@_register
@dataclass(frozen=True, kw_only=True)
class RunEnded(Event):
    """A run that is no trial ended.

    Args:
        run: Name of the run.
        status: FINISHED, FAILED or KILLED.
        error: One line, or empty.
    """

    kind: ClassVar[str] = "run_ended"
    run: str
    status: str
    error: str = ""
