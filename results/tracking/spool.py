"""What MLflow could not be told: kept in `tracking.unsent.jsonl` in the sweep's folder, and sent later.

One job a line: its `op`, the run's name, `ticket`, `id` (null: not created yet) and its `parent`'s ticket, the `store`
that it is meant for, and the job's own data; a metric is [name, value, time in milliseconds, step]. Addresses are
without credentials, the store in the sweep's own folder is "", paths in the folder are relative to it.
"""

from __future__ import annotations

import json
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from results.tracking.client import TrackingClient
from results.tracking.delivery import OPS, UPLOADS, Job, Run
from results.tracking.store import fault, may_pass, reason, sqlite_uri
from spaces.core.errors import RequestError
from spaces.core.io import read_text, write_atomic
from spaces.core.redaction import strip_credentials

UNSENT = "tracking.unsent.jsonl"

TRIES, PAUSE = 4, 1.0
"""Attempts at what fails for a reason that may pass, and seconds between them."""


@dataclass(frozen=True)
class Sent:
    """What became of jobs that were sent later.

    Args:
        sent: how many arrived.
        dropped: how many were given up.
        notes: why others did not arrive, one line for each kind of reason.
    """

    sent: int
    dropped: int
    notes: tuple[str, ...]


class Spool:
    """The unsent jobs of the sweep in `folder` that are meant for `store`, as `store_of` calls it."""

    def __init__(self, folder: Path, store: str) -> None:
        """Read nothing yet."""
        self._folder, self._store = folder, store
        self._path = folder / UNSENT

    def holds(self, line: dict[str, Any]) -> bool:
        """Whether a line is one of these jobs; an older file's may be anybody's."""
        return bool(line.get("store", self._store) == self._store)

    def read(self) -> list[Job]:
        """The jobs, in order.

        Raises:
            RequestError: a line is damaged.
        """
        runs: dict[str, Run] = {}
        return [self._job(line, runs) for line in lines(self._folder) if self.holds(line)]

    def add(self, jobs: list[Job]) -> Path:
        """Keep `jobs` behind those that are there already.

        Returns:
            The file.

        Raises:
            RequestError: it cannot be read or written.
        """
        before = read_text(self._path, "list of unsent entries") if self._path.exists() else ""
        return write_atomic(self._path, before + _text(map(self._line, jobs)))

    def send(self, jobs: list[Job], calls: TrackingClient, *, drop: bool = False) -> Sent:
        """Send `jobs`, all that `read` gave, in order; however this ends, the file holds what did not arrive.

        Where the store does not answer, no more is sent. What never can be, because MLflow refuses it or a file is
        gone, stays in the file.

        Args:
            jobs: of the file.
            calls: to the store.
            drop: take what can never be sent out of the file.

        Raises:
            RequestError: the file cannot be read or written.
        """
        left, held, gone = deque(jobs), list[Job](), 0
        notes: dict[tuple[str, str], list[str]] = {}
        tries = dict.fromkeys(OPS, TRIES)
        try:
            while left:
                job = left[0]
                if error := _attempt(calls, job, tries[job.op]):
                    notes.setdefault((job.op, fault(error)), []).append(f"run {job.run.name!r}: {reason(error)}")
                    if not may_pass(error):
                        gone += drop
                        held += [] if drop else [job]
                    elif job.op in UPLOADS:  # an artifact store that is away must not hold back the metrics
                        held.append(job)
                        tries |= dict.fromkeys(UPLOADS, 1)
                    else:
                        break
                left.popleft()
        finally:  # also on Ctrl-C; what was on its way then is sent again, which does no harm
            self._write([*held, *left])
        told = (
            f"{op} of {whys[0]}" + (f" (and {len(whys) - 1} more)" if len(whys) > 1 else "")
            for (op, _), whys in notes.items()
        )
        return Sent(len(jobs) - len(held) - len(left) - gone, gone, tuple(told))

    def _write(self, jobs: list[Job]) -> None:
        others = [line for line in lines(self._folder) if not self.holds(line)]
        if others or jobs:
            write_atomic(self._path, _text([*others, *map(self._line, jobs)]))
        else:
            self._path.unlink(missing_ok=True)

    def _line(self, job: Job) -> dict[str, Any]:
        run, parent, data = job.run, job.run._parent, dict(job.data)
        if "path" in data and Path(data["path"]).is_relative_to(self._folder):  # which may be moved
            data["path"] = Path(data["path"]).relative_to(self._folder).as_posix()
        above = parent and parent._ticket
        of = {"run": run.name, "ticket": run._ticket, "id": run._id, "parent": above, "store": self._store}
        return {"op": job.op, **of, **data}

    def _job(self, line: dict[str, Any], runs: dict[str, Run]) -> Job:
        """The job of a line; jobs of one run, or of its children, know the same one."""
        own = ("op", "run", "ticket", "id", "parent", "store")
        data = {name: value for name, value in line.items() if name not in own}
        if "path" in data:
            data["path"] = str(self._folder / data["path"])
        ticket, above = line["ticket"], line.get("parent")
        parent = runs.setdefault(above, Run("", ticket=above)) if above else None
        run = runs.setdefault(ticket, Run(line["run"], parent, ticket))
        run.name, run._id = line["run"], run._id or line["id"]
        return Job(line["op"], run, data, tries=1)  # it may have arrived, and only the answer got lost


def store_of(folder: Path, uri: str) -> str:
    """What the file calls the store at `uri`: its address without credentials, or "" for the folder's own."""
    return "" if uri == sqlite_uri(folder / "mlflow.db") else strip_credentials(uri)


def lines(folder: Path) -> list[dict[str, Any]]:
    """What the file in `folder` holds; nothing, if there is none.

    Raises:
        RequestError: a line is damaged, or the file cannot be read.
    """
    path = folder / UNSENT
    if not path.exists():
        return []
    found = []
    for number, text in enumerate(read_text(path, "list of unsent entries").splitlines(), start=1):
        try:
            line = json.loads(text)
            if line["op"] not in OPS or not isinstance(line["ticket"], str) or not {"run", "id"} <= line.keys():
                raise ValueError
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            raise RequestError(f"line {number} of {path} is damaged", hint="remove the line") from error
        found.append(line)
    return found


def _attempt(calls: TrackingClient, job: Job, tries: int) -> Exception | None:
    """Send `job`, if need be several times; why it failed, if it did."""
    for left in reversed(range(tries)):
        try:
            calls.send(job)
        except Exception as error:
            if not left or not may_pass(error):
                return error
            time.sleep(PAUSE)
        else:
            break
    return None


def _text(content: Any) -> str:
    return "".join(json.dumps(line) + "\n" for line in content)
