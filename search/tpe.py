"""Fixed genomes that Optuna's TPE suggests, each with what became of those before it in view.

Source: Bergstra et al. 2011, https://papers.nips.cc/paper/4443; Optuna, Akiba et al. 2019,
https://arxiv.org/abs/1907.10902. The space is conditional: what is free within a choice is drawn only where that choice
is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import optuna
from ray.tune.search import Searcher

from search.population import METRIC
from search.stage import Stage, member_seed
from search.trials import Member

ROUNDS = 10
"""Suggestions come in so many rounds, unless each is made as it is asked for."""

LEAST_ROUND = 4


class Tpe(Stage):
    """A search whose members are suggested one by one; `members` holds those that have been so far.

    Where `search.synch` holds, all of a round are suggested before any of them is scored, and scores are told in the
    members' order, so that suggestions do not depend on which worker was faster.
    """

    def _draw(self) -> tuple[Member, ...]:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        sampler = optuna.samplers.TPESampler(seed=member_seed(self.search.seed, self.task.role, 3))
        self._study = optuna.create_study(study_name=self.name, direction="maximize", sampler=sampler)
        self._asked: list[optuna.Trial] = []
        self._scores: dict[int, float] = {}
        self._told_of: set[int] = set()
        return ()

    @property
    def waits(self) -> bool:
        """Whether the next suggestion wants the scores of a round that is not over."""
        return self._starts_a_round and len(self._scores) < len(self._asked)

    def suggest(self) -> Member:
        """The next member."""
        if self._starts_a_round or not self.search.synch:
            self._tell()
        trial = self._study.ask()
        self._asked.append(trial)
        index = len(self.members)
        genome = self.space.suggested(_Asked(trial))
        seed = member_seed(self.search.seed, self.task.role, 0, index)
        member = Member(f"{self.name}-{index:02d}", index, seed, genome, "tpe search")
        self.members = (*self.members, member)
        return member

    def scored(self, index: int, score: float) -> None:
        """What became of a member: its score, NaN where it failed or was not scored."""
        self._scores[index] = score

    @property
    def _starts_a_round(self) -> bool:
        size = max(LEAST_ROUND, math.ceil(self.stage.population / ROUNDS))
        return self.search.synch and len(self._asked) % size == 0

    def _tell(self) -> None:
        """Tell Optuna what it does not know yet, in the members' order."""
        for index in sorted(self._scores.keys() - self._told_of):
            failed = math.isnan(self._scores[index])
            state = optuna.trial.TrialState.FAIL if failed else optuna.trial.TrialState.COMPLETE
            self._study.tell(self._asked[index], None if failed else self._scores[index], state)
            self._told_of.add(index)


class Suggestions(Searcher):
    """Hands Ray Tune what a `Tpe` suggests, and `others`, fixed members, in the gaps that its rounds leave."""

    def __init__(self, stage: Tpe, others: Sequence[Member] = ()) -> None:
        """Nothing is suggested yet."""
        super().__init__(metric=METRIC, mode="max")
        self._stage, self._others = stage, list(others)
        self._members: dict[str, Member] = {}

    def suggest(self, trial_id: str) -> Any:
        """The next trial's configuration; None: none at the moment; `FINISHED`: no more."""
        more = len(self._stage.members) < self._stage.stage.population
        if more and not self._stage.waits:
            member = self._stage.suggest()
        elif self._others:
            member = self._others.pop(0)
        else:
            return None if more else self.FINISHED
        self._members[trial_id] = member
        return {"member": member.config()}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tell the stage what became of a member of its own."""
        member = self._members[trial_id]
        if member in self._stage.members:
            self._stage.scored(member.index, math.nan if error else float((result or {}).get(METRIC, math.nan)))

    def save(self, checkpoint_path: str) -> None:
        """Nothing: what was suggested stands in the stage's own files."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing."""


class _Asked:
    """An Optuna trial as what a space draws from."""

    def __init__(self, trial: optuna.Trial) -> None:
        self._trial = trial

    def choice(self, name: str, count: int) -> int:
        return int(self._trial.suggest_categorical(name, tuple(range(count))))

    def number(self, name: str, low: float, high: float, *, log: bool) -> float:
        return self._trial.suggest_float(name, low, high, log=log)

    def whole(self, name: str, low: int, high: int, *, log: bool) -> int:
        return self._trial.suggest_int(name, low, high, log=log)
