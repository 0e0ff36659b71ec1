"""What a sweep could not tell MLflow, because its server was away, is sent when it is back."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from results.tracking.client import TrackingClient
from results.tracking.spool import Spool, lines, store_of
from results.tracking.store import check_runs, connect, sqlite_uri
from results.tracking.ui import DEFAULT_STORAGE, newest
from spaces.core.errors import RequestError
from spaces.core.io import read_text
from spaces.core.redaction import mask, strip_credentials

JOURNAL = "journal.jsonl"
"""Locked by the process that runs the sweep."""


@dataclass(frozen=True)
class Synced:
    """What was sent of a sweep.

    Args:
        folder: the sweep's.
        store: MLflow's, without credentials; empty: there was nothing to send.
        sent: entries that arrived.
        left: entries that are still in the folder.
        dropped: entries that were given up.
        notes: why others did not arrive, one line for each kind of reason.
    """

    folder: str
    store: str = ""
    sent: int = 0
    left: int = 0
    dropped: int = 0
    notes: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """What is to be said of it."""
        if not (self.store or self.left):
            return [f"{self.folder}: nothing waits to be sent"]
        dropped = f", {self.dropped} given up" if self.dropped else ""
        told = f"{self.folder}: {_entries(self.sent)} sent, {self.left} left{dropped}, to {self.store}"
        return [told, *(f"not sent: {note}" for note in self.notes)]

    def to_json(self) -> dict[str, Any]:
        """Plain data for programs."""
        return asdict(self)


def sync(folder: Path | None = None, uri: str | None = None, *, drop: bool = False) -> Synced:
    """Send what the sweep in `folder` has kept for MLflow, in order, each entry once.

    Interrupted anywhere, it can be called again; what has arrived leaves the folder.

    Args:
        folder: of a sweep that does not run; None: the newest in `runs/`.
        uri: of the store; None: the one that the sweep was tracked in. Credentials are those in MLFLOW_TRACKING_URI,
            where that names the same store, else what MLflow and a database's driver take from the environment.
        drop: give up what can never be sent, because MLflow refuses it or a file is gone.

    Raises:
        RequestError: there is no such sweep, it runs, or its store does not answer, is not known or is another one.
    """
    folder = (folder or newest(DEFAULT_STORAGE)).resolve()
    if not folder.is_dir():
        raise RequestError(f"no folder {folder}", hint="give a sweep's folder")
    name, told = _settings(folder)
    with _alone(folder):
        content = lines(folder)
        if not content:
            return Synced(str(folder))
        address = uri or _address(folder, content[0].get("store"), told)
        spool = Spool(folder, content[0].get("store", store_of(folder, address)))
        jobs = spool.read()
        check_runs(address, {job.run._id for job in jobs if job.run._id})
        done = spool.send(jobs, TrackingClient(*connect(address, name, folder)), drop=drop)
        left = lines(folder)
        elsewhere = {line["store"] or "the folder's own store" for line in left if not spool.holds(line)}
        others = [f"meant for {store}; sync once more" for store in sorted(elsewhere)]
        return Synced(str(folder), mask(address), done.sent, len(left), done.dropped, (*done.notes, *others))


def _entries(count: int) -> str:
    return f"{count} entr{'y' if count == 1 else 'ies'}"


def _settings(folder: Path) -> tuple[str, str | None]:
    """The experiment's name, and the store's address, of the sweep file.

    Raises:
        RequestError: it is not there, or is none.
    """
    path = folder / "sweep.yaml"
    try:
        content = yaml.safe_load(read_text(path, "sweep file"))
    except yaml.YAMLError as error:
        raise RequestError(f"{path} is no YAML") from error
    try:
        return str(content["name"]), content.get("tracking", {}).get("uri")
    except (AttributeError, LookupError, TypeError) as error:
        raise RequestError(f"{path} is not what a sweep keeps of its file", hint="is this a sweep's folder?") from error


def _address(folder: Path, store: str | None, told: str | None) -> str:
    """Where entries go that are meant for `store`; None: an older file does not say. The sweep file may have `told`.

    Raises:
        RequestError: nobody knows.
    """
    own = folder / "mlflow.db"
    known = [uri for uri in (told, os.environ.get("MLFLOW_TRACKING_URI")) if uri]
    if store:
        return next((uri for uri in known if strip_credentials(uri) == store), store)
    if store == "" or own.is_file():
        return sqlite_uri(own)
    if not known:
        raise RequestError(f"no MLflow store in {folder}", hint="set MLFLOW_TRACKING_URI, or give --tracking-uri")
    return known[0]


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Nobody runs the sweep within this block; where the file system knows no locks, or it has no journal, who knows.

    Raises:
        RequestError: somebody does.
    """
    with contextlib.ExitStack() as held:
        try:
            if (folder / JOURNAL).is_file():
                file = held.enter_context((folder / JOURNAL).open("ab"))
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            hint = "it sends what is left when it ends"
            raise RequestError(f"another process runs the sweep in {folder}", hint=hint) from error
        except OSError:
            pass
        yield
