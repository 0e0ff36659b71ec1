"""Means with the interval that says how far to trust them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev


def interval(values: Sequence[float]) -> tuple[float, float | None]:
    """The mean of `values`, and the half width of Student's 95 % interval around it; None for a single value.

    Raises:
        ValueError: no values.
    """
    if not values:
        raise ValueError("an interval needs one value or more, got []")
    if len(values) == 1:
        return float(values[0]), None
    from scipy import stats  # half a second, which `--help` should not pay

    quantile = float(stats.t.ppf(0.975, len(values) - 1))
    return fmean(values), quantile * stdev(values) / math.sqrt(len(values))


def paired_difference(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float | None]:
    """The mean of ours − theirs, pair by pair, with the half width of its interval.

    Raises:
        ValueError: the two differ in length, or are empty.
    """
    return interval([a - b for a, b in zip(ours, theirs, strict=True)])


def paired_p(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The two-sided p of Student's paired t test; NaN for fewer than two pairs, 1 where all pairs are equal.

    Raises:
        ValueError: the two differ in length.
    """
    from scipy import stats

    gains = [a - b for a, b in zip(ours, theirs, strict=True)]
    if len(gains) < 2:
        return math.nan
    if max(gains) - min(gains) < 1e-12:  # no spread but that of rounding: t is 0/0, or infinite
        return 1.0 if abs(gains[0]) < 1e-12 else 0.0
    return float(stats.ttest_1samp(gains, 0).pvalue)


def holm(p: Sequence[float]) -> list[float]:
    """The p of several tests together, in their order; NaN where there was no test, which counts as none.

    The k-th smallest of m is taken times m − k + 1, never falls, and is at most 1. Holm 1979,
    https://www.jstor.org/stable/4615733.
    """
    order = sorted((place for place, value in enumerate(p) if not math.isnan(value)), key=lambda place: p[place])
    corrected, highest = [math.nan] * len(p), 0.0
    for rank, place in enumerate(order):
        highest = max(highest, min(1.0, p[place] * (len(order) - rank)))
        corrected[place] = highest
    return corrected
