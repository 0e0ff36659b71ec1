"""A stand-in for Ray Tune's controller, in one process without a clock: for schedulers, searchers and callbacks.

It does for them what `TuneController` of Ray 2.60 does, in its order, and leaves away all that is Ray's own: actors,
objects, its own checkpoints of the experiment. A step asks the searcher for trials while few are pending, asks the
scheduler which trial to run, starts it if a slot is free, handles one event, and tells the callback that the step has
ended. Events are that a worker is ready, has taken a checkpoint up, has trained an epoch, or has saved. Of a report the
scheduler hears first, unless it is a trial's last one, then the callback; a trial that pauses or ends is saved, and
only then paused or ended.

Trials have their events after drawn durations, so who arrives first changes from epoch to epoch. All that Ray's and our
objects touch of a `Trial` is there.
"""

from __future__ import annotations

import heapq
import itertools
import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

import torch
from ray.tune import Callback
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from benchmarks.scheduling.response_surface import State
from search.execution.members import EPOCH, member_name
from trainables.ray_trainable import STATE_FILE

PENDING = 16
"""Of members that are known beforehand, so many wait at most to be started; of a searcher's, one (as Ray has it)."""

START, RESTORE, TRAIN, SAVE = "start", "restore", "train", "save"

SECONDS = {START: 0.02, RESTORE: 0.02, TRAIN: 1.0, SAVE: 0.02}
"""How long each takes, more or less."""


class Trainable(Protocol):
    """What trains: one epoch of a member from a state, and what there is to report."""

    def step(self, member: dict[str, Any], state: State) -> tuple[State, dict[str, Any]]:
        """The state after the epoch, and the report."""


@dataclass(frozen=True)
class Checkpoint:
    """A folder, and the state that would lie in it."""

    path: str
    state: State


class SimulatedTrial:
    """As much of a `Trial` as schedulers and callbacks touch, Ray's and ours."""

    placement_group_factory = "one slot"
    experiment_tag = ""
    error_file = None

    def __init__(self, number: int, config: dict[str, Any], epochs: int) -> None:
        """A trial that nobody has started."""
        self.trial_id, self.config, self.status = f"{number:05d}", config, Trial.PENDING
        self.stopping_criterion = {EPOCH: epochs}
        self.last_result: dict[str, Any] = {}
        self.temporary_state = SimpleNamespace(ray_actor="actor")
        manager = SimpleNamespace(checkpoint_config=SimpleNamespace(num_to_keep=None), _latest_checkpoint_result=None)
        self.run_metadata = SimpleNamespace(checkpoint_manager=manager)
        self.state, self.saves, self.decision = State(), 0, TrialScheduler.CONTINUE

    @property
    def checkpoint(self) -> Checkpoint | None:
        """What it goes on from."""
        result = self.run_metadata.checkpoint_manager._latest_checkpoint_result
        return result.checkpoint if result else None

    def is_finished(self) -> bool:
        """Whether it is over."""
        return self.status in (Trial.ERROR, Trial.TERMINATED)

    def set_status(self, status: str) -> None:
        """Be that from now on."""
        self.status = status

    def set_config(self, config: dict[str, Any]) -> None:
        """Another genome."""
        self.config = config

    def set_experiment_tag(self, tag: str) -> None:
        """Ray's own name for it."""
        self.experiment_tag = tag


class Controller:
    """Runs trials to their end.

    `reports` counts the epochs trained, `worker_s` is the processor time of this thread that workers would have spent.

    Args:
        trainable: trains all of them.
        scheduler: moves them.
        callback: is told.
        folder: of checkpoints, `MEMBER/checkpoint_…` in it.
        slots: trials that run at once.
        epochs: of a trial that is not stopped.
        configs: of trials that are known beforehand.
        searcher: makes others as they are wanted; None: there are no others.
        seed: of durations.
        look: is called after each report.
    """

    search_alg = None

    def __init__(
        self,
        trainable: Trainable,
        scheduler: TrialScheduler,
        callback: Callback,
        folder: Path,
        *,
        slots: int,
        epochs: int,
        configs: Iterable[dict[str, Any]] = (),
        searcher: Searcher | None = None,
        seed: int = 0,
        look: Callable[[], None] = lambda: None,
    ) -> None:
        """Nothing runs."""
        self._trainable, self._scheduler, self._callback, self._folder = trainable, scheduler, callback, folder
        self._slots, self._epochs, self._coming, self._searcher = slots, epochs, list(configs)[::-1], searcher
        self._order, self._look = random.Random(seed), look
        self._trials: list[SimulatedTrial] = []
        self._pending: dict[SimulatedTrial, None] = {}
        self._busy: set[SimulatedTrial] = set()
        self._events: list[tuple[float, int, SimulatedTrial, str]] = []
        self._now, self._count, self._live, self._numbers = 0.0, 0, 0, itertools.count()
        self._over = searcher is None
        self.reports, self.worker_s = 0, 0.0
        cache = SimpleNamespace(increase_max=lambda resources, by: None)
        self._tune_controller = SimpleNamespace(_actor_cache=cache)

    # What schedulers ask for ----------------------------------------------------------------------------------------

    def get_trials(self) -> list[SimulatedTrial]:
        """All that have been made."""
        return self._trials

    def stop_trial(self, trial: SimulatedTrial) -> None:
        """End a trial, as it waits or after its last epoch."""
        if trial.status == Trial.RUNNING:
            self._scheduler.on_trial_complete(self, trial, trial.last_result)
        else:
            self._scheduler.on_trial_remove(self, trial)
        if self._searcher is not None:
            self._searcher.on_trial_complete(trial.trial_id)
        self._callback.on_trial_complete(self._count, self._trials, trial)
        self._free(trial, Trial.TERMINATED)
        self._live -= 1

    # The loop -------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Until all trials have ended.

        Raises:
            RuntimeError: some are left, nobody runs, and nobody is to be started.
        """
        while self._live or self._coming or not self._over:
            self._callback.on_step_begin(self._count, self._trials)
            self._add()
            self._start()
            if self._events:
                self._now, _, trial, what = heapq.heappop(self._events)
                {START: self._ready, RESTORE: self._train, TRAIN: self._trained, SAVE: self._saved}[what](trial)
            elif self._live or self._coming:
                raise RuntimeError("nobody runs and nobody is chosen")
            self._count += 1
            self._callback.on_step_end(self._count, self._trials)

    def _add(self) -> None:
        """Take new trials in while few are pending; Ray asks a searcher again whenever it had none."""
        most = PENDING if self._searcher is None else 1
        while len(self._pending) < most and (config := self._next()) is not None:
            trial = SimulatedTrial(len(self._trials), config, self._epochs)
            self._trials.append(trial)
            self._live += 1
            self._scheduler.on_trial_add(self, trial)
            if trial.status == Trial.PENDING:
                self._pending[trial] = None

    def _next(self) -> dict[str, Any] | None:
        if self._coming:
            return self._coming.pop()
        if self._searcher is None or self._over:
            return None
        config = self._searcher.suggest(f"{len(self._trials):05d}")
        if config == Searcher.FINISHED:
            self._over = True
            return None
        return config

    def _start(self) -> None:
        """Start whom the scheduler names, else whoever is pending."""
        chosen = self._scheduler.choose_trial_to_run(self)
        if chosen is None:
            chosen = next((trial for trial in self._pending if trial not in self._busy), None)
        if chosen is None or chosen in self._busy or len(self._busy) >= self._slots:
            return
        chosen.set_status(Trial.PENDING)
        self._pending[chosen] = None
        self._busy.add(chosen)
        self._later(chosen, START)

    def _later(self, trial: SimulatedTrial, what: str) -> None:
        after = SECONDS[what] * self._order.uniform(0.9, 1.1)
        heapq.heappush(self._events, (self._now + after, next(self._numbers), trial, what))

    def _free(self, trial: SimulatedTrial, status: str) -> None:
        self._busy.discard(trial)
        self._pending.pop(trial, None)
        trial.set_status(status)

    # Events ---------------------------------------------------------------------------------------------------------

    def _ready(self, trial: SimulatedTrial) -> None:
        """A worker is there for it."""
        self._callback.on_trial_start(self._count, self._trials, trial)
        self._pending.pop(trial)
        trial.set_status(Trial.RUNNING)
        trial.state = trial.checkpoint.state if trial.checkpoint else State()
        self._later(trial, RESTORE if trial.checkpoint else TRAIN)

    def _train(self, trial: SimulatedTrial) -> None:
        self._later(trial, TRAIN)

    def _trained(self, trial: SimulatedTrial) -> None:
        """It reports an epoch."""
        began = time.thread_time()
        trial.state, metrics = self._trainable.step(trial.config["member"], trial.state)
        self.worker_s += time.thread_time() - began
        self.reports += 1
        ray = {"trial_id": trial.trial_id, "time_this_iter_s": SECONDS[TRAIN], "done": False, "config": trial.config}
        result = {**metrics, **ray}
        if result[EPOCH] >= self._epochs:
            trial.decision = TrialScheduler.STOP
        else:
            trial.decision = self._scheduler.on_trial_result(self, trial, result)
        self._callback.on_trial_result(self._count, self._trials, trial, result)
        trial.last_result = result
        if trial.decision == TrialScheduler.CONTINUE:
            every = trial.config["member"].get("save_every")
            self._later(trial, SAVE if every and result[EPOCH] % every == 0 else TRAIN)
        else:
            self._later(trial, SAVE)
        self._look()

    def _saved(self, trial: SimulatedTrial) -> None:
        """Its checkpoint is there; only the last one is ever read from its folder."""
        began = time.thread_time()
        folder = self._folder / member_name(trial) / f"checkpoint_{trial.saves:06d}"
        folder.mkdir(parents=True)
        if trial.state.epoch >= self._epochs:
            torch.save({"history": list(trial.state.history)}, folder / STATE_FILE)
        else:
            (folder / STATE_FILE).write_bytes(b"state")
        self.worker_s += time.thread_time() - began
        trial.saves += 1
        saved = SimpleNamespace(checkpoint=Checkpoint(str(folder), trial.state), metrics=trial.last_result)
        trial.run_metadata.checkpoint_manager._latest_checkpoint_result = saved
        self._callback.on_trial_save(self._count, self._trials, trial)
        if trial.decision == TrialScheduler.STOP:
            self.stop_trial(trial)
        elif trial.decision == TrialScheduler.PAUSE:
            self._free(trial, Trial.PAUSED)
        else:
            self._later(trial, TRAIN)
