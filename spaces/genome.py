"""Genomes: what one agent chooses at one moment, and the space it chooses from.

Source: PBA, Population Based Augmentation (Ho et al. 2019, https://arxiv.org/abs/1905.05393), whose genome and
explore rule are taken as its authors released them, except that every operation is stored by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from spaces.errors import RequestError, unknown
from spaces.operations import LEVELS, OPERATIONS

TENTHS = 10
"""Probabilities are whole tenths, 0 … 10."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a policy: apply `op` with `probability` tenths at level `magnitude`.

    Args:
        op: a name of `spaces.OPERATIONS`.
        probability: in tenths, 0 … 10.
        magnitude: the level, 0 … 9; what a level means is said by the operation.

    Raises:
        RequestError: an unknown operation, or a number that is not whole or out of range.
    """

    op: str
    probability: int
    magnitude: int

    def __post_init__(self) -> None:
        """Refuse what is out of bounds."""
        if self.op not in OPERATIONS:
            raise unknown("operation", self.op, OPERATIONS)
        _check_bounds(f"the probability of {self.op}", self.probability, TENTHS)
        _check_bounds(f"the magnitude of {self.op}", self.magnitude, LEVELS - 1)

    @property
    def strength(self) -> float:
        """The expected magnitude: probability × magnitude, 0 … 9.

        An operation that takes no level is either on or off, so it counts with the highest one.
        """
        level = self.magnitude if OPERATIONS[self.op].uses_level else LEVELS - 1
        return self.probability / TENTHS * level

    def to_json(self) -> dict[str, Any]:
        """This entry as plain data."""
        return {"op": self.op, "probability": self.probability, "magnitude": self.magnitude}


@dataclass(frozen=True, slots=True)
class Genome:
    """Everything that one agent chooses at one moment.

    Args:
        policy: the entries that are walked in random order for every image. An operation may stand more than once.
    """

    policy: tuple[Entry, ...] = ()

    @property
    def is_identity(self) -> bool:
        """Whether no image is ever changed."""
        return all(entry.probability == 0 for entry in self.policy)

    def strength(self) -> dict[str, float]:
        """Each operation's expected magnitude, 0 … 9: the mean over the entries that name it."""
        parts: dict[str, list[float]] = {}
        for entry in self.policy:
            parts.setdefault(entry.op, []).append(entry.strength)
        return {op: sum(values) / len(values) for op, values in parts.items()}

    def to_json(self) -> dict[str, Any]:
        """This genome as plain data; `from_json` gives it back."""
        return {"policy": [entry.to_json() for entry in self.policy]}

    @classmethod
    def from_json(cls, data: Any) -> Genome:
        """The genome that `to_json` wrote.

        Raises:
            RequestError: `data` is no genome.
        """
        _check_keys("a genome", data, {"policy"})
        if not isinstance(data["policy"], Sequence) or isinstance(data["policy"], str):
            raise RequestError("a genome's policy is a list of entries", got=data["policy"])
        return cls(tuple(_entry(item) for item in data["policy"]))


@dataclass(frozen=True)
class Space:
    """Where an agent may move: which operations its genomes hold, and how often each.

    Args:
        operations: names of `spaces.OPERATIONS`, each once. All 15 by default.
        copies: entries per operation. PBA has 2, so 30 entries.

    Raises:
        RequestError: an unknown or repeated operation, or fewer than one copy.
    """

    __pydantic_config__ = {"extra": "forbid", "strict": True}  # noqa: RUF012 - what a sweep file may not say; plain data

    operations: tuple[str, ...] = field(default_factory=lambda: tuple(OPERATIONS))
    copies: int = 2

    def __post_init__(self) -> None:
        """Refuse what is no space."""
        for op in self.operations:
            if op not in OPERATIONS:
                raise unknown("operation", op, OPERATIONS)
        if not self.operations or len(set(self.operations)) < len(self.operations):
            raise RequestError("a space names one operation or more, each once", got=list(self.operations))
        if isinstance(self.copies, bool) or not isinstance(self.copies, int) or self.copies < 1:
            raise RequestError("copies is a whole number, at least 1", got=self.copies)

    @property
    def _ops(self) -> tuple[str, ...]:
        return self.operations * self.copies

    def zero(self) -> Genome:
        """The genome where a search starts: every probability and magnitude 0, so the identity."""
        return Genome(tuple(Entry(op, 0, 0) for op in self._ops))

    def random(self, generator: np.random.Generator) -> Genome:
        """A genome whose numbers are uniform over their ranges."""
        return Genome(
            tuple(Entry(op, _uniform(generator, TENTHS), _uniform(generator, LEVELS - 1)) for op in self._ops)
        )

    def explore(self, genome: Genome, generator: np.random.Generator) -> Genome:
        """A neighbour of `genome` by PBA's rule.

        Each whole number is, with probability 0.2, drawn anew from its range; else it moves by 0, 1, 2 or 3
        (uniform) up or down, and is clipped to its range.
        """
        return Genome(
            tuple(
                Entry(
                    entry.op,
                    _move(entry.probability, TENTHS, generator),
                    _move(entry.magnitude, LEVELS - 1, generator),
                )
                for entry in genome.policy
            )
        )


def _move(value: int, most: int, generator: np.random.Generator) -> int:
    if generator.random() < 0.2:
        return _uniform(generator, most)
    step = _uniform(generator, 3)
    return int(np.clip(value + step if generator.random() < 0.5 else value - step, 0, most))


def _uniform(generator: np.random.Generator, most: int) -> int:
    return int(generator.integers(0, most, endpoint=True))


def _entry(data: Any) -> Entry:
    _check_keys("a policy entry", data, {"op", "probability", "magnitude"})
    if not isinstance(data["op"], str):
        raise RequestError("an entry's op is a name", got=data["op"])
    return Entry(data["op"], data["probability"], data["magnitude"])


def _check_keys(kind: str, data: Any, keys: Iterable[str]) -> None:
    keys = set(keys)
    if not isinstance(data, Mapping) or set(data) != keys:
        got = sorted(map(str, data)) if isinstance(data, Mapping) else data
        raise RequestError(f"{kind} is an object with {', '.join(sorted(keys))} and nothing else", got=got)


def _check_bounds(what: str, value: object, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise RequestError(f"{what} is a whole number from 0 to {most}", got=value)
