"""Successive rejects: which of a few candidates is best, and by how much, told from fresh seeds.

Source: successive rejects, Audibert and Bubeck 2010, https://hal.science/hal-00654404. Departures: half of the
candidates are rejected at a time, the strongest free baseline is never rejected, and the difference that is reported
comes from the last round alone. The candidates of that round were chosen by other seeds, so the difference has no
winner's curse.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from results.analysis.statistics import paired_difference


@dataclass(frozen=True)
class Measured:
    """The result of one training.

    Args:
        score: Score, higher is better; NaN where the training failed.
        accuracy: Validation accuracy, 0 to 1.
    """

    score: float
    accuracy: float = math.nan


Measure = Callable[[int, Sequence[str], Sequence[int]], Mapping[str, Sequence[Measured]]]
"""(round, candidates, seeds) → a result for each seed, by candidate."""


@dataclass(frozen=True)
class Decision:
    """The outcome of successive rejects.

    Args:
        winner: Best candidate.
        against: The other candidate of the last round: the strongest free baseline, or if that won, its challenger.
            Empty where there was a single candidate.
        difference: Score of the challenger minus that of the free baseline in the last round, and the half width of
            its 95 % interval, None with one seed. NaN where there was a single candidate.
        accuracy_difference: The same in accuracy.
        seeds: Number of seeds of the last round.
        scores: Mean score of each candidate over all its seeds.
        accuracies: Mean accuracy of each candidate over all its seeds.
        trainings: Number of trainings.
    """

    winner: str
    against: str = ""
    difference: tuple[float, float | None] = (math.nan, None)
    accuracy_difference: tuple[float, float | None] = (math.nan, None)
    seeds: int = 0
    scores: Mapping[str, float] = field(default_factory=dict)
    accuracies: Mapping[str, float] = field(default_factory=dict)
    trainings: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return the outcome as plain data for a policy file; `seeds` are those of the last round.

        Example:
            >>> from search.algorithms.rejects import Decision
            >>> Decision("policy", "uniform", (0.1, None), (0.012, 0.004), 1).to_json()["half_width_95"]
            0.004
        """
        (mean, half_width), (score, score_half_width) = self.accuracy_difference, self.difference
        return {
            "winner": self.winner,
            "against": self.against,
            "seeds": self.seeds,
            "accuracy_difference": _plain(mean),
            "half_width_95": _plain(half_width),
            "score_difference": _plain(score),
            "score_half_width_95": _plain(score_half_width),
            "validation_accuracy": {name: _plain(value) for name, value in self.accuracies.items()},
        }


def rounds(candidates: int, seeds: int) -> tuple[tuple[int, int], ...]:
    """Return the number of candidates and of fresh seeds of each round.

    Args:
        candidates: Number of candidates.
        seeds: Seeds of the last round; earlier rounds have half as many, rounded up.

    Example:
        >>> from search.algorithms.rejects import rounds
        >>> rounds(6, 3)
        ((6, 2), (3, 2), (2, 3))
    """
    found = []
    while candidates > 2:
        found.append((candidates, math.ceil(seeds / 2)))
        candidates = math.ceil(candidates / 2)
    return (*found, (candidates, seeds)) if candidates == 2 else ()


def trainings(candidates: int, seeds: int) -> int:
    """Return the number of trainings of all rounds.

    Example:
        >>> from search.algorithms.rejects import trainings
        >>> trainings(6, 3)
        24
    """
    return sum(count * each for count, each in rounds(candidates, seeds))


def most_seeds(candidates: int, budget: int) -> int:
    """Return the most seeds of the last round with which all rounds have at most `budget` trainings, at least 1.

    Example:
        >>> from search.algorithms.rejects import most_seeds
        >>> most_seeds(4, 16), most_seeds(4, 15)
        (4, 3)
    """
    return next(seeds for seeds in range(max(1, budget), 0, -1) if seeds == 1 or trainings(candidates, seeds) <= budget)


def next_round(
    candidates: Sequence[str], free: Collection[str], seeds: int, results: Mapping[str, Sequence[Measured]]
) -> tuple[list[str], range]:
    """Return the candidates and the seeds of the round that follows what was measured.

    Args:
        candidates: Names, each once, as for `decide`.
        free: Those that cost no search.
        seeds: Seeds of the last round.
        results: Results of all rounds before, by candidate, in the order of their seeds.

    Example:
        >>> from search.algorithms.rejects import Measured, next_round
        >>> scores = {"none": 0.1, "uniform": 0.3, "a": 0.4, "b": 0.2}
        >>> next_round(list(scores), {"none", "uniform"}, 1, {name: [Measured(each)] for name, each in scores.items()})
        (['uniform', 'a'], range(1, 2))
    """
    left, used = list(candidates), 0
    for size, fresh in rounds(len(candidates), seeds):
        before = {name: results[name][:used] for name in left}
        left = _kept(left, before, free, size)
        if any(len(results[name]) < used + fresh for name in left):
            return left, range(used, used + fresh)
        used += fresh
    raise ValueError("results must lack the last round")


def decide(candidates: Sequence[str], free: Collection[str], seeds: int, measure: Measure) -> Decision:
    """Train and score candidates, reject the worse half, and again with fresh seeds, until two are left.

    The last round has the strongest free baseline and its strongest challenger. The challenger wins if its mean is
    higher in that round, by seeds that had no part in choosing it. Ties go to the free baseline.

    Args:
        candidates: Names, each once.
        free: Those that cost no search.
        seeds: Seeds of the last round, >= 1.
        measure: Function that trains and scores.

    Example:
        >>> from search.algorithms.rejects import Measured, decide
        >>> known = {"none": 0.90, "uniform": 0.92, "policy": 0.95}
        >>> scored = decide(list(known), {"none", "uniform"}, 3, lambda number, names, seeds:
        ...                 {name: [Measured(known[name], known[name]) for _ in seeds] for name in names})
        >>> scored.winner, scored.against, round(scored.difference[0], 3), scored.trainings
        ('policy', 'uniform', 0.03, 12)
    """
    if len(candidates) < 2:
        return Decision(candidates[0])
    results: dict[str, list[Measured]] = {name: [] for name in candidates}
    left, used, count = list(candidates), 0, 0
    plan = rounds(len(candidates), seeds)
    for number, (size, fresh) in enumerate(plan):
        left = _kept(left, results, free, size)
        if size == 2:  # before the last round, which must have no part in it
            baseline, challenger = _finalists(left, results, free)
        new = measure(number, left, range(used, used + fresh))
        used += fresh
        count += size * fresh
        for name in left:
            results[name] += new[name]
    last = plan[-1][1]
    pair = [(results[challenger][-last + seed], results[baseline][-last + seed]) for seed in range(last)]
    difference = _paired([(ours.score, theirs.score) for ours, theirs in pair])
    wins = difference[0] > 0 or not any(math.isfinite(each.score) for each in results[baseline])
    return Decision(
        winner=challenger if wins else baseline,
        against=baseline if wins else challenger,
        difference=difference,
        accuracy_difference=_paired([(ours.accuracy, theirs.accuracy) for ours, theirs in pair]),
        seeds=last,
        scores={name: _mean([each.score for each in found]) for name, found in results.items()},
        accuracies={name: _mean([each.accuracy for each in found]) for name, found in results.items()},
        trainings=count,
    )


def _kept(
    left: Sequence[str], results: Mapping[str, Sequence[Measured]], free: Collection[str], size: int
) -> list[str]:
    """Return the best candidates, the strongest free baseline among them, in their order."""
    ranked = sorted(left, key=lambda name: -_rankable(results[name]))
    best = ranked[:size]
    if free_ones := [name for name in ranked if name in free]:
        best = best if free_ones[0] in best else [*best[:-1], free_ones[0]]
    return [name for name in left if name in best]


def _finalists(
    left: Sequence[str], results: Mapping[str, Sequence[Measured]], free: Collection[str]
) -> tuple[str, str]:
    """Return the free baseline and the challenger of the last two."""
    one, two = left
    if (one in free) != (two in free):
        return (one, two) if one in free else (two, one)
    ranked = sorted(left, key=lambda name: _rankable(results[name]))
    return ranked[0], ranked[1]


def _rankable(found: Sequence[Measured]) -> float:
    mean = _mean([each.score for each in found])
    return -math.inf if math.isnan(mean) else mean


def _mean(values: Sequence[float]) -> float:
    finite = [value for value in values if math.isfinite(value)]
    return fmean(finite) if finite else math.nan


def _plain(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else value


def _paired(pairs: Sequence[tuple[float, float]]) -> tuple[float, float | None]:
    whole = [pair for pair in pairs if all(map(math.isfinite, pair))]
    return paired_difference(*zip(*whole, strict=True)) if whole else (math.nan, None)
