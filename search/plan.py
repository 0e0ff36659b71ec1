"""What a sweep is going to do, and whether it can: checked before anything is started or written."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from results.tracking import Tracker
from search.config import SweepConfig
from search.stage import Kind
from spaces import RequestError
from spaces.augmentations import resolve
from spaces.files import write_atomic
from trainables import data as datasets
from trainables.data import DataSet, Images
from trainables.data.splits import chosen
from trainables.models import build_model, check_model
from trainables.weights import check_weights, load_weights


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
    shape = {"classes": data.classes, "channels": data.channels, "size": data.size}
    for role in (config.teacher, config.student):
        if role is not None:
            check_model(role.model, **shape)
    if config.teacher.weights:
        model = build_model(config.teacher.model, seed=0, **shape)
        check_weights(model, load_weights(config.teacher.weights), f"teacher.weights ({config.teacher.weights})")
    return data


def scored_images(config: SweepConfig, data: DataSet) -> Images:
    """The validation images that members are scored on: balanced over the classes, the same ones for every member.

    Raises:
        RequestError: fewer than one of each class are asked for.
    """
    most, held_out = config.validate_.images, data.validation
    if most is None or most >= len(held_out):
        return held_out
    if most < data.classes:
        raise RequestError(f"validate.images is at least {data.classes}, one of each class", got=most)
    seed = config.data.seed
    return held_out.subset(chosen(held_out.labels, classes=data.classes, size=most, seed=seed, part="validation"))


def searches(config: SweepConfig, role: str) -> list[Kind]:
    """The searches of a role: the one that is asked for, and its control.

    Augmentations are chosen for the student alone, since a second view has the teacher's answers for a target.
    """
    kind = config.search.kind
    if kind == "choice":
        return ["choice"] if role == "student" else []
    control = "random" in config.baselines and kind != "random"
    return [kind, "random"] if control else [kind]


def members(config: SweepConfig, kind: Kind, population: int) -> int:
    """How many trials a search has, before screening takes augmentations away."""
    return len(config.space.augment) * config.search.repeats if kind == "choice" else population


def planned_epochs(config: SweepConfig, replayed: Iterable[str] | None = None) -> int:
    """Epochs of training over all trials: of the whole sweep, or of a replay of the roles `replayed`."""
    total = 0
    for role, settings in config.roles.items():
        if replayed is None:
            kinds = searches(config, role)
            arms = max(1, len(kinds)) + (bool(kinds) and "none" in config.baselines)
            total += sum(members(config, kind, settings.stage.population) for kind in kinds) * settings.stage.epochs
        else:
            arms = int(role in replayed)
        total += arms * settings.full.seeds * settings.full_epochs
    return total


def opened(config: SweepConfig, name: str) -> tuple[Path, Tracker]:
    """A new folder for the sweep with its file in it, and MLflow on the line; a refusal leaves no folder behind.

    Raises:
        RequestError: the place cannot be written to, or the tracking server is not there.
    """
    folder = new_folder(Path(config.storage), name)
    try:
        write_atomic(folder / "sweep.yaml", config.to_yaml())
        return folder, Tracker.open(folder, config.name, config.tracking.uri)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def new_folder(storage: Path, name: str) -> Path:
    """Make `storage/name-001`, or with the next number that is free.

    Raises:
        RequestError: the place cannot be written to.
    """
    numbered = re.compile(re.escape(name) + r"-(\d{3,})")
    try:
        storage.mkdir(parents=True, exist_ok=True)
        taken = [int(match[1]) for path in storage.iterdir() if (match := numbered.fullmatch(path.name))]
        number = max(taken, default=0) + 1
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
        raise RequestError(rule, mend="choose another --storage") from error
