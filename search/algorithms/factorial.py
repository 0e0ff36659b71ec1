"""Factorial search: a screening experiment over all that the space leaves free, each trial with a constant genome."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from results.analysis.contrasts import Factor, Levels
from results.analysis.effects import MIDDLE, MIN_SCORES, Effect, RoleEffects, estimate_effects
from results.runlog.events import GenomeSuggested
from search.algorithms.base import SearchAlgorithm, SearchResult, member_seed
from search.algorithms.design_matrix import MIN_TRIALS, Design, separation_warning
from search.algorithms.factors import genome_of, space_factors, with_fixed, without_fixed
from search.config.registry import SearchSettings
from search.execution.members import Member, Outcome
from spaces import Genome, Phase, ScaledPolicy, Space

if TYPE_CHECKING:
    from search.algorithms.optuna_searcher import Suggestions

GOOD = 0.5
"""Probability of a positive effect from which on an operation is part of the policy."""

BETTER = 0.75
"""Probability from which on the better of two levels is taken, not the middle."""

LEAST_WEIGHT = 0.05
"""Smallest weight of an operation that is part of the policy; the largest effect has 1."""

CLEAR = 0.95
"""Probability from which on a factor is fixed at its better level in the second round."""

_log = logging.getLogger("roletune.search")


class Factorial(SearchAlgorithm):
    """Screening experiment: every operation, strength, choice and setting is a factor, and each trial informs on all.

    Each factor has each of its levels in equally many trials, see `search.algorithms.design_matrix`. The policy is not
    that of a trial: it has the operations, strengths and choices that are more likely good than not, by the estimated
    effects, see `results.analysis.effects`; a scaled policy draws operations in proportion to them. With `rounds: 2`,
    half of the trials come first; then factors that are clearly good or bad are fixed at their better level, and the
    other half is a new experiment on the rest.
    """

    settings: ClassVar[frozenset[str]] = frozenset({"trials", "rounds"})
    defaults: ClassVar[Mapping[str, Any]] = {"trials": 24}

    @classmethod
    def check(cls, search: SearchSettings, space: Space) -> None:
        """Check that there is something to choose, and enough trials in each round.

        Raises:
            ValueError: There is not.
        """
        if space.is_constant:
            raise ValueError("algorithm: factorial must have something to choose; free operations or choices in space")
        if search.trials < MIN_TRIALS * search.rounds:
            rounds = f" for {search.rounds} rounds" if search.rounds > 1 else ""
            rule = f"trials must be >= {MIN_TRIALS * search.rounds} with algorithm: factorial{rounds}"
            raise ValueError(f"{rule}, got {search.trials}")

    def draw(self) -> tuple[Member, ...]:
        """Draw the first experiment, and read what was suggested before the sweep was resumed."""
        self._factors = space_factors(self.space)
        self._first = self.search.trials - (self.search.trials // 2 if self.search.rounds == 2 else 0)
        design = Design.draw(self._factors, self._first, member_seed(self.seed, self.task.role, 4, 0))
        if warning := separation_warning(self._factors, self.search.trials):
            _log.warning("%s: %s", self.name, warning)
        self._second: Sequence[Levels] | None = None
        self._levels = list(design.trials)
        members = [self.member(index, genome_of(self.space, levels)) for index, levels in enumerate(self._levels)]
        for event in self._journal.history.suggestions(self.name):
            self._levels.append({name: int(level) for name, level in event.params.items()})
            members.append(self.member(len(members), Genome.from_json(event.genome), cohort=event.cohort))
        return tuple(members)

    def searcher(self, others: Sequence[Member]) -> Suggestions | None:
        """Return the searcher that hands out both rounds, and `others` in the gap between them."""
        if self.search.rounds == 1:
            return None
        from search.algorithms.optuna_searcher import Suggestions

        unfinished = [m for m in others if not self._journal.progress(m.name).over(self.task.epochs)]
        return Suggestions(self, unfinished, self._journal) if self.missing or self.pending or unfinished else None

    @property
    def missing(self) -> int:
        """Number of trials of the second round that are still to be suggested."""
        return max(0, self.search.trials - len(self.members))

    @property
    def waits(self) -> bool:
        """True until every trial of the first round has ended."""
        first = self.members[: self._first]
        return any(not self._journal.progress(member.name).over(self.task.epochs) for member in first)

    def suggest(self) -> Member:
        """Suggest the next trial of the second round."""
        index = len(self.members)
        if self._second is None:
            self._second = self._second_round()
        levels = self._second[index - self._first]
        genome = genome_of(self.space, levels)
        self._journal.write(
            GenomeSuggested(stage=self.name, genome=genome.to_json(), cohort=1, params=dict(levels), distributions={})
        )
        self._levels.append(levels)
        self.members = (*self.members, self.member(index, genome, cohort=1))
        return self.members[-1]

    def cohort_size(self, member: Member) -> int:
        """Return 1: no scheduler compares members."""
        return 1

    def effects(self, outcomes: Sequence[Outcome]) -> RoleEffects:
        """Return the effects of all factors, and the levels that the policy has.

        Raises:
            WorkError: Too few trials were scored.
        """
        scores = {each.name: math.nan if each.error or each.stopped else each.score for each in outcomes}
        found = self._estimate([scores.get(member.name, math.nan) for member in self.members])
        if found is None:
            own = {member.name for member in self.members}
            raise self._failed([outcome for outcome in outcomes if outcome.name in own])
        return found

    def result(self, outcomes: Sequence[Outcome], provenance: Mapping[str, Any]) -> SearchResult:
        """Return the policy of what is more likely good than not; the best member is named for the record.

        Raises:
            WorkError: Too few trials were scored.
        """
        effects = self.effects(outcomes)
        genome = weighted(genome_of(self.space, choose(self._factors, effects)), effects)
        names = {member.name: member for member in self.members}
        complete = [
            each
            for each in outcomes
            if each.name in names and not (each.error or each.stopped or math.isnan(each.score))
        ]
        best = max(complete, key=lambda outcome: outcome.score)
        # A learned augmentation is replayed with the weights of the best member that has it.
        taught = [each for each in complete if _augment(names[each.name]) == genome.augment]
        learner = max(taught, key=lambda outcome: outcome.score, default=best)
        origin = {
            "run": best.name,
            "value": best.value,
            "parents": [],
            "effects": {
                effect.label: [effect.estimate, effect.low, effect.high, effect.probability]
                for effect in effects.effects
            },
            "score": effects.score,
            "trials": effects.trials,
        }
        schedule = self.schedule((Phase(self.search.epochs, genome),), learner, provenance, origin)
        return SearchResult(schedule, best, (), best.accuracy)

    def _estimate(self, scores: Sequence[float]) -> RoleEffects | None:
        """Return the effects and the chosen policy from a score of each of the first members; None of too few."""
        if (scored := sum(map(math.isfinite, scores))) < MIN_SCORES:
            return None
        levels, warning = self._levels[: len(scores)], separation_warning(self._factors, scored)
        notes = (warning,) if warning else ()
        found = estimate_effects(self.task.role, self._factors, levels, scores, notes=notes)
        chosen = choose(self._factors, found)
        policy = {
            factor.name: factor.levels[chosen[factor.name]] if factor.name in chosen else MIDDLE
            for factor in self._factors
            if factor.active(chosen)
        }
        return replace(found, policy=policy)

    def _second_round(self) -> Sequence[Levels]:
        """Return the levels of the second round, in which factors that are clear have their better level."""
        progress = [self._journal.progress(member.name) for member in self.members[: self._first]]
        scores = [math.nan if each.error else each.score(self.search.interval) for each in progress]
        effects, fixed = self._estimate(scores), dict[str, int]()
        for name, group in _by_factor(effects.effects if effects else ()).items():
            level, probability = _best(group)
            if probability > CLEAR:
                fixed[name] = level
        left = without_fixed(self._factors, fixed)
        if not left:  # everything is clear: the whole experiment once more
            fixed, left = {}, self._factors
        seed = member_seed(self.seed, self.task.role, 4, 1)
        design = Design.draw(left, self.search.trials - self._first, seed)
        return [with_fixed(self._factors, fixed, trial) for trial in design.trials]


def choose(factors: Sequence[Factor], effects: RoleEffects) -> Levels:
    """Return the level of each factor that is more likely the better one; none for the middle.

    Args:
        factors: All factors, each after the one that it is within.
        effects: Their effects.
    """
    best = {name: _best(group) for name, group in _by_factor(effects.effects).items()}
    needed = {"operation": GOOD, "choice": GOOD, "level": BETTER, "setting": BETTER}
    chosen: dict[str, int] = {}
    for factor in factors:
        level, probability = best[factor.name]
        if factor.active(chosen) and (len(factor.levels) > 2 or probability >= needed[factor.kind]):
            chosen[factor.name] = level
    return chosen


def weighted(genome: Genome, effects: RoleEffects) -> Genome:
    """Return the genome whose operations are drawn in proportion to their effects; one of PBA's kind as it is.

    An operation that is more likely good than not but has hardly an effect would otherwise be drawn as often as the
    one that matters.

    Args:
        genome: Genome with the operations that passed.
        effects: Their effects.
    """
    if not isinstance(genome.policy, ScaledPolicy):
        return genome
    sizes = {each.factor: each.estimate for each in effects.effects if each.kind == "operation"}
    most = max((sizes[entry.op] for entry in genome.policy if entry.weight), default=0.0)
    if most <= 0:
        return genome
    entries = (
        replace(entry, weight=round(max(sizes[entry.op] / most, LEAST_WEIGHT), 2)) if entry.weight else entry
        for entry in genome.policy
    )
    return replace(genome, policy=replace(genome.policy, entries=tuple(entries)))


def _by_factor(effects: Sequence[Effect]) -> dict[str, list[Effect]]:
    groups: dict[str, list[Effect]] = {}
    for effect in effects:
        groups.setdefault(effect.factor, []).append(effect)
    return groups


def _best(group: Sequence[Effect]) -> tuple[int, float]:
    """Return the best level of a factor, and the probability that it is better than the other, or than the mean."""
    if len(group) == 1:  # the second of two levels against the first
        up = group[0].probability > GOOD
        return int(up), max(group[0].probability, 1 - group[0].probability)
    level = max(range(len(group)), key=lambda index: group[index].estimate)
    return level, group[level].probability


def _augment(member: Member) -> Any:
    return member.source.augment if isinstance(member.source, Genome) else None
