"""Simulation of Ray Tune's controller in one process without a clock, for schedulers, searchers and callbacks.

It makes the calls of `TuneController` of Ray 2.60 in the same order, and leaves out actors, objects and Ray's own
checkpoints of the experiment. A step asks the searcher for trials while few are pending, asks the scheduler which trial
to run, starts it if a slot is free, handles one event, and calls the callback's end of the step. Events are: a worker
is ready, has restored a checkpoint, has trained an epoch, or has saved. A report goes to the scheduler first, unless it
is a trial's last one, then to the callback. A trial that pauses or ends is saved before it is paused or ended.

Events take random durations, so the order of trials changes from epoch to epoch. `SimulatedTrial` has all attributes of
a `Trial` that Ray's and roletune's objects use.
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
"""Maximum number of pending trials with given configurations. As in Ray, only one trial of a searcher is pending."""

START, RESTORE, TRAIN, SAVE = "start", "restore", "train", "save"

SECONDS = {START: 0.02, RESTORE: 0.02, TRAIN: 1.0, SAVE: 0.02}
"""Mean duration of each event."""


class Trainable(Protocol):
    """Training of a member by single epochs."""

    def step(self, member: dict[str, Any], state: State) -> tuple[State, dict[str, Any]]:
        """Train one epoch, and return the new state and the report."""


@dataclass(frozen=True)
class Checkpoint:
    """Checkpoint folder, and the state that it stands for."""

    path: str
    state: State


class SimulatedTrial:
    """The part of a `Trial` that schedulers and callbacks use."""

    placement_group_factory = "one slot"
    experiment_tag = ""
    error_file = None

    def __init__(self, number: int, config: dict[str, Any], epochs: int) -> None:
        """Create a pending trial."""
        self.trial_id, self.config, self.status = f"{number:05d}", config, Trial.PENDING
        self.stopping_criterion = {EPOCH: epochs}
        self.last_result: dict[str, Any] = {}
        self.temporary_state = SimpleNamespace(ray_actor="actor")
        manager = SimpleNamespace(checkpoint_config=SimpleNamespace(num_to_keep=None), _latest_checkpoint_result=None)
        self.run_metadata = SimpleNamespace(checkpoint_manager=manager)
        self.state, self.saves, self.decision = State(), 0, TrialScheduler.CONTINUE

    @property
    def checkpoint(self) -> Checkpoint | None:
        """Latest checkpoint."""
        result = self.run_metadata.checkpoint_manager._latest_checkpoint_result
        return result.checkpoint if result else None

    def is_finished(self) -> bool:
        """Return True if the trial has ended."""
        return self.status in (Trial.ERROR, Trial.TERMINATED)

    def set_status(self, status: str) -> None:
        """Set the status."""
        self.status = status

    def set_config(self, config: dict[str, Any]) -> None:
        """Set the configuration."""
        self.config = config

    def set_experiment_tag(self, tag: str) -> None:
        """Set Ray's tag."""
        self.experiment_tag = tag


class Controller:
    """Controller that runs trials to their end.

    `reports` counts the trained epochs. `worker_s` is the CPU time of this thread that workers would have spent.

    Args:
        trainable: Training of all trials.
        scheduler: Scheduler of the trials.
        callback: Callback of the trials.
        folder: Folder of the checkpoints, as `MEMBER/checkpoint_…`.
        slots: Trials that run at once.
        epochs: Epochs of a trial that is not stopped.
        configs: Configurations of trials that are given in advance.
        searcher: Searcher that suggests further trials.
        seed: Seed of the durations.
        on_report: Called after each report.
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
        on_report: Callable[[], None] = lambda: None,
    ) -> None:
        """Create a controller without trials."""
        self._trainable, self._scheduler, self._callback, self._folder = trainable, scheduler, callback, folder
        self._slots, self._epochs, self._configs, self._searcher = slots, epochs, list(configs)[::-1], searcher
        self._random, self._on_report = random.Random(seed), on_report
        self._trials: list[SimulatedTrial] = []
        self._pending: dict[SimulatedTrial, None] = {}
        self._busy: set[SimulatedTrial] = set()
        self._events: list[tuple[float, int, SimulatedTrial, str]] = []
        self._now, self._count, self._live, self._numbers = 0.0, 0, 0, itertools.count()
        self._exhausted = searcher is None
        self.reports, self.worker_s = 0, 0.0
        cache = SimpleNamespace(increase_max=lambda resources, by: None)
        self._tune_controller = SimpleNamespace(_actor_cache=cache)

    # Calls of schedulers --------------------------------------------------------------------------------------------

    def get_trials(self) -> list[SimulatedTrial]:
        """Return all trials so far."""
        return self._trials

    def stop_trial(self, trial: SimulatedTrial) -> None:
        """End a waiting trial, or a running one after its last epoch."""
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
        """Run until all trials have ended.

        Raises:
            RuntimeError: Trials are left, but none runs and none is to be started.
        """
        while self._live or self._configs or not self._exhausted:
            self._callback.on_step_begin(self._count, self._trials)
            self._add()
            self._start()
            if self._events:
                self._now, _, trial, event = heapq.heappop(self._events)
                {START: self._ready, RESTORE: self._train, TRAIN: self._trained, SAVE: self._saved}[event](trial)
            elif self._live or self._configs:
                raise RuntimeError("the scheduler must choose a trial: none runs and trials are left")
            self._count += 1
            self._callback.on_step_end(self._count, self._trials)

    def _add(self) -> None:
        """Add new trials while few are pending; like Ray, ask a searcher again if it had none."""
        limit = PENDING if self._searcher is None else 1
        while len(self._pending) < limit and (config := self._next()) is not None:
            trial = SimulatedTrial(len(self._trials), config, self._epochs)
            self._trials.append(trial)
            self._live += 1
            self._scheduler.on_trial_add(self, trial)
            if trial.status == Trial.PENDING:
                self._pending[trial] = None

    def _next(self) -> dict[str, Any] | None:
        if self._configs:
            return self._configs.pop()
        if self._searcher is None or self._exhausted:
            return None
        config = self._searcher.suggest(f"{len(self._trials):05d}")
        if config == Searcher.FINISHED:
            self._exhausted = True
            return None
        return config

    def _start(self) -> None:
        """Start the trial that the scheduler chooses, otherwise the first pending one."""
        chosen = self._scheduler.choose_trial_to_run(self)
        if chosen is None:
            chosen = next((trial for trial in self._pending if trial not in self._busy), None)
        if chosen is None or chosen in self._busy or len(self._busy) >= self._slots:
            return
        chosen.set_status(Trial.PENDING)
        self._pending[chosen] = None
        self._busy.add(chosen)
        self._schedule(chosen, START)

    def _schedule(self, trial: SimulatedTrial, event: str) -> None:
        delay = SECONDS[event] * self._random.uniform(0.9, 1.1)
        heapq.heappush(self._events, (self._now + delay, next(self._numbers), trial, event))

    def _free(self, trial: SimulatedTrial, status: str) -> None:
        self._busy.discard(trial)
        self._pending.pop(trial, None)
        trial.set_status(status)

    # Events ---------------------------------------------------------------------------------------------------------

    def _ready(self, trial: SimulatedTrial) -> None:
        """Handle a ready worker."""
        self._callback.on_trial_start(self._count, self._trials, trial)
        self._pending.pop(trial)
        trial.set_status(Trial.RUNNING)
        trial.state = trial.checkpoint.state if trial.checkpoint else State()
        self._schedule(trial, RESTORE if trial.checkpoint else TRAIN)

    def _train(self, trial: SimulatedTrial) -> None:
        self._schedule(trial, TRAIN)

    def _trained(self, trial: SimulatedTrial) -> None:
        """Handle a trained epoch."""
        started = time.thread_time()
        trial.state, metrics = self._trainable.step(trial.config["member"], trial.state)
        self.worker_s += time.thread_time() - started
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
            self._schedule(trial, SAVE if every and result[EPOCH] % every == 0 else TRAIN)
        else:
            self._schedule(trial, SAVE)
        self._on_report()

    def _saved(self, trial: SimulatedTrial) -> None:
        """Handle a saved checkpoint. Only the last one is ever read from its folder."""
        started = time.thread_time()
        folder = self._folder / member_name(trial) / f"checkpoint_{trial.saves:06d}"
        folder.mkdir(parents=True)
        if trial.state.epoch >= self._epochs:
            torch.save({"history": list(trial.state.history)}, folder / STATE_FILE)
        else:
            (folder / STATE_FILE).write_bytes(b"state")
        self.worker_s += time.thread_time() - started
        trial.saves += 1
        result = SimpleNamespace(checkpoint=Checkpoint(str(folder), trial.state), metrics=trial.last_result)
        trial.run_metadata.checkpoint_manager._latest_checkpoint_result = result
        self._callback.on_trial_save(self._count, self._trials, trial)
        if trial.decision == TrialScheduler.STOP:
            self.stop_trial(trial)
        elif trial.decision == TrialScheduler.PAUSE:
            self._free(trial, Trial.PAUSED)
        else:
            self._schedule(trial, TRAIN)
