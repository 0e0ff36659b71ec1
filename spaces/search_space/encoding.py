"""The numbers of a genome as one vector in [0, 1]: what a model of continuous values can learn from and choose.

They are each policy entry's probability and magnitude, in turn, then the ranges of `space.distill` in the order in
which they stand there. A range inside a choice is free only where that choice is the genome's; elsewhere it has its
place in the vector all the same, so that all genomes of a space have vectors of one length.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from spaces.core.errors import RequestError
from spaces.operations import LEVELS
from spaces.policy.policy import TENTHS, Entry, Policy
from spaces.schedule.genome import Genome
from spaces.search_space.domain import belongs
from spaces.search_space.space import Space

Vector: TypeAlias = npt.NDArray[np.float64]

ABSENT = 0.5
"""What stands for a range that is not in the genome's branch of a choice."""


def numbers(space: Space, genome: Genome) -> Vector:
    """The genome's numbers, each as its share of the way through its range, or through its logarithm.

    Returns:
        (n,), the same n for all genomes of the space.

    Raises:
        RequestError: the genome is not of this space.
    """
    return np.array([value for value, _ in _read(space, genome)])


def present(space: Space, genome: Genome) -> npt.NDArray[np.bool_]:
    """Which places of `numbers` the genome has: all but the ranges of branches that it is not in.

    Raises:
        RequestError: the genome is not of this space.
    """
    return np.array([there for _, there in _read(space, genome)], dtype=bool)


def with_numbers(space: Space, genome: Genome, vector: npt.ArrayLike) -> Genome:
    """The genome with other numbers, each rounded to what its range has; its choices stay.

    Args:
        space: that the genome is of.
        genome: says which branches are chosen; places that are not `present` there are passed over.
        vector: (n,), as `numbers` gives it; what is outside [0, 1] is clipped.

    Raises:
        RequestError: the genome is not of this space.
    """
    _check(space, genome)
    values = iter(np.clip(np.asarray(vector, dtype=float), 0, 1).tolist())
    entries = [
        Entry(entry.op, round(next(values) * TENTHS), round(next(values) * (LEVELS - 1))) for entry in genome.policy
    ]

    def written(span: _Span, value: Any) -> Any:
        share = next(values)
        return value if value is _NOT_CHOSEN else span.at(share)

    distill = _over_ranges(space.distill, genome.distill, written)
    return replace(genome, policy=Policy(tuple(entries)), distill=distill)


def _read(space: Space, genome: Genome) -> list[tuple[float, bool]]:
    """Each number, and whether the genome has it."""
    _check(space, genome)
    found = []
    for entry in genome.policy:
        found += [(entry.probability / TENTHS, True), (entry.magnitude / (LEVELS - 1), True)]

    def seen(span: _Span, value: Any) -> Any:
        there = value is not _NOT_CHOSEN
        found.append((span.share(value) if there else ABSENT, there))
        return value

    _over_ranges(space.distill, genome.distill, seen)
    return found


def _check(space: Space, genome: Genome) -> None:
    ops = [entry.op for entry in genome.policy]
    if ops != list(space.operations * space.copies):
        raise RequestError("a genome of this space has its operations, in its order", value=ops)
    if not belongs(space.distill, genome.distill):
        raise RequestError("a genome of this space has a distill that space.distill allows", value=dict(genome.distill))


_NOT_CHOSEN = object()
"""What stands for the value of a branch that is not chosen."""


@dataclass(frozen=True)
class _Span:
    """A range."""

    low: float
    high: float
    log: bool

    def share(self, value: float) -> float:
        """How far through the range `value` is."""
        low, high, at = (math.log(x) if self.log else float(x) for x in (self.low, self.high, value))
        return min(max((at - low) / (high - low), 0.0), 1.0)

    def at(self, share: float) -> float:
        """The value that is so far through it."""
        low, high = (math.log(x) if self.log else float(x) for x in (self.low, self.high))
        value = low + share * (high - low)
        value = math.exp(value) if self.log else value
        if isinstance(self.low, int) and isinstance(self.high, int):
            return min(max(round(value), self.low), self.high)
        return min(max(value, float(self.low)), float(self.high))


def _over_ranges(domain: Any, value: Any, visit: Callable[[_Span, Any], Any]) -> Any:
    """`value` as `visit` changes it, which meets all ranges of `domain` in order, those of other branches too."""
    if isinstance(domain, list | tuple):
        chosen = None if value is _NOT_CHOSEN else next(i for i, item in enumerate(domain) if belongs(item, value))
        inside = [
            _over_ranges(item, value if index == chosen else _NOT_CHOSEN, visit) for index, item in enumerate(domain)
        ]
        return value if chosen is None else inside[chosen]
    if not isinstance(domain, Mapping):
        return value
    if "low" in domain:
        return visit(_Span(domain["low"], domain["high"], domain.get("log", False)), value)
    inner = {key: value[key] if isinstance(value, Mapping) else _NOT_CHOSEN for key in domain}
    changed = {key: _over_ranges(domain[key], inner[key], visit) for key in domain}
    return value if value is _NOT_CHOSEN else changed
