"""Encoding of a genome's numbers as a vector in [0, 1], for models of continuous values.

The vector has the numbers of the policy, then the ranges of `space.distill` in order. A range
inside a choice is active only if its item is chosen. Inactive ranges keep their place, so that all vectors of a space
have one length.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from spaces.core.errors import RequestError
from spaces.schedule.genome import Genome
from spaces.search_space.domain import contains
from spaces.search_space.space import Space

Vector: TypeAlias = npt.NDArray[np.float64]

INACTIVE = 0.5
"""Value of an inactive range in the vector."""


def encode(space: Space, genome: Genome) -> Vector:
    """Encode the numbers of a genome, each as its fraction of its range, linear or logarithmic.

    Args:
        space: Search space of the genome.
        genome: Genome to encode.

    Returns:
        Vector (n,), with the same n for all genomes of the space.

    Raises:
        RequestError: The genome is not in the space.

    Example:
        >>> from spaces import Entry, Genome, Policy, Space
        >>> from spaces.search_space.encoding import encode
        >>> encode(Space(operations=("Rotate",), copies=1), Genome(Policy((Entry("Rotate", 5, 9),)))).tolist()
        [0.5, 1.0]
    """
    return np.array([value for value, _ in _read(space, genome)])


def active_mask(space: Space, genome: Genome) -> npt.NDArray[np.bool_]:
    """Return the mask (n,) of the active numbers: all but the ranges inside items that are not chosen.

    Raises:
        RequestError: The genome is not in the space.
    """
    return np.array([active for _, active in _read(space, genome)], dtype=bool)


def decode(space: Space, genome: Genome, vector: npt.ArrayLike) -> Genome:
    """Return the genome with the numbers of a vector, rounded to valid values; its choices are kept.

    Args:
        space: Search space of the genome.
        genome: Genome with the choices; inactive numbers are ignored.
        vector: Vector (n,) as from `encode`, clipped to [0, 1].

    Raises:
        RequestError: The genome is not in the space.

    Example:
        >>> from spaces import Space
        >>> from spaces.search_space.encoding import decode
        >>> space = Space(operations=("Rotate",), copies=1)
        >>> decode(space, space.zero(), [0.5, 1.0]).policy.entries
        (Entry(op='Rotate', probability=5, magnitude=9),)
    """
    _check(space, genome)
    values = iter(np.clip(np.asarray(vector, dtype=float), 0, 1).tolist())
    policy = space.genes.decode(values)

    def write(bounds: _Range, value: Any) -> Any:
        fraction = next(values)
        return value if value is _NOT_CHOSEN else bounds.at(fraction)

    distill = _over_ranges(space.distill, genome.distill, write)
    return replace(genome, policy=policy, distill=distill)


def _read(space: Space, genome: Genome) -> list[tuple[float, bool]]:
    """Return each number with True if it is active."""
    _check(space, genome)
    found = [(number, True) for number in space.genes.encode(genome.policy)]

    def collect(bounds: _Range, value: Any) -> Any:
        active = value is not _NOT_CHOSEN
        found.append((bounds.fraction(value) if active else INACTIVE, active))
        return value

    _over_ranges(space.distill, genome.distill, collect)
    return found


def _check(space: Space, genome: Genome) -> None:
    space.check(genome)
    if not contains(space.distill, genome.distill):
        raise RequestError("the distill of the genome must be allowed by space.distill", value=dict(genome.distill))


_NOT_CHOSEN = object()
"""Value of an item that is not chosen."""


@dataclass(frozen=True)
class _Range:
    low: float
    high: float
    log: bool

    def fraction(self, value: float) -> float:
        """Return the fraction of the range below `value`."""
        low, high, at = (math.log(x) if self.log else float(x) for x in (self.low, self.high, value))
        return min(max((at - low) / (high - low), 0.0), 1.0)

    def at(self, fraction: float) -> float:
        """Return the value at a fraction of the range."""
        low, high = (math.log(x) if self.log else float(x) for x in (self.low, self.high))
        value = low + fraction * (high - low)
        value = math.exp(value) if self.log else value
        if isinstance(self.low, int) and isinstance(self.high, int):
            return min(max(round(value), self.low), self.high)
        return min(max(value, float(self.low)), float(self.high))


def _over_ranges(domain: Any, value: Any, visit: Callable[[_Range, Any], Any]) -> Any:
    """Return `value` as changed by `visit`, which is called for all ranges of `domain` in order, inactive ones too."""
    if isinstance(domain, list | tuple):
        chosen = None if value is _NOT_CHOSEN else next(i for i, item in enumerate(domain) if contains(item, value))
        inside = [
            _over_ranges(item, value if index == chosen else _NOT_CHOSEN, visit) for index, item in enumerate(domain)
        ]
        return value if chosen is None else inside[chosen]
    if not isinstance(domain, Mapping):
        return value
    if "low" in domain:
        return visit(_Range(domain["low"], domain["high"], domain.get("log", False)), value)
    inner = {key: value[key] if isinstance(value, Mapping) else _NOT_CHOSEN for key in domain}
    changed = {key: _over_ranges(domain[key], inner[key], visit) for key in domain}
    return value if value is _NOT_CHOSEN else changed
