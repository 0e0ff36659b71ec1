"""Epochs between the perturbations of a population, which may grow.

Source of growing intervals: IPBT, https://arxiv.org/abs/2511.09190.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate, count, takewhile


def interval_after(epoch: int, interval: int, growth: float) -> int:
    """Return the number of epochs between a perturbation and the next one.

    The n-th interval is `interval` · growth^n, rounded to a multiple of `interval`, at which members are scored.

    Args:
        epoch: Epoch of the perturbation; 0 for the start.
        interval: Epochs until the first perturbation, >= 1.
        growth: Factor by which the interval grows, >= 1.

    Example:
        >>> from search.algorithms.intervals import interval_after
        >>> [interval_after(epoch, 5, 2.0) for epoch in (0, 5, 15)]
        [5, 10, 20]
    """
    if growth == 1:
        return interval
    number, end = 0, 0
    while end + _nth(number, interval, growth) <= epoch:
        end += _nth(number, interval, growth)
        number += 1
    return _nth(number, interval, growth)


def perturbations(epochs: int, interval: int, growth: float) -> tuple[int, ...]:
    """Return the epochs of all perturbations of a training of `epochs` epochs.

    Example:
        >>> from search.algorithms.intervals import perturbations
        >>> perturbations(60, 5, 2.0), perturbations(10, 3, 1.0)
        ((5, 15, 35), (3, 6, 9))
    """
    ends = accumulate(_nth(number, interval, growth) for number in count())
    return tuple(takewhile(lambda end: end < epochs, ends))


def generation(epoch: int, epochs: int, interval: int, growth: float) -> int:
    """Return the number of perturbations up to an epoch."""
    return bisect_right(perturbations(epochs, interval, growth), epoch)


def _nth(number: int, interval: int, growth: float) -> int:
    return interval * round(growth**number)
