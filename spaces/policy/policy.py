"""Policies: lists of (operation, probability, magnitude).

Source: PBA, Population Based Augmentation (Ho et al. 2019, https://arxiv.org/abs/1905.05393). Entries are as in the
authors' code, except that operations are stored by name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from spaces.core.errors import RequestError, unknown
from spaces.core.validation import check_integer
from spaces.operations import LEVELS, OPERATIONS

TENTHS = 10
"""Probabilities are integers in tenths, 0 to 10."""


@dataclass(frozen=True, slots=True)
class Entry:
    """Entry of a policy: an operation with its probability and magnitude.

    Args:
        op: Name of an operation in `spaces.OPERATIONS`.
        probability: Probability in tenths, 0 to 10.
        magnitude: Level, 0 to 9; `Operation.meaning` says what a level does.

    Raises:
        RequestError: The operation is unknown, or a number is not an integer or out of range.

    Example:
        >>> from spaces import Entry
        >>> Entry("Rotate", probability=5, magnitude=4).strength
        2.0
    """

    op: str
    probability: int
    magnitude: int

    def __post_init__(self) -> None:
        if self.op not in OPERATIONS:
            raise unknown("operation", self.op, OPERATIONS)
        check_integer(f"the probability of {self.op}", self.probability, 0, TENTHS)
        check_integer(f"the magnitude of {self.op}", self.magnitude, 0, LEVELS - 1)

    @property
    def strength(self) -> float:
        """Expected magnitude, probability × magnitude, 0 to 9.

        An operation without a level counts with the highest level.
        """
        level = self.magnitude if OPERATIONS[self.op].uses_level else LEVELS - 1
        return self.probability / TENTHS * level

    def to_json(self) -> dict[str, Any]:
        """Return the entry as JSON data."""
        return {"op": self.op, "probability": self.probability, "magnitude": self.magnitude}


@dataclass(frozen=True)
class Policy:
    """Entries from which zero, one or two operations are sampled for each image; an empty policy is the identity.

    Args:
        entries: Entries; an operation may occur more than once.

    Raises:
        RequestError: An item of `entries` is not an `Entry`.

    Example:
        >>> from spaces import Entry, Policy
        >>> policy = Policy((Entry("Rotate", 5, 4), Entry("Invert", 10, 0)))
        >>> policy.strength()
        {'Rotate': 2.0, 'Invert': 9.0}
        >>> Policy.from_json(policy.to_json()) == policy
        True
    """

    entries: tuple[Entry, ...] = ()

    def __post_init__(self) -> None:
        """Convert the entries to a tuple."""
        object.__setattr__(self, "entries", tuple(self.entries))
        if not all(isinstance(entry, Entry) for entry in self.entries):
            raise RequestError("Policy.entries must be Entry(op, probability, magnitude)", value=self.entries)

    def __hash__(self) -> int:
        """Return the hash, computed once: a policy is a cache key for every batch."""
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash(self.entries)

    def __reduce__(self) -> tuple[type[Policy], tuple[tuple[Entry, ...]]]:
        """Pickle without the hash, since strings hash differently in another process."""
        return Policy, (self.entries,)

    def __iter__(self) -> Iterator[Entry]:
        """Iterate over the entries."""
        return iter(self.entries)

    def __len__(self) -> int:
        """Return the number of entries."""
        return len(self.entries)

    @cached_property
    def is_identity(self) -> bool:
        """True if the policy never changes an image."""
        return all(entry.probability == 0 for entry in self.entries)

    def probability(self) -> dict[str, float]:
        """Return the probability of each operation, 0 to 1, averaged over its entries."""
        parts: dict[str, list[int]] = {}
        for entry in self.entries:
            parts.setdefault(entry.op, []).append(entry.probability)
        return {op: sum(values) / len(values) / TENTHS for op, values in parts.items()}

    def by_operation(self) -> dict[str, Any]:
        """Return the active entries of each operation in any order, equal where their effect is."""
        found: dict[str, Counter[tuple[int, int]]] = {}
        for entry in self.entries:
            if entry.probability:
                level = entry.magnitude if OPERATIONS[entry.op].uses_level else 0
                found.setdefault(entry.op, Counter())[entry.probability, level] += 1
        return found

    def strength(self) -> dict[str, float]:
        """Return the expected magnitude of each operation, 0 to 9, averaged over its entries."""
        parts: dict[str, list[float]] = {}
        for entry in self.entries:
            parts.setdefault(entry.op, []).append(entry.strength)
        return {op: sum(values) / len(values) for op, values in parts.items()}

    def mean_strength(self) -> float:
        """Return the expected magnitude, 0 to 9, averaged over all entries; 0.0 for an empty policy."""
        return sum(entry.strength for entry in self.entries) / max(1, len(self.entries))

    @classmethod
    def mean(cls, weighted: Sequence[tuple[int, Policy]]) -> Policy:
        """Return the mean of policies, weighted by epochs.

        The n-th entries of an operation are averaged together. A probability is the mean over all epochs, rounded to
        tenths by largest remainders, so that the sum over the entries is kept. A magnitude is the mean over the
        applications of the operation, rounded.

        Args:
            weighted: Pairs (epochs, policy).

        Example:
            >>> from spaces import Entry, Policy
            >>> Policy.mean([(1, Policy((Entry("Rotate", 2, 4),))), (1, Policy((Entry("Rotate", 6, 8),)))])
            Policy(entries=(Entry(op='Rotate', probability=4, magnitude=7),))
        """
        total = sum(epochs for epochs, _ in weighted)
        tenths: dict[tuple[str, int], int] = {}
        levels: dict[tuple[str, int], int] = {}
        for epochs, policy in weighted:
            seen: Counter[str] = Counter()
            for entry in policy:
                place = entry.op, seen[entry.op]
                seen[entry.op] += 1
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
        """Return the policy as JSON data, the inverse of `from_json`."""
        return [entry.to_json() for entry in self.entries]

    @classmethod
    def from_json(cls, data: Any) -> Policy:
        """Return the policy that `to_json` wrote.

        Raises:
            RequestError: `data` is not a policy.
        """
        if not isinstance(data, Sequence) or isinstance(data, str):
            raise RequestError("a policy must be a list of entries", value=data)
        return cls(tuple(_entry(item) for item in data))


def _entry(data: Any) -> Entry:
    check_keys("a policy entry", data, {"op", "probability", "magnitude"})
    if not isinstance(data["op"], str):
        raise RequestError("the op of an entry must be a string", value=data["op"])
    return Entry(data["op"], data["probability"], data["magnitude"])


def check_keys(kind: str, data: Any, keys: Iterable[str]) -> None:
    """Refuse JSON data that is not an object with exactly `keys`.

    Raises:
        RequestError: It is not; `kind` is its name in the message.
    """
    keys = set(keys)
    if not isinstance(data, Mapping) or set(data) != keys:
        found = sorted(map(str, data)) if isinstance(data, Mapping) else data
        raise RequestError(
            f"{kind} must be an object with the keys {', '.join(sorted(keys))} and no others", value=found
        )
