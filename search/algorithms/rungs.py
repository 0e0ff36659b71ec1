"""The rungs of successive halving: where members are compared, and what the comparisons save."""

from __future__ import annotations

import math
from dataclasses import dataclass

from spaces import RequestError


def rungs(interval: int, reduction: int, epochs: int) -> tuple[int, ...]:
    """Return the epochs at which members are compared: `interval` × 1, `reduction`, `reduction`², … below `epochs`.

    Raises:
        RequestError: `interval` is below 1, or `reduction` below 2.

    Example:
        >>> rungs(interval=2, reduction=3, epochs=30)
        (2, 6, 18)
    """
    if interval < 1:
        raise RequestError("interval must be >= 1", value=interval)
    if reduction < 2:
        raise RequestError("reduction must be >= 2", value=reduction)
    found = []
    while interval < epochs:
        found.append(interval)
        interval *= reduction
    return tuple(found)


def budget(members: int, interval: int, reduction: int, epochs: int) -> int:
    """Return the epochs of training over all `members`, where none fails.

    Example:
        >>> budget(members=27, interval=1, reduction=3, epochs=27)
        81
    """
    total, before = 0, 0
    for rung in (*rungs(interval, reduction, epochs), epochs):
        total += members * (rung - before)
        members, before = math.ceil(members / reduction), rung
    return total


@dataclass(frozen=True)
class RungResult:
    """A member's result on a rung.

    Args:
        name: Name of the member.
        index: Index of the member, from 0.
        score: Score, higher is better; NaN where there is none.
        tie: Value that orders members of equal score, lower is better; NaN where there is none.
    """

    name: str
    index: int
    score: float
    tie: float = math.nan
