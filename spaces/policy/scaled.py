"""Scaled policies: how many images are changed, by how many operations, how strongly, and how often by which.

PBA's entries cannot say these things apart: as soon as their probabilities add up to about 3, every image that is drawn
for a change is changed, and 30 levels average out. Here each is a number of its own, and strength 0 is the identity for
every operation. One operation per image, all weights and strengths 1, is the rule of TrivialAugment (Müller and Hutter
2021, https://arxiv.org/abs/2103.10158) in PBA's ranges.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

from spaces.core.errors import RequestError, unknown
from spaces.core.validation import check_integer, check_number
from spaces.operations import LEVELS, OPERATIONS
from spaces.policy.policy import Policy, check_keys

MAX_SCALED_OPERATIONS = 3
"""Largest number of operations per image."""


@dataclass(frozen=True, slots=True)
class ScaledEntry:
    """Entry of a scaled policy.

    Args:
        op: Name of an operation in `spaces.OPERATIONS`.
        weight: Weight of the operation in the draw, 0 to 1, relative to the others; 0: never.
        strength: Largest strength, 0 to 1: 0 is the identity, 1 is level 9 of PBA. Each image draws uniformly up to it,
            in a random direction. An operation without a level is applied with this probability.

    Raises:
        RequestError: The operation is unknown, or a number is out of range.

    Example:
        >>> from spaces import ScaledEntry
        >>> ScaledEntry("Rotate", weight=1, strength=0.5)
        ScaledEntry(op='Rotate', weight=1.0, strength=0.5)
    """

    op: str
    weight: float
    strength: float

    def __post_init__(self) -> None:
        """Check the values."""
        if self.op not in OPERATIONS:
            raise unknown("operation", self.op, OPERATIONS)
        for name in ("weight", "strength"):
            object.__setattr__(self, name, check_number(f"the {name} of {self.op}", getattr(self, name), 0, 1))

    @property
    def active(self) -> bool:
        """True if the operation ever changes an image."""
        return self.weight > 0 and self.strength > 0

    def to_json(self) -> dict[str, Any]:
        """Return the entry as JSON data."""
        return {"op": self.op, "weight": self.weight, "strength": self.strength}


@dataclass(frozen=True)
class ScaledPolicy:
    """Policy whose amount, number of operations, strengths and weights are numbers of their own.

    An image is changed with probability `amount`, by `operations` different operations, drawn by weight.

    Args:
        amount: Share of images that are changed, 0 to 1.
        operations: Operations per changed image, 1 to 3; fewer where fewer have a weight.
        entries: One entry for each operation.

    Raises:
        RequestError: A number is out of range, or an operation occurs twice.

    Example:
        >>> from spaces import ScaledEntry, ScaledPolicy
        >>> policy = ScaledPolicy(0.8, 1, (ScaledEntry("Rotate", 1, 0.5), ScaledEntry("Invert", 0, 1)))
        >>> policy.is_identity, policy.shares()
        (False, {'Rotate': 0.8, 'Invert': 0.0})
        >>> ScaledPolicy.from_json(policy.to_json()) == policy
        True
    """

    amount: float
    operations: int
    entries: tuple[ScaledEntry, ...] = ()

    def __post_init__(self) -> None:
        """Check the values, and convert the entries to a tuple."""
        object.__setattr__(self, "amount", check_number("ScaledPolicy.amount", self.amount, 0, 1))
        check_integer("ScaledPolicy.operations", self.operations, 1, MAX_SCALED_OPERATIONS)
        object.__setattr__(self, "entries", tuple(self.entries))
        if not all(isinstance(entry, ScaledEntry) for entry in self.entries):
            raise RequestError(
                "ScaledPolicy.entries must be ScaledEntry(op, weight, strength)", value=list(self.entries)
            )
        names = [entry.op for entry in self.entries]
        if len(set(names)) < len(names):
            raise RequestError("a scaled policy must have one entry for each operation", value=names)

    def __hash__(self) -> int:
        """Return the hash, computed once: a policy is a cache key for every batch."""
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash((self.amount, self.operations, self.entries))

    def __reduce__(self) -> tuple[type[ScaledPolicy], tuple[float, int, tuple[ScaledEntry, ...]]]:
        """Pickle without the hash, since strings hash differently in another process."""
        return ScaledPolicy, (self.amount, self.operations, self.entries)

    def __iter__(self) -> Iterator[ScaledEntry]:
        """Iterate over the entries."""
        return iter(self.entries)

    def __len__(self) -> int:
        """Return the number of entries."""
        return len(self.entries)

    @cached_property
    def is_identity(self) -> bool:
        """True if the policy never changes an image."""
        return self.amount == 0 or not any(entry.active for entry in self.entries)

    def shares(self) -> dict[str, float]:
        """Return the share of images that each operation is drawn for, 0 to 1."""
        weights = [entry.weight for entry in self.entries]
        return {
            entry.op: self.amount * share
            for entry, share in zip(self.entries, _inclusion(weights, self.operations), strict=True)
        }

    def probability(self) -> dict[str, float]:
        """Return amount × weight of each operation, 0 to 1; weights relative to the largest."""
        most = max((entry.weight for entry in self.entries), default=0.0) or 1.0
        return {entry.op: self.amount * entry.weight / most if entry.active else 0.0 for entry in self.entries}

    def strength(self) -> dict[str, float]:
        """Return probability × mean level of each operation, 0 to 9, on the scale of `Policy.strength`."""
        probability = self.probability()
        return {entry.op: probability[entry.op] * _mean_level(entry) for entry in self.entries}

    def mean_strength(self) -> float:
        """Return the mean level of the operations that are drawn, times `amount`, 0 to 9."""
        total = sum(entry.weight for entry in self.entries)
        return self.amount * sum(entry.weight * _mean_level(entry) for entry in self.entries) / total if total else 0.0

    def by_operation(self) -> dict[str, Any]:
        """Return the settings of each active operation, equal where their effect is."""
        if self.is_identity:
            return {}
        total = sum(entry.weight for entry in self.entries)
        common = self.amount, self.operations
        return {e.op: (*common, round(e.weight / total, 12), e.strength) for e in self.entries if e.active}

    @classmethod
    def mean(cls, weighted: Sequence[tuple[int, ScaledPolicy]]) -> ScaledPolicy:
        """Return the mean of policies, weighted by epochs.

        The mean of an operation's weight is over all changed images, that of its strength over all images it is drawn
        for. The number of operations is the mean over changed images, rounded.

        Args:
            weighted: Pairs (epochs, policy).

        Example:
            >>> from spaces import ScaledEntry, ScaledPolicy
            >>> one, two = (ScaledPolicy(amount, 1, (ScaledEntry("Rotate", 1, 0.5),)) for amount in (0.2, 0.6))
            >>> ScaledPolicy.mean([(1, one), (1, two)]).amount
            0.4
        """
        total = sum(epochs for epochs, _ in weighted)
        changed = sum(epochs * policy.amount for epochs, policy in weighted)
        if not changed:
            return cls(0.0, 1, weighted[0][1].entries)
        weights: dict[str, float] = {}
        strengths: dict[str, float] = {}
        for epochs, policy in weighted:
            whole = sum(entry.weight for entry in policy) or 1.0
            for entry in policy:
                part = epochs * policy.amount * entry.weight / whole
                weights[entry.op] = weights.get(entry.op, 0.0) + part
                strengths[entry.op] = strengths.get(entry.op, 0.0) + part * entry.strength
        most = max(weights.values(), default=0.0) or 1.0
        entries = (
            ScaledEntry(op, _rounded(weights[op] / most), _rounded(strengths[op] / weights[op] if weights[op] else 0.0))
            for op in weights
        )
        operations = sum(epochs * policy.amount * policy.operations for epochs, policy in weighted) / changed
        return cls(_rounded(changed / total), round(operations), tuple(entries))

    def to_json(self) -> dict[str, Any]:
        """Return the policy as JSON data, the inverse of `from_json`."""
        entries = [entry.to_json() for entry in self.entries]
        return {"amount": self.amount, "operations": self.operations, "entries": entries}

    @classmethod
    def from_json(cls, data: Any) -> ScaledPolicy:
        """Return the policy that `to_json` wrote.

        Raises:
            RequestError: `data` is not a scaled policy.
        """
        check_keys("a scaled policy", data, {"amount", "operations", "entries"})
        entries = data["entries"]
        if not isinstance(entries, Sequence) or isinstance(entries, str):
            raise RequestError("the entries of a scaled policy must be a list", value=entries)
        for entry in entries:
            check_keys("a scaled entry", entry, {"op", "weight", "strength"})
            if not isinstance(entry["op"], str):
                raise RequestError("the op of an entry must be a string", value=entry["op"])
        return cls(data["amount"], data["operations"], tuple(ScaledEntry(**entry) for entry in entries))


AnyPolicy: TypeAlias = Policy | ScaledPolicy
"""A policy of either kind: PBA's, or scaled."""


def parse_policy(data: Any) -> AnyPolicy:
    """Return the policy in JSON data: a list of PBA's entries, or an object of a scaled policy.

    Raises:
        RequestError: `data` is neither.
    """
    return ScaledPolicy.from_json(data) if isinstance(data, Mapping) else Policy.from_json(data)


def mean_policy(weighted: Sequence[tuple[int, AnyPolicy]]) -> AnyPolicy:
    """Return the mean of policies of one kind, weighted by epochs.

    Raises:
        RequestError: The policies are of both kinds.
    """
    pba = [(epochs, policy) for epochs, policy in weighted if isinstance(policy, Policy)]
    scaled = [(epochs, policy) for epochs, policy in weighted if isinstance(policy, ScaledPolicy)]
    if pba and scaled:
        raise RequestError("the policies of a mean must be of one kind, PBA's or scaled", value="both")
    return ScaledPolicy.mean(scaled) if scaled else Policy.mean(pba)


def _mean_level(entry: ScaledEntry) -> float:
    return entry.strength * (LEVELS - 1) / (2 if OPERATIONS[entry.op].uses_level else 1)


def _inclusion(weights: Sequence[float], draws: int) -> list[float]:
    """Return the probability that each item is among `draws` items drawn by weight without replacement."""
    places = [index for index, weight in enumerate(weights) if weight]
    found = [0.0] * len(weights)
    draws = min(draws, len(places))
    for order in itertools.permutations(places, draws):
        left, probability = set(places), 1.0
        for place in order:
            probability *= weights[place] / sum(weights[other] for other in left)
            left.remove(place)
        for place in order:
            found[place] += probability
    return found


def _rounded(value: float) -> float:
    return min(1.0, round(value, 6))
