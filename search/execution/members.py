"""What every scheduler here has to know of a trial: which member it is, where it ranks, and how its actor is kept."""

from __future__ import annotations

import math
from typing import Any

from ray.tune.experiment import Trial

EPOCH = "epoch"
"""The epochs that a trial's weights were trained; Ray's own count starts anew with each life of a sweep."""


def member_name(trial: Trial) -> str:
    """The member that a trial is."""
    name: str = trial.config["member"]["name"]
    return name


def member_index(trial: Trial) -> int:
    """Its place among the members, from 0."""
    index: int = trial.config["member"]["index"]
    return index


def is_moved(trial: Trial) -> bool:
    """Whether a scheduler may change or end it."""
    moved: bool = trial.config["member"]["moved"]
    return moved


def rankable(score: float) -> float:
    """`score`, where NaN is less than any other."""
    return -math.inf if math.isnan(score) else score


def rank(score: float, tie: float, index: int) -> tuple[float, float, int]:
    """What sorts members best first: highest score, then lowest `tie`, then lowest index; NaN of either is worst."""
    return -rankable(score), -rankable(-tie), index


def keep_actors_warm(tune_controller: Any, trial: Trial, count: int) -> None:
    """Let the controller keep `count` more actors such as `trial` takes, while all members stand still.

    Ray ends an actor when no trial is staged for it, which at a boundary is true of all of them: each time, members
    would pay for new processes. Raising the cache's allowance once, with a search algorithm that is not finished before
    its trials are, prevents it. `_actor_cache` is private to Ray: look at it again when Ray's version moves.
    """
    tune_controller._tune_controller._actor_cache.increase_max(trial.placement_group_factory, by=count)
