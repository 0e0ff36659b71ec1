"""Delivery of what a sweep's MLflow store missed, after the sweep."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from results.runlog.events import JOURNAL_FILE
from results.runlog.history import History
from results.tracking.client import TrackingClient
from results.tracking.cursor import Cursor, read_cursors
from results.tracking.delivery import Delivery, remaining
from results.tracking.projection import Call
from results.tracking.store import check_run, connect, sqlite_uri
from results.tracking.ui import DEFAULT_STORAGE, newest
from spaces.core.errors import RequestError
from spaces.core.io import read_text
from spaces.core.redaction import mask, strip_credentials

TRIES, PAUSE = 4, 1.0
"""Attempts at a call that fails for a reason that may pass, and seconds between them."""


@dataclass(frozen=True)
class SyncResult:
    """The outcome of `sync` for one sweep.

    Args:
        folder: Folder of the sweep.
        store: Address of the store, without a password; empty if there was nothing to deliver.
        sent: Events that arrived.
        left: Events that are still to be delivered.
        dropped: Events that were given up.
        notes: Why others did not arrive, one line for each kind of reason.
    """

    folder: str
    store: str = ""
    sent: int = 0
    left: int = 0
    dropped: int = 0
    notes: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """Return the result as lines of text."""
        if not (self.store or self.left):
            return [f"{self.folder}: nothing is left to deliver"]
        dropped = f", {self.dropped} given up" if self.dropped else ""
        summary = f"{self.folder}: {_events(self.sent)} sent, {self.left} left{dropped}, to {self.store}"
        return [summary, *(f"not sent: {note}" for note in self.notes)]

    def to_json(self) -> dict[str, Any]:
        """Return the result as plain data."""
        return asdict(self)


def sync(folder: Path | None = None, uri: str | None = None, *, drop: bool = False) -> SyncResult:
    """Deliver what MLflow missed of a sweep, and of its evaluations, in order, each event once.

    It may be interrupted anywhere and called again: the cursor beside the journal says what has arrived.

    Args:
        folder: Folder of a sweep that does not run; None for the newest in `runs/`.
        uri: Address of the store; None for the one that the sweep was tracked in. Credentials are those in
            MLFLOW_TRACKING_URI, where that names the same store, else what MLflow and a database's driver take from
            the environment.
        drop: True to give up what can never be delivered, because MLflow refuses it or a file is gone.

    Raises:
        RequestError: If there is no such sweep, it runs, its journal is damaged, or its store does not answer, is
            unknown or is another one.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "sweep.yaml").write_text("name: digits")
        >>> sync(folder).left
        0
    """
    folder = (folder or newest(DEFAULT_STORAGE)).resolve()
    if not folder.is_dir():
        raise RequestError(f"no folder {folder}", hint="give a sweep's folder")
    name, setting = _settings(folder)
    evaluations = sorted(path.parent for path in folder.glob(f"evaluation.*/{JOURNAL_FILE}"))
    journals = [path for path in (folder, *evaluations) if (path / JOURNAL_FILE).is_file()]
    with _locked(journals):
        pending = [
            (cursor, count) for path in journals for cursor in read_cursors(path) if (count := remaining(cursor))
        ]
        if not pending:
            return SyncResult(str(folder))
        store = pending[0][0].store
        address = uri or _address(folder, store, setting)
        found: list[SyncResult] = []
        for cursor, count in pending:
            if cursor.store != store:
                where = cursor.store or "the folder's own store"
                found.append(SyncResult("", left=count, notes=(f"meant for {where}; sync once more",)))
            else:
                found.append(_deliver(cursor, folder, name, address, drop))
    return SyncResult(
        str(folder),
        mask(address),
        sum(each.sent for each in found),
        sum(each.left for each in found),
        sum(each.dropped for each in found),
        tuple(note for each in found for note in each.notes),
    )


def _pause(call: Call, error: Exception) -> bool:  # noqa: ARG001  # as `Delivery` calls it
    if call.tries >= TRIES:
        return False
    time.sleep(PAUSE)
    return True


def _deliver(cursor: Cursor, folder: Path, name: str, address: str, drop: bool) -> SyncResult:
    """Deliver one journal to the store at `address`; however this ends, the cursor says what has arrived."""
    history = History(cursor.folder, keep_reports=False)
    check_run(address, name, _uuid(cursor, history) if cursor.offset else None)
    client = TrackingClient(*connect(address, name, folder), resumed=True)
    delivery = Delivery(cursor, client.send, _pause, tries=TRIES, drop=drop)
    try:
        while delivery.advance():
            pass
    finally:  # also on Ctrl-C; what was on its way then is sent again, which does no harm
        delivery.save()
    left = delivery.remaining() + len(cursor.refused)
    return SyncResult("", "", delivery.sent, left, delivery.dropped, _notes(delivery))


def _uuid(cursor: Cursor, history: History) -> str:
    history.load(cursor.folder / JOURNAL_FILE)
    return history.uuid


def _notes(delivery: Delivery) -> tuple[str, ...]:
    """Why calls did not arrive, one line for each kind of call and of reason."""
    notes: dict[tuple[str, str], list[str]] = {}
    for failure in delivery.failures:
        notes.setdefault(failure.kind, []).append(f"run {failure.run!r}: {failure.reason}")
    return tuple(
        f"{op} of {whys[0]}" + (f" (and {len(whys) - 1} more)" if len(whys) > 1 else "")
        for (op, _), whys in notes.items()
    )


def _events(count: int) -> str:
    return f"{count} event{'' if count == 1 else 's'}"


def _settings(folder: Path) -> tuple[str, str | None]:
    """The experiment's name, and the store's address, of the sweep file.

    Raises:
        RequestError: If there is no such file, or it is no sweep file.
    """
    path = folder / "sweep.yaml"
    try:
        content = yaml.safe_load(read_text(path, "sweep file"))
    except yaml.YAMLError as error:
        raise RequestError(f"{path} must be YAML") from error
    try:
        return str(content["name"]), content.get("tracking", {}).get("uri")
    except (AttributeError, LookupError, TypeError) as error:
        raise RequestError(f"{path} must be the sweep file of a sweep", hint="is this a sweep's folder?") from error


def _address(folder: Path, store: str, setting: str | None) -> str:
    """The address of a store; credentials come from the sweep file's setting or from the environment."""
    if not store:
        return sqlite_uri(folder / "mlflow.db")
    known = [uri for uri in (setting, os.environ.get("MLFLOW_TRACKING_URI")) if uri]
    return next((uri for uri in known if strip_credentials(uri) == store), store)


@contextlib.contextmanager
def _locked(folders: list[Path]) -> Iterator[None]:
    """Keep sweeps from running in `folders` meanwhile, where the file system has locks.

    Raises:
        RequestError: If one runs.
    """
    with contextlib.ExitStack() as held:
        for folder in folders:
            try:
                file = held.enter_context((folder / JOURNAL_FILE).open("ab"))
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                hint = "it delivers what is left when it ends"
                raise RequestError(f"another process runs the sweep in {folder}", hint=hint) from error
            except OSError:
                pass
        yield
