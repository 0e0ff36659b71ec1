"""Optuna studies, and the Ray searcher that hands out what a search suggests.

Source: Optuna, Akiba et al. 2019, https://arxiv.org/abs/1907.10902.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from typing import Any, Protocol

import optuna
from optuna.distributions import BaseDistribution, distribution_to_json, json_to_distribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial
from ray.tune.search import Searcher

from search.config.registry import SearchSettings
from search.execution.journal import Journal
from search.execution.members import Member
from search.execution.trials import trial_config
from spaces import Genome, Space


def new_study(seed: int, trials: Iterable[FrozenTrial], *, sized: bool) -> optuna.Study:
    """Return a study that holds `trials`; `sized` adds the size, to be minimized, as a second objective."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    directions = (StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE)[: 1 + sized]
    study = optuna.create_study(directions=directions, sampler=optuna.samplers.TPESampler(seed=seed))
    study.add_trials(trials)
    return study


def ask(
    study: optuna.Study, space: Space, start: Genome | None = None
) -> tuple[Genome, dict[str, Any], dict[str, BaseDistribution], dict[str, str]]:
    """Return the genome that a study suggests, its parameters, their distributions, and these as plain data.

    Args:
        study: Study with the trials that are over.
        space: Space of genomes.
        start: Genome to suggest, enqueued as a trial of the user's own; None for one of the study's.
    """
    if start is not None:
        study.enqueue_trial(space.suggested(start))
    trial = study.ask()
    genome = space.suggest(_TrialDraw(trial))
    plain = {name: distribution_to_json(each) for name, each in trial.distributions.items()}
    return genome, trial.params, trial.distributions, plain


def parse_distributions(plain: Mapping[str, str]) -> dict[str, BaseDistribution]:
    """Return the distributions in the plain data of `ask`."""
    return {name: json_to_distribution(text) for name, text in plain.items()}


def finished_trial(
    params: dict[str, Any],
    distributions: dict[str, BaseDistribution],
    values: list[float] | None,
    *,
    pruned: bool,
    intermediate: dict[int, float],
) -> FrozenTrial:
    """Return a trial that is over: FAIL without values, PRUNED where it was stopped early, else COMPLETE."""
    state = TrialState.FAIL if values is None else TrialState.PRUNED if pruned else TrialState.COMPLETE
    trial = create_trial(
        state=state,
        values=values if state == TrialState.COMPLETE else None,
        params=params,
        distributions=distributions,
        intermediate_values=intermediate,
    )
    trial.__class__ = _FinishedTrial
    return trial


class Suggesting(Protocol):
    """A search that suggests its members one by one."""

    @property
    def search(self) -> SearchSettings:
        """Settings of the search."""

    @property
    def pending(self) -> list[Member]:
        """Members that are still to be trained."""

    @property
    def missing(self) -> int:
        """Number of members that are still to be suggested."""

    @property
    def waits(self) -> bool:
        """True where the next suggestion needs scores that are not there yet."""

    def suggest(self) -> Member:
        """Suggest the next member."""

    def cohort_size(self, member: Member) -> int:
        """Return how many members of the cohort are still to be trained."""


class Suggestions(Searcher):
    """Hands Ray Tune what a search suggests, and `others`, fixed members, in the gaps between its rounds.

    Args:
        source: Search that suggests members.
        others: Fixed members that are still to be trained.
        journal: Journal of the sweep.
    """

    def __init__(self, source: Suggesting, others: Sequence[Member], journal: Journal) -> None:
        """Begin with the members that were suggested before the sweep was resumed."""
        super().__init__()
        self._source, self._journal = source, journal
        self._left = source.pending
        self._others = list(others)

    def __getstate__(self) -> dict[str, Any]:
        """Return nothing: Ray pickles its searcher, and the journal holds all that this one knows."""
        return {}

    def suggest(self, trial_id: str) -> Any:
        """Return the next trial's configuration; None: none at the moment; `FINISHED`: no more."""
        if self._left:
            member = self._left.pop(0)
        elif self._source.missing and not self._source.waits:
            member = self._source.suggest()
        elif self._others:
            member = self._others.pop(0)
        else:
            return None if self._source.missing else self.FINISHED
        config = trial_config(member, self._journal, self._source.search.interval)
        if member.moved:
            config["cohort_size"] = self._source.cohort_size(member)
        return {"member": config}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Do nothing: the journal holds the result."""

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: the journal holds the suggestions."""

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing: the journal holds the suggestions."""


class _FinishedTrial(FrozenTrial):
    """A trial that is over, copied without its contents.

    Each suggestion has a study of its own, and Optuna copies each trial deeply, which took longer than all else.
    """

    def __deepcopy__(self, memo: dict[int, Any]) -> FrozenTrial:
        return copy(self)


class _TrialDraw:
    """An Optuna trial as the draw of a space."""

    def __init__(self, trial: optuna.Trial) -> None:
        self._trial = trial

    def choice(self, name: str, count: int) -> int:
        return int(self._trial.suggest_categorical(name, tuple(range(count))))

    def number(self, name: str, low: float, high: float, *, log: bool) -> float:
        return self._trial.suggest_float(name, low, high, log=log)

    def integer(self, name: str, low: int, high: int, *, log: bool) -> int:
        return self._trial.suggest_int(name, low, high, log=log)
