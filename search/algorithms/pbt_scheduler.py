"""Ray's PBT scheduler, changed so that it loses no member and records its lineage.

Ray 2.60's `PopulationBasedTraining` exploits while it handles a result, when other members are still running or saving.
Most of its faults start there: a member that is still saving is ended silently (Ray PR 61448), a member that fails
blocks the barrier, and a retried one loses its score. Here a member that reaches a boundary is paused, and so saved,
like any other; the population is perturbed from `choose_trial_to_run`, when every live member is paused with its
checkpoint on disk. `Tuner.restore`, which drops a scheduler's state (Ray issue 30838), is not used: the journal holds
the state of a member that was trained before the sweep was resumed.

Private parts of Ray in use, to be checked when Ray's version changes: `_trial_state`, `_exploit` and `_get_new_config`
of the parent class, and the controller's `_actor_cache` in `search/execution/members.py`.

Source: PBT (Jaderberg et al. 2017, https://arxiv.org/abs/1711.09846); exploit and explore as in PBA (Ho et al. 2019,
https://arxiv.org/abs/1905.05393): the bottom quarter copies weights and genome of a random member of the top quarter.
"""

from __future__ import annotations

import heapq
import math
from bisect import insort
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from ray.tune import Checkpoint
from ray.tune.experiment import Trial
from ray.tune.schedulers import PopulationBasedTraining, TrialScheduler

from results.runlog.lineage import Exploit
from results.runlog.members import METRIC, SCORE, score_of
from search.algorithms.intervals import interval_after
from search.execution.members import EPOCH, is_moved, keep_actors_warm, member_index, member_name, rank
from spaces import Genome, Space

if TYPE_CHECKING:
    from search.algorithms.gaussian_process import RewardHistory

RAY_CHECKED = "2.60"
"""Ray release that the private parts were checked against; `roletune doctor` reports another one."""


class PBTScheduler(PopulationBasedTraining):
    """PBT scheduler of one search.

    Every trial's `config["member"]` holds `index`, `name`, `seed`, `moved`, and `genome` as plain data; only the
    genomes of members that are `moved` change. The others, such as the random control, run to their end in the gaps,
    whenever a slot is free because the population waits. The draws of a perturbation follow from `seed`, the epoch and
    the member's index alone, so they do not depend on which worker was faster. The score of a member is the last one
    since the last perturbation.

    Args:
        space: Space of genomes.
        size: Number of moved members that are still to be trained.
        interval: Epochs between perturbations.
        growth: Factor by which the interval grows at each perturbation, >= 1; intervals are multiples of the first.
        quantile: Share of members that copy, and that are copied, in (0, 0.5].
        blind: True to rank members at random instead of by their scores, a control for selection.
        seed: Seed of every draw.
        synchronous: True to perturb when all live members wait; False for each when it arrives.
        tie_break: Name of a metric, lower is better, that orders members of equal score; empty for the index.
        on_generation: Function that is called with each perturbation: its epoch, the scores of the members that waited,
            and the copies.
        gains: Rewards that PB2's bandit learns from, which then chooses the numbers of a copy; None for the space's
            own explore rule.
    """

    def __init__(
        self,
        *,
        space: Space,
        size: int,
        interval: int,
        quantile: float,
        seed: int,
        synchronous: bool = True,
        tie_break: str = "",
        growth: float = 1.0,
        blind: bool = False,
        on_generation: Callable[[int, dict[str, float], list[Exploit]], None] = lambda epoch, scores, copies: None,
        gains: RewardHistory | None = None,
    ) -> None:
        """Set up the parent with the explore rule of this class."""
        super().__init__(
            time_attr=EPOCH,
            metric=METRIC,
            mode="max",
            perturbation_interval=interval,
            quantile_fraction=quantile,
            custom_explore_fn=self._explore,
            log_config=False,
            require_attrs=False,
            synch=True,  # else the parent refuses to exploit a paused member; this class decides whose turn it is
        )
        self._together, self._tie_break = synchronous, tie_break
        self._space, self._size, self._seed = space, size, seed
        self._interval, self._growth, self._blind = interval, growth, blind
        self._on_generation, self._gains = on_generation, gains
        self._scored: dict[str, float] = {}
        self._waiting: dict[str, Trial] = {}
        self._turns: Counter[str] = Counter()
        self._moved: list[Trial] = []  # by index; the first `_standing` of them are paused or have ended
        self._standing = 0
        self._trials: dict[str, Trial] = {}
        self._idle: list[tuple[bool, int, int, str]] = []  # heap of ids; those started since are still in it
        self._warm = False
        self._place = (0, 0)

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without its listeners: Ray pickles its scheduler beside the trials."""
        return self.__dict__ | {"_on_generation": None, "_gains": None}

    # What Ray calls -------------------------------------------------------------------------------------------------

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """Add a member; one that is retried or resumed keeps its state."""
        known = self._trial_state.get(trial)
        super().on_trial_add(tune_controller, trial)
        if known is not None:
            self._trial_state[trial] = known
            known.last_train_time = known.last_perturbation_time
            self._waiting.pop(trial.trial_id, None)
            self._scored.pop(trial.trial_id, None)
        elif is_moved(trial):
            insort(self._moved, trial, key=member_index)
            if before := trial.config["member"].get("before"):
                self._restore(trial, before)
        self._trials[trial.trial_id] = trial
        self._standing = 0
        self._push(trial)

    def _restore(self, trial: Trial, before: dict[str, Any]) -> None:
        """Restore a member that was trained before the sweep was resumed."""
        state = self._trial_state[trial]
        state.last_train_time, state.last_perturbation_time = before["epoch"], before["boundary"]
        state.last_checkpoint = Checkpoint(before["checkpoint"])
        state.last_result = {EPOCH: before["epoch"], **before["metrics"]}
        if not math.isnan(score := score_of(before["metrics"])):
            state.last_score = score
        if before["epoch"] - before["boundary"] >= self._interval_after(before["boundary"]):
            self._waiting[trial.trial_id] = trial
            trial.set_status(Trial.PAUSED)  # else Ray would start it: it starts whatever is pending

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Train on until the boundary, then pause, which saves."""
        if not is_moved(trial):
            return TrialScheduler.CONTINUE
        state, epoch = self._trial_state[trial], result[EPOCH]
        state.last_train_time = epoch
        if not math.isnan(score := score_of(result)):
            self._scored[trial.trial_id] = score
        if epoch - state.last_perturbation_time < self._interval_after(state.last_perturbation_time):
            return TrialScheduler.CONTINUE
        state.last_result = {**result, SCORE: self._scored.pop(trial.trial_id, math.nan)}
        self._waiting[trial.trial_id] = trial
        self._turns[trial.trial_id] += 1
        return TrialScheduler.PAUSE

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        """Keep the final score."""
        self._trial_state[trial].last_score = score_of(result)

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """Perturb if it is time, then return the member that had the fewest turns."""
        if not self._warm and self._trials:
            self._warm = True
            keep_actors_warm(tune_controller, next(iter(self._trials.values())), self._size)
        if self._waiting and (not self._together or self._all_stand()):
            ready = sorted(filter(self._stands, self._waiting.values()), key=member_index)
            if ready:
                alive = [trial for trial in self._moved if not trial.is_finished()]
                self._perturb(tune_controller, ready, alive)
        while self._idle:
            _, turns, _, name = self._idle[0]
            idle = self._trials[name].status in (Trial.PENDING, Trial.PAUSED) and name not in self._waiting
            if idle and turns == self._turns[name]:
                return self._trials[name]
            heapq.heappop(self._idle)
        return None

    def _interval_after(self, epoch: int) -> int:
        """Return the number of epochs from a perturbation to the next one."""
        return interval_after(epoch, self._interval, self._growth)

    def _push(self, trial: Trial) -> None:
        """Add a member to those that may be started."""
        # By turns, not by epochs: a copy of a donor that lags falls back, and would have all turns until it catches up.
        name = trial.trial_id
        heapq.heappush(self._idle, (not is_moved(trial), self._turns[name], member_index(trial), name))

    def _stands(self, trial: Trial) -> bool:
        """Return True for a member that waits for its perturbation, with its checkpoint on disk."""
        return trial.trial_id in self._waiting and trial.status == Trial.PAUSED

    def _all_stand(self) -> bool:
        """Return True once every live member is paused at the barrier; continues where it last met one that was not."""
        while self._standing < len(self._moved):
            trial = self._moved[self._standing]
            if not self._stands(trial) and not trial.is_finished():
                return False
            self._standing += 1
        return len(self._moved) == self._size

    # The perturbation -----------------------------------------------------------------------------------------------

    def _perturb(self, tune_controller: Any, ready: Sequence[Trial], alive: Sequence[Trial]) -> None:
        """Let the members of `ready` that are among the worst of `alive` copy one of the best, then resume all."""
        for trial in ready:  # a score counts from when its checkpoint is there, so the two always belong together
            state = self._trial_state[trial]
            result: dict[str, Any] = state.last_result or {}
            state.last_score = score_of(result)
            state.last_checkpoint = trial.checkpoint or state.last_checkpoint
            state.last_perturbation_time = state.last_train_time
        scores = {member_name(trial): self._score(trial) for trial in ready}
        epoch = max(self._trial_state[trial].last_train_time for trial in ready)
        self._place = (epoch, 0)
        lower, upper = self._quantile_members(alive)
        if self._gains is not None:
            self._gains.scored(epoch, scores)
        # Asynchronously, a donor may be running on; its last checkpoint is that of its last boundary.
        copying = [trial for trial in lower if trial in ready] if upper else []
        copies = [self._copy(tune_controller, trial, upper) for trial in copying]
        if self._gains is not None:
            self._gains.copied(copies)
        self._standing = 0
        for trial in ready:
            self._waiting.pop(trial.trial_id, None)
            self._push(trial)
        self._on_generation(epoch, scores, copies)

    def _copy(self, tune_controller: Any, trial: Trial, donors: Sequence[Trial]) -> Exploit:
        self._place = (self._trial_state[trial].last_train_time, member_index(trial))
        donor = donors[int(self._generator(0).integers(len(donors)))]
        before, score = _genome(donor), self._score(trial)
        self._exploit(tune_controller, trial, donor)
        self._trial_state[trial].last_train_time = self._trial_state[donor].last_perturbation_time
        self._trial_state[
            trial
        ].last_score = None  # it was the score of the weights it lost; a copy without a score is never copied
        return Exploit(
            epoch=self._trial_state[donor].last_perturbation_time,
            target=member_name(trial),
            donor=member_name(donor),
            target_score=score,
            donor_score=self._score(donor),
            before=before,
            after=_genome(trial),
        )

    def _get_new_config(self, trial: Trial, trial_to_clone: Trial) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the target's config with the donor's genome, explored."""
        target = {key: value for key, value in trial.config["member"].items() if key != "before"}
        genome = trial_to_clone.config["member"]["genome"]
        return self._explore({"member": {**target, "genome": genome}}), {}

    def _explore(self, config: dict[str, Any]) -> dict[str, Any]:
        """Explore a genome, with the signature of Ray's `custom_explore_fn`."""
        genome = Genome.from_json(config["member"]["genome"])
        generator = self._generator(1)
        if self._gains is None:
            explored = self._space.explore(genome, generator)
        else:
            explored = self._gains.bandit.explore(genome, generator, self._place[0])
        return {"member": {**config["member"], "genome": explored.to_json()}}

    def _generator(self, purpose: int) -> np.random.Generator:
        """Return a generator that follows from the seed, the epoch, the member and the purpose, without a state."""
        return np.random.default_rng([self._seed, *self._place, purpose])

    def _quantile_members(self, alive: Sequence[Trial]) -> tuple[list[Trial], list[Trial]]:
        """Return the worst, worst first, and the best, best first; no score and NaN rank last, ties go by index."""
        scored = [trial for trial in alive if self._trial_state[trial].last_score is not None]
        count = min(math.ceil(len(scored) * self._quantile_fraction), len(scored) // 2)
        ranked = sorted(scored, key=self._rank)
        best = [trial for trial in ranked[:count] if not math.isnan(self._score(trial))]
        return ranked[len(ranked) - count :][::-1], best

    def _rank(self, trial: Trial) -> tuple[float, float, int]:
        score, index = self._score(trial), member_index(trial)
        if self._blind and not math.isnan(score):
            score = float(np.random.default_rng([self._seed, self._place[0], index, 2]).random())
        return rank(score, self._tie(trial), index)

    def _tie(self, trial: Trial) -> float:
        result: dict[str, Any] = self._trial_state[trial].last_result or {}
        return float(result.get(self._tie_break, math.nan))

    def _score(self, trial: Trial) -> float:
        score = self._trial_state[trial].last_score
        return math.nan if score is None else float(score)


def _genome(trial: Trial) -> Genome:
    return Genome.from_json(trial.config["member"]["genome"])
