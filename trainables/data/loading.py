"""Loading of a data set by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from spaces.core.errors import RequestError, RoletuneError, unknown
from spaces.core.importing import accepted_options, import_dotted
from trainables.data.dataset import DataSet
from trainables.data.image_folder import FolderImages
from trainables.data.images import Images
from trainables.data.registry import DATA
from trainables.data.source import DataSource, Pool, ReadOptions
from trainables.data.splits import stratified_split, stratified_subset
from trainables.data.target_folder import check_disjoint, read_target, target_folder

MOST_IN_MEMORY = 512 * 2**20
"""Bytes of images on disk that are kept in memory at most."""


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
    validation_from: str | None = None,
    test_from: str | None = None,
) -> DataSet:
    """Read a data set, and hold out validation images from its training images; the test images stay the same.

    Args:
        name: Name from `DATA`; or a dotted name (`package.module:attribute`) of your own factory, which is called with
            those of the arguments below that it accepts and returns a `DataSet`.
        root: Folder of the data sets; for `imagefolder`, the folder with `train/` and `test/`.
        train: Number of training images, balanced over the classes; None for all that are not held out. See
            `stratified_split`.
        validation: Number of images to hold out, likewise; None for the rest if `train` is given, else a tenth. A
            source with its own validation images holds out those, or this many of them.
        seed: Seed of the split, >= 0.
        download: Download missing files; by default nothing is downloaded.
        size: Side of the images, px, for data sets without a fixed size.
        workers: Decoding processes of images on disk.
        validation_from: Target domain to validate on: a name as `name`, or a folder of class folders, or one with
            `validation/` or `val/`; `validation` images of it, None for a tenth of a data set and all of a folder.
            Training images are as before, so that images held out for `validation` are not trained on.
        test_from: Target domain to test on, likewise; of a folder with `test/`, that. The test images of `name` become
            `in_domain`. It must not be the folder of class folders that `validation_from` is.

    Images on disk are decoded once, and kept in memory, if those to train and validate on take at most 512 MiB.

    Raises:
        RequestError: A name is unknown; more images are requested than there are; files are missing or damaged; the
            size differs from the data set's own; a factory returns another type; or a target domain has other classes,
            channels or another size, or shares files with another part.
        WorkError: The download failed.

    Example:
        >>> data = load("digits", train=100, validation=50)
        >>> len(data.train), len(data.validation), len(data.test), data.classes
        (100, 50, 597, 10)
        >>> data.train.labels.bincount().tolist()
        [10, 10, 10, 10, 10, 10, 10, 10, 10, 10]
    """
    options: dict[str, Any] = {"root": root, "seed": seed, "download": download, "size": size, "workers": workers}
    data = _read(name, train, validation, options)
    if validation_from is not None or test_from is not None:
        data = _with_targets(data, validation_from, test_from, train, validation, options)
    return in_memory(data)


def in_memory(data: DataSet) -> DataSet:
    """Decode images on disk once, if those to train and validate on take at most `MOST_IN_MEMORY`.

    Test images stay on disk, since they are read once for each network.

    Raises:
        RequestError: A file cannot be decoded.
    """
    parts = {"train": data.train, "validation": data.validation}
    streamed = {part: images for part, images in parts.items() if isinstance(images, FolderImages)}
    if sum(map(len, streamed.values())) * data.channels * data.size**2 > MOST_IN_MEMORY:
        return data
    decoded: dict[str, Any] = {part: images.decoded() for part, images in streamed.items()}
    return replace(data, **decoded)


def _read(name: str, train: int | None, validation: int | None, options: Mapping[str, Any]) -> DataSet:
    """Read a data set without a target domain; folders are not decoded."""
    if name in DATA:
        size, workers = options["size"], options["workers"]
        _check_options(DATA[name], size, workers)
        pool = DATA[name].read(ReadOptions(Path(options["root"]), options["download"], size, workers))
        return _assemble(DATA[name], pool, *_hold_out(pool, train, validation, options["seed"]))
    if not {".", ":"} & set(name):
        raise unknown("data set", name, DATA)
    requested = {"train": train, "validation": validation, "size": options["size"]}
    optional = {key: options[key] for key in ("root", "seed", "download", "workers")}
    return _from_factory(name, requested, optional)


def _with_targets(
    source: DataSet,
    validation_from: str | None,
    test_from: str | None,
    train: int | None,
    validation: int | None,
    options: Mapping[str, Any],
) -> DataSet:
    """Return `source` with the validation or test images of target domains in place of its own."""
    names = {"validation": validation_from, "test": test_from}
    folders = {
        part: folder
        for part, name in names.items()
        if name is not None and name not in DATA and (folder := target_folder(name, part))
    }
    found: dict[str, Any] = {}
    for part, name in names.items():
        if part in folders:
            found[part] = read_target(folders[part], part, source, options["workers"])
        elif name is not None:
            found[part] = _named_target(name, part, source, train, validation, options)
    if "validation" in found and validation is not None:
        held_out, classes, seed = found["validation"], source.classes, options["seed"]
        rows = stratified_subset(held_out.labels, classes=classes, size=validation, seed=seed, part="validation")
        found["validation"] = held_out.subset(rows)
    if "test" in found:
        found["in_domain"] = source.test
    data = replace(source, **found, target_validation="validation" in found)
    check_disjoint(data)
    return data


def _named_target(
    name: str, part: str, source: DataSet, train: int | None, validation: int | None, options: Mapping[str, Any]
) -> Images:
    """Return the images of a target domain that is a data set.

    Raises:
        RequestError: The name is unknown, or its images have other classes, channels or another size than the source.
    """
    key = f"data.{part}_from"
    if part == "test":
        train = validation = None  # test images are the same for all
    if name in DATA and DATA[name].size is None:
        raise RequestError(f"{key} must be the folder itself for your own images", value=name)
    if name in DATA:
        # Sets of the same sizes may show the same things: held out alike, none of them is trained on.
        alike = source.name in DATA and DATA[name].images == DATA[source.name].images
        found = _read(name, train if alike else None, validation, {**options, "size": None})
    elif "/" in name or not {".", ":"} & set(name):
        raise RequestError(f"{key} must be a folder that exists or a data set: {', '.join(DATA)}", value=name)
    else:
        found = _from_factory(name, {}, {**options, "train": train, "validation": validation, "size": source.size})
    for what in ("classes", "channels", "size"):
        if getattr(found, what) != getattr(source, what):
            rule = f"{key} must have the {what} of {source.name}: {getattr(source, what)}"
            raise RequestError(rule, value=f"{name}: {getattr(found, what)}")
    return found.validation if part == "validation" else found.test


def _check_options(source: DataSource, size: int | None, workers: int) -> None:
    if source.size is not None and size not in (None, source.size):
        rule = f"data.size must be {source.size} for data set {source.name!r}"
        raise RequestError(rule, value=size, hint="leave `data.size` out")
    if workers < 0:
        raise RequestError("data.workers must be >= 0", value=workers)


def _hold_out(pool: Pool, train: int | None, validation: int | None, seed: int) -> tuple[Images, Images]:
    """Return the training and the validation images."""
    if pool.validation is None:
        labels = pool.train.labels
        kept, held_out = stratified_split(labels, classes=pool.classes, train=train, validation=validation, seed=seed)
        return pool.train.subset(kept), pool.train.subset(held_out)
    kept = stratified_subset(pool.train.labels, classes=pool.classes, size=train, seed=seed, part="train")
    held_out = stratified_subset(
        pool.validation.labels, classes=pool.classes, size=validation, seed=seed, part="validation"
    )
    return pool.train.subset(kept), pool.validation.subset(held_out)


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


def _from_factory(name: str, requested: dict[str, Any], optional: dict[str, Any]) -> DataSet:
    """Call the user's factory; refuse a requested option that it does not accept."""
    factory = import_dotted(name)
    options = accepted_options(factory, requested | optional)
    for option, value in requested.items():
        if value is not None and option not in options:
            rule = f"`data.{option}` must be left out, since the data set {name} does not accept it"
            raise RequestError(rule, value=value)
    try:
        data = factory(**options)
    except RoletuneError:
        raise
    except Exception as error:
        raise RequestError(f"the data set factory {name} raised {type(error).__name__}: {error}") from error
    if not isinstance(data, DataSet):
        raise RequestError(f"the factory {name} must return a trainables.data.DataSet", value=type(data).__name__)
    return data
