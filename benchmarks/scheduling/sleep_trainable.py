"""Populations whose epochs take a given time: searched as a sweep does, trained by a bare loop, and by stock Ray Tune.

An epoch trains what the task says, takes a score, and sleeps until its time is over. So its length is known, hardly any
of it needs a processor, and everything around it is real: checkpoints, actors, scheduler, journal, MLflow.
"""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import ray
import torch
from ray import tune
from ray.tune.schedulers import PopulationBasedTraining

from results.runlog.events import JOURNAL_FILE, TrialReported
from results.tracking.tracker import Tracker
from search.algorithms.base import SearchAlgorithm
from search.config.schema import ResourceConfig, SearchConfig, StageConfig
from search.execution.callbacks import SweepCallback
from search.execution.cluster import ENVIRONMENT
from search.execution.journal import Journal
from search.execution.progress import ProgressReporter
from search.execution.trials import run_trials
from spaces import Genome, Space
from trainables import Recipe, Task
from trainables.data import load
from trainables.ray_trainable import STATE_FILE, read_state
from trainables.training.learner import Learner

SLOTS = 2
"""Trials at once."""


@dataclass(frozen=True)
class Sleeping(Task):
    """A task whose epochs take a given time.

    Args:
        seconds: that an epoch takes, its score included.
    """

    seconds: float = 0.0

    def train_epoch(self, learner: Learner) -> dict[str, float]:
        """Train, score, and sleep for the rest."""
        started = time.perf_counter()
        metrics = super().train_epoch(learner)
        time.sleep(max(0.0, self.seconds - (time.perf_counter() - started)))
        return metrics


@dataclass(frozen=True)
class Case:
    """One population.

    Args:
        runner: `ours`, `bare loop` or `ray function`.
        population: members.
        interval: epochs between perturbations.
        seconds: that an epoch takes.
        epochs: of each member.
        seed: of the search.
    """

    runner: str
    population: int
    interval: int
    seconds: float
    epochs: int
    seed: int = 0

    def task(self) -> Sleeping:
        """A resnet8 on a hundred digits."""
        data = load("digits", train=100, validation=100)
        return Sleeping(
            "teacher", "resnet8", data, Recipe(batch_size=50), self.epochs, data.validation, seconds=self.seconds
        )

    def row(self) -> dict[str, Any]:
        """What it took, in a process that runs nothing else."""
        logging.disable(logging.WARNING)  # Ray's, of every copy
        ran, wall = RUNNERS[self.runner](self)
        slots = 1 if self.runner == "bare loop" else SLOTS
        useful = self.population * self.epochs * self.seconds
        turns = self.population * math.ceil(self.epochs / self.interval)
        return {
            "runner": self.runner,
            "population": self.population,
            "interval": self.interval,
            "epoch_s": self.seconds,
            "epochs": self.epochs,
            "slots": slots,
            "wall_s": wall,
            "utilization": useful / (slots * wall),
            "idle_s_a_turn": (slots * wall - useful) / turns,
            "epochs_run": ran,
        }


def ours(case: Case) -> tuple[int, float]:
    """As `search.sweeps.runner` runs a population; from the beginning of the first epoch to the end of the last."""
    task = case.task()
    stage_config = StageConfig(epochs=case.epochs, population=case.population, interval=case.interval)
    with TemporaryDirectory(ignore_cleanup_errors=True) as name, _ray():
        folder = Path(name)
        tracker = Tracker.open(folder, "sweep", f"sqlite:///{folder / 'mlflow.db'}")
        with Journal(folder) as journal, tracker.follow(journal):
            tracker.start("sweep")
            watch = SweepCallback(journal, ProgressReporter(None, 0))
            stage = SearchAlgorithm(
                "teacher-pbt", "pbt", task, stage_config, SearchConfig(seed=case.seed), Space(), journal, watch
            )
            run_trials(
                stage.members,
                task,
                ResourceConfig(),
                watch,
                name="search",
                save_every=case.interval,
                scheduler=stage.scheduler(),
            )
        ends = [event["at"] / 1000 for event in events(folder) if event["event"] == TrialReported.kind]
    return len(ends), _wall(ends, case.seconds)


def events(folder: Path) -> list[dict[str, Any]]:
    """What a sweep's journal holds so far."""
    file = folder / JOURNAL_FILE
    lines = file.read_text("utf-8").splitlines(keepends=True) if file.is_file() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def bare_loop(case: Case) -> tuple[int, float]:
    """One member after another, in this process: no scheduler, no checkpoints, nothing but their epochs."""
    torch.set_num_threads(1)
    task = case.task()
    ends = []
    for index in range(case.population):
        learner = task.learner(Genome(), seed=index)
        for _ in range(case.epochs):
            task.train_epoch(learner)
            ends.append(time.time())
    return len(ends), _wall(ends, case.seconds)


def ray_function(case: Case) -> tuple[int, float]:
    """Ray Tune as its guide shows it: a function that reports, `PopulationBasedTraining`, and no actor is reused."""
    heard = _Ends()
    with TemporaryDirectory(ignore_cleanup_errors=True) as folder, _ray():
        tune.Tuner(
            tune.with_resources(tune.with_parameters(_train, task=case.task(), interval=case.interval), {"cpu": 1}),
            param_space={"level": tune.randint(0, 10), "seed": tune.grid_search(list(range(case.population)))},
            tune_config=tune.TuneConfig(
                scheduler=PopulationBasedTraining(
                    time_attr="training_iteration",
                    metric="validation_accuracy",
                    mode="max",
                    perturbation_interval=case.interval,
                    hyperparam_mutations={"level": list(range(10))},
                )
            ),
            run_config=tune.RunConfig(storage_path=folder, stop={"epoch": case.epochs}, callbacks=[heard], verbose=0),
        ).fit()
    return len(heard.at), _wall(heard.at, case.seconds)


def _train(config: dict[str, Any], task: Task, interval: int) -> None:
    torch.set_num_threads(1)
    learner = task.learner(Genome(), seed=config["seed"])
    if (before := tune.get_checkpoint()) is not None:
        with before.as_directory() as folder:
            learner.load_state_dict(read_state(folder))
    while learner.epoch < task.epochs:
        metrics = task.train_epoch(learner) | {"epoch": learner.epoch}
        if learner.epoch % interval and learner.epoch < task.epochs:
            tune.report(metrics)
            continue
        with TemporaryDirectory() as folder:
            torch.save(learner.state_dict(), Path(folder) / STATE_FILE)
            tune.report(metrics, checkpoint=tune.Checkpoint.from_directory(folder))


class _Ends(tune.Callback):
    """When each epoch was reported."""

    def __init__(self) -> None:
        self.at: list[float] = []

    def on_trial_result(self, *_: Any, **__: Any) -> None:
        self.at.append(time.time())


def _wall(ends: Sequence[float], seconds: float) -> float:
    """From the beginning of the first epoch, which is the same for all, to the end of the last."""
    return max(ends) - min(ends) + seconds


@contextmanager
def _ray() -> Iterator[None]:
    """A Ray of so many slots, whatever the machine has."""
    os.environ.update(ENVIRONMENT)
    ray.init(address="local", num_cpus=SLOTS, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    try:
        yield
    finally:
        ray.shutdown()


RUNNERS = {"ours": ours, "bare loop": bare_loop, "ray function": ray_function}
