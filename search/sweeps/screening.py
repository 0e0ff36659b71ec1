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
from search.execution.progress import ProgressReporter
from search.execution.trials import on_worker
from search.sweeps.plan import checked_data, given_teacher, opened, teacher_data
from spaces import Genome, RequestError, Schedule, Space, WorkError
from spaces.augmentations import CATALOG, Augmentation, Hard, Identity, Mixup, Pick, PolicyAugmentation, augmentation
from spaces.augmentations.base import Draw
from spaces.core.io import write_atomic
from trainables.checkpoints import save_weights
from trainables.data import DataSet
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
        config: the sweep: its data, its teacher (trained without augmentation, or loaded), its `screen` settings.
        only: names of the catalog, or dotted ones; empty: the sweep's `space.augment`, or the whole catalog.
            What has yet to learn against a student (`hard_…`) cannot be ranked, and is left out.
        policies: schedules whose last phase is ranked too: its policy, and what its second view has learned.
        console: shows progress; None keeps quiet.

    Raises:
        RequestError: an unknown name, or the data or the teacher is not as the sweep needs it.
    """
    started = time.perf_counter()
    choices = contestants(config, only, policies)
    data = teacher_data(config, checked_data(config))
    for schedule in policies:
        if schedule.image.channels != data.channels:
            rule = f"a policy for images of {data.channels} channels is needed"
            raise RequestError(rule, value=schedule.image.channels)
    check_request(choices, config.screen.precision, len(data.train) + len(data.validation))
    if config.teacher is None:
        raise RequestError("augmentations are ranked with a teacher", value="teacher: null", hint="name one")
    epochs = 0 if config.teacher.given else config.teacher.full_epochs
    folder, tracker = opened(config, f"{config.name}-screen")
    torch.set_num_threads(config.resources.cpus_per_trial)
    device = "cuda" if config.resources.gpus_per_trial > 0 and torch.cuda.is_available() else "cpu"
    with tracker, ProgressReporter(console, epochs + config.screen.precision.means) as ticker:
        ticker.say(escape(str(folder)))
        run = tracker.start(folder.name, tags={"stage": "screening", "folder": folder.name})
        tracker.artifact(run, folder / "sweep.yaml")
        ticker.stage("teacher")
        task, teacher = _teacher(config, data, device, ticker, folder)
        ticker.stage("screening")
        seen = rank_with(task, teacher, choices, config, device=device, on_mean=lambda done, most: ticker.epoch(None))
        result = ScreeningResult(
            folder=str(folder),
            tracking_uri=tracker.uri,
            seconds=round(time.perf_counter() - started, 2),
            **plain(seen),
        )
        for path in write(result, folder):
            tracker.artifact(run, path)
        tracker.log(run, {**figures(result), "seconds": result.seconds})
        tracker.finish(run)
    return result


def contestants(
    config: SweepConfig, only: Sequence[str] = (), policies: Sequence[Schedule] = ()
) -> tuple[Augmentation, ...]:
    """What is ranked: what is named, else the sweep's own choices, else the whole catalog."""
    named: tuple[Augmentation, ...] = tuple(augmentation(name) for name in only)
    if not named:
        choices = rankable(config.space)
        named = choices if len(choices) > 1 else _catalog()
    last = [schedule.phases[-1].genome for schedule in policies]
    learned = tuple(genome.augment for genome in last if isinstance(genome.augment, Hard) and not genome.augment.learns)
    # A policy that does nothing is no contestant beside what its second view has learned.
    shown = (
        *(PolicyAugmentation(policy=g.policy) for g in last if not (g.policy.is_identity and g.has_view)),
        *learned,
    )
    draw = config.screen.draw
    chosen = tuple(_drawn(choice, draw) if draw else choice for choice in (*named, *shown))
    if len({choice.label for choice in chosen}) < len(chosen):
        hint = "name each once; screen.draw makes equal what differs in draw alone"
        raise RequestError("augmentations are ranked once each", value=[choice.label for choice in chosen], hint=hint)
    return chosen


def rankable(space: Space) -> tuple[Augmentation, ...]:
    """The augmentations of a space that need no student to learn against."""
    return tuple(choice for choice in space.augmentations if not choice.learns)


def rank_with(
    task: Task,
    teacher: TrainedTeacher,
    choices: Sequence[Augmentation],
    config: SweepConfig,
    *,
    device: torch.device | str = "cpu",
    on_mean: Callable[[int, int], None] = lambda done, most: None,
) -> Screening:
    """Rank `choices` with `teacher` on all images that it may have been trained on, validation images included."""
    data = task.data
    return rank(
        teacher.frozen(data),
        data,
        data.full,
        choices,
        precision=config.screen.precision,
        seed=config.search.seed,
        device=device,
        channels_last=config.teacher.recipe.channels_last if config.teacher is not None else None,
        on_mean=on_mean,
    )


def screened(config: SweepConfig, task: Task, folder: Path, tracking_uri: str) -> ScreeningResult:
    """Rank the sweep's own choices on one worker of the cluster, and say which a student's search goes on without.

    Raises:
        RequestError: they cannot be ranked without a student, or with so few images.
        WorkError: the worker failed.
    """
    started = time.perf_counter()
    choices, resources = contestants(config), config.resources
    check_request(choices, config.screen.precision, len(task.data.train) + len(task.data.validation))
    seen = on_worker(resources, "augmentations could not be ranked", _remote_rank, task, choices, config)
    kept = survivors(seen, choices, config.screen.drop)
    # As the space calls them: `screen.draw` changes the labels of what was ranked.
    names = {choice.label: own.label for own, choice in zip(rankable(config.space), choices, strict=True)}
    seen = replace(seen, rows=tuple(replace(row, label=names.get(row.label, row.label)) for row in seen.rows))
    return ScreeningResult(
        folder=str(folder),
        tracking_uri=tracking_uri,
        seconds=round(time.perf_counter() - started, 2),
        dropped=tuple(names[choice.label] for choice in choices if choice not in kept),
        **plain(seen),
    )


def _remote_rank(task: Task, choices: Sequence[Augmentation], config: SweepConfig, here: Worker) -> Screening:
    device = here.enter()
    if task.teacher is None:
        raise WorkError("augmentations are screened with a teacher")
    return rank_with(task, task.teacher, choices, config, device=device)


def survivors(seen: Screening, choices: Sequence[Augmentation], drop: float) -> tuple[Augmentation, ...]:
    """What is left of `choices` without the worst `drop` of them, in the order given; one stays at least.

    The uninformative are the worst, since their ratio means nothing.
    """
    order = {row.label: place for place, row in enumerate(seen.rows)}
    ranked = sorted(choices, key=lambda choice: order[choice.label])
    kept = set(ranked[: max(1, len(ranked) - math.floor(drop * len(ranked)))])
    return tuple(choice for choice in choices if choice in kept)


def plain(seen: Screening) -> dict[str, Any]:
    """A ranking as the plain data that `ScreeningResult` holds."""
    return {**vars(seen), "rows": tuple(asdict(row) for row in seen.rows)}


def write(result: ScreeningResult, folder: Path) -> tuple[Path, ...]:
    """The ranking as data, as text and as a picture, in the sweep's folder."""
    from results.plots.screening import plot_screening

    return (
        write_atomic(folder / "screening.json", json.dumps(result.to_json(), indent=2) + "\n"),
        write_atomic(folder / "report" / "screening.md", f"# Screening\n\n{result.markdown()}"),
        plot_screening(result, folder / "report" / "screening.png"),
    )


def figures(result: ScreeningResult) -> dict[str, float]:
    """The ranking as MLflow's metrics."""
    kept = ("t_stddev", "ratio", "agreement", "entropy")
    return {f"screen/{row['label']}/{key}": row[key] for row in result.rows for key in kept}


def _drawn(choice: Augmentation, draw: Draw) -> Augmentation:
    """`choice` with that draw, which for a pick is its base's; identity draws nothing, HARD for each image."""
    if isinstance(choice, Identity | Hard):
        return choice
    if type(choice) is Pick:
        return replace(choice, base=_drawn(choice.base, draw))
    return replace(choice, draw=draw)


def _catalog() -> tuple[Augmentation, ...]:
    """All that needs no student; `pick` with mixup, since with CutMix it is CutMixPick."""
    usual = (Pick(base=Mixup()) if kind == Pick.kind else cls() for kind, cls in CATALOG.items())
    return tuple(choice for choice in usual if not choice.learns)


def _teacher(
    config: SweepConfig, data: DataSet, device: str, ticker: ProgressReporter, folder: Path
) -> tuple[Task, TrainedTeacher]:
    """The teacher that the sweep names, or one that is trained here in full, without augmentation."""
    settings = config.teacher
    assert settings is not None
    task = Task("teacher", settings.model, data, settings.recipe, settings.full_epochs)
    if (given := given_teacher(config, data)) is not None:
        return task, given
    whole = replace(task, data=replace(data, train=data.full)).to(device)
    learner = whole.learner(Genome(), seed=member_seed(config.search.seed, "teacher", 1, 0), device=device)
    for _ in range(whole.epochs):
        learner.step()
        ticker.epoch(None)
    weights = learner.model.state_dict()
    save_weights(folder / "models" / "teacher.safetensors", weights)
    return task, TrainedTeacher(settings.model, weights)
