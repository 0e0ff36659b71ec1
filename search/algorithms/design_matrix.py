"""Designs of screening experiments: which level each factor has in each trial.

Every factor has each of its levels equally often, and so has a factor within another, such as the strength of an
operation, over the trials that have it. Swaps between trials, which keep this balance, then make the squared
correlations between contrasts small. This is the criterion E(s²) of supersaturated designs (Booth and Cox 1962,
https://doi.org/10.1080/00401706.1962.10490031) for factors of mixed levels; swaps within columns are those of
Li and Wu (1997, https://doi.org/10.1080/00401706.1997.10485083).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from results.analysis.contrasts import Array, ContrastMatrix, Factor, Levels
from spaces.core.errors import RequestError

MIN_TRIALS = 4
"""Smallest number of trials of an experiment."""

STARTS = 4
"""Number of random designs that swaps begin with; the best result counts."""

PASSES = 20
"""Largest number of passes over all factors from one start."""

WITHIN_WEIGHT = 0.5
"""Weight of the contrasts of a factor within another: half of the trials say nothing about them anyway."""

_GAIN = 1e-9


@dataclass(frozen=True)
class Design:
    """A screening experiment.

    Args:
        factors: Factors, each after the one that it is within.
        trials: Levels of each trial.

    Example:
        >>> factors = [Factor(name, "operation", ("off", "on")) for name in ("Rotate", "Invert", "Cutout")]
        >>> found = Design.draw(factors, 8, seed=0)
        >>> [sum(trial[factor.name] for trial in found.trials) for factor in factors], found.largest_correlation
        ([4, 4, 4], 0.0)
    """

    factors: tuple[Factor, ...]
    trials: tuple[Levels, ...] = field(hash=False)

    @classmethod
    def draw(cls, factors: Sequence[Factor], trials: int, seed: int) -> Design:
        """Draw a design; the same seed gives the same one.

        Args:
            factors: Factors, each after the one that it is within.
            trials: Number of trials, at least `MIN_TRIALS`.
            seed: Seed of all draws.

        Raises:
            RequestError: There is no factor, or there are too few trials.
        """
        if not factors:
            raise RequestError("a screening experiment must have at least one factor", hint="free something in space")
        if trials < MIN_TRIALS:
            raise RequestError(f"a screening experiment must have at least {MIN_TRIALS} trials", value=trials)
        generator = np.random.default_rng(seed)
        candidates = []
        for _ in range(STARTS):
            levels = _balanced(factors, trials, generator)
            candidates.append((_improve(factors, levels), levels))
        _, best = min(candidates, key=lambda candidate: candidate[0])
        rows = tuple(
            {factor.name: int(best[row, column]) for column, factor in enumerate(factors) if best[row, column] >= 0}
            for row in range(trials)
        )
        return cls(tuple(factors), rows)

    @property
    def largest_correlation(self) -> float:
        """Largest absolute correlation between contrasts of different factors that all trials have."""
        matrix = ContrastMatrix.of(self.factors, self.trials)
        same = np.array([[one.name == two.name for two in matrix.factors] for one in matrix.factors])
        main = np.array([factor.within is None for factor in matrix.factors])
        found = np.where(same, 0.0, np.abs(matrix.correlations()))[np.ix_(main, main)]
        return round(float(found.max(initial=0.0)), 9)


def separation_warning(factors: Sequence[Factor], trials: int) -> str:
    """Return a sentence if so many trials cannot tell the factors that all trials have apart; else nothing.

    Example:
        >>> separation_warning([Factor("loss", "choice", tuple("abcdefg"))], 6)
        '6 trials cannot tell 6 effects apart: each estimate has parts of others; take at least 7, better 12'
    """
    freedom = sum(factor.freedom for factor in factors if factor.within is None)
    if freedom <= trials - 1:
        return ""
    return (
        f"{trials} trials cannot tell {freedom} effects apart: each estimate has parts of others; "
        f"take at least {freedom + 1}, better {2 * freedom}"
    )


def _balanced(factors: Sequence[Factor], trials: int, generator: np.random.Generator) -> Array:
    """Return random balanced levels (N, F); -1 where a trial does not have the factor."""
    levels = np.full((trials, len(factors)), -1.0)
    place = {factor.name: column for column, factor in enumerate(factors)}
    for column, factor in enumerate(factors):
        rows = np.arange(trials)
        if factor.within is not None:
            parent, level = factor.within
            rows = np.flatnonzero(levels[:, place[parent]] == level)
        order = generator.permutation(len(factor.levels))
        values = order[np.arange(len(rows)) % len(order)]
        levels[rows, column] = generator.permutation(values)
    return levels


def _improve(factors: Sequence[Factor], levels: Array) -> float:
    """Swap levels between trials in place while the weighted sum of squared correlations falls, and return it.

    A swap exchanges a factor and all that is within it between two trials, so counts of levels stay as they are.
    """
    trials, place = len(levels), {factor.name: column for column, factor in enumerate(factors)}
    coded = [_coded(factor, levels[:, column]) for column, factor in enumerate(factors)]
    matrix = np.hstack(coded)
    owner = np.concatenate([[column] * factor.freedom for column, factor in enumerate(factors)]).astype(int)
    matrix = matrix - matrix.mean(axis=0)
    norms = np.linalg.norm(matrix, axis=0)
    weight = np.where([factors[column].within is None for column in owner], 1.0, WITHIN_WEIGHT)
    matrix *= np.sqrt(weight) / np.where(norms > 0, norms, 1.0)
    blocks = [np.array(_subtree(factors, column)) for column in range(len(factors))]
    for _ in range(PASSES):
        improved = False
        for column, block in enumerate(blocks):
            parent = factors[column].within
            rows = np.arange(trials) if parent is None else np.flatnonzero(levels[:, place[parent[0]]] == parent[1])
            while swap := _best_swap(matrix, np.isin(owner, block), levels[rows][:, block], rows):
                one, two = swap
                inside, pair = np.flatnonzero(np.isin(owner, block)), np.array([one, two])
                matrix[np.ix_(pair, inside)] = matrix[np.ix_(pair[::-1], inside)]
                levels[np.ix_(pair, block)] = levels[np.ix_(pair[::-1], block)]
                improved = True
        if not improved:
            break
    different = owner[:, None] != owner[None, :]
    return float((((matrix.T @ matrix) ** 2) * different).sum())


def _best_swap(matrix: Array, inside: np.ndarray, states: Array, rows: np.ndarray) -> tuple[int, int] | None:
    """Return the two trials whose exchange of the columns `inside` lowers the sum most; None if none lowers it.

    With O the other columns, B those inside and S = OᵀB, the exchange of rows a and b changes |S|² by
    2·(O_a - O_b)ᵀ·S·(B_b - B_a) + |O_a - O_b|²·|B_b - B_a|².
    """
    others, block = matrix[:, ~inside], matrix[:, inside]
    product = others.T @ block
    others, block = others[rows], block[rows]
    cross = others @ product @ block.T
    diagonal = np.diag(cross)
    change = 2 * (cross + cross.T - diagonal[:, None] - diagonal[None, :]) + _distances(others) * _distances(block)
    same = (states[:, None, :] == states[None, :, :]).all(axis=2)
    change = np.where(same, 0.0, change)
    if change.size == 0 or change.min() > -_GAIN:
        return None
    one, two = np.unravel_index(int(np.argmin(change)), change.shape)
    return int(rows[one]), int(rows[two])


def _distances(values: Array) -> Array:
    """Return the squared distances between rows."""
    gram = values @ values.T
    square = np.diag(gram)
    found: Array = square[:, None] + square[None, :] - 2 * gram
    return found


def _coded(factor: Factor, levels: Array) -> Array:
    contrasts = np.vstack([factor.contrasts, np.zeros(factor.freedom)])
    found: Array = contrasts[levels.astype(int)]  # -1, for trials without the factor, is the last row
    return found


def _subtree(factors: Sequence[Factor], column: int) -> list[int]:
    """Return the columns of a factor and of all within it."""
    found = [column]
    for other, factor in enumerate(factors):
        if factor.within is not None and any(factors[each].name == factor.within[0] for each in found):
            found.append(other)
    return found
