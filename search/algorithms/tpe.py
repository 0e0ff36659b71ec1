"""Optuna's TPE: genomes that are suggested one by one, each from the scores of those before it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

from results.runlog.events import GenomeSuggested
from search.algorithms.base import SearchAlgorithm, member_seed
from search.algorithms.successive_halving import EarlyStopping
from search.config.registry import SearchSettings
from search.execution.journal import Progress
from search.execution.members import Member
from spaces import Genome

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

    from search.algorithms.optuna_searcher import Suggestions

ROUNDS = 10
"""Number of rounds of a synchronous search."""

LEAST_ROUND = 4
"""Smallest number of suggestions in a round."""


class TPE(SearchAlgorithm):
    """Tree-structured Parzen estimator (Bergstra et al. 2011, https://papers.nips.cc/paper/4443), by Optuna.

    The space is conditional: what is free within a choice is suggested only where that choice is made. `members` holds
    the members that have been suggested so far.

    With `synchronous: true` all members of a round are suggested before any of them is scored, and the study sees
    scores in the members' order, so suggestions do not depend on which worker was faster. Each suggestion draws with a
    seed of its own and follows from the scores before it, so a resumed search needs the journal and nothing else.

    With `start`, or after another search, the first suggestion is the genome to start from, enqueued in the study.
    """

    multi_objective: ClassVar[bool] = True
    settings: ClassVar[frozenset[str]] = frozenset({"trials", "start", "synchronous", "early_stopping"})

    @classmethod
    def variant(cls, search: SearchSettings) -> type[Self]:
        """Return the class that stops members early, where the settings ask for it."""
        early: Any = TPEWithEarlyStopping
        return cls if search.early_stopping == "none" else early

    def draw(self) -> tuple[Member, ...]:
        """Read what was suggested before the sweep was resumed."""
        from search.algorithms.optuna_searcher import parse_distributions

        # A teacher has no bits to choose, so its size is no objective.
        self._sized = "size" in self.search.objective and self.task.role == "student"
        self._suggested: list[tuple[dict[str, Any], dict[str, Any]]] = []
        self._finished: dict[int, FrozenTrial] = {}
        known = self._journal.history.suggestions(self.name)
        for event in known:
            self._suggested.append((dict(event.params), parse_distributions(event.distributions)))
        return tuple(
            self.member(index, Genome.from_json(event.genome), cohort=event.cohort) for index, event in enumerate(known)
        )

    def searcher(self, others: Sequence[Member]) -> Suggestions | None:
        """Return the searcher that suggests members, and hands out `others` in the gaps between rounds."""
        from search.algorithms.optuna_searcher import Suggestions

        unfinished = [m for m in others if not self._journal.progress(m.name).over(self.task.epochs)]
        return Suggestions(self, unfinished, self._journal) if self.missing or self.pending or unfinished else None

    @property
    def waits(self) -> bool:
        """True where the next suggestion needs the scores of a round that is not over."""
        return self._starts_a_round and bool(self.pending)

    @property
    def missing(self) -> int:
        """Number of members that are still to be suggested."""
        return max(0, self.search.trials - len(self.members))

    def suggest(self) -> Member:
        """Suggest the next member."""
        from search.algorithms.optuna_searcher import ask

        index = len(self.members)
        cohort = index // self._round if self.search.synchronous else index
        self._tell(cohort)
        study = self._study(member_seed(self.seed, self.task.role, 3, index))
        given = index == 0 and (self.start is not None or self.search.start is not None)
        genome, params, distributions, plain = ask(study, self.space, self.first_genome(0) if given else None)
        self._journal.write(
            GenomeSuggested(stage=self.name, genome=genome.to_json(), cohort=cohort, params=params, distributions=plain)
        )
        self._suggested.append((params, distributions))
        self.members = (*self.members, self.member(index, genome, cohort=cohort))
        return self.members[-1]

    def cohort_size(self, member: Member) -> int:
        """Return how many members of the cohort are still to be trained, those to be suggested included."""
        if not self.search.synchronous:
            return 1
        there = sum(other.cohort == member.cohort for other in self.pending)
        rest = min(self._round, self.search.trials - member.cohort * self._round)
        known = sum(other.cohort == member.cohort for other in self.members)
        return there + max(0, rest - known)

    @property
    def _round(self) -> int:
        return max(LEAST_ROUND, math.ceil(self.search.trials / ROUNDS))

    @property
    def _starts_a_round(self) -> bool:
        return self.search.synchronous and len(self.members) % self._round == 0

    def _study(self, seed: int) -> optuna.Study:
        """Return a study with the finished trials and nothing else: even a trial's number changes its suggestions."""
        from search.algorithms.optuna_searcher import new_study

        return new_study(seed, self._finished.values(), sized=self._sized)

    def _tell(self, cohort: int) -> None:
        """Add the finished members of the cohorts before `cohort` to the study, in the members' order."""
        from search.algorithms.optuna_searcher import finished_trial

        for member, (params, distributions) in zip(self.members, self._suggested, strict=True):
            progress = self._journal.progress(member.name)
            if member.cohort >= cohort or member.index in self._finished or not progress.over(self.task.epochs):
                continue
            values = self._values(member, progress)
            scores = {epoch: score for epoch, score in progress.scores if not math.isnan(score)}
            self._finished[member.index] = finished_trial(
                params, distributions, values, pruned=progress.stopped, intermediate={} if self._sized else scores
            )

    def _values(self, member: Member, progress: Progress) -> list[float] | None:
        """Return the member's score, and its size where that is an objective; None where it has no score."""
        score = progress.score(self.search.interval)
        if progress.error or math.isnan(score):
            return None
        return [score, float(self.task.size_in_bits(member.source))] if self._sized else [score]


class TPEWithEarlyStopping(TPE, EarlyStopping):
    """TPE whose members are compared on rungs; the study sees a member that was stopped as pruned."""

    multi_objective: ClassVar[bool] = False
    settings: ClassVar[frozenset[str]] = TPE.settings | {"tie_break", "reduction"}
