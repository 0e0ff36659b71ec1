"""A search algorithm as a user writes it: see `tests/search/algorithms/test_contract.py`."""

from __future__ import annotations

from typing import ClassVar

from search.algorithms.base import SearchAlgorithm
from spaces import Entry, Genome, Policy


class OneOperation(SearchAlgorithm):
    """Members that each try one operation of the space, at a probability and a magnitude drawn for it."""

    settings: ClassVar = frozenset({"trials"})

    def draw(self):
        """One operation after the other, at `options.probability` tenths where that is given."""
        return tuple(self.member(index, self._genome(index)) for index in range(self.search.trials))

    def _genome(self, index):
        draw = self.generator(index)
        operations = self.space.operations
        probability = self.search.options.get("probability", int(draw.integers(1, 11)))
        return Genome(Policy((Entry(operations[index % len(operations)], probability, int(draw.integers(10))),)))
