"""Loading of a data set by name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from spaces.core.errors import RequestError, RoletuneError, unknown
from spaces.core.importing import accepted_options, import_dotted
from trainables.data.dataset import DataSet
from trainables.data.image_folder import FolderImages, class_names, read_classes
from trainables.data.images import Images
from trainables.data.registry import DATA
from trainables.data.source import DataSource, Pool, ReadOptions
from trainables.data.splits import stratified_split, stratified_subset


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
        workers: Decoding processes of data sets that stream from disk.
        validation_from: Target domain to validate on: a name as `name`, or a folder of class folders, or one with
            `validation/` or `val/`. As many images are held out as `validation` says; training images are as before.
        test_from: Target domain to test on, likewise; of a folder with `test/`, that. The test images of `name` become
            `in_domain`.

    Raises:
        RequestError: The name is unknown; more images are requested than there are; files are missing or damaged; the
            size differs from the data set's own; or a factory returns another type.
        WorkError: The download failed.

    Example:
        >>> data = load("digits", train=100, validation=50)
        >>> len(data.train), len(data.validation), len(data.test), data.classes
        (100, 50, 597, 10)
        >>> data.train.labels.bincount().tolist()
        [10, 10, 10, 10, 10, 10, 10, 10, 10, 10]
    """
    if validation_from is not None or test_from is not None:
        options: dict[str, Any] = {"root": root, "seed": seed, "download": download, "size": size, "workers": workers}
        source = load(name, train=train, validation=validation, **options)
        if validation_from is not None:
            # As many as are held out of the source, so that no image of a common origin is trained on.
            held_out = target(validation_from, "validation", source, train, validation, **options)
            source = replace(source, validation=held_out)
        if test_from is not None:
            _check_different(validation_from, test_from)
            tested = target(test_from, "test", source, train, validation, **options)
            source = replace(source, test=tested, in_domain=source.test)
        return source
    if name in DATA:
        _check_options(DATA[name], size, workers)
        pool = DATA[name].read(ReadOptions(Path(root), download, size, workers))
        return _assemble(DATA[name], pool, *_hold_out(pool, train, validation, seed))
    if not {".", ":"} & set(name):
        raise unknown("data set", name, DATA)
    requested = {"train": train, "validation": validation, "size": size}
    optional = {"root": root, "seed": seed, "download": download, "workers": workers}
    return _from_factory(name, requested, optional)


def _check_different(validation_from: str | None, test_from: str) -> None:
    """Refuse one folder of class folders for both, whose images would be selected on and tested on."""
    folder = Path(test_from).expanduser()
    whole = test_from not in DATA and folder.is_dir() and not (folder / "test").is_dir()
    if whole and validation_from is not None and Path(validation_from).expanduser() == folder:
        hint = "give a folder with validation/ and test/, or two folders"
        rule = "data.validation_from and data.test_from must not be the same images"
        raise RequestError(rule, value=test_from, hint=hint)


def target(name: str, part: str, source: DataSet, train: int | None, validation: int | None, **options: Any) -> Images:
    """Read the images of a target domain, and check that they fit those that are trained on.

    Args:
        name: Name of a data set, dotted name, or folder.
        part: `validation` or `test`.
        source: Data set that is trained on.
        train: Number of training images of the source.
        validation: Number of validation images.
        options: Other options of `load`.

    Raises:
        RequestError: The name is neither a data set nor a folder; or its images have other classes, channels or another
            size than the source.
    """
    key = f"data.{part}_from"
    if name not in DATA and Path(name).expanduser().is_dir():
        return folder_images(Path(name), part, source, validation if part == "validation" else None, **options)
    if name not in DATA and not {".", ":"} & set(name):
        raise RequestError(f"{key} must be a folder that exists or a data set: {', '.join(DATA)}", value=name)
    found = load(name, train=train, validation=validation, **options)
    for what in ("classes", "channels", "size"):
        if getattr(found, what) != getattr(source, what):
            rule = f"{key} must have the {what} of {source.name}: {getattr(source, what)}"
            raise RequestError(rule, value=f"{name}: {getattr(found, what)}")
    return found.validation if part == "validation" else found.test


def folder_images(
    folder: Path, part: str, source: DataSet, count: int | None, *, seed: int, workers: int, **options: Any
) -> Images:
    """Read a folder of class folders as a target domain; see `target`."""
    del options  # the folder is the root; its size is the source's
    if source.channels != 3:
        raise RequestError(
            f"data.{part}_from must be a data set for gray images; a folder is read as RGB", value=folder
        )
    names = {"validation": ("validation", "val"), "test": ("test",)}[part]
    inner = next((folder / name for name in names if (folder / name).is_dir()), folder)
    known = class_names(source.train, source.classes) if isinstance(source.train, FolderImages) else None
    images = read_classes(inner, source.classes, known, source.size, workers)
    rows = stratified_subset(images.labels, classes=source.classes, size=count, seed=seed, part=f"{part}_from")
    return images.subset(rows)


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
