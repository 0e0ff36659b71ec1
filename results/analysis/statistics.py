"""Confidence intervals, paired t tests and Holm's correction."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev

ROUNDING_ERROR = 1e-12
"""Differences with a smaller range than this have no variance but that of rounding."""


def interval(values: Sequence[float]) -> tuple[float, float | None]:
    """Return the mean of `values` and the half width of its 95 % confidence interval (Student's t).

    Args:
        values: One value for each seed.

    Returns:
        Mean and half width; the half width is None for a single value.

    Raises:
        ValueError: `values` is empty.

    Example:
        >>> mean, half_width = interval([0.90, 0.91, 0.92])
        >>> print(f"{mean:.3f} ± {half_width:.3f}")
        0.910 ± 0.025
    """
    if not values:
        raise ValueError("interval() needs at least one value, got []")
    if len(values) == 1:
        return float(values[0]), None
    from scipy import stats  # takes half a second, which `--help` should not pay

    quantile = float(stats.t.ppf(0.975, len(values) - 1))
    return fmean(values), quantile * stdev(values) / math.sqrt(len(values))


def paired_difference(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float | None]:
    """Return the mean of `ours - theirs` over pairs and the half width of its 95 % confidence interval.

    Args:
        ours: One value for each seed.
        theirs: Values of the same seeds, in the same order.

    Returns:
        Mean and half width; the half width is None for a single pair.

    Raises:
        ValueError: The lengths differ, or both are empty.

    Example:
        >>> mean, half_width = paired_difference([0.92, 0.93, 0.95], [0.90, 0.92, 0.92])
        >>> print(f"{mean:.3f} ± {half_width:.3f}")
        0.020 ± 0.025
    """
    return interval([a - b for a, b in zip(ours, theirs, strict=True)])


def paired_p(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Return the two-sided p-value of Student's paired t test.

    Args:
        ours: One value for each seed.
        theirs: Values of the same seeds, in the same order.

    Returns:
        The p-value; NaN for fewer than two pairs, 1 if all pairs are equal.

    Raises:
        ValueError: The lengths differ.

    Example:
        >>> round(paired_p([0.92, 0.93, 0.95], [0.90, 0.92, 0.92]), 3)
        0.074
    """
    from scipy import stats

    differences = [a - b for a, b in zip(ours, theirs, strict=True)]
    if len(differences) < 2:
        return math.nan
    if max(differences) - min(differences) < ROUNDING_ERROR:  # t would be 0/0, or infinite
        return 1.0 if abs(differences[0]) < ROUNDING_ERROR else 0.0
    return float(stats.ttest_1samp(differences, 0).pvalue)


def holm(p: Sequence[float]) -> list[float]:
    """Return p-values corrected for multiple comparisons by Holm's step-down procedure.

    The k-th smallest of m p-values is multiplied by m - k + 1; corrected values never decrease and are at most 1.
    Holm, 1979, https://www.jstor.org/stable/4615733.

    Args:
        p: One p-value for each test; NaN for a comparison without a test, which does not count.

    Returns:
        Corrected p-values in the order of `p`.

    Example:
        >>> holm([0.5, 0.01, 0.03])
        [0.5, 0.03, 0.06]
    """
    order = sorted((index for index, value in enumerate(p) if not math.isnan(value)), key=lambda index: p[index])
    corrected, highest = [math.nan] * len(p), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, p[index] * (len(order) - rank)))
        corrected[index] = highest
    return corrected
