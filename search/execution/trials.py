"""Trials of one task, run by Ray Tune: the members of a search, or final trainings."""

from __future__ import annotations

import errno
import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import ray
from ray import tune
from ray.exceptions import RayError
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher
from ray.tune.search.basic_variant import BasicVariantGenerator

from results.analysis.choices import describe_choices
from results.runlog.events import TrialStarted
from results.runlog.members import METRIC, SCORE, Report
from search.config.sections import ResourceConfig
from search.execution.journal import Journal, Progress
from search.execution.members import EPOCH, Member, Outcome, member_name
from search.execution.ray_patches import idle_failures_ignored, own_errors_unwrapped
from spaces import Genome, RoletuneError, WorkError
from spaces.core.redaction import mask
from trainables.ray_trainable import RoleTrial, Worker
from trainables.task import Task

# Ray adds its own bookkeeping to every report; roletune's metrics have these names, or are losses, or `part/…`.
OURS = (
    "loss",
    "t_stddev_ratio",
    "train_accuracy",
    "validation_accuracy",
    SCORE,
    "learning_rate",
    "images_per_s",
)
GROUPS = ("policy", "hard", "distill", "seconds")

R = TypeVar("R")


class JournalCallback(tune.Callback):
    """Records in the journal what trials report; `SweepCallback` adds progress and a watchdog.

    Args:
        journal: Journal of the sweep.
    """

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.task: Task | None = None
        self._started: set[str] = set()

    def __getstate__(self) -> dict[str, Any]:
        """Ray pickles its callbacks beside the trials; there is nothing in this one to restore."""
        return {}

    def begin(self, task: Task, members: Sequence[Member]) -> None:
        """Prepare for trials of `task`, and record which of `members` go on from an earlier session."""
        self.task = task
        for member in members:
            progress = self.journal.progress(member.name)
            if progress.over(task.epochs):
                if not progress.ended:  # the earlier session died between the last checkpoint and this line
                    self.journal.ended(member.name)
            elif progress.last is not None or progress.ended:
                self.start(member.config())

    def start(self, member: Mapping[str, Any]) -> None:
        """Record the start of a trial, once in a session."""
        name = member["name"]
        if self.task is None or name in self._started:
            return
        self._started.add(name)
        self.journal.write(
            TrialStarted(
                trial=name,
                role=self.task.role,
                stage=member["stage"],
                seed=member["seed"],
                epochs=self.task.epochs,
                image=self.task.image.to_json(),
                genome=member.get("genome"),
                choices=_choices(member),
                arm=member["arm"],
            )
        )

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Record the first start."""
        self.start(trial.config["member"])

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """Record the epoch; one that comes again after a retry is skipped."""
        name = member_name(trial)
        if self.journal.reported(name, int(result[EPOCH]), our_metrics(result)):
            last = self.journal.progress(name).last
            assert last is not None
            self.reported(trial, last)

    def on_trial_save(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Record that the epoch last reported is on disk."""
        if trial.checkpoint is not None and EPOCH in (trial.last_result or {}):
            self.journal.saved(member_name(trial), int(trial.last_result[EPOCH]), Path(trial.checkpoint.path))

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Record that the trial is complete, or was stopped."""
        name = member_name(trial)
        stopped = self.journal.progress(name).epoch < trial.stopping_criterion[EPOCH]
        self.start(trial.config["member"])
        self.journal.ended(name, stopped=stopped)
        self.ended(trial, self.journal.progress(name))

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Record why the trial failed.

        Raises:
            WorkError: If nothing can be written any more: all other trials would fail too.
        """
        name, error = member_name(trial), self.why(trial)
        if any(os.strerror(code) in error for code in (errno.ENOSPC, errno.EDQUOT, errno.EROFS)):
            raise WorkError(f"{name}: {error}; make room, and go on with --resume")
        self.start(trial.config["member"])  # it may have failed in the setup of its actor
        self.journal.ended(name, error=error, traceback=error_text(trial))
        self.ended(trial, self.journal.progress(name))

    def reported(self, trial: Trial, report: Report) -> None:
        """Handle a trial's first report of an epoch."""

    def why(self, trial: Trial) -> str:
        """Return why a trial failed, in one line."""
        return error_line(trial)

    def ended(self, trial: Trial, progress: Progress) -> None:
        """Handle the end of a trial."""


class MemberGenerator(BasicVariantGenerator):
    """Ray search algorithm that hands out the trials, and is not finished before they are.

    Ray keeps idle actors only while the search algorithm may still have something for them.
    """

    def __init__(self, size: int) -> None:
        """Set the number of trials."""
        super().__init__()
        self._size = size
        self._ended: set[str] = set()

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Count the trial as ended."""
        super().on_trial_complete(trial_id, result, error)
        self._ended.add(trial_id)

    def is_finished(self) -> bool:
        """Return True once all trials have been handed out and have ended."""
        return bool(super().is_finished()) and len(self._ended) >= self._size


def _choices(member: Mapping[str, Any]) -> dict[str, str]:
    """Return what a trial keeps from its first epoch to its last; nothing if its genome evolves."""
    if member["evolves"] or "genome" not in member:
        return {}
    return {name: str(value) for name, value in describe_choices(Genome.from_json(member["genome"])).items()}


def run_trials(
    members: Sequence[Member],
    task: Task,
    resources: ResourceConfig,
    callback: JournalCallback,
    *,
    name: str,
    save_every: int,
    scheduler: TrialScheduler | None = None,
    suggestions: Searcher | None = None,
) -> list[Outcome]:
    """Run `members` to the last epoch, as many at once as fit; a failure does not stop the others.

    What the journal holds is not done again: a member continues from its last checkpoint, or is skipped.

    Args:
        members: Members to run; with `suggestions`, these hand them out.
        task: Task, which is sent once to each node through the object store.
        resources: Resources of one trial.
        callback: Callback that keeps the journal of the sweep, in a folder that all nodes share.
        name: Name of this group of trials.
        save_every: Epochs between checkpoints, for trials that are not paused meanwhile; a member's last score counts
            if it is of so many last epochs.
        scheduler: Scheduler that changes or stops members; None where each runs as it is.
        suggestions: Searcher that suggests members as they are needed, until it is finished.

    Returns:
        One outcome a member, in order; members that are suggested while trials run are not among them.
    """
    journal = callback.journal
    callback.begin(task, members)
    pending = [member for member in members if not journal.progress(member.name).over(task.epochs)]
    if pending or suggestions:
        configs = [trial_config(member, journal, save_every) for member in pending]
        tuner = tune.Tuner(
            tune.with_resources(
                tune.with_parameters(RoleTrial, task=task, worker=worker(resources)),
                {"cpu": resources.cpus_per_trial, "gpu": resources.gpus_per_trial},
            ),
            param_space={} if suggestions else {"member": tune.grid_search(configs)},
            tune_config=tune.TuneConfig(
                scheduler=scheduler or FIFOScheduler(),
                search_alg=suggestions or (MemberGenerator(len(pending)) if scheduler else BasicVariantGenerator()),
                num_samples=-1 if suggestions else 1,  # as many as there are
                reuse_actors=True,
                trial_name_creator=member_name,
                trial_dirname_creator=member_name,
            ),
            run_config=tune.RunConfig(
                name=name,
                storage_path=str(journal.trials),
                stop={EPOCH: task.epochs},
                # Paused trials are saved at the pause, others by `save_every`; the journal removes old checkpoints.
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=True, num_to_keep=None),
                failure_config=tune.FailureConfig(max_failures=resources.retries),
                callbacks=[callback],
                verbose=0,
            ),
        )
        with idle_failures_ignored(), own_errors_unwrapped():
            tuner.fit()
    return [outcome(journal.progress(member.name), save_every) for member in members]


def trial_config(member: Member, journal: Journal, save_every: int) -> dict[str, Any]:
    """Return a member as plain data, with its progress before the sweep was resumed."""
    config, progress = member.config(), journal.progress(member.name)
    if not member.moved:
        config["save_every"] = save_every
    if progress.genome is not None:
        config["genome"] = progress.genome
    if progress.checkpoint is not None:
        metrics = {
            key: value
            for key, value in (progress.last.metrics if progress.last else {}).items()
            if key not in (METRIC, SCORE)
        }
        if not math.isnan(score := progress.score(save_every)):
            metrics[SCORE] = score
        place = {"epoch": progress.epoch, "boundary": progress.boundary}
        config["before"] = {**place, "checkpoint": str(progress.checkpoint), "metrics": metrics}
    return config


def outcome(progress: Progress, window: int) -> Outcome:
    """Return the outcome of a member; its last score counts if it is of the last `window` epochs."""
    return Outcome(
        name=progress.name,
        epochs=progress.epoch,
        score=progress.score(window),
        accuracy=progress.accuracy(window),
        checkpoint=progress.checkpoint,
        error=progress.error or ("" if progress.checkpoint else "it left no checkpoint"),
        stopped=progress.stopped,
    )


def our_metrics(result: dict[str, Any]) -> dict[str, float]:
    """Return the metrics of a report, without Ray's bookkeeping."""
    return {
        key: float(value)
        for key, value in result.items()
        if isinstance(value, int | float) and (key in OURS or key.endswith("_loss") or key.partition("/")[0] in GROUPS)
    }


def error_line(trial: Trial) -> str:
    """Return why a trial failed, in one line: the line of its traceback that names the exception."""
    lines = error_text(trial).splitlines()
    # Each time that it failed has a heading; the last one counts.
    heads = [number for number, line in enumerate(lines) if line.startswith("Failure # ")]
    lines = lines[heads[-1] + 1 if heads else 0 :]
    # The exception stands behind the frames, which are indented; what follows it may be a whole essay.
    frames = [number for number, line in enumerate(lines) if line.startswith("  ")]
    after = [line.strip() for line in lines[(frames[-1] + 1 if frames else 0) :] if line.strip()]
    every = after or [line.strip() for line in lines if line.strip()]
    return every[0][:300] if every else "it failed without a message"


def error_text(trial: Trial) -> str:
    """Return the tracebacks of all failures of a trial, without credentials."""
    try:  # Ray copies the file to the storage, which `Trial.get_error` reads, but only later
        return mask(Path(trial.error_file or "").read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return mask(str(trial.get_error() or ""))


def on_worker(resources: ResourceConfig, failed: str, function: Callable[..., R], *arguments: Any) -> R:
    """Return `function(*arguments, worker)`, called on one worker of the cluster.

    Args:
        resources: Resources of the worker.
        failed: What failed, in words, for the message of an error.
        function: Function to call.
        *arguments: Its arguments.

    Raises:
        RoletuneError: Error that the function raised.
        WorkError: Any other error, after the words of `failed`.
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
    """Return what a process of one trial may use; it imports the user's own modules from where this process does."""
    search_path = tuple(str(Path(path or ".").resolve()) for path in sys.path)
    return Worker(resources.cpus_per_trial, resources.gpus_per_trial, search_path)
