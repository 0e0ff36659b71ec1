"""Policies: which operations an image may meet, how often, and how strongly.

Source: PBA, Population Based Augmentation (Ho et al. 2019, https://arxiv.org/abs/1905.05393), whose entries are taken
as its authors released them, except that every operation is stored by name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from spaces.core.errors import RequestError, unknown
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


@dataclass(frozen=True)
class Policy:
    """The entries that are walked in random order for every image; none at all is the identity.

    Args:
        entries: an operation may stand more than once.
    """

    entries: tuple[Entry, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what are no entries."""
        object.__setattr__(self, "entries", tuple(self.entries))
        if not all(isinstance(entry, Entry) for entry in self.entries):
            raise RequestError("a policy's entries are Entry(op, probability, magnitude)", value=self.entries)

    def __hash__(self) -> int:
        """Taken once: a policy is looked up for every batch."""
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash(self.entries)

    def __reduce__(self) -> tuple[type[Policy], tuple[tuple[Entry, ...]]]:
        """The hash stays behind: another process hashes names otherwise."""
        return Policy, (self.entries,)

    def __iter__(self) -> Iterator[Entry]:
        """The entries one by one."""
        return iter(self.entries)

    def __len__(self) -> int:
        """How many entries there are."""
        return len(self.entries)

    @cached_property
    def is_identity(self) -> bool:
        """Whether no image is ever changed."""
        return all(entry.probability == 0 for entry in self.entries)

    def strength(self) -> dict[str, float]:
        """Each operation's expected magnitude, 0 … 9: the mean over the entries that name it."""
        parts: dict[str, list[float]] = {}
        for entry in self.entries:
            parts.setdefault(entry.op, []).append(entry.strength)
        return {op: sum(values) / len(values) for op, values in parts.items()}

    def mean_strength(self) -> float:
        """The expected magnitude, 0 … 9, averaged over the entries: one number for how strongly a role augments."""
        return sum(entry.strength for entry in self.entries) / max(1, len(self.entries))

    @classmethod
    def mean(cls, weighted: Sequence[tuple[int, Policy]]) -> Policy:
        """The mean of policies that are in force for some epochs each, given as (epochs, policy).

        Entries are matched by their operation, the first with the first, the second with the second. A probability is
        the mean over all epochs; in whole tenths by largest remainders, so that the sum over the entries stays. A
        level is the mean over the times that the operation is applied, rounded.
        """
        total = sum(epochs for epochs, _ in weighted)
        tenths: dict[tuple[str, int], int] = {}
        levels: dict[tuple[str, int], int] = {}
        for epochs, policy in weighted:
            met: Counter[str] = Counter()
            for entry in policy:
                place = entry.op, met[entry.op]
                met[entry.op] += 1
                tenths[place] = tenths.get(place, 0) + epochs * entry.probability
                levels[place] = levels.get(place, 0) + epochs * entry.probability * entry.magnitude
        rounded = {place: value // total for place, value in tenths.items()}
        left = (2 * sum(tenths.values()) + total) // (2 * total) - sum(rounded.values())
        for place in sorted(tenths, key=lambda place: -(tenths[place] % total))[:left]:
            rounded[place] += 1
        return cls(
            tuple(
                Entry(op, rounded[op, nth], round(levels[op, nth] / tenths[op, nth]) if tenths[op, nth] else 0)
                for op, nth in tenths
            )
        )

    def to_json(self) -> list[dict[str, Any]]:
        """This policy as plain data; `from_json` gives it back."""
        return [entry.to_json() for entry in self.entries]

    @classmethod
    def from_json(cls, data: Any) -> Policy:
        """The policy that `to_json` wrote.

        Raises:
            RequestError: `data` is no policy.
        """
        if not isinstance(data, Sequence) or isinstance(data, str):
            raise RequestError("a policy is a list of entries", value=data)
        return cls(tuple(_entry(item) for item in data))


def _entry(data: Any) -> Entry:
    _check_keys("a policy entry", data, {"op", "probability", "magnitude"})
    if not isinstance(data["op"], str):
        raise RequestError("an entry's op is a name", value=data["op"])
    return Entry(data["op"], data["probability"], data["magnitude"])


def _check_keys(kind: str, data: Any, keys: Iterable[str]) -> None:
    keys = set(keys)
    if not isinstance(data, Mapping) or set(data) != keys:
        got = sorted(map(str, data)) if isinstance(data, Mapping) else data
        raise RequestError(f"{kind} is an object with {', '.join(sorted(keys))} and nothing else", value=got)


def _check_bounds(what: str, value: object, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise RequestError(f"{what} is a whole number from 0 to {most}", value=value)
