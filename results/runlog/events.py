"""The events of a sweep's journal: one frozen dataclass a kind, each written as one line of JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from results.runlog.event_base import (
    JOURNAL_FILE,
    Event,
    codec,
    decode_standings,
    encode_standings,
    number,
    numbers,
    parse_event,
    read_events,
    register,
)
from results.runlog.lineage import Exploit

__all__ = ["JOURNAL_FILE", "Event", "parse_event", "read_events"]

# A session ------------------------------------------------------------------------------------------------------------


@register
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


@register
@dataclass(frozen=True, kw_only=True)
class SlotsPlaced(Event):
    """The cluster offers this many trials at once."""

    kind: ClassVar[str] = "slots_placed"
    durable: ClassVar[bool] = True
    slots: int


@register
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


@register
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


@register
@dataclass(frozen=True, kw_only=True)
class TrialReported(Event):
    """A trial finished an epoch, counted from 1."""

    kind: ClassVar[str] = "trial_reported"
    trial: str
    epoch: int
    metrics: Mapping[str, float] = numbers()


@register
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


@register
@dataclass(frozen=True, kw_only=True)
class PopulationPerturbed(Event):
    """A population was perturbed: some trials copied others and explored.

    Args:
        stage: Name of the search.
        epoch: Epoch of the trial that was furthest.
        generation: Number of the perturbation, from 1.
        scores: Score of the trials that took part, an accuracy or a negative loss; NaN where there was none.
        copies: Copies as plain data; see `exploits`.
    """

    kind: ClassVar[str] = "population_perturbed"
    durable: ClassVar[bool] = True
    stage: str
    epoch: int
    generation: int = 0
    scores: Mapping[str, float] = numbers()
    copies: tuple[Mapping[str, Any], ...] = codec(list, tuple)

    @property
    def exploits(self) -> tuple[Exploit, ...]:
        """The copies, in order."""
        return tuple(map(Exploit.from_json, self.copies))


@register
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
    standings: Mapping[str, tuple[int, float, float]] = codec(encode_standings, decode_standings)
    kept: tuple[str, ...] = codec(list, tuple)


@register
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


@register
@dataclass(frozen=True, kw_only=True)
class AugmentationsScreened(Event):
    """Screening left these augmentations out of the search, by label."""

    kind: ClassVar[str] = "augmentations_screened"
    durable: ClassVar[bool] = True
    dropped: tuple[str, ...] = codec(list, tuple)


@register
@dataclass(frozen=True, kw_only=True)
class HeadroomMeasured(Event):
    """The uniform policy was compared with no augmentation before a search.

    Args:
        role: `teacher` or `student`.
        seeds: Number of seeds.
        difference: Mean gain in validation accuracy, -1 to 1.
        half_width: Half width of its 95 % confidence interval; NaN for one seed.
    """

    kind: ClassVar[str] = "headroom_measured"
    durable: ClassVar[bool] = True
    role: str
    seeds: int
    difference: float = number()
    half_width: float = number()


@register
@dataclass(frozen=True, kw_only=True)
class PolicyConfirmed(Event):
    """A policy was compared with the free baselines from fresh seeds.

    Args:
        role: `teacher` or `student`.
        winner: Candidate that is exported.
        against: The other candidate of the last round.
        free: True if the winner is a free baseline.
        seeds: Seeds of the last round.
        difference: Validation accuracy of the challenger minus that of the free baseline in the last round, -1 to 1.
        half_width: Half width of its 95 % confidence interval; NaN for one seed.
        accuracies: Mean validation accuracy of each candidate over all its seeds.
    """

    kind: ClassVar[str] = "policy_confirmed"
    durable: ClassVar[bool] = True
    role: str
    winner: str
    against: str
    free: bool
    seeds: int
    difference: float = number()
    half_width: float = number()
    accuracies: Mapping[str, float] = numbers()


@register
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


@register
@dataclass(frozen=True, kw_only=True)
class TrialRetried(Event):
    """A trial that failed in an earlier session is tried again."""

    kind: ClassVar[str] = "trial_retried"
    trial: str


@register
@dataclass(frozen=True, kw_only=True)
class TrialTested(Event):
    """A final training was scored on the test set, once."""

    kind: ClassVar[str] = "trial_tested"
    durable: ClassVar[bool] = True
    trial: str
    scores: Mapping[str, float] = numbers()


# What MLflow shows beside the trials ----------------------------------------------------------------------------------


@register
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


@register
@dataclass(frozen=True, kw_only=True)
class MetricsLogged(Event):
    """Metrics of a run, or of a trial beside what it reports."""

    kind: ClassVar[str] = "metrics_logged"
    run: str
    step: int = 0
    metrics: Mapping[str, float] = numbers()


@register
@dataclass(frozen=True, kw_only=True)
class TagsSet(Event):
    """Tags of a run; a later value replaces an earlier one."""

    kind: ClassVar[str] = "tags_set"
    run: str
    tags: Mapping[str, str]


@register
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


@register
@dataclass(frozen=True, kw_only=True)
class TextWritten(Event):
    """A small text that MLflow keeps as the artifact `name` of a run."""

    kind: ClassVar[str] = "text_written"
    run: str
    name: str
    text: str


@register
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


@register
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
