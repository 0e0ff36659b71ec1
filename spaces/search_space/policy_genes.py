"""The numbers of a policy that a search moves: PBA's entries, or those of a scaled policy.

Source of PBA's: Ho et al. 2019, https://arxiv.org/abs/1905.05393, with the explore rule of the authors' code. The
scaled ones are this project's own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from spaces.core.errors import RequestError
from spaces.operations import LEVELS
from spaces.policy.baselines import uniform_policy
from spaces.policy.policy import TENTHS, Entry, Policy
from spaces.policy.scaled import MAX_SCALED_OPERATIONS, AnyPolicy, ScaledEntry, ScaledPolicy
from spaces.search_space.domain import RESAMPLE_PROBABILITY, Sampler

Generator: TypeAlias = np.random.Generator


@dataclass(frozen=True)
class PolicyGenes(ABC):
    """Rules of one kind of policy.

    Args:
        operations: Names of the operations, each once.
        copies: Entries per operation, where the kind has several.
    """

    operations: tuple[str, ...]
    copies: int = 1

    @abstractmethod
    def zero(self) -> AnyPolicy:
        """Return the policy that changes no image."""

    @abstractmethod
    def uniform(self) -> AnyPolicy:
        """Return the policy with every operation alike, at mild and strong levels."""

    @abstractmethod
    def random(self, generator: Generator) -> AnyPolicy:
        """Return a random policy."""

    @abstractmethod
    def suggest(self, sampler: Sampler) -> AnyPolicy:
        """Return a policy whose numbers come from `sampler`, each under a unique name."""

    @abstractmethod
    def suggested(self, policy: AnyPolicy) -> dict[str, float]:
        """Return what a sampler must give, by name, for `suggest` to return a policy of this space.

        Raises:
            RequestError: The policy is not of this kind, or has other operations.
        """

    @abstractmethod
    def explore(self, policy: AnyPolicy, generator: Generator) -> AnyPolicy:
        """Return a neighbor of a policy."""

    @abstractmethod
    def encode(self, policy: AnyPolicy) -> list[float]:
        """Return the numbers of a policy, each as its fraction of its range."""

    @abstractmethod
    def decode(self, numbers: Iterator[float]) -> AnyPolicy:
        """Take the numbers of a policy from an iterator, the inverse of `encode`; they are rounded to valid values."""

    def restrict(self, policy: AnyPolicy) -> AnyPolicy:
        """Return the policy with the entries of these operations alone."""
        return replace(policy, entries=tuple(entry for entry in policy if entry.op in self.operations))  # type: ignore[arg-type]

    @abstractmethod
    def check(self, policy: AnyPolicy) -> None:
        """Check that a policy is of this kind, with these operations.

        Raises:
            RequestError: It is not.
        """


class PBAGenes(PolicyGenes):
    """Entries of PBA: a probability in tenths and a magnitude from 0 to 9 for each of `copies` entries per operation.

    Example:
        >>> from spaces.search_space.policy_genes import PBAGenes
        >>> len(PBAGenes(("Rotate", "Invert"), copies=2).zero())
        4
    """

    @property
    def _ops(self) -> tuple[str, ...]:
        return self.operations * self.copies

    def zero(self) -> Policy:
        """Return all probabilities and magnitudes 0."""
        return Policy(tuple(Entry(op, 0, 0) for op in self._ops))

    def uniform(self) -> Policy:
        """Return probability 1 and, in turn, the levels 3 and 8; level 5 with one copy."""
        if self.copies == 1:
            return Policy(tuple(Entry(op, TENTHS, LEVELS // 2) for op in self._ops))
        levels = {entry.magnitude for entry in uniform_policy(self.operations[:1])}
        turns = sorted(levels) * self.copies
        return Policy(tuple(Entry(op, TENTHS, turns[copy]) for copy in range(self.copies) for op in self.operations))

    def random(self, generator: Generator) -> Policy:
        """Return uniform probabilities and magnitudes."""
        return Policy(
            tuple(Entry(op, _integer(generator, TENTHS), _integer(generator, LEVELS - 1)) for op in self._ops)
        )

    def suggest(self, sampler: Sampler) -> Policy:
        """Return suggested probabilities and magnitudes."""
        entries = []
        for index, op in enumerate(self._ops):
            probability = sampler.integer(f"policy[{index}].probability", 0, TENTHS, log=False)
            entries.append(
                Entry(op, probability, sampler.integer(f"policy[{index}].magnitude", 0, LEVELS - 1, log=False))
            )
        return Policy(tuple(entries))

    def suggested(self, policy: AnyPolicy) -> dict[str, float]:
        """Return probability and magnitude of each entry, by name."""
        self.check(policy)
        found: dict[str, float] = {}
        for index, entry in enumerate(self._own(policy)):
            found[f"policy[{index}].probability"] = entry.probability
            found[f"policy[{index}].magnitude"] = entry.magnitude
        return found

    def explore(self, policy: AnyPolicy, generator: Generator) -> Policy:
        """Resample each integer with probability 0.2; else move it up or down by 0, 1, 2 or 3 (uniform), clipped."""
        policy = self._own(policy)
        entries = (
            Entry(e.op, _move(e.probability, TENTHS, generator), _move(e.magnitude, LEVELS - 1, generator))
            for e in policy
        )
        return Policy(tuple(entries))

    def encode(self, policy: AnyPolicy) -> list[float]:
        """Return probability and magnitude of each entry."""
        self.check(policy)
        return [number for e in self._own(policy) for number in (e.probability / TENTHS, e.magnitude / (LEVELS - 1))]

    def decode(self, numbers: Iterator[float]) -> Policy:
        """Return the policy of the next 2 numbers per entry."""
        return Policy(
            tuple(Entry(op, round(next(numbers) * TENTHS), round(next(numbers) * (LEVELS - 1))) for op in self._ops)
        )

    def check(self, policy: AnyPolicy) -> None:
        """Check kind and operations."""
        _check_operations(self._own(policy), self._ops)

    @staticmethod
    def _own(policy: AnyPolicy) -> Policy:
        if not isinstance(policy, Policy):
            raise RequestError("a policy of this space must have PBA's entries (genome: pba)", value="a scaled policy")
        return policy


class ScaledGenes(PolicyGenes):
    """Numbers of a scaled policy: amount, operations per image, and a weight and a strength for each operation.

    Random policies are centered on the uniform one. Numbers that are averaged over many operations would make all
    policies nearly alike, so half of the operations have no weight, and all strengths lie near a common one.

    Example:
        >>> import numpy as np
        >>> from spaces.search_space.policy_genes import ScaledGenes
        >>> genes = ScaledGenes(("Rotate", "Invert"))
        >>> genes.zero().is_identity, genes.uniform().amount
        (True, 0.8)
        >>> len(genes.encode(genes.random(np.random.default_rng(0))))
        6
    """

    UNIFORM_AMOUNT, UNIFORM_OPERATIONS = 0.8, 2
    """Numbers of PBA's walk: 80 % of the images are changed, mostly by two operations."""

    SPREAD = 0.3
    """Largest step of a number that is explored, and distance of a random strength from the common one."""

    def zero(self) -> ScaledPolicy:
        """Return amount 0, equal weights and strength 0."""
        return ScaledPolicy(0.0, 1, tuple(ScaledEntry(op, 1.0, 0.0) for op in self.operations))

    def uniform(self) -> ScaledPolicy:
        """Return equal weights and strength 1, which is half of it on average."""
        return ScaledPolicy(
            self.UNIFORM_AMOUNT, self.UNIFORM_OPERATIONS, tuple(ScaledEntry(op, 1.0, 1.0) for op in self.operations)
        )

    def random(self, generator: Generator) -> ScaledPolicy:
        """Return amount and common strength from uniform distributions around the uniform policy's."""
        amount = _hundredths(generator.uniform(0.5, 1.0))
        operations = 1 + _integer(generator, MAX_SCALED_OPERATIONS - 1)
        common = generator.uniform(0.3, 1.0)
        chosen = generator.random(len(self.operations)) < 0.5
        weights = np.where(chosen, generator.uniform(0.3, 1.0, len(self.operations)), 0.0)
        strengths = common + generator.uniform(-self.SPREAD, self.SPREAD, len(self.operations)) * common
        entries = (
            ScaledEntry(op, _hundredths(weight), _hundredths(strength))
            for op, weight, strength in zip(self.operations, weights.tolist(), strengths.tolist(), strict=True)
        )
        return ScaledPolicy(amount, operations, tuple(entries))

    def suggest(self, sampler: Sampler) -> ScaledPolicy:
        """Return suggested numbers, over their full ranges."""
        amount = _hundredths(sampler.number("policy.amount", 0.0, 1.0, log=False))
        operations = sampler.integer("policy.operations", 1, MAX_SCALED_OPERATIONS, log=False)
        entries = (
            ScaledEntry(
                op,
                _hundredths(sampler.number(f"policy.{op}.weight", 0.0, 1.0, log=False)),
                _hundredths(sampler.number(f"policy.{op}.strength", 0.0, 1.0, log=False)),
            )
            for op in self.operations
        )
        return ScaledPolicy(amount, operations, tuple(entries))

    def suggested(self, policy: AnyPolicy) -> dict[str, float]:
        """Return amount, operations, and weight and strength of each entry, by name."""
        self.check(policy)
        policy = self._own(policy)
        found: dict[str, float] = {"policy.amount": policy.amount, "policy.operations": policy.operations}
        for entry in policy:
            found[f"policy.{entry.op}.weight"] = entry.weight
            found[f"policy.{entry.op}.strength"] = entry.strength
        return found

    def explore(self, policy: AnyPolicy, generator: Generator) -> ScaledPolicy:
        """Resample each number with probability 0.2; else move it by up to 0.3, clipped; the operations by one."""
        policy = self._own(policy)
        operations = policy.operations
        if generator.random() < RESAMPLE_PROBABILITY:
            operations = 1 + _integer(generator, MAX_SCALED_OPERATIONS - 1)
        entries = (
            ScaledEntry(e.op, self._move(e.weight, generator), self._move(e.strength, generator)) for e in policy
        )
        return ScaledPolicy(self._move(policy.amount, generator), operations, tuple(entries))

    def encode(self, policy: AnyPolicy) -> list[float]:
        """Return amount, operations, and weight and strength of each entry."""
        policy = self._own(policy)
        self.check(policy)
        operations = (policy.operations - 1) / (MAX_SCALED_OPERATIONS - 1)
        return [policy.amount, operations, *(number for e in policy for number in (e.weight, e.strength))]

    def decode(self, numbers: Iterator[float]) -> ScaledPolicy:
        """Return the policy of the next 2 + 2 numbers per entry."""
        amount, operations = _hundredths(next(numbers)), 1 + round(next(numbers) * (MAX_SCALED_OPERATIONS - 1))
        entries = (ScaledEntry(op, _hundredths(next(numbers)), _hundredths(next(numbers))) for op in self.operations)
        return ScaledPolicy(amount, operations, tuple(entries))

    def check(self, policy: AnyPolicy) -> None:
        """Check kind and operations."""
        _check_operations(self._own(policy), self.operations)

    @staticmethod
    def _own(policy: AnyPolicy) -> ScaledPolicy:
        if not isinstance(policy, ScaledPolicy):
            raise RequestError("a policy of this space must be scaled (genome: scaled)", value="PBA's entries")
        return policy

    def _move(self, value: float, generator: Generator) -> float:
        if generator.random() < RESAMPLE_PROBABILITY:
            return _hundredths(generator.random())
        return _hundredths(value + generator.uniform(-self.SPREAD, self.SPREAD))


def _check_operations(policy: AnyPolicy, ops: Sequence[str]) -> None:
    if (found := [entry.op for entry in policy]) != list(ops):
        raise RequestError("the operations of the genome must be those of the space, in its order", value=found)


def _move(value: int, most: int, generator: Generator) -> int:
    if generator.random() < RESAMPLE_PROBABILITY:
        return _integer(generator, most)
    step = _integer(generator, 3)
    return int(np.clip(value + step if generator.random() < 0.5 else value - step, 0, most))


def _integer(generator: Generator, most: int) -> int:
    return int(generator.integers(0, most, endpoint=True))


def _hundredths(value: float) -> float:
    return round(min(max(float(value), 0.0), 1.0), 2)
