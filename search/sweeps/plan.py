"""What a sweep is going to do, and whether it can: checked before anything is started or written."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from results.tracking.tracker import Tracker
from search.algorithms.base import Kind, member_seed
from search.algorithms.grid import combinations
from search.algorithms.successive_halving import budget
from search.config.schema import GRIDS, StageConfig, StudentConfig, SweepConfig
from spaces import Genome, RequestError, Schedule, Space
from spaces.augmentations import Flip, Identity, resolve
from spaces.core.io import write_atomic
from spaces.search_space.domain import example_values
from trainables import data as datasets
from trainables.checkpoints import check_weights, load_weights
from trainables.data import DataSet, Images
from trainables.data.splits import chosen
from trainables.models import build_model, check_model
from trainables.task import Task, TrainedTeacher

SWEEP_FILE = "sweep.yaml"
"""The resolved sweep file in a sweep's folder."""

LEAST_SCORED, TRAINED_A_SCORED = 2000, 6
"""What `validate.images: auto` is: so many, or one for so many images of training, a few percent of the time."""


def checked_data(config: SweepConfig) -> DataSet:
    """The sweep's images, split, after everything that has to fit them was held against them.

    Raises:
        RequestError: the set is unknown, missing, or too small for the splits; a model does not fit it; weights do
            not fit their model.
    """
    data = datasets.load(**config.data.model_dump())
    scored_images(config, data)
    for choice in config.space.augmentations:
        resolve(choice)
    shape = {"channels": data.channels, "size": data.size}
    if config.student is not None:
        check_model(config.student.model, classes=data.classes, **shape)
    if config.teacher is not None:
        own = teacher_data(config, data)
        if config.teacher.data is not None:
            if (own.channels, own.size) != (data.channels, data.size):
                rule = f"the teacher sees the student's images, of {data.channels} channels and {data.size} px"
                raise RequestError(
                    rule, value=(own.channels, own.size), hint="set teacher.data.size, or choose other data"
                )
            scored_images(config, own)
        classes = config.teacher.classes or own.classes
        check_model(config.teacher.model, classes=classes, **shape)
        if config.teacher.weights:
            model = build_model(config.teacher.model, seed=0, classes=classes, **shape)
            check_weights(model, load_weights(config.teacher.weights), f"teacher.weights ({config.teacher.weights})")
    if config.student is not None:
        _check_student(config, config.student, data)
    return data


def full_images(config: SweepConfig, role: str, data: DataSet) -> Images:
    """What a role's full training sees: training and validation images together.

    A teacher whose weights students start from sees the training images alone: else students would begin with what
    they are scored on while they are searched.
    """
    starts = role == "teacher" and config.student is not None and config.student.distill.init == "teacher"
    return data.train if starts else data.full


def teacher_data(config: SweepConfig, data: DataSet) -> DataSet:
    """The teacher's own images; `data`, the sweep's, where it has none."""
    own = config.teacher.data if config.teacher is not None else None
    return data if own is None else datasets.load(**own.model_dump())


def given_teacher(config: SweepConfig, data: DataSet) -> TrainedTeacher | None:
    """The teacher whose weights are a file's, or random; None: it is to be trained, or there is none."""
    teacher = config.teacher
    if teacher is None or not teacher.given:
        return None
    own = teacher_data(config, data)
    classes = teacher.classes or own.classes
    statistics = (own.mean, own.std)
    if teacher.weights is not None:
        schedule = Schedule.load(teacher.policy) if teacher.policy else None
        return TrainedTeacher(teacher.model, load_weights(teacher.weights), schedule, classes, statistics)
    seed = member_seed(config.search.seed, "teacher", 1, 0)
    model = build_model(teacher.model, seed=seed, classes=classes, channels=data.channels, size=data.size)
    return TrainedTeacher(teacher.model, model.state_dict(), None, classes, statistics)


def _check_student(config: SweepConfig, student: StudentConfig, data: DataSet) -> None:
    """Build every loss that the sweep may choose for its two networks, and the student with all bits that it may have.

    Raises:
        RequestError: one does not fit them; a second view has no teacher that could answer for it; the model has
            nothing to take `bits`.
    """
    teacher = given_teacher(config, data)
    if teacher is None and config.teacher is not None:
        own = teacher_data(config, data)
        model = build_model(config.teacher.model, seed=0, classes=own.classes, channels=data.channels, size=data.size)
        teacher = TrainedTeacher(config.teacher.model, model.state_dict(), classes=own.classes)
    task = Task(
        "student",
        student.model,
        data,
        student.recipe,
        epochs=1,
        teacher=teacher,
        distill=student.distill,
        bits=student.bits,
    )
    any_view = Flip() if any(choice.kind != Identity.kind for choice in config.space.augmentations) else Identity()
    learner = task.learner(Genome(), seed=0)
    for example in example_values(config.space.distill):
        learner.set_genome(Genome(augment=any_view, distill=example))
        learner.begin_epoch(0)
    for bits in example_values(config.space.bits):
        task.under(Genome(bits=bits)).network()


def scored_images(config: SweepConfig, data: DataSet) -> Images:
    """The validation images that members are scored on: balanced over the classes, the same ones for every member.

    How many `auto` is, is what `benchmarks/training/validation.py` measured: more are always a better choice, so it is as many
    as cost little.

    Raises:
        RequestError: fewer than one of each class are asked for.
    """
    most, held_out = config.validate_.images, data.validation
    if most == "auto":
        interval = min(role.stage.interval for role in config.roles.values())
        most = max(LEAST_SCORED, interval * len(data.train) // TRAINED_A_SCORED)
    if most is None or most >= len(held_out):
        return held_out
    if most < data.classes:
        raise RequestError(f"validate.images is at least {data.classes}, one of each class", value=most)
    seed = config.data.seed
    return held_out.subset(chosen(held_out.labels, classes=data.classes, size=most, seed=seed, part="validation"))


def searches(config: SweepConfig, role: str) -> list[Kind]:
    """The searches of a role: the one that is asked for, and its control.

    Augmentations are chosen for the student alone, since a second view has the teacher's answers for a target.
    """
    kind = config.search.kind
    if kind in GRIDS:
        return [kind] if role == "student" else []
    if role_space(config.space, role).is_constant:
        return []
    control = "random" in config.baselines and kind != "random"
    return [kind, "random"] if control else [kind]


def role_space(space: Space, role: str) -> Space:
    """Where a role's genomes may move: second views, distillation and bits are the student's."""
    return space if role == "student" else replace(space, augment=(Identity.kind,), distill={}, bits={})


def members(config: SweepConfig, kind: Kind, stage: StageConfig) -> int:
    """How many trials a search has, before screening takes augmentations away.

    The random control of a search whose members are stopped early has as many as that search has epochs for.
    """
    if kind in GRIDS:
        return len(combinations(config.space)) * config.search.repeats
    if kind == "random" and config.search.kind.endswith("asha"):
        return max(2, round(spent(config, config.search.kind, stage) / stage.epochs))
    return stage.population


def spent(config: SweepConfig, kind: Kind, stage: StageConfig) -> int:
    """Epochs of training that a search takes over all its trials."""
    if kind.endswith("asha"):
        return budget(stage.population, stage.interval, config.search.reduction, stage.epochs)
    return members(config, kind, stage) * stage.epochs


def planned_epochs(config: SweepConfig, replayed: Iterable[str] | None = None) -> int:
    """Epochs of training over all trials: of the whole sweep, or of a replay of the roles `replayed`."""
    total = 0
    for role, settings in config.roles.items():
        if replayed is None:
            kinds = searches(config, role)
            arms = max(1, len(kinds)) + (bool(kinds) and "none" in config.baselines)
            total += sum(spent(config, kind, settings.stage) for kind in kinds)
        else:
            arms = int(role in replayed)
        total += arms * settings.full.seeds * settings.full_epochs
    return total


def opened(config: SweepConfig, name: str, old: Path | None = None) -> tuple[Path, Tracker]:
    """A new folder for the sweep, or its `old` one, with its file in it, and MLflow on the line.

    Raises:
        RequestError: the place cannot be written to, or the tracking server is not there; no new folder is left behind.
    """
    if old is not None:
        write_atomic(old / SWEEP_FILE, config.to_yaml())
        return old, Tracker.open(old, config.name, config.tracking.uri)
    folder = new_folder(Path(config.storage), name)
    try:
        write_atomic(folder / SWEEP_FILE, config.to_yaml())
        return folder, Tracker.open(folder, config.name, config.tracking.uri)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def new_folder(storage: Path, name: str) -> Path:
    """Make `storage/name-001`, or with the next number that is free.

    Raises:
        RequestError: the place cannot be written to.
    """
    try:
        storage.mkdir(parents=True, exist_ok=True)
        number = max(numbered(storage, name), default=0) + 1
        while True:
            folder = storage / f"{name}-{number:03d}"
            try:
                folder.mkdir()
            except FileExistsError:
                number += 1  # another sweep was faster
            else:
                return folder
    except OSError as error:
        rule = f"cannot write to {storage}: {error.strerror or error}"
        raise RequestError(rule, hint="choose another --storage") from error


def numbered(storage: Path, name: str) -> dict[int, Path]:
    """The folders that sweeps of this name have made, by their numbers."""
    pattern = re.compile(re.escape(name) + r"-(\d{3,})")
    return {int(match[1]): path for path in storage.iterdir() if (match := pattern.fullmatch(path.name))}
