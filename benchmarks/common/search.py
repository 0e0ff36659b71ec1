"""Searches of one role without a whole sweep, as `search.sweeps.runner` builds and runs them."""

from __future__ import annotations

from collections.abc import Sequence

from search.algorithms.base import Kind, SearchAlgorithm, SearchResult
from search.config.schema import ResourceConfig, SearchConfig, StageConfig
from search.execution.callbacks import SweepCallback
from search.execution.trials import JournalCallback, run_trials
from search.sweeps.runner import stage_class
from spaces import Space
from trainables import Task


def build_search(
    name: str,
    kind: Kind,
    task: Task,
    callback: JournalCallback,
    *,
    population: int,
    interval: int,
    seed: int,
    space: Space | None = None,
) -> SearchAlgorithm:
    """Return a search for `task`, with `task.epochs` epochs per member.

    Args:
        name: Name of the search; its members are called `<name>-00`, `<name>-01`, …
        kind: Search algorithm.
        task: Task that the members train.
        callback: Callback of the journal that records the search.
        population: Number of members.
        interval: Epochs between perturbations, and up to the first rung.
        seed: Seed of the search.
        space: Search space; None takes PBA's.
    """
    return stage_class(kind)(
        name,
        kind,
        task,
        StageConfig(epochs=task.epochs, population=population, interval=interval),
        SearchConfig(kind=kind, seed=seed),
        Space() if space is None else space,
        callback.journal,
        callback if isinstance(callback, SweepCallback) else None,
    )


def run_searches(searches: Sequence[SearchAlgorithm], callback: JournalCallback, *, name: str) -> list[SearchResult]:
    """Run searches of one task at the same time; the first one's scheduler moves its members.

    Args:
        searches: Searches from `build_search`. Only the first may have a scheduler.
        callback: Callback of the journal that records them.
        name: Name of their trials together.
    """
    first = searches[0]
    outcomes = run_trials(
        [member for search in searches for member in search.members],
        first.task,
        ResourceConfig(),
        callback,
        name=name,
        save_every=first.stage.interval,
        scheduler=first.scheduler(),
    )
    return [search.found(outcomes, {}) for search in searches]
