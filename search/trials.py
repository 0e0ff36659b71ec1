"""Many trials of one task: the members of a population, or full trainings, run by Ray Tune."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import ray
from ray import tune
from ray.exceptions import RayError
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher
from ray.tune.search.basic_variant import BasicVariantGenerator

from search.config import ResourceConfig
from search.population import METRIC, Members, member_name
from spaces import Genome, RoletuneError, Schedule, WorkError
from trainables.ray_trial import RoleTrial, Worker, read_state
from trainables.task import Task

# Tune's own loggers, its reporter and its directory change are in the way of ours.
ENVIRONMENT = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a score is due at boundaries, not at every epoch
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C is ours to report
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}


R = TypeVar("R")


@dataclass(frozen=True)
class Member:
    """One trial to run.

    Args:
        name: unique in the sweep; names the trial everywhere.
        index: 0, 1, 2, … within its group.
        seed: of weights, order of images and augmentation.
        mover: the genome it starts with, or the schedule that it replays.
        stage: what the trial is part of, for its tags.
        moved: whether a population's scheduler may change its genome.
    """

    name: str
    index: int
    seed: int
    mover: Genome | Schedule
    stage: str
    moved: bool = False

    def config(self) -> dict[str, Any]:
        """What Ray carries: plain data."""
        key = "schedule" if isinstance(self.mover, Schedule) else "genome"
        known = {"name": self.name, "index": self.index, "seed": self.seed, "stage": self.stage, "moved": self.moved}
        return {**known, key: self.mover.to_json()}


@dataclass(frozen=True)
class Outcome:
    """What became of a trial.

    Args:
        name: the member's.
        epochs: trained.
        score: last validation accuracy, NaN where there is none.
        checkpoint: folder of its last state, or None.
        error: one line, or empty.
    """

    name: str
    epochs: int
    score: float
    checkpoint: Path | None
    error: str

    def state(self) -> dict[str, Any]:
        """The learner's last state.

        Raises:
            WorkError: the trial left none.
        """
        if self.checkpoint is None:
            raise WorkError(f"{self.name} left no checkpoint: {self.error or 'it did not finish'}")
        return read_state(self.checkpoint)


def run_trials(
    members: Sequence[Member],
    task: Task,
    resources: ResourceConfig,
    *,
    folder: Path,
    name: str,
    save_every: int,
    scheduler: TrialScheduler | None = None,
    suggestions: Searcher | None = None,
    callbacks: Sequence[tune.Callback] = (),
) -> list[Outcome]:
    """Run `members` to the task's end, as many at once as fit; those that fail do not stop the others.

    Args:
        members: at least one; none where there are `suggestions`.
        task: travels once to each node, through the object store.
        resources: of one trial.
        folder: shared by all nodes; Tune's own files go to `folder/name`.
        name: of these trials together.
        save_every: epochs from one checkpoint to the next, for trials that are not paused meanwhile.
        scheduler: moves the members' genomes; None: each runs as it is.
        suggestions: makes members as they are wanted, until it says that it has finished.
        callbacks: are told what happens, in this process.

    Returns:
        One outcome a member, in order; of suggestions, in the order in which they were made.
    """
    trainable = tune.with_resources(
        tune.with_parameters(RoleTrial, task=task, worker=worker(resources)),
        {"cpu": resources.cpus_per_trial, "gpu": resources.gpus_per_trial},
    )
    tuner = tune.Tuner(
        trainable,
        param_space={"member": tune.grid_search([member.config() for member in members])} if members else {},
        tune_config=tune.TuneConfig(
            scheduler=scheduler or FIFOScheduler(),
            search_alg=suggestions or (Members(len(members)) if scheduler else BasicVariantGenerator()),
            num_samples=-1 if suggestions else 1,  # as many as there are
            reuse_actors=True,
            trial_name_creator=member_name,
            trial_dirname_creator=member_name,
        ),
        run_config=tune.RunConfig(
            name=name,
            storage_path=str(folder),
            stop={"training_iteration": task.epochs},
            # A population saves when it pauses. A copy reads its donor's last state, so more than one is kept.
            checkpoint_config=tune.CheckpointConfig(
                checkpoint_frequency=save_every, checkpoint_at_end=True, num_to_keep=4
            ),
            failure_config=tune.FailureConfig(max_failures=resources.retries),
            callbacks=list(callbacks),
            verbose=0,
        ),
    )
    grid = tuner.fit()
    by_name = {member_name(trial): _outcome(trial) for trial in grid._experiment_analysis.trials}
    return [by_name[member.name] for member in members] if members else list(by_name.values())


def _outcome(trial: Trial) -> Outcome:
    result = trial.last_result or {}
    checkpoint = trial.checkpoint
    return Outcome(
        name=member_name(trial),
        epochs=int(result.get("training_iteration", 0)),
        score=float(result.get(METRIC, math.nan)),
        checkpoint=Path(checkpoint.path) if checkpoint else None,
        error=error_line(trial),
    )


def error_line(trial: Trial) -> str:
    """Why a trial failed, in one line: the line of its traceback that names the exception."""
    if trial.status != Trial.ERROR:
        return ""
    lines = error_text(trial).splitlines()
    # The exception stands behind the frames, which are indented; what follows it may be a whole essay.
    frames = [number for number, line in enumerate(lines) if line.startswith("  ")]
    after = [line.strip() for line in lines[(frames[-1] + 1 if frames else 0) :] if line.strip()]
    every = after or [line.strip() for line in lines if line.strip()]
    return every[0][:300] if every else "it failed without a message"


def error_text(trial: Trial) -> str:
    """The whole traceback of a trial that failed."""
    return str(trial.get_error() or "")


def on_worker(resources: ResourceConfig, failed: str, function: Callable[..., R], *arguments: Any) -> R:
    """What `function(*arguments, worker)` gives on one worker of the cluster.

    Raises:
        RoletuneError: that the function raised.
        WorkError: anything else, behind the words of `failed`.
    """
    remote = ray.remote(num_cpus=resources.cpus_per_trial, num_gpus=resources.gpus_per_trial)(function)
    try:
        given: R = ray.get(remote.remote(*arguments, worker(resources)))
    except RayError as error:
        cause = getattr(error, "cause", None) or error
        if isinstance(cause, RoletuneError):
            raise cause from None
        why = " ".join(f"{type(cause).__name__}: {cause}".split())[:300]
        raise WorkError(f"{failed}: {why}") from error
    return given


def worker(resources: ResourceConfig) -> Worker:
    """What a process that runs one trial may use; it finds the user's own modules where this process does."""
    search_path = tuple(str(Path(path or ".").resolve()) for path in sys.path)
    return Worker(resources.cpus_per_trial, resources.gpus_per_trial, search_path)
