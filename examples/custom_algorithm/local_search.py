"""A search algorithm of your own: random restarts of a local search, in forty lines.

Run it from this folder, so that the module can be imported by its name:

    cd examples/custom_algorithm && roletune search sweep.yaml

An algorithm derives from `SearchAlgorithm` and says which members there are; what it does not define is done as for
every other algorithm: the journal, `--resume`, MLflow, the random control, the final trainings, the policy file.
"""

from __future__ import annotations

from typing import ClassVar

from search import SearchAlgorithm
from search.execution.members import Member
from spaces import Genome


class LocalSearch(SearchAlgorithm):
    """Random genomes, and around each of them neighbors by the space's explore rule.

    Options:
        neighbors: Neighbors of each random genome, >= 0; default 3.
    """

    # The names in the `search` section that this algorithm takes, beside algorithm, epochs, interval and objective.
    settings: ClassVar[frozenset[str]] = frozenset({"trials"})

    def draw(self) -> tuple[Member, ...]:
        """Return `trials` members; all draws follow from the sweep's seed, so the same file gives the same members."""
        group = 1 + int(self.search.options.get("neighbors", 3))
        return tuple(self.member(index, self._genome(index, group)) for index in range(self.search.trials))

    def _genome(self, index: int, group: int) -> Genome:
        start = index - index % group
        genome = self.space.random(self.generator(start))
        for _ in range(index - start):  # the second neighbor is one step further than the first
            genome = self.space.explore(genome, self.generator(index))
        return genome
