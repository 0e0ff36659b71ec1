"""Target domains that are folders of images, and the check that no file is in two parts."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

from spaces.core.errors import RequestError
from trainables.data.dataset import DataSet
from trainables.data.image_folder import FolderImages, class_folders, held_out_folders, scan_classes
from trainables.data.images import Images


def target_folder(name: str, part: str) -> Path | None:
    """Return the folder of the class folders of a target domain; None if `name` is no folder.

    Args:
        name: Path of a folder of class folders, or of one with a folder of that part.
        part: `validation`, whose folder is called `validation` or `val`; or `test`.

    Raises:
        RequestError: The folder has both `validation/` and `val/`.
    """
    folder = Path(name).expanduser()
    if not folder.is_dir():
        return None
    inner = held_out_folders(folder) if part == "validation" else ["test"]
    return next((below for name in inner if (below := folder / name).is_dir()), folder).resolve()


def read_target(folder: Path, part: str, source: DataSet, workers: int) -> FolderImages:
    """Read a folder of class folders as a target domain.

    Args:
        folder: Folder with one folder per class, see `read_classes`.
        part: `validation` or `test`.
        source: Data set that is trained on.
        workers: Decoding processes.

    Raises:
        RequestError: The source is gray; or the folder has other classes.
    """
    if source.channels != 3:
        rule = f"data.{part}_from must be a data set where {source.name} is gray, since a folder is read as RGB"
        raise RequestError(rule, value=str(folder))
    return read_classes(folder, source, workers)


def read_classes(folder: Path, source: DataSet, workers: int) -> FolderImages:
    """Read a folder of class folders whose classes must be those of another data set.

    Args:
        folder: Folder with one folder per class.
        source: Data set whose classes and size the images must have. Where it is a folder, too, classes must have the
            same names; else the folders in alphabetical order are its classes 0 … K − 1.
        workers: Decoding processes.

    Raises:
        RequestError: The folder has other classes, or no images.
    """
    folder = folder.expanduser().absolute()
    found = class_folders(folder)
    known = _class_names(source.train)
    if len(found) != source.classes or (known is not None and found != known):
        expected = ", ".join(known or [f"{source.classes} classes"])
        raise RequestError(f"{folder} must have the classes that are trained on: {expected}", value=", ".join(found))
    return scan_classes(folder, found, source.size, workers)


def _class_names(images: Images) -> list[str] | None:
    """Return the names of the class folders, which may have folders of their own; None for other images."""
    if not isinstance(images, FolderImages):
        return None
    above = Path(os.path.commonpath(images.files))  # the folder of the class folders, since there are at least two
    return sorted({Path(file).relative_to(above).parts[0] for file in images.files})


def check_disjoint(data: DataSet) -> None:
    """Check that no file is in two parts of a data set.

    Raises:
        RequestError: One is.
    """
    seen: dict[str, str] = {}
    real = cache(os.path.realpath)
    for part in ("train", "validation", "test", "in_domain"):
        images = getattr(data, part)
        if not isinstance(images, FolderImages):
            continue
        for file in images.files:
            folder, name = os.path.split(file)
            if (other := seen.setdefault(f"{real(folder)}/{name}", part)) != part:
                rule = f"{other} and {part} images must be different files"
                raise RequestError(rule, value=file, hint="choose other folders for data.validation_from or test_from")
