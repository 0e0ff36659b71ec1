"""A student for each augmentation, some times over: which of them suits this pair of teacher and student."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from search.stage import Found, Stage, member_seed, replayed
from search.trials import Member, Outcome
from spaces import Genome, Phase, Policy, Schedule, WorkError
from spaces.augmentations import Augmentation


class Choice(Stage):
    """Fixed genomes: no policy, and one augmentation of the space each, as often as `search.repeats` says.

    The same repetition has the same seed under every augmentation, so that weights and batches are paired.
    """

    def scores(self, outcomes: Sequence[Outcome]) -> dict[str, float]:
        """Mean validation accuracy by the augmentation's label; what failed in every repetition is missing."""
        return {augment.label: _mean(group) for augment, group in self._groups(outcomes).items()}

    def found(self, outcomes: Sequence[Outcome], provenance: dict[str, Any]) -> Found:
        """The augmentation with the best mean over its repetitions; ties go to the first of the space.

        Raises:
            WorkError: no member reached the end with a score.
        """
        groups = self._groups(outcomes)
        if not groups:
            why = next((outcome.error for outcome in outcomes if outcome.error), "none was scored")
            raise WorkError(f"every member of {self.name} failed; the first: {why}")
        augment, group = max(groups.items(), key=lambda item: _mean(item[1]))
        best = max(group, key=lambda outcome: outcome.score)
        origin = {"run": best.name, "value": _mean(group), "repeats": len(group), "parents": []}
        trained = (Phase(self.stage.epochs, Genome(Policy(), augment)),)
        phases = replayed(trained, best, self.task)
        schedule = Schedule(phases, self.task.role, self.task.image, provenance | origin)
        return Found(schedule, best, (), _mean(group))

    def _draw(self) -> tuple[Member, ...]:
        genomes = [Genome(Policy(), augment) for augment in self.space.augmentations]
        places = [(repeat, genome) for repeat in range(self.search.repeats) for genome in genomes]
        return tuple(
            Member(
                f"{self.name}-{index:02d}",
                index,
                member_seed(self.search.seed, self.task.role, 0, repeat),
                genome,
                "choice search",
            )
            for index, (repeat, genome) in enumerate(places)
        )

    def _groups(self, outcomes: Sequence[Outcome]) -> dict[Augmentation, list[Outcome]]:
        """The outcomes with a score, by augmentation, in the space's order."""
        genomes = {member.name: member.mover for member in self.members if isinstance(member.mover, Genome)}
        groups: dict[Augmentation, list[Outcome]] = {augment: [] for augment in self.space.augmentations}
        for outcome in outcomes:
            if outcome.name in genomes and not outcome.error and not math.isnan(outcome.score):
                groups[genomes[outcome.name].augment].append(outcome)
        return {augment: group for augment, group in groups.items() if group}


def _mean(group: Sequence[Outcome]) -> float:
    return fmean(outcome.score for outcome in group)
