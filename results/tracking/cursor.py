"""The cursor of a journal: how much of it has been delivered to which MLflow store.

It is a small file beside the journal. A store is named by its address without credentials; the one in the sweep's own
folder is "", so that the folder may be moved.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from results.tracking.store import sqlite_uri
from spaces.core.errors import RequestError
from spaces.core.io import read_text, write_atomic
from spaces.core.redaction import strip_credentials

CURSOR_FILE = "tracking.cursor.json"


@dataclass(frozen=True)
class Refused:
    """A call that MLflow refused for good, or whose file was gone.

    Args:
        offset: Place of the event in the journal, in bytes.
        op: Kind of the call.
        run: Name of the run.
        reason: Why it was refused, one line.
    """

    offset: int
    op: str
    run: str
    reason: str

    @property
    def key(self) -> tuple[int, str, str]:
        """The offset, op and run, by which the call is found again."""
        return self.offset, self.op, self.run


@dataclass
class Cursor:
    """How far one store is.

    Args:
        folder: Folder of the journal.
        store: The store, as `store_name` names it.
        offset: Bytes of the journal whose events have all been delivered or refused.
        refused: What was refused, by its key.
        known: True if an earlier process has delivered to this store.
    """

    folder: Path
    store: str
    offset: int = 0
    refused: dict[tuple[int, str, str], Refused] = field(default_factory=dict)
    known: bool = False

    @classmethod
    def open(cls, folder: Path, store: str) -> Cursor:
        """Return the cursor of a store, and record a new one before anything is delivered.

        Raises:
            RequestError: If the file is damaged, or cannot be written.
        """
        for cursor in read_cursors(folder):
            if cursor.store == store:
                return cursor
        cursor = cls(folder, store)
        cursor.save()
        return cursor

    def save(self) -> None:
        """Write the cursor, whole or not at all; cursors of other stores stay.

        Raises:
            RequestError: If the file cannot be written.
        """
        plain = {
            "store": self.store,
            "offset": self.offset,
            "refused": [asdict(each) for each in self.refused.values()],
        }
        before = _read(self.folder)
        places = [place for place, other in enumerate(before) if other["store"] == self.store]
        if places:
            before[places[0]] = plain
        else:
            before.append(plain)
        write_atomic(self.folder / CURSOR_FILE, json.dumps({"stores": before}) + "\n")


def read_cursors(folder: Path) -> list[Cursor]:
    """Return the cursors of the journal in `folder`, one a store; none if nothing was delivered.

    Raises:
        RequestError: If the file is damaged.
    """
    found = []
    for each in _read(folder):
        refused = [Refused(**entry) for entry in each["refused"]]
        by_place = {entry.key: entry for entry in refused}
        found.append(Cursor(folder, each["store"], each["offset"], by_place, known=True))
    return found


def store_name(folder: Path, uri: str) -> str:
    """Return the name of the store at `uri`: its address without credentials, or "" for the one in `folder`.

    Example:
        >>> from pathlib import Path
        >>> store_name(Path("/runs/digits-001"), "http://ada:secret@host:5000")
        'http://host:5000'
        >>> store_name(Path("/runs/digits-001"), "sqlite:////runs/digits-001/mlflow.db")
        ''
    """
    return "" if uri == sqlite_uri(folder / "mlflow.db") else strip_credentials(uri)


def _read(folder: Path) -> list[dict[str, Any]]:
    path = folder / CURSOR_FILE
    if not path.exists():
        return []
    try:
        stores = json.loads(read_text(path, "cursor of the journal"))["stores"]
        for each in stores:
            if not (isinstance(each["store"], str) and isinstance(each["offset"], int)):
                raise ValueError(each)
            for entry in each["refused"]:
                Refused(**entry)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        hint = "remove it: everything is sent again, which doubles nothing"
        raise RequestError(f"{path} is damaged", hint=hint) from error
    found: list[dict[str, Any]] = stores
    return found
