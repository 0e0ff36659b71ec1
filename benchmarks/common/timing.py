"""Timing side by side: every contestant is measured in every round, so that what disturbs one disturbs all."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median, quantiles

Run = Callable[[int], object]
"""One piece of work; it is handed the number of its turn, 0, 1, …, so that it can take other data each time."""


@dataclass(frozen=True)
class Spread:
    """Median, extremes and quartiles of some figures."""

    median: float
    low: float
    high: float
    quartiles: tuple[float, float]


def spread(figures: Sequence[float]) -> Spread:
    """The spread of one figure or more."""
    quarters = quantiles(figures, n=4, method="inclusive") if len(figures) > 1 else list(figures) * 3
    return Spread(median(figures), min(figures), max(figures), (quarters[0], quarters[2]))


def interleaved(runs: Mapping[str, Run], *, rounds: int, seconds: float, seed: int) -> dict[str, list[float]]:
    """Seconds that one turn of each run takes, once for each round.

    Each is warmed up by two turns. The order in a round is shuffled, so that none always follows the same other one.
    Figures of the same round belong together: their ratio is a paired one.

    Args:
        runs: by name.
        rounds: how often each is measured.
        seconds: how long a measurement takes at least; short work is repeated until then, and averaged.
        seed: of the order.
    """
    turns = {name: itertools.count() for name in runs}
    repeats = {name: _repeats(run, turns[name], seconds) for name, run in runs.items()}
    order, shuffle = list(runs), random.Random(seed).shuffle
    figures: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        shuffle(order)
        for name in order:
            figures[name].append(_seconds(runs[name], turns[name], repeats[name]))
    return figures


def _repeats(run: Run, turns: itertools.count[int], seconds: float) -> int:
    _seconds(run, turns, 1)
    return max(1, round(seconds / _seconds(run, turns, 1)))


def _seconds(run: Run, turns: itertools.count[int], repeats: int) -> float:
    """Mean of `repeats` turns."""
    start = time.perf_counter()
    for turn in itertools.islice(turns, repeats):
        run(turn)
    return (time.perf_counter() - start) / repeats
