"""Grid search: a student for each combination of choices, a few times over; the best mean wins."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any, ClassVar

from results.analysis.choices import describe_choices
from search.algorithms.base import SearchAlgorithm, SearchResult, member_seed
from search.config.registry import SearchSettings
from search.execution.members import Member, Outcome
from spaces import Genome, Phase, Policy, Space
from spaces.search_space.domain import enumerate_values


def combinations(space: Space) -> list[Genome]:
    """Return every genome without a policy that a space without ranges has, the last choice changing fastest."""
    distill, bits = enumerate_values(space.distill) or [{}], enumerate_values(space.bits) or [{}]
    return [Genome(Policy(), *choice) for choice in itertools.product(space.augmentations, distill, bits)]


class GridSearch(SearchAlgorithm):
    """Every combination of space.augment, space.distill and space.bits without a policy, `replicates` times each.

    A replicate has the same seed under every combination, so that weights and batches are paired. Nothing is compared
    but means over replicates.
    """

    multi_objective: ClassVar[bool] = True
    random_control: ClassVar[bool] = False
    roles: ClassVar[tuple[str, ...]] = ("student",)
    settings: ClassVar[frozenset[str]] = frozenset({"replicates"})

    @classmethod
    def check(cls, search: SearchSettings, space: Space) -> None:  # noqa: ARG003  # as the base has it
        """Check that the space has no range.

        Raises:
            ValueError: It has one.
        """
        if enumerate_values({**space.distill, **space.bits}) is None:
            raise ValueError("algorithm: grid must have lists of values in space.distill and space.bits, not ranges")

    @classmethod
    def member_count(cls, search: SearchSettings, space: Space) -> int:
        """Return the number of combinations times the replicates."""
        return len(combinations(space)) * search.replicates

    def draw(self) -> tuple[Member, ...]:
        """List every combination, replicate by replicate."""
        self._combinations = combinations(self.space)
        places = itertools.product(range(self.search.replicates), self._combinations)
        return tuple(
            self.member(index, genome, seed=member_seed(self.seed, self.task.role, 0, replicate))
            for index, (replicate, genome) in enumerate(places)
        )

    def scores(self, outcomes: Sequence[Outcome]) -> dict[str, float]:
        """Return the mean validation accuracy by combination, without those that failed in every replicate."""
        return {
            self._label(genome): fmean(outcome.accuracy for outcome in group)
            for genome, group in self._groups(outcomes)
        }

    def result(self, outcomes: Sequence[Outcome], provenance: Mapping[str, Any]) -> SearchResult:
        """Select the combination with the best mean over its replicates; ties go to the first.

        Raises:
            WorkError: No member reached the end with a score.
        """
        groups = self._groups(outcomes)
        if not groups:
            raise self._failed(outcomes)
        genome, group = max(groups, key=lambda item: _mean(item[1]))
        best = max(group, key=lambda outcome: outcome.score)
        origin = {"run": best.name, "value": abs(_mean(group)), "replicates": len(group), "parents": []}
        schedule = self.schedule((Phase(self.search.epochs, genome),), best, provenance, origin)
        return SearchResult(schedule, best, (), fmean(outcome.accuracy for outcome in group))

    def _groups(self, outcomes: Sequence[Outcome]) -> list[tuple[Genome, list[Outcome]]]:
        """Return the outcomes with a score by combination, in the combinations' order."""
        place = {member.name: member.index % len(self._combinations) for member in self.members}
        groups: list[list[Outcome]] = [[] for _ in self._combinations]
        for outcome in outcomes:
            if outcome.name in place and not outcome.error and not math.isnan(outcome.score):
                groups[place[outcome.name]].append(outcome)
        return [(genome, group) for genome, group in zip(self._combinations, groups, strict=True) if group]

    def _label(self, genome: Genome) -> str:
        """Return the choices that differ between combinations, or the augmentation where nothing else does."""
        every = [describe_choices(other) for other in self._combinations]
        names = dict.fromkeys(itertools.chain.from_iterable(every))
        differ = [name for name in names if len({str(choices.get(name)) for choices in every}) > 1]
        choices = describe_choices(genome)
        if set(differ) <= {"augment"}:
            return genome.augment.label
        return ", ".join(f"{name} {choices[name]}" for name in differ if name in choices)


def _mean(group: Sequence[Outcome]) -> float:
    return fmean(outcome.score for outcome in group)
