"""Populations whose epochs take a given time, run by roletune, by a plain loop, and by Ray Tune's own PBT.

An epoch trains its task, computes a score, and sleeps until its time is over. Its duration is therefore known and
hardly needs a processor, while everything around it is real: checkpoints, actors, scheduler, journal, MLflow.
"""

from __future__ import annotations

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

from benchmarks.common.search import build_search, run_searches, search_settings
from results.runlog.events import JOURNAL_FILE, TrialReported, read_events
from results.tracking.tracker import Tracker
from search.execution.callbacks import SweepCallback
from search.execution.cluster import ENVIRONMENT
from search.execution.journal import Journal
from search.execution.progress import ProgressReporter
from spaces import Genome
from trainables import Recipe, Task
from trainables.data import load
from trainables.ray_trainable import STATE_FILE, read_state
from trainables.training.learner import Learner

SLOTS = 2
"""Trials that run at once."""


@dataclass(frozen=True)
class SleepTask(Task):
    """Task whose epochs take a given time.

    Args:
        seconds: Duration of an epoch, its score included.
    """

    seconds: float = 0.0

    def train_epoch(self, learner: Learner) -> dict[str, float]:
        """Train, score, and sleep for the remaining time."""
        started = time.perf_counter()
        metrics = super().train_epoch(learner)
        time.sleep(max(0.0, self.seconds - (time.perf_counter() - started)))
        return metrics


@dataclass(frozen=True)
class Case:
    """One population.

    Args:
        runner: `ours` (roletune), `bare loop` or `ray function`.
        population: Number of members.
        interval: Epochs between perturbations.
        seconds: Duration of an epoch.
        epochs: Epochs of each member.
        seed: Seed of the search.
    """

    runner: str
    population: int
    interval: int
    seconds: float
    epochs: int
    seed: int = 0

    def task(self) -> SleepTask:
        """Return the task: a resnet8 on a hundred digits."""
        data = load("digits", train=100, validation=100)
        return SleepTask(
            "teacher", "resnet8", data, Recipe(batch_size=50), self.epochs, data.validation, seconds=self.seconds
        )

    def row(self) -> dict[str, Any]:
        """Run the population in this process, and return its row."""
        logging.disable(logging.WARNING)  # Ray logs every copy
        epochs_run, wall = RUNNERS[self.runner](self)
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
            "utilisation": useful / (slots * wall),
            "idle_s_a_turn": (slots * wall - useful) / turns,
            "epochs_run": epochs_run,
        }


def run_roletune(case: Case) -> tuple[int, float]:
    """Run the population as a sweep does.

    Returns:
        Number of epochs, and seconds from the start of the first epoch to the end of the last.
    """
    task = case.task()
    with TemporaryDirectory(ignore_cleanup_errors=True) as name, _ray():
        folder = Path(name)
        tracker = Tracker.open(folder, "sweep", f"sqlite:///{folder / 'mlflow.db'}")
        with Journal(folder) as journal, tracker.follow(journal):
            tracker.start("sweep")
            callback = SweepCallback(journal, ProgressReporter(None, 0))
            settings = search_settings("pbt", size=case.population, epochs=case.epochs, interval=case.interval)
            search = build_search("teacher-pbt", settings, task, callback, seed=case.seed)
            run_searches([search], callback, name="search")
        ends = [report.at / 1000 for report in read_reports(folder)]
    return len(ends), _wall(ends, case.seconds)


def read_reports(folder: Path) -> list[TrialReported]:
    """Return the reports in a sweep's journal; none while there is no journal."""
    path = folder / JOURNAL_FILE
    events = read_events(path) if path.is_file() else ()
    return [event for _, event in events if isinstance(event, TrialReported)]


def run_loop(case: Case) -> tuple[int, float]:
    """Train one member after another in this process, without scheduler and checkpoints."""
    torch.set_num_threads(1)
    task = case.task()
    ends = []
    for index in range(case.population):
        learner = task.learner(Genome(), seed=index)
        for _ in range(case.epochs):
            task.train_epoch(learner)
            ends.append(time.time())
    return len(ends), _wall(ends, case.seconds)


def run_ray_function(case: Case) -> tuple[int, float]:
    """Run Ray Tune as in its guide: a function that reports, `PopulationBasedTraining`, no reuse of actors."""
    recorder = _ReportTimes()
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
            run_config=tune.RunConfig(
                storage_path=folder, stop={"epoch": case.epochs}, callbacks=[recorder], verbose=0
            ),
        ).fit()
    return len(recorder.times), _wall(recorder.times, case.seconds)


def _train(config: dict[str, Any], task: Task, interval: int) -> None:
    torch.set_num_threads(1)
    learner = task.learner(Genome(), seed=config["seed"])
    if (checkpoint := tune.get_checkpoint()) is not None:
        with checkpoint.as_directory() as folder:
            learner.load_state_dict(read_state(folder))
    while learner.epoch < task.epochs:
        metrics = task.train_epoch(learner) | {"epoch": learner.epoch}
        if learner.epoch % interval and learner.epoch < task.epochs:
            tune.report(metrics)
            continue
        with TemporaryDirectory() as folder:
            torch.save(learner.state_dict(), Path(folder) / STATE_FILE)
            tune.report(metrics, checkpoint=tune.Checkpoint.from_directory(folder))


class _ReportTimes(tune.Callback):
    """Times of all reports."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_trial_result(self, *_: Any, **__: Any) -> None:
        self.times.append(time.time())


def _wall(ends: Sequence[float], seconds: float) -> float:
    """Return the seconds from the start of the first epoch, which all members share, to the end of the last."""
    return max(ends) - min(ends) + seconds


@contextmanager
def _ray() -> Iterator[None]:
    """Start Ray with `SLOTS` CPUs, whatever the machine has."""
    os.environ.update(ENVIRONMENT)
    ray.init(address="local", num_cpus=SLOTS, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    try:
        yield
    finally:
        ray.shutdown()


RUNNERS = {"ours": run_roletune, "bare loop": run_loop, "ray function": run_ray_function}
