"""Race: a few named policies, trained and scored until the better ones are known."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, ClassVar

from results.runlog.events import GenomeSuggested
from search.algorithms.base import SearchAlgorithm, SearchResult, member_seed
from search.algorithms.policy_files import load_genome
from search.algorithms.rejects import Decision, Measured, decide, most_seeds, next_round, rounds, trainings
from search.config.registry import SearchSettings
from search.execution.members import Member, Outcome
from spaces import BASELINES, Genome, Phase, ScaledEntry, ScaledPolicy, Space
from spaces.core.errors import unknown
from spaces.search_space.domain import is_constant

if TYPE_CHECKING:
    from search.algorithms.optuna_searcher import Suggestions

EVERYWHERE = ("none", "uniform")
"""Free baselines that every space has; the others are scaled policies."""

SUFFIX = ".json"
"""End of the name of a candidate that is a policy file."""


class Race(SearchAlgorithm):
    """Successive rejects over named policies: free baselines, and policy files of the user's own.

    All candidates are trained from the same seeds, the worse half is rejected, and again with fresh seeds, until two
    are left; see `search.algorithms.rejects.decide`. A candidate is one genome, from the first epoch to the last: a
    free baseline with the operations of the space, or the time average of a policy file. All else in the space has
    its first value. As many seeds are taken as `trials` trainings allow.
    """

    settings: ClassVar[frozenset[str]] = frozenset({"candidates", "trials"})
    defaults: ClassVar[Mapping[str, Any]] = {"trials": 16}
    continues: ClassVar[bool] = False

    @classmethod
    def check(cls, search: SearchSettings, space: Space) -> None:
        """Check the names of the candidates, and that the trials are enough for one seed.

        Raises:
            ValueError: A candidate is unknown, repeated, or not in the space; there are fewer than two, or fewer
                trials than one seed takes; bits are free, which a race does not choose.
        """
        if not is_constant(space.bits):
            raise ValueError("space.bits must not be free with algorithm: race, which chooses among policies alone")
        names = _names(search, space)
        for name in names:
            if name not in BASELINES and not name.endswith(SUFFIX):
                raise unknown("candidate", name, [*BASELINES, f"FILE{SUFFIX}"])
            if name in BASELINES and name not in EVERYWHERE and space.genome != "scaled":
                rule = f"candidates must be {', '.join(EVERYWHERE)} or files with space.genome: {space.genome}"
                raise ValueError(f"{rule}, got {name}; set space.genome: scaled")
        labels = [_label(name) for name in names]
        if len(set(labels)) < len(labels) or len(labels) < 2:
            raise ValueError(f"candidates must be two or more, with different names, got {', '.join(labels)}")
        if search.trials < (least := trainings(len(labels), 1)):
            raise ValueError(
                f"trials must be >= {least} to race {len(labels)} candidates from one seed, got {search.trials}"
            )

    @classmethod
    def check_files(cls, search: SearchSettings, role: str, space: Space) -> None:
        """Check the candidates that are policy files.

        Raises:
            RequestError: A file is missing, or not a policy of this role and space.
        """
        candidate_genomes(search, role, space)

    @classmethod
    def member_count(cls, search: SearchSettings, space: Space) -> int:
        """Return the number of trainings of all rounds."""
        count = len(_names(search, space))
        return trainings(count, most_seeds(count, search.trials))

    def draw(self) -> tuple[Member, ...]:
        """Draw the first round, and read what was suggested before the sweep was resumed."""
        self._genomes = candidate_genomes(self.search, self.task.role, self.space)
        self._seeds = most_seeds(len(self._genomes), self.search.trials)
        self._rounds = rounds(len(self._genomes), self._seeds)
        self._places: list[tuple[str, int]] = []
        first = [(name, seed) for seed in range(self._rounds[0][1]) for name in self._genomes]
        members = [self._enter(name, seed, self._genomes[name], 0) for name, seed in first]
        for event in self._journal.history.suggestions(self.name):
            name, seed = str(event.params["candidate"]), int(event.params["seed"])
            members.append(self._enter(name, seed, Genome.from_json(event.genome), event.cohort))
        return tuple(members)

    def searcher(self, others: Sequence[Member]) -> Suggestions | None:
        """Return the searcher that hands out the rounds, and `others` in the gaps between them."""
        from search.algorithms.optuna_searcher import Suggestions

        unfinished = [m for m in others if not self._journal.progress(m.name).over(self.task.epochs)]
        return Suggestions(self, unfinished, self._journal) if self.missing or self.pending or unfinished else None

    @property
    def missing(self) -> int:
        """Number of trainings of later rounds that are still to be suggested."""
        return sum(count * seeds for count, seeds in self._rounds) - len(self.members)

    @property
    def waits(self) -> bool:
        """True at the end of a round until all of its trainings have ended."""
        return self._ends_a_round and bool(self.pending)

    def suggest(self) -> Member:
        """Suggest the next training."""
        index, before, number = len(self.members), 0, 0
        while (size := math.prod(self._rounds[number])) <= index - before:
            before, number = before + size, number + 1
        left, seeds = next_round(list(self._genomes), self._free, self._seeds, self._measured(before))
        name, seed = [(name, seed) for seed in seeds for name in left][index - before]
        genome = self._genomes[name]
        params = {"candidate": name, "seed": seed}
        self._journal.write(
            GenomeSuggested(stage=self.name, genome=genome.to_json(), cohort=number, params=params, distributions={})
        )
        self.members = (*self.members, self._enter(name, seed, genome, number))
        return self.members[-1]

    def cohort_size(self, member: Member) -> int:
        """Return 1: no scheduler compares members."""
        return 1

    def scores(self, outcomes: Sequence[Outcome]) -> dict[str, float]:
        """Return the mean validation accuracy by candidate, without those that failed from every seed."""
        found = {name: [each for each in group if _scored(each)] for name, group in self._groups(outcomes).items()}
        return {name: fmean(each.accuracy for each in group) for name, group in found.items() if group}

    def result(self, outcomes: Sequence[Outcome], provenance: Mapping[str, Any]) -> SearchResult:
        """Return the winner, with its difference to the other candidate of the last round in its provenance.

        Raises:
            WorkError: No training of the winner reached the end with a score.
        """
        by_place = dict(zip(self._places, self._own(outcomes), strict=True))

        def measure(_: int, names: Sequence[str], seeds: Sequence[int]) -> dict[str, list[Measured]]:
            return {name: [_measured(by_place.get((name, seed))) for seed in seeds] for name in names}

        decision: Decision = decide(list(self._genomes), self._free, self._seeds, measure)
        group = [each for each in self._groups(outcomes)[decision.winner] if _scored(each)]
        if not group:
            raise self._failed([each for each in by_place.values() if each is not None])
        best = max(group, key=lambda outcome: outcome.score)
        value = abs(fmean(each.score for each in group))
        origin = {"run": best.name, "value": value, "parents": [], "race": decision.to_json()}
        phases = (Phase(self.search.epochs, self._genomes[decision.winner]),)
        schedule = self.schedule(phases, best, provenance, origin)
        return SearchResult(schedule, best, (), fmean(each.accuracy for each in group))

    @property
    def _free(self) -> Collection[str]:
        return [name for name in self._genomes if name in BASELINES]

    @property
    def _ends_a_round(self) -> bool:
        sizes = [count * seeds for count, seeds in self._rounds]
        return len(self.members) in [sum(sizes[: number + 1]) for number in range(len(sizes))]

    def _enter(self, name: str, seed: int, genome: Genome, cohort: int) -> Member:
        """Return the next member; a seed gives the same weights and batches to every candidate."""
        self._places.append((name, seed))
        own = member_seed(self.seed, self.task.role, 0, seed)
        return self.member(len(self._places) - 1, genome, seed=own, cohort=cohort)

    def _measured(self, count: int) -> dict[str, list[Measured]]:
        """Return the results of the first `count` members by candidate, in the order of their seeds."""
        found: dict[str, list[Measured]] = {name: [] for name in self._genomes}
        for member, (name, _) in zip(self.members[:count], self._places, strict=False):
            progress = self._journal.progress(member.name)
            score = math.nan if progress.error else progress.score(self.search.interval)
            found[name].append(Measured(score))
        return found

    def _own(self, outcomes: Sequence[Outcome]) -> list[Outcome | None]:
        by_name = {outcome.name: outcome for outcome in outcomes}
        return [by_name.get(member.name) for member in self.members]

    def _groups(self, outcomes: Sequence[Outcome]) -> dict[str, list[Outcome]]:
        groups: dict[str, list[Outcome]] = {name: [] for name in self._genomes}
        for (name, _), outcome in zip(self._places, self._own(outcomes), strict=True):
            if outcome is not None:
                groups[name].append(outcome)
        return groups


def candidate_genomes(search: SearchSettings, role: str, space: Space) -> dict[str, Genome]:
    """Return the genome of each candidate by its name.

    Raises:
        RequestError: A file is missing, or not a policy of this role and space.
    """
    setting = f"{role}.search.candidates"
    return {
        _label(name): _baseline(name, space)
        if name in BASELINES
        else load_genome(name, role, space, setting, mean=True)
        for name in _names(search, space)
    }


def _names(search: SearchSettings, space: Space) -> tuple[str, ...]:
    return search.candidates or (tuple(BASELINES) if space.genome == "scaled" else EVERYWHERE)


def _label(name: str) -> str:
    return name if name in BASELINES else Path(name).name.removesuffix(SUFFIX)


def _baseline(name: str, space: Space) -> Genome:
    """Return a free baseline with the operations of the space; those that it does not have get no weight."""
    if name in EVERYWHERE:
        return space.zero() if name == "none" else space.uniform()
    policy = BASELINES[name]
    assert isinstance(policy, ScaledPolicy)
    known = {entry.op: entry for entry in policy}
    entries = tuple(known.get(op, ScaledEntry(op, 0.0, 0.0)) for op in space.operations)
    return replace(space.zero(), policy=replace(policy, entries=entries))


def _scored(outcome: Outcome) -> bool:
    return not outcome.error and not math.isnan(outcome.score)


def _measured(outcome: Outcome | None) -> Measured:
    if outcome is None or not _scored(outcome):
        return Measured(math.nan)
    return Measured(outcome.score, outcome.accuracy)
