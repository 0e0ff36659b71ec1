"""Interleaved timing: every candidate is measured in every round, so that a disturbance affects all of them."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median, quantiles

Run = Callable[[int], object]
"""One piece of work. Its argument is the number of the call, 0, 1, …, so that it can use other data each time."""


@dataclass(frozen=True)
class Spread:
    """Median, minimum, maximum and the first and third quartile of some values."""

    median: float
    low: float
    high: float
    quartiles: tuple[float, float]


def spread(values: Sequence[float]) -> Spread:
    """Return the spread of one or more values."""
    quarters = quantiles(values, n=4, method="inclusive") if len(values) > 1 else list(values) * 3
    return Spread(median(values), min(values), max(values), (quarters[0], quarters[2]))


def interleaved(runs: Mapping[str, Run], *, rounds: int, seconds: float, seed: int) -> dict[str, list[float]]:
    """Return the seconds per call of each run, one value per round.

    Each run is warmed up by two calls. The order within a round is shuffled, so that no run always follows the same
    other one. Values of the same round are paired.

    Args:
        runs: Runs by name.
        rounds: Number of measurements of each run.
        seconds: Minimum duration of a measurement. Shorter work is repeated and averaged.
        seed: Seed of the order.
    """
    counters = {name: itertools.count() for name in runs}
    repeats = {name: _repeats(run, counters[name], seconds) for name, run in runs.items()}
    order, shuffle = list(runs), random.Random(seed).shuffle
    values: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        shuffle(order)
        for name in order:
            values[name].append(_mean_seconds(runs[name], counters[name], repeats[name]))
    return values


def _repeats(run: Run, counter: itertools.count[int], seconds: float) -> int:
    _mean_seconds(run, counter, 1)
    return max(1, round(seconds / _mean_seconds(run, counter, 1)))


def _mean_seconds(run: Run, counter: itertools.count[int], repeats: int) -> float:
    start = time.perf_counter()
    for number in itertools.islice(counter, repeats):
        run(number)
    return (time.perf_counter() - start) / repeats
