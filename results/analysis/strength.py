"""How strong each operation of a schedule is, phase by phase: the numbers behind the table and the plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spaces import Policy, Schedule
from spaces.policy.policy import TENTHS

Array = NDArray[Any]

STRONGEST = 9.0
"""The largest expected magnitude: probability 1 at level 9."""


@dataclass(frozen=True, eq=False)
class Strengths:
    """A schedule's operations as numbers; an operation is in force where its probability is above 0.

    Letters: O operations, P phases. Nothing here grows with the epochs.

    Args:
        operations: those that are ever in force, the strongest on average first.
        never: those that the schedule names and that are never in force.
        bounds: P + 1 whole numbers, the epochs at which phases begin, and the end.
        probability: (O, P), 0 … 1, the mean over the entries that name the operation.
        strength: (O, P), 0 … 9, the expected magnitude, likewise.
        mean: (P,), 0 … 9, the expected magnitude averaged over all entries.
    """

    operations: tuple[str, ...]
    never: tuple[str, ...]
    bounds: tuple[int, ...]
    probability: Array
    strength: Array
    mean: Array

    @classmethod
    def of(cls, schedule: Schedule) -> Strengths:
        """The numbers of `schedule`."""
        policies = [phase.genome.policy for phase in schedule.phases]
        probabilities = [_probability(policy) for policy in policies]
        strengths = [policy.strength() for policy in policies]
        named = list(dict.fromkeys(op for strength in strengths for op in strength))
        probability, strength = _table(named, probabilities), _table(named, strengths)
        epochs = np.array([float(phase.epochs) for phase in schedule.phases])
        order = [row for row in np.argsort(-(strength @ epochs), kind="stable").tolist() if probability[row].any()]
        operations = tuple(named[row] for row in order)
        return cls(
            operations=operations,
            never=tuple(op for op in named if op not in operations),
            bounds=(0, *accumulate(phase.epochs for phase in schedule.phases)),
            probability=probability[order],
            strength=strength[order],
            mean=np.array([policy.mean_strength() for policy in policies]),
        )

    @property
    def epochs(self) -> int:
        """How many epochs there are."""
        return self.bounds[-1]

    def over_all(self, values: Array) -> Array:
        """`values` (…, P) averaged over the epochs, (…)."""
        mean: Array = values @ np.diff(self._knots) / self.epochs
        return mean

    def first_epochs(self) -> list[int]:
        """The epoch, counted from 0, from which each of the O operations is in force for the first time."""
        return [self.bounds[phase] for phase in (self.probability > 0).argmax(axis=1).tolist()]

    def binned(self, values: Array, columns: int) -> Array:
        """`values` (…, P) averaged over `columns` parts of the epochs of equal length, (…, columns).

        Where `columns` is the number of epochs, these are the values epoch by epoch. A part in which all values are 0
        gives exactly 0.
        """
        edges = np.arange(columns + 1) * float(self.epochs) / columns
        until = np.cumsum(values * np.diff(self._knots), axis=-1).reshape(-1, values.shape[-1])
        sums = [np.interp(edges, self._knots, [0.0, *row]) for row in until]
        means: Array = np.diff(np.array(sums).reshape(-1, columns + 1)) / np.diff(edges)
        return means.reshape(*values.shape[:-1], columns)

    @property
    def _knots(self) -> Array:
        """`bounds` as floating point: a file may ask for more epochs than 64 bits hold."""
        return np.array(self.bounds, dtype=float)


def _table(ops: Sequence[str], columns: Sequence[Mapping[str, float]]) -> Array:
    return np.array([[column.get(op, 0.0) for column in columns] for op in ops]).reshape(len(ops), len(columns))


def _probability(policy: Policy) -> dict[str, float]:
    parts: dict[str, list[int]] = {}
    for entry in policy:
        parts.setdefault(entry.op, []).append(entry.probability)
    return {op: sum(values) / len(values) / TENTHS for op, values in parts.items()}
