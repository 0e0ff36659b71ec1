"""The tracker of a sweep: its runs are written to the journal, and a background thread delivers them to MLflow."""

from __future__ import annotations

import contextlib
import logging
import numbers
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from results.runlog import events
from results.runlog.events import Event
from results.tracking.client import TrackingClient
from results.tracking.cursor import Cursor, store_name
from results.tracking.delivery import DeliveryThread, remaining
from results.tracking.store import connect, one_line, reason, sqlite_uri
from spaces.core.errors import RequestError, WorkError
from spaces.core.redaction import mask

if TYPE_CHECKING:  # importing MLflow takes seconds
    from mlflow.tracking import MlflowClient

__all__ = ["ENDS", "EventWriter", "Tracker"]

ENDS = ("FINISHED", "FAILED", "KILLED")
"""Statuses that a run ends with."""

_log = logging.getLogger("roletune.tracking")


class EventWriter(Protocol):
    """A sweep's journal, as the tracker needs it."""

    folder: Path

    def write(self, event: Event) -> None:
        """Append an event."""


class Tracker:
    """Writes runs to a journal and delivers the journal to MLflow; only `open`, `flush` and `close` wait.

    Runs are named; no two runs of a journal have the same name. Names are made legal (`acc@1` becomes `acc_1`), values
    are cut to MLflow's limits, and credentials are masked.

    Args:
        folder: Folder of the sweep.
        uri: Address of the store.
        experiment_id: MLflow's id of the experiment.
        client: Client of the store.

    Attributes:
        uri: Address of the store, without a password.
        experiment_id: MLflow's id of the experiment.
    """

    def __init__(self, folder: Path, uri: str, experiment_id: str, client: MlflowClient) -> None:
        self.uri = mask(uri)
        self.experiment_id = experiment_id
        self._folder, self._store = folder, store_name(folder, uri)
        self._client = client
        self._journal: EventWriter | None = None
        self._thread: DeliveryThread | None = None
        self._open: dict[str, None] = {}

    @classmethod
    def open(cls, folder: Path, experiment: str, uri: str | None = None) -> Tracker:
        """Connect to the store, and create the experiment if it is new.

        Args:
            folder: Folder of the sweep; it holds the default store.
            experiment: Name of the experiment.
            uri: Address of the store; None for `MLFLOW_TRACKING_URI`, else SQLite in `folder`.

        Raises:
            RequestError: If the store does not answer, is of an unknown kind, or the experiment was deleted.
        """
        folder = Path(folder).resolve()
        uri = uri or os.environ.get("MLFLOW_TRACKING_URI") or sqlite_uri(folder / "mlflow.db")
        client, experiment_id = connect(uri, experiment, folder)
        return cls(folder, uri, experiment_id, client)

    def __repr__(self) -> str:
        return f"Tracker({self.uri!r}, experiment_id={self.experiment_id!r})"

    def follow(self, journal: EventWriter) -> Self:
        """Deliver the events of `journal` from now on, after those that an earlier session has left.

        Raises:
            RequestError: If the cursor is damaged, or cannot be written.
        """
        cursor = Cursor.open(journal.folder, self._store)
        client = TrackingClient(self._client, self.experiment_id, resumed=cursor.known)
        self._journal, self._thread = journal, DeliveryThread(cursor, client.send)
        return self

    # What runs log ----------------------------------------------------------------------------------------------------

    def start(
        self,
        run: str,
        *,
        parent: str | None = None,
        tags: Mapping[str, str] = {},
        params: Mapping[str, object] = {},
        description: str = "",
    ) -> str:
        """Begin a run, or go on with the one of that name; return its name.

        Args:
            run: Name of the run.
            parent: Name of the run above it; a child's children become children of its parent.
            tags: Tags by name.
            params: Parameters; nested ones are flattened with dots. A run keeps those that it has.
            description: Markdown.
        """
        flat = {name: mask(str(value)) for name, value in _flat(params)}
        self._open[run] = None
        self._write(
            events.RunStarted(run=run, parent=parent, tags=_masked(tags), params=flat, description=mask(description))
        )
        return run

    def log(self, run: str, metrics: Mapping[str, float], step: int = 0) -> None:
        """Log metrics at a step; a metric's first NaN or infinity becomes a tag `nonfinite/NAME` instead.

        Raises:
            RequestError: If a value is not a number; none of the metrics is logged then.
        """
        values = {str(name): _number(name, value) for name, value in metrics.items()}
        self._write(events.MetricsLogged(run=run, metrics=values, step=int(step)))

    def tag(self, run: str, tags: Mapping[str, str]) -> None:
        """Set tags; a later value of a tag replaces the earlier one."""
        if tags:
            self._write(events.TagsSet(run=run, tags=_masked(tags)))

    def artifact(self, run: str, path: Path) -> None:
        """Upload a file or folder; it must be there until it is delivered."""
        self._write(events.ArtifactWritten(run=run, path=self._relative(path)))

    def text(self, run: str, text: str, name: str) -> None:
        """Upload `text` as the artifact `name`."""
        self._write(events.TextWritten(run=run, text=mask(text), name=name))

    def model(
        self,
        run: str,
        path: Path,
        name: str,
        tags: Mapping[str, str],
        description: str,
        metrics: Sequence[tuple[str, float, int, int]] = (),
    ) -> None:
        """Make the MLflow model in a folder a version of a registered model, once for each run.

        Args:
            run: Name of the run that trained it.
            path: Folder of the model; it must be there until it is delivered.
            name: Name of the registered model, created if it is new.
            tags: Tags of the version.
            description: Description of the version in Markdown.
            metrics: Metrics of the model: (name, value, time in ms since 1970, step).
        """
        self._write(
            events.ModelExported(
                run=run,
                path=self._relative(path),
                name=name,
                tags=_masked(tags),
                description=description,
                metrics=tuple(metrics),
            )
        )

    def finish(self, run: str, status: str = "FINISHED", error: str = "") -> None:
        """End a run, once; the error goes to the tag `error`, on one line of at most 500 characters.

        Raises:
            RequestError: If `status` is none of `ENDS`.
        """
        _check_end(status)
        if run in self._open:
            self._open.pop(run)
            self._write(events.RunEnded(run=run, status=status, error=one_line(error, 500)))

    # Delivery ---------------------------------------------------------------------------------------------------------

    def flush(self, timeout: float = 60.0) -> bool:
        """Wait until all is delivered; return False if that took longer than `timeout` seconds."""
        return self._thread is None or self._thread.wait(timeout)

    def close(self, status: str = "KILLED", error: str = "") -> None:
        """End the runs still open, and deliver the rest as long as something moves.

        Raises:
            RequestError: If `status` is none of `ENDS`.
        """
        _check_end(status)
        if self._journal is None or self._thread is None:
            return
        thread = self._thread
        try:
            self._write(events.SessionEnded(status=status, error=one_line(error, 500)))
        finally:  # also where the disk is full
            self._journal = self._thread = None
            try:
                thread.drain()
            finally:  # also on a second Ctrl-C
                self._tell_rest(thread.stop())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close; runs still open end as FINISHED, as KILLED on Ctrl-C, as FAILED on any other exception."""
        if error is None:
            self.close("FINISHED")
            return
        with contextlib.suppress(WorkError):  # where the disk is full, `error` most likely says so
            if isinstance(error, KeyboardInterrupt):
                self.close("KILLED")
            else:
                self.close("FAILED", f"{type(error).__name__}: {error}")

    def _tell_rest(self, cursor: Cursor) -> None:
        try:
            left = remaining(cursor)
        except (RequestError, OSError) as error:
            _log.warning("MLflow at %s may lack events of the journal: %s", self.uri, reason(error))
            return
        if left:
            what = "1 event" if left == 1 else f"{left} events"
            hint = f"the journal keeps them: deliver them with `roletune sync {self._folder}`"
            _log.warning("%s for MLflow at %s could not be delivered; %s", what, self.uri, hint)

    def _write(self, event: Event) -> None:
        if self._journal is None:
            raise RequestError("the tracker must follow a journal, and must not be closed", value=event.kind)
        self._journal.write(event)

    def _relative(self, path: Path) -> str:
        """The path as the journal keeps it: the folder of a sweep may be moved."""
        assert self._journal is not None
        path, folder = Path(path).absolute(), self._journal.folder
        if path.is_relative_to(folder):
            return path.relative_to(folder).as_posix()
        if path.is_relative_to(self._folder):  # of an evaluation, whose journal is in a folder of the sweep's
            return os.path.relpath(path, folder)
        return str(path)


def _masked(tags: Mapping[str, object]) -> dict[str, str]:
    return {name: mask(str(value)) for name, value in tags.items()}


def _flat(params: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, value in params.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _number(name: str, value: Any) -> float:
    scalar = isinstance(value, numbers.Real) or getattr(value, "ndim", None) == 0  # a 0-d array or tensor
    if scalar and not isinstance(value, bool):
        with contextlib.suppress(TypeError, ValueError, OverflowError):
            return float(value)
    raise RequestError(f"the metric {name!r} must be a number", value=value, hint="log anything else with tag or text")


def _check_end(status: str) -> None:
    if status not in ENDS:
        raise RequestError(f"the status of a run must be one of {', '.join(ENDS)}", value=status)
