"""The members of a search: what is run, what came out, and how a scheduler reads a member off its trial."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spaces import Genome, Schedule, WorkError

if TYPE_CHECKING:
    from ray.tune.experiment import Trial

EPOCH = "epoch"
"""Epochs that a trial's weights were trained; Ray's own count starts again when a sweep is resumed."""

TIE_BREAKS = {"none": "", "t_stddev": "t_stddev_ratio"}
"""Metric that orders members of equal score, lower is better, by its name in the sweep file."""


@dataclass(frozen=True)
class Member:
    """One trial to run.

    Args:
        name: Name of the trial everywhere, unique in the sweep.
        index: Index within its group, from 0.
        seed: Seed of weights, order of images and augmentation.
        source: Genome that it starts with, or schedule that it replays.
        stage: Part of the sweep that the trial belongs to, for its tags.
        moved: True where a scheduler pauses it, to change its genome or to stop it.
        evolves: True where a scheduler changes its genome.
        cohort: Number of the group of members that are compared with each other.
        arm: Arm of a final training: `policy`, or the name of a baseline.
        shown: Augmentation as plain data that is applied before `source`; None for none.
    """

    name: str
    index: int
    seed: int
    source: Genome | Schedule
    stage: str
    moved: bool = False
    evolves: bool = False
    cohort: int = 0
    arm: str = ""
    shown: Mapping[str, Any] | None = None

    def config(self) -> dict[str, Any]:
        """Return the member as the plain data that Ray carries."""
        key = "schedule" if isinstance(self.source, Schedule) else "genome"
        known = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "source"}
        return {**known, key: self.source.to_json()}


@dataclass(frozen=True)
class Outcome:
    """The result of a trial.

    Args:
        name: Name of the member.
        epochs: Epochs that it was trained.
        score: Last score within its last interval, higher is better; NaN where there is none.
        checkpoint: Folder of its last state, or None.
        error: Why it failed, in one line; empty where it did not.
        stopped: True where a scheduler ended it early.
        accuracy: Last validation accuracy within its last interval, 0 to 1; by default the score, if that can be one.
    """

    name: str
    epochs: int
    score: float
    checkpoint: Path | None
    error: str
    stopped: bool = False
    accuracy: float = math.nan

    def __post_init__(self) -> None:
        """Take the score for the accuracy where none is given."""
        if math.isnan(self.accuracy) and self.score >= 0:
            object.__setattr__(self, "accuracy", self.score)

    @property
    def value(self) -> float:
        """Score as people read it: the accuracy, or the cross-entropy where that is the score."""
        return abs(self.score)

    def state(self) -> dict[str, Any]:
        """Read the learner's last state.

        Raises:
            WorkError: The trial left no checkpoint.
        """
        from trainables.ray_trainable import read_state  # imports Ray, which configuration does not need

        if self.checkpoint is None:
            raise WorkError(f"{self.name} must leave a checkpoint, but left none: {self.error or 'it did not finish'}")
        return read_state(self.checkpoint)


def member_name(trial: Trial) -> str:
    """Return the name of the member that a trial runs."""
    name: str = trial.config["member"]["name"]
    return name


def member_index(trial: Trial) -> int:
    """Return the index of the member that a trial runs."""
    index: int = trial.config["member"]["index"]
    return index


def is_moved(trial: Trial) -> bool:
    """Return True where a scheduler may change or end the trial."""
    moved: bool = trial.config["member"]["moved"]
    return moved


def rankable(score: float) -> float:
    """Return `score`, or minus infinity for NaN."""
    return -math.inf if math.isnan(score) else score


def rank(score: float, tie: float, index: int) -> tuple[float, float, int]:
    """Return a key that sorts members best first: highest score, lowest `tie`, lowest index; NaN ranks last."""
    return -rankable(score), -rankable(-tie), index


def keep_actors_warm(tune_controller: Any, trial: Trial, count: int) -> None:
    """Let the controller keep `count` more actors such as `trial` takes, while all members stand still.

    Ray ends an actor when no trial is staged for it, which at a boundary is true of all of them: each time, members
    would pay for new processes. Raising the cache's allowance once, with a search algorithm that is not finished before
    its trials are, prevents it. `_actor_cache` is private to Ray: look at it again when Ray's version moves.
    """
    tune_controller._tune_controller._actor_cache.increase_max(trial.placement_group_factory, by=count)
