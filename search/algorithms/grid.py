"""A student for each choice, some times over: which of them suits this pair of teacher and student."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from results.analysis.choices import describe_choices
from search.algorithms.base import SearchAlgorithm, SearchResult, member_seed, replayed
from search.execution.trials import Member, Outcome
from spaces import Genome, Phase, Policy, Schedule, Space, WorkError
from spaces.search_space.domain import variants


def combinations(space: Space) -> list[Genome]:
    """Every genome without a policy that a space without ranges has, the last choice changing fastest."""
    distill, bits = variants(space.distill) or [{}], variants(space.bits) or [{}]
    return [Genome(Policy(), *chosen) for chosen in itertools.product(space.augmentations, distill, bits)]


class GridSearch(SearchAlgorithm):
    """Fixed genomes without a policy: each combination of choices of the space, as often as `search.repeats` says.

    The same repetition has the same seed under every combination, so that weights and batches are paired. Kind `choice`
    is the grid of `space.augment` alone.
    """

    def scores(self, outcomes: Sequence[Outcome]) -> dict[str, float]:
        """Mean validation accuracy by what was chosen; what failed in every repetition is missing."""
        return {self._label(genome): _mean(group) for genome, group in self._groups(outcomes)}

    def found(self, outcomes: Sequence[Outcome], provenance: dict[str, Any]) -> SearchResult:
        """The combination with the best mean over its repetitions; ties go to the first.

        Raises:
            WorkError: no member reached the end with a score.
        """
        groups = self._groups(outcomes)
        if not groups:
            why = next((outcome.error for outcome in outcomes if outcome.error), "none was scored")
            raise WorkError(f"every member of {self.name} failed; the first: {why}")
        genome, group = max(groups, key=lambda item: _mean(item[1]))
        best = max(group, key=lambda outcome: outcome.score)
        origin = {"run": best.name, "value": _mean(group), "repeats": len(group), "parents": []}
        phases = replayed((Phase(self.stage.epochs, genome),), best, self.task)
        schedule = Schedule(phases, self.task.role, self.task.image, provenance | origin)
        return SearchResult(schedule, best, (), _mean(group))

    def _draw(self) -> tuple[Member, ...]:
        self._combinations = combinations(self.space)
        places = itertools.product(range(self.search.repeats), self._combinations)
        return tuple(
            Member(
                f"{self.name}-{index:02d}",
                index,
                member_seed(self.search.seed, self.task.role, 0, repeat),
                genome,
                f"{self.kind} search",
            )
            for index, (repeat, genome) in enumerate(places)
        )

    def _groups(self, outcomes: Sequence[Outcome]) -> list[tuple[Genome, list[Outcome]]]:
        """The outcomes with a score, by combination, in the order of these."""
        place = {member.name: member.index % len(self._combinations) for member in self.members}
        groups: list[list[Outcome]] = [[] for _ in self._combinations]
        for outcome in outcomes:
            if outcome.name in place and not outcome.error and not math.isnan(outcome.score):
                groups[place[outcome.name]].append(outcome)
        return [(genome, group) for genome, group in zip(self._combinations, groups, strict=True) if group]

    def _label(self, genome: Genome) -> str:
        """What a combination is called: all that is not the same in each of them, or its augmentation."""
        every = [describe_choices(other) for other in self._combinations]
        names = dict.fromkeys(itertools.chain.from_iterable(every))
        differ = [name for name in names if len({str(choices.get(name)) for choices in every}) > 1]
        chosen = describe_choices(genome)
        if set(differ) <= {"augment"}:
            return genome.augment.label
        return ", ".join(f"{name} {chosen[name]}" for name in differ if name in chosen)


def _mean(group: Sequence[Outcome]) -> float:
    return fmean(outcome.score for outcome in group)
