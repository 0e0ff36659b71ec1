"""Searches of one role without a whole sweep, as `search.sweeps` builds and runs them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from search.algorithms.base import SearchAlgorithm, SearchResult
from search.config.registry import capabilities
from search.config.sections import ResourceConfig, SearchConfig
from search.execution.callbacks import SweepCallback
from search.execution.trials import JournalCallback, run_trials
from spaces import Space
from trainables import Task


def search_settings(algorithm: str, *, size: int, epochs: int, interval: int, **options: Any) -> SearchConfig:
    """Return the settings of a search.

    Args:
        algorithm: Name of the search algorithm.
        size: Number of members: its population, or its trials.
        epochs: Epochs of each member.
        interval: Epochs between perturbations, and up to the first rung.
        **options: Settings of that algorithm.
    """
    count = "population" if "population" in capabilities(algorithm).settings else "trials"
    return SearchConfig(algorithm=algorithm, epochs=epochs, interval=interval, **{count: size}, **options)


def algorithm_class(settings: SearchConfig) -> type[SearchAlgorithm]:
    """Return the class that carries out these settings."""
    algorithm = capabilities(settings.algorithm).variant(settings)
    assert issubclass(algorithm, SearchAlgorithm)
    return algorithm


def build_search(
    name: str,
    settings: SearchConfig,
    task: Task,
    callback: JournalCallback,
    *,
    seed: int,
    space: Space | None = None,
) -> SearchAlgorithm:
    """Return a search for `task`.

    Args:
        name: Name of the search; its members are called `<name>-00`, `<name>-01`, …
        settings: Settings of the search, from `search_settings`.
        task: Task that the members train.
        callback: Callback of the journal that records the search.
        seed: Seed of the search.
        space: Search space; None takes PBA's.
    """
    return algorithm_class(settings)(
        name,
        task,
        settings,
        Space() if space is None else space,
        callback.journal,
        seed=seed,
        callback=callback if isinstance(callback, SweepCallback) else None,
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
        save_every=first.search.interval,
        scheduler=first.scheduler(),
    )
    return [search.result(outcomes, {}) for search in searches]
