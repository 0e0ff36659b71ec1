"""Random search: fixed genomes, drawn once, each kept from the first epoch to the last."""

from __future__ import annotations

from typing import ClassVar

from search.algorithms.base import SearchAlgorithm
from search.execution.members import Member


class RandomSearch(SearchAlgorithm):
    """Fixed random genomes, uniform over the space: the baseline that every other search has to beat."""

    multi_objective: ClassVar[bool] = True
    random_control: ClassVar[bool] = False
    settings: ClassVar[frozenset[str]] = frozenset({"trials"})

    def draw(self) -> tuple[Member, ...]:
        """Draw `trials` genomes."""
        return tuple(
            self.member(index, self.space.random(self.generator(index))) for index in range(self.search.trials)
        )
