"""From a name to a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from spaces.core.errors import RequestError, RoletuneError, unknown
from spaces.core.importing import accepted_options, import_dotted
from trainables.data.dataset import DataSet
from trainables.data.images import Images
from trainables.data.registry import DATA
from trainables.data.source import DataSource, Pool, Reading
from trainables.data.splits import chosen, stratified


def load(
    name: str,
    *,
    root: str | Path = "data",
    train: int | None = None,
    validation: int | None = None,
    seed: int = 0,
    download: bool = False,
    size: int | None = None,
    workers: int = 0,
) -> DataSet:
    """Read the data set `name` and hold out what the search is scored on. The test part is left as it is.

    Args:
        name: one of `DATA`; or, with a dot or a colon, a factory of the user's own, which is called with
            those of the arguments below that it takes and gives a `DataSet`.
        root: the folder that data sets lie in; for `imagefolder` the one with `train/` and `test/`.
        train: how many images to train on while searching, the same number of each class; None: all that are
            not held out. See `stratified`.
        validation: how many to hold out, likewise; None: the rest if `train` is given, else a tenth. A set
            with a validation part of its own holds out that part, or this many of it.
        seed: of the choice, at least 0.
        download: fetch what is missing. Nothing is fetched without it.
        size: side of the images, px, where the set leaves it open.
        workers: processes that decode, where the set streams.

    Raises:
        RequestError: no such name; more images asked for than there are; files missing or damaged; another
            size than the set's own; a factory that gives something else.
        WorkError: fetching failed.
    """
    if name in DATA:
        _check_options(DATA[name], size, workers)
        pool = DATA[name].read(Reading(Path(root), download, size, workers))
        return _assemble(DATA[name], pool, *_hold_out(pool, train, validation, seed))
    if not {".", ":"} & set(name):
        raise unknown("data set", name, DATA)
    teacher_inputs = {"train": train, "validation": validation, "size": size}
    how = {"root": root, "seed": seed, "download": download, "workers": workers}
    return _from_factory(name, teacher_inputs, how)


def _check_options(source: DataSource, size: int | None, workers: int) -> None:
    if source.size is not None and size not in (None, source.size):
        rule = f"images of data set {source.name!r} have {source.size} px"
        raise RequestError(rule, value=f"data.size = {size}", hint="leave `data.size` out")
    if workers < 0:
        raise RequestError("data.workers is at least 0", value=workers)


def _hold_out(pool: Pool, train: int | None, validation: int | None, seed: int) -> tuple[Images, Images]:
    """What is trained on and what is held out."""
    if pool.validation is None:
        labels = pool.train.labels
        kept, held = stratified(labels, classes=pool.classes, train=train, validation=validation, seed=seed)
        return pool.train.subset(kept), pool.train.subset(held)
    kept = chosen(pool.train.labels, classes=pool.classes, size=train, seed=seed, part="train")
    held = chosen(pool.validation.labels, classes=pool.classes, size=validation, seed=seed, part="validation")
    return pool.train.subset(kept), pool.validation.subset(held)


def _assemble(source: DataSource, pool: Pool, train: Images, validation: Images) -> DataSet:
    return DataSet(
        name=source.name,
        classes=pool.classes,
        channels=source.channels,
        size=pool.size,
        mean=source.mean,
        std=source.std,
        crop=pool.size // 8 if source.crop is None else source.crop,
        flip=source.flip,
        train=train,
        validation=validation,
        test=pool.test,
    )


def _from_factory(name: str, teacher_inputs: dict[str, Any], how: dict[str, Any]) -> DataSet:
    """Call the user's factory; what was `teacher_inputs` for and it does not take is refused, not forgotten."""
    factory = import_dotted(name)
    options = accepted_options(factory, teacher_inputs | how)
    for option, value in teacher_inputs.items():
        if value is not None and option not in options:
            raise RequestError(
                f"the data set {name} takes no `{option}`", value=value, hint=f"leave `data.{option}` out"
            )
    try:
        found = factory(**options)
    except RoletuneError:
        raise
    except Exception as error:
        raise RequestError(f"the data set factory {name} raised {type(error).__name__}: {error}") from error
    if not isinstance(found, DataSet):
        raise RequestError(f"the factory {name} gives a trainables.data.DataSet", value=type(found).__name__)
    return found
