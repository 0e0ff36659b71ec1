"""Screening: rank augmentations with the teacher alone, as a command of its own or before a student's search."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.markup import escape

from results.analysis.screening import ScreeningResult
from search.algorithms.base import member_seed
from search.config.schema import SweepConfig
from search.execution.journal import Journal
from search.execution.progress import ProgressReporter
from search.execution.trials import on_worker
from search.sweeps.folders import SWEEP_FILE, open_folder
from search.sweeps.plan import SweepPlan, check_channels
from search.sweeps.screen_plan import ScreenPlan, rankable
from spaces import Genome, RequestError, Schedule, WorkError
from spaces.augmentations import Augmentation
from spaces.core.io import write_atomic
from trainables.checkpoints import save_weights
from trainables.ray_trainable import Worker
from trainables.screening.ranking import Screening, check_request
from trainables.screening.ranking import screen as rank
from trainables.task import Task, TrainedTeacher


def screen(
    config: SweepConfig,
    only: Sequence[str] = (),
    policies: Sequence[Schedule] = (),
    *,
    console: Console | None = None,
) -> ScreeningResult:
    """Rank augmentations by T. stddev with the sweep's teacher, in this process.

    Args:
        config: Sweep: its data, its teacher (trained without augmentation, or loaded), its `screen` settings.
        only: Names of the catalog, or dotted ones; empty for the sweep's `space.augment`, or the whole catalog. What
            has yet to learn against a student (`hard_…`) cannot be ranked, and is left out.
        policies: Schedules whose last phase is ranked too: its policy, and what its second view has learned.
        console: Console that shows progress; None for none.

    Returns:
        The ranking; it is also written to the sweep's folder, and to MLflow.

    Raises:
        RequestError: A name is unknown, or the data or the teacher is not as the sweep needs it.

    Example:
        >>> ranking = screen(SweepConfig.load("examples/digits.yaml"), ["identity", "cutmix"])  # doctest: +SKIP
        >>> print(ranking.markdown())  # doctest: +SKIP
    """
    started = time.perf_counter()
    choices = ScreenPlan.resolve(config).contestants(only, policies)
    plan = SweepPlan.resolve(config)
    if (task := plan.teacher_task) is None:
        raise RequestError("screening must have a teacher", value="teacher: null", hint="name one")
    for schedule in policies:
        check_channels("a policy", schedule, task.data)
    check_request(choices, plan.screen.precision, len(task.data.full))
    folder, tracker = open_folder(plan.storage, f"{plan.name}-screen", plan.text, plan.name, plan.tracking_uri)
    torch.set_num_threads(plan.resources.cpus_per_trial)
    device = "cuda" if plan.resources.gpus_per_trial > 0 and torch.cuda.is_available() else "cpu"
    epochs = task.epochs if plan.teacher is None else 0
    with (
        Journal(folder) as journal,
        tracker.follow(journal),
        ProgressReporter(console, epochs + plan.screen.precision.means) as progress,
    ):
        progress.say(escape(str(folder)))
        run = tracker.start(folder.name, tags={"stage": "screening", "folder": folder.name})
        tracker.artifact(run, folder / SWEEP_FILE)
        progress.stage("teacher")
        teacher = plan.teacher or _train_teacher(task, plan.seed, device, progress, folder)
        progress.stage("screening")
        ranking = rank_with(
            task, teacher, choices, plan.screen, device=device, on_mean=lambda done, most: progress.epoch(None)
        )
        result = ScreeningResult(
            folder=str(folder),
            tracking_uri=tracker.uri,
            seconds=round(time.perf_counter() - started, 2),
            **plain(ranking),
        )
        for path in write_files(result, folder):
            tracker.artifact(run, path)
        tracker.log(run, {**metrics(result), "seconds": result.seconds})
        tracker.finish(run)
    return result


def rank_with(
    task: Task,
    teacher: TrainedTeacher,
    choices: Sequence[Augmentation],
    plan: ScreenPlan,
    *,
    device: torch.device | str = "cpu",
    on_mean: Callable[[int, int], None] = lambda done, most: None,
) -> Screening:
    """Rank `choices` with `teacher` on all images that it may have been trained on: `task.data.full`.

    Args:
        task: Task whose data are used.
        teacher: Teacher that answers.
        choices: Augmentations to rank.
        plan: Settings of the screening.
        device: Device of the teacher.
        on_mean: Function that is called after each mean with the number of means so far, and at most.
    """
    return rank(
        teacher.freeze(task.data),
        task.data,
        task.data.full,
        choices,
        precision=plan.precision,
        seed=plan.seed,
        device=device,
        channels_last=plan.channels_last,
        on_mean=on_mean,
    )


def screen_choices(plan: SweepPlan, task: Task, folder: Path, tracking_uri: str) -> ScreeningResult:
    """Rank the sweep's own choices on one worker of the cluster, and select those that the search goes on without.

    Raises:
        RequestError: They cannot be ranked without a student, or with so few images.
        WorkError: The worker failed.
    """
    started = time.perf_counter()
    choices = plan.screen.contestants()
    check_request(choices, plan.screen.precision, len(task.data.full))
    failed = "augmentations could not be ranked"
    ranking = on_worker(plan.resources, failed, _remote_rank, task, choices, plan.screen)
    kept = survivors(ranking, choices, plan.screen.drop)
    # As the space calls them: `screen.draw` changes the labels of what was ranked.
    own = rankable(plan.screen.space)
    names = {choice.label: original.label for original, choice in zip(own, choices, strict=True)}
    ranking = replace(ranking, rows=tuple(replace(row, label=names.get(row.label, row.label)) for row in ranking.rows))
    return ScreeningResult(
        folder=str(folder),
        tracking_uri=tracking_uri,
        seconds=round(time.perf_counter() - started, 2),
        dropped=tuple(names[choice.label] for choice in choices if choice not in kept),
        **plain(ranking),
    )


def _remote_rank(task: Task, choices: Sequence[Augmentation], plan: ScreenPlan, here: Worker) -> Screening:
    device = here.enter()
    if task.teacher is None:
        raise WorkError("screening must have a teacher")
    return rank_with(task, task.teacher, choices, plan, device=device)


def survivors(ranking: Screening, choices: Sequence[Augmentation], drop: float) -> tuple[Augmentation, ...]:
    """Return `choices` without the worst `drop` of them, in the order given; at least one remains.

    The uninformative rank last, since their ratio means nothing.
    """
    order = {row.label: place for place, row in enumerate(ranking.rows)}
    ranked = sorted(choices, key=lambda choice: order[choice.label])
    kept = set(ranked[: max(1, len(ranked) - math.floor(drop * len(ranked)))])
    return tuple(choice for choice in choices if choice in kept)


def plain(ranking: Screening) -> dict[str, Any]:
    """Return a ranking as the plain data that `ScreeningResult` holds."""
    return {**vars(ranking), "rows": tuple(asdict(row) for row in ranking.rows)}


def write_files(result: ScreeningResult, folder: Path) -> tuple[Path, ...]:
    """Write the ranking as data, as text and as a picture, in the sweep's folder."""
    from results.plots.screening import plot_screening  # Matplotlib, which nothing before needs

    return (
        write_atomic(folder / "screening.json", json.dumps(result.to_json(), indent=2) + "\n"),
        write_atomic(folder / "report" / "screening.md", f"# Screening\n\n{result.markdown()}"),
        plot_screening(result, folder / "report" / "screening.png"),
    )


def metrics(result: ScreeningResult) -> dict[str, float]:
    """Return the ranking as MLflow's metrics."""
    kept = ("t_stddev", "ratio", "agreement", "entropy")
    return {f"screen/{row['label']}/{key}": row[key] for row in result.rows for key in kept}


def _train_teacher(task: Task, seed: int, device: str, progress: ProgressReporter, folder: Path) -> TrainedTeacher:
    """Train the teacher in full, without augmentation, in this process."""
    full = replace(task, data=replace(task.data, train=task.data.full)).to(device)
    learner = full.learner(Genome(), seed=member_seed(seed, "teacher", 1, 0), device=device)
    for _ in range(full.epochs):
        learner.step()
        progress.epoch(None)
    weights = learner.model.state_dict()
    save_weights(folder / "models" / "teacher.safetensors", weights)
    return TrainedTeacher(task.model, weights)
