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
        raise ValueError("an interval needs one value or more, but got []")
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
