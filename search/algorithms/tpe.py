"""Fixed genomes that Optuna's TPE suggests, each with what became of those before it in view.

Source: Bergstra et al. 2011, https://papers.nips.cc/paper/4443; Optuna, Akiba et al. 2019,
https://arxiv.org/abs/1907.10902. The space is conditional: what is free within a choice is drawn only where that choice
is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import copy
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, distribution_to_json, json_to_distribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial
from ray.tune.search import Searcher

from search.algorithms.base import SearchAlgorithm, member_seed
from search.execution.journal import Journal, Progress
from search.execution.trials import Member, trial_config
from spaces import Genome

ROUNDS = 10
"""Suggestions come in so many rounds, unless each is made as it is asked for."""

LEAST_ROUND = 4


class TPESearch(SearchAlgorithm):
    """A search whose members are suggested one by one; `members` holds those that have been so far.

    Where `search.synch` holds, all of a round are suggested before any of them is scored, and scores are told in the
    members' order, so that suggestions do not depend on which worker was faster. Each suggestion draws with a seed of
    its own, so it follows from what was told before it, and the journal is all that a resumed search needs.
    """

    def _draw(self) -> tuple[Member, ...]:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        # A teacher has no bits to choose, so its size is no objective.
        self._sized = "size" in self.search.objective and self.task.role == "student"
        self._asked: list[tuple[dict[str, Any], dict[str, BaseDistribution]]] = []
        self._told: dict[int, FrozenTrial] = {}
        known = [event for event in self._journal.notes("suggested") if event["stage"] == self.name]
        for event in known:
            spaces = {name: json_to_distribution(text) for name, text in event["distributions"].items()}
            self._asked.append((event["params"], spaces))
        return tuple(
            self._suggested(index, Genome.from_json(event["genome"]), event["cohort"])
            for index, event in enumerate(known)
        )

    @property
    def waits(self) -> bool:
        """Whether the next suggestion wants the scores of a round that is not over."""
        return self._starts_a_round and bool(self.pending)

    @property
    def missing(self) -> int:
        """How many members are still to be suggested."""
        return max(0, self.stage.population - len(self.members))

    def suggest(self) -> Member:
        """The next member."""
        index = len(self.members)
        cohort = index // self._round if self.search.synch else index
        self._tell(cohort)
        trial = self._study(member_seed(self.search.seed, self.task.role, 3, index)).ask()
        genome = self.space.suggest(_Asked(trial))
        spaces = {name: distribution_to_json(space) for name, space in trial.distributions.items()}
        content = {"genome": genome.to_json(), "cohort": cohort, "params": trial.params, "distributions": spaces}
        self._journal.note("suggested", stage=self.name, **content)
        self._asked.append((trial.params, trial.distributions))
        self.members = (*self.members, self._suggested(index, genome, cohort))
        return self.members[-1]

    def cohort_size(self, member: Member) -> int:
        """How many that are compared with a member have yet to be trained, those included that will be suggested."""
        if not self.search.synch:
            return 1
        there = sum(other.cohort == member.cohort for other in self.pending)
        rest = min(self._round, self.stage.population - member.cohort * self._round)
        known = sum(other.cohort == member.cohort for other in self.members)
        return there + max(0, rest - known)

    def _suggested(self, index: int, genome: Genome, cohort: int) -> Member:
        seed = member_seed(self.search.seed, self.task.role, 0, index)
        name, stage = f"{self.name}-{index:02d}", f"{self.kind} search"
        return Member(name, index, seed, genome, stage, moved=self.halved, cohort=cohort)

    @property
    def _round(self) -> int:
        return max(LEAST_ROUND, math.ceil(self.stage.population / ROUNDS))

    @property
    def _starts_a_round(self) -> bool:
        return self.search.synch and len(self.members) % self._round == 0

    def _study(self, seed: int) -> optuna.Study:
        """A study that has been told all that is to be told, and nothing else: even a trial's number plays a part."""
        directions = (StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE)[: 1 + self._sized]
        study = optuna.create_study(directions=directions, sampler=optuna.samplers.TPESampler(seed=seed))
        study.add_trials(self._told.values())
        return study

    def _tell(self, cohort: int) -> None:
        """Take down what became of those before `cohort` that are through, in the members' order."""
        for member, (params, spaces) in zip(self.members, self._asked, strict=True):
            progress = self._journal.progress(member.name)
            if member.cohort >= cohort or member.index in self._told or not progress.over(self.task.epochs):
                continue
            state, values = self._became(member, progress)
            scores = {epoch: score for epoch, score in progress.scores if not math.isnan(score)}
            told = create_trial(
                state=state,
                values=values,
                params=params,
                distributions=spaces,
                intermediate_values={} if self._sized else scores,
            )
            told.__class__ = _Told
            self._told[member.index] = told

    def _became(self, member: Member, progress: Progress) -> tuple[TrialState, list[float] | None]:
        """What became of a member: its score, and where it counts the size; PRUNED where it was stopped early."""
        score = progress.score(self.stage.interval)
        if progress.error or math.isnan(score):
            return TrialState.FAIL, None
        if progress.stopped:
            return TrialState.PRUNED, None
        return TrialState.COMPLETE, [score, float(self.task.size_in_bits(member.source))] if self._sized else [score]


class Suggestions(Searcher):
    """Hands Ray Tune what a `TPESearch` suggests, and `others`, fixed members, in the gaps that its rounds leave."""

    def __init__(self, stage: TPESearch, others: Sequence[Member], journal: Journal) -> None:
        """Begin with those that an earlier life of the sweep has left unfinished."""
        super().__init__()
        self._stage, self._journal = stage, journal
        self._left = stage.pending
        self._others = [m for m in others if not journal.progress(m.name).over(stage.task.epochs)]

    def __getstate__(self) -> dict[str, Any]:
        """Ray pickles its searcher beside the trials; all that this one knows stands in the journal."""
        return {}

    def suggest(self, trial_id: str) -> Any:
        """The next trial's configuration; None: none at the moment; `FINISHED`: no more."""
        if self._left:
            member = self._left.pop(0)
        elif self._stage.missing and not self._stage.waits:
            member = self._stage.suggest()
        elif self._others:
            member = self._others.pop(0)
        else:
            return None if self._stage.missing else self.FINISHED
        config = trial_config(member, self._journal, self._stage.stage.interval)
        if member.moved:
            config["cohort_size"] = self._stage.cohort_size(member)
        return {"member": config}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Nothing: what became of a member stands in the journal."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: what was suggested stands in the journal."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing."""


class _Told(FrozenTrial):
    """A trial that is over: a study that is told it gets its own number for it, and all else is shared.

    Each suggestion has a study of its own, and Optuna copies each trial to its depths, which took longer than all else.
    """

    def __deepcopy__(self, memo: dict[int, Any]) -> FrozenTrial:
        return copy(self)


class _Asked:
    """An Optuna trial as what a space draws from."""

    def __init__(self, trial: optuna.Trial) -> None:
        self._trial = trial

    def choice(self, name: str, count: int) -> int:
        return int(self._trial.suggest_categorical(name, tuple(range(count))))

    def number(self, name: str, low: float, high: float, *, log: bool) -> float:
        return self._trial.suggest_float(name, low, high, log=log)

    def integer(self, name: str, low: int, high: int, *, log: bool) -> int:
        return self._trial.suggest_int(name, low, high, log=log)
