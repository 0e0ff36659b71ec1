"""The folders of sweeps: `<storage>/<name>-001` and so on."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from results.tracking.tracker import Tracker
from spaces import RequestError
from spaces.core.io import write_atomic

SWEEP_FILE = "sweep.yaml"
"""The resolved sweep file in a sweep's folder."""


def open_folder(
    storage: Path, name: str, text: str, experiment: str, tracking_uri: str | None, resumed: Path | None = None
) -> tuple[Path, Tracker]:
    """Make the folder of a sweep, write its sweep file, and connect to MLflow.

    Args:
        storage: Folder of the sweeps' folders.
        name: Name of the new folder, without its number.
        text: Resolved sweep file.
        experiment: Name of the MLflow experiment.
        tracking_uri: Address of MLflow; None for MLFLOW_TRACKING_URI, or a store in the folder.
        resumed: Folder of a sweep that is resumed, which takes the place of a new one.

    Raises:
        RequestError: The folder cannot be written to, or MLflow does not answer; no new folder is left behind.
    """
    folder = resumed or new_folder(storage, name)
    try:
        write_atomic(folder / SWEEP_FILE, text)
        return folder, Tracker.open(folder, experiment, tracking_uri)
    except BaseException:
        if resumed is None:
            shutil.rmtree(folder, ignore_errors=True)
        raise


def new_folder(storage: Path, name: str) -> Path:
    """Make `storage/name-001`, or with the next number that is free.

    Raises:
        RequestError: The storage cannot be written to.
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
        rule = f"storage must be writable: cannot write to {storage}: {error.strerror or error}"
        raise RequestError(rule, hint="choose another --storage") from error


def numbered(storage: Path, name: str) -> dict[int, Path]:
    """Return the folders of the sweeps of this name by their numbers."""
    pattern = re.compile(re.escape(name) + r"-(\d{3,})")
    return {int(match[1]): path for path in storage.iterdir() if (match := pattern.fullmatch(path.name))}
