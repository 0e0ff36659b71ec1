"""Factors of an experiment, and the contrasts that a linear model estimates their effects by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from spaces.core.errors import RequestError

Array: TypeAlias = npt.NDArray[np.float64]

Kind: TypeAlias = Literal["operation", "level", "choice", "setting"]

Levels: TypeAlias = Mapping[str, int]
"""Levels of one trial: the index of each factor's level by its name, without factors that it does not have."""


@dataclass(frozen=True)
class Factor:
    """One thing that differs between trials.

    Args:
        name: Name, unique in an experiment.
        kind: `operation` (off, on), `level` (strength of an operation), `choice` (an item of a list) or `setting` (a
            number at its low or high end).
        levels: Labels of the levels, at least two.
        within: Factor and index of its level that this one exists in, such as the strength of an operation that is on;
            None: in all trials.

    Raises:
        RequestError: There are fewer than two levels.

    Example:
        >>> rotate = Factor("Rotate", "operation", ("off", "on"))
        >>> level = Factor("Rotate level", "level", ("low", "high"), within=("Rotate", 1))
        >>> level.active({"Rotate": 0}), level.active({"Rotate": 1}), rotate.freedom
        (False, True, 1)
    """

    name: str
    kind: Kind
    levels: tuple[Any, ...]
    within: tuple[str, int] | None = None

    def __post_init__(self) -> None:
        """Check the number of levels."""
        if len(self.levels) < 2:
            raise RequestError(f"the factor {self.name} must have two levels or more", value=list(self.levels))

    @property
    def freedom(self) -> int:
        """Degrees of freedom: one less than the number of levels."""
        return len(self.levels) - 1

    @property
    def contrasts(self) -> Array:
        """Contrasts (L, L - 1) that sum to zero over the L levels.

        Two levels have -½ and ½, so that the coefficient is the difference between them. The columns are orthogonal,
        and with independent coefficients of variance v each difference between two levels has variance v.
        """
        count = len(self.levels)
        helmert = np.zeros((count, count - 1))
        for column in range(count - 1):
            helmert[: column + 1, column] = -1.0
            helmert[column + 1, column] = column + 1.0
        scaled: Array = helmert / np.sqrt(2 * (helmert**2).sum(axis=0))
        return scaled

    def active(self, levels: Levels) -> bool:
        """Return True if a trial with these levels has the factor."""
        return self.within is None or levels.get(self.within[0]) == self.within[1]


@dataclass(frozen=True)
class ContrastMatrix:
    """Contrasts of all factors in all trials. Letters: N trials, C contrasts.

    Args:
        values: Contrasts (N, C); 0 where a trial does not have the factor.
        factors: Factor of each contrast.
    """

    values: Array
    factors: tuple[Factor, ...] = field(hash=False)

    @classmethod
    def of(cls, factors: Sequence[Factor], trials: Sequence[Levels]) -> ContrastMatrix:
        """Return the contrasts of trials.

        Args:
            factors: Factors of the experiment.
            trials: Levels of each trial.

        Example:
            >>> factor = Factor("Rotate", "operation", ("off", "on"))
            >>> ContrastMatrix.of([factor], [{"Rotate": 0}, {"Rotate": 1}]).values.tolist()
            [[-0.5], [0.5]]
        """
        columns: list[Array] = []
        owners: list[Factor] = []
        for factor in factors:
            coded = factor.contrasts
            none = np.zeros(factor.freedom)
            columns.append(np.array([coded[each[factor.name]] if factor.name in each else none for each in trials]))
            owners += [factor] * factor.freedom
        values = np.hstack([column.reshape(len(trials), -1) for column in columns]) if columns else np.zeros((0, 0))
        return cls(values, tuple(owners))

    def columns(self, factor: Factor) -> list[int]:
        """Return the indices of a factor's contrasts."""
        return [index for index, owner in enumerate(self.factors) if owner.name == factor.name]

    def correlations(self) -> Array:
        """Return the correlations (C, C) of the contrasts; 0 for one that does not vary, or with itself."""
        centered = self.values - self.values.mean(axis=0)
        norms = np.linalg.norm(centered, axis=0)
        unit = centered / np.where(norms > 0, norms, 1.0)
        found: Array = unit.T @ unit
        np.fill_diagonal(found, 0.0)
        return found
