"""The strength of each operation of a schedule by phase: the numbers behind tables and plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spaces import Schedule

Array = NDArray[Any]

STRONGEST = 9.0
"""Highest strength: probability 1 at level 9."""


@dataclass(frozen=True, eq=False)
class Strengths:
    """The operations of a schedule as arrays over its O active operations and P phases.

    An operation is active where its probability is above 0. Its strength is its expected magnitude, probability times
    level. The arrays do not grow with the number of epochs.

    Args:
        operations: Operations that are ever active, the strongest on average first.
        never: Operations that the schedule names and that are never active.
        bounds: P + 1 epochs: the start of each phase, and the end.
        probability: (O, P), 0 to 1: mean over the entries of the operation.
        strength: (O, P), 0 to 9: mean over the entries of the operation.
        mean: (P,), 0 to 9: mean strength over all entries.

    Example:
        >>> from spaces import Entry, Genome, ImageSpec, Phase, Policy
        >>> rotate = Genome(Policy((Entry("Rotate", 5, 8),)))
        >>> schedule = Schedule((Phase(2, Genome()), Phase(2, rotate)), "student", ImageSpec(8, 1, (0,)))
        >>> Strengths.of(schedule).strength.tolist()
        [[0.0, 4.0]]
    """

    operations: tuple[str, ...]
    never: tuple[str, ...]
    bounds: tuple[int, ...]
    probability: Array
    strength: Array
    mean: Array

    @classmethod
    def of(cls, schedule: Schedule) -> Strengths:
        """Compute the strengths of a schedule."""
        policies = [phase.genome.policy for phase in schedule.phases]
        probabilities = [policy.probability() for policy in policies]
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
        """Number of epochs."""
        return self.bounds[-1]

    def mean_over_epochs(self, values: Array) -> Array:
        """Return the mean over epochs of `values`, (…, P) to (…)."""
        mean: Array = values @ np.diff(self._knots) / self.epochs
        return mean

    def first_epochs(self) -> list[int]:
        """Return the first active epoch, from 0, of each of the O operations."""
        return [self.bounds[phase] for phase in (self.probability > 0).argmax(axis=1).tolist()]

    def binned(self, values: Array, columns: int) -> Array:
        """Return means of `values` over equal parts of the epochs, (…, P) to (…, columns).

        Args:
            values: One value for each phase.
            columns: Number of parts; with the number of epochs, the values are those of each epoch. A part with zeros
                only gives exactly 0.
        """
        edges = np.arange(columns + 1) * float(self.epochs) / columns
        until = np.cumsum(values * np.diff(self._knots), axis=-1).reshape(-1, values.shape[-1])
        sums = [np.interp(edges, self._knots, [0.0, *row]) for row in until]
        means: Array = np.diff(np.array(sums).reshape(-1, columns + 1)) / np.diff(edges)
        return means.reshape(*values.shape[:-1], columns)

    @property
    def _knots(self) -> Array:
        """`bounds` as floating point: a file may hold more epochs than 64 bits can count."""
        return np.array(self.bounds, dtype=float)


def _table(ops: Sequence[str], columns: Sequence[Mapping[str, float]]) -> Array:
    return np.array([[column.get(op, 0.0) for column in columns] for op in ops]).reshape(len(ops), len(columns))
