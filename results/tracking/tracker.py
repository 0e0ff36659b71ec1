"""Everything that roletune says to MLflow, from a background thread: a dead server never slows training.

`Tracker` turns each call into a job for `results.tracking.delivery`; what cannot be sent is kept by `results.tracking.spool`.
"""

from __future__ import annotations

import contextlib
import getpass
import logging
import math
import numbers
import os
import posixpath
import re
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from results.tracking.client import TrackingClient
from results.tracking.delivery import BATCH, DeliveryThread, Job, Run
from results.tracking.spool import Spool, store_of
from results.tracking.store import answer, connect, cut, one_line, reason, sqlite_uri
from spaces.core.errors import RequestError
from spaces.core.redaction import mask

if TYPE_CHECKING:  # importing MLflow takes seconds
    from mlflow.tracking import MlflowClient

__all__ = ["ENDS", "Run", "Tracker"]

ENDS = ("FINISHED", "FAILED", "KILLED")

_log = logging.getLogger("roletune.tracking")


class Tracker:
    """Tells MLflow about runs, and never makes the caller wait but in `open`, `flush` and `close`.

    Names are made legal (`acc@1` becomes `acc_1`), values are cut to MLflow's limits, credentials are masked.
    `uri` is the store's address as it may be shown; `experiment_id` is MLflow's.
    """

    def __init__(self, folder: Path, uri: str, experiment_id: str, client: MlflowClient) -> None:
        """Use `open`; this is for a client that is already connected."""
        self.uri = mask(uri)
        self.experiment_id = experiment_id
        self._client = client
        self._calls = TrackingClient(client, experiment_id)
        self._spool = Spool(folder, store_of(folder, uri))
        self._ticket: str | None = None
        self._open: dict[Run, None] = {}
        self._known: dict[str, tuple[str, set[str]]] = {}
        self._closed = False
        self._sender = DeliveryThread(self._calls.send)

    @classmethod
    def open(cls, folder: Path, experiment: str, uri: str | None = None) -> Tracker:
        """Connect to the store, and make the experiment if it is new.

        Args:
            folder: the sweep's folder; it holds the default store, and what could not be sent.
            experiment: name of the experiment.
            uri: of the store; None takes `MLFLOW_TRACKING_URI`, else SQLite in `folder`.

        Raises:
            RequestError: the store does not answer, is of no known kind, or the experiment was deleted.
        """
        folder = Path(folder).resolve()
        uri = uri or os.environ.get("MLFLOW_TRACKING_URI") or sqlite_uri(folder / "mlflow.db")
        client, experiment_id = connect(uri, experiment, folder)
        return cls(folder, uri, experiment_id, client)

    def __repr__(self) -> str:
        """The store and the experiment."""
        return f"Tracker({self.uri!r}, experiment_id={self.experiment_id!r})"

    def start(
        self,
        name: str,
        *,
        parent: Run | None = None,
        tags: Mapping[str, str] = {},
        params: Mapping[str, object] = {},
        description: str = "",
    ) -> Run:
        """Begin a run, or go on with the one of that name that `recall` found; nested `params` are flattened with dots.

        MLflow's parameters never change: those that a run has already stay as they are.
        """
        known, there = self._known.pop(name, (None, set()))
        run = Run(name, parent, ticket=self._ticket_of(name, parent))
        if known is not None:
            run._id = known
            run._settled.set()
            self._sender.add(Job("reopen", run))
        else:
            fixed = {"mlflow.source.name": "roletune", "mlflow.user": _user(), "roletune.ticket": run._ticket}
            note = {"mlflow.note.content": description} if description else {}
            self._sender.add(Job("start", run, {"tags": _tags({**fixed, **note, **tags}), "at": _now()}))
        self._open[run] = None
        values = {_key(k): cut(mask(str(v)), 6000) for k, v in _flat(params) if _key(k) not in there}
        if values:
            self._sender.add(Job("params", run, {"params": values}))
        return run

    def recall(self, ticket: str, name: str) -> None:
        """The parent of all runs has this ticket; if it and its children are in the store, `start` goes on with them.

        What an earlier process could not send is sent before, and waited for.

        Args:
            ticket: by which the parent is found again.
            name: of the parent, as `start` will be told; no two of its children have one name.

        Raises:
            RequestError: the store does not answer, or what waits cannot be read.
        """
        self._ticket = ticket
        if waiting := self._spool.read():
            for note in self._spool.send(waiting, self._calls).notes:
                _log.warning("MLflow could not be told what an earlier process had kept: %s", note)
        for parent in self._search(f"tags.`roletune.ticket` = '{ticket}'"):
            self._known = {
                run.info.run_name: (run.info.run_id, set(run.data.params))
                for run in self._search(f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'")
            }
            self._known[name] = (parent.info.run_id, set(parent.data.params))

    def points(self, run: Run, metric: str) -> int:
        """How many values of `metric` an earlier process has sent for a run.

        Raises:
            RequestError: the store does not answer.
        """
        if run._id is None:
            return 0
        run_id = run._id
        return answer(self._client, lambda client: len(client.get_metric_history(run_id, _key(metric))))

    def log(self, run: Run, metrics: Mapping[str, float], step: int = 0, at: int | None = None) -> None:
        """Log numbers at a step; a metric's first NaN or infinity becomes a tag `nonfinite/NAME` instead.

        Args:
            run: that they belong to.
            metrics: by name.
            step: their place on the x axis.
            at: when they were measured, in milliseconds since 1970; None: now.

        MLflow keeps NaN in SQLite as 0 with a flag and infinity as 1.8e308, which spoils plots and sorting.

        Raises:
            RequestError: a value is not a number; none of the metrics is logged then.
        """
        values = {_key(name): _number(name, value) for name, value in metrics.items()}
        now = _now() if at is None else at
        points = [(name, value, now, int(step)) for name, value in values.items() if math.isfinite(value)]
        odd = {n: v for n, v in values.items() if not math.isfinite(v) and n not in run._nonfinite}
        run._nonfinite.update(odd)
        self.tag(run, {f"nonfinite/{name}": f"{value} at step {step}" for name, value in odd.items()})
        for at in range(0, len(points), BATCH):
            self._sender.log(run, points[at : at + BATCH], {})

    def tag(self, run: Run, tags: Mapping[str, str]) -> None:
        """Set tags; a later value of the same tag replaces the earlier one."""
        if tags:
            self._sender.log(run, [], _tags(tags))

    def artifact(self, run: Run, path: Path) -> None:
        """Upload a file or folder; it must be there until it is sent."""
        self._sender.add(Job("artifact", run, {"path": str(Path(path).absolute())}))

    def text(self, run: Run, text: str, name: str) -> None:
        """Upload `text` as the artifact `name`."""
        self._sender.add(Job("text", run, {"text": mask(text), "name": name}))

    def model(
        self,
        run: Run,
        path: Path,
        name: str,
        tags: Mapping[str, str],
        description: str,
        metrics: Sequence[tuple[str, float, int, int]] = (),
    ) -> None:
        """Make the MLflow model in the folder `path` a version of the registered model `name`, once for each run.

        Args:
            run: that trained it.
            path: it must be there until it is sent.
            name: of the registered model, made if it is new.
            tags: of the version.
            description: of the version, in Markdown.
            metrics: of the model: name, value, time in milliseconds, step.
        """
        told = {"name": name, "tags": _tags(tags), "description": description, "metrics": [list(m) for m in metrics]}
        self._sender.add(Job("model", run, {"path": str(Path(path).absolute()), **told}))

    def finish(self, run: Run, status: str = "FINISHED", error: str = "") -> None:
        """End a run, once; the error goes to the tag `error`, on one line of at most 500 characters.

        Raises:
            RequestError: `status` is none of `ENDS`.
        """
        _check_end(status)
        if run not in self._open:
            return
        if error:
            self.tag(run, {"error": one_line(error, 500)})
        self._sender.add(Job("finish", run, {"status": status, "at": _now()}))
        self._open.pop(run)

    def flush(self, timeout: float = 60.0) -> bool:
        """Wait until all is sent; False if that took longer than `timeout` seconds."""
        return self._sender.wait(timeout)

    def close(self, status: str = "KILLED", error: str = "") -> None:
        """End the runs still open, send what is left while that moves, and write down what could not be sent.

        Raises:
            RequestError: `status` is none of `ENDS`.
        """
        _check_end(status)
        if self._closed:
            return
        for run in reversed(list(self._open)):  # children before their parent
            self.finish(run, status, error)
        self._closed = True
        try:
            self._sender.drain()
        finally:  # also on a second Ctrl-C
            self._keep(self._sender.stop())

    def __enter__(self) -> Self:
        """This tracker."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close; runs still open end as FINISHED, as KILLED on Ctrl-C, as FAILED on any other exception."""
        if error is None:
            self.close("FINISHED")
        elif isinstance(error, KeyboardInterrupt):
            self.close("KILLED")
        else:
            self.close("FAILED", f"{type(error).__name__}: {error}")

    def _search(self, query: str) -> list[Any]:
        """All runs of the experiment that `query` finds."""

        def pages(client: MlflowClient) -> list[Any]:
            found: list[Any] = []
            token = None
            while True:
                page = client.search_runs([self.experiment_id], query, max_results=1000, page_token=token)
                found += page
                if not (token := page.token):
                    return found

        return answer(self._client, pages)

    def _ticket_of(self, name: str, parent: Run | None) -> str | None:
        """Where runs are recalled, a child's follows from its parent's, so that no process makes the run again."""
        if self._ticket is None:
            return None
        return self._ticket if parent is None else uuid.uuid5(uuid.UUID(self._ticket), name).hex

    def _keep(self, jobs: list[Job]) -> None:
        if not jobs:
            return
        what = f"{len(jobs)} entries for MLflow at {self.uri} could not be sent"
        try:
            path = self._spool.add(jobs)
            _log.warning("%s: %s keeps them; send them with `roletune sync %s`", what, path, path.parent)
        except RequestError as error:
            _log.warning("%s, nor kept: %s", what, reason(error))


def _key(name: object) -> str:
    """A legal name for MLflow: no odd characters, no path that means another one."""
    return posixpath.normpath(re.sub(r"[^/\w.\- :]", "_", str(name))).lstrip("/.")[:250] or "_"


def _tags(tags: Mapping[str, object]) -> dict[str, str]:
    return {_key(name): cut(mask(str(value)), 8000) for name, value in tags.items()}


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
        raise RequestError(f"a run ends as one of {', '.join(ENDS)}", value=status)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container without a user database
        return "unknown"


def _now() -> int:
    return int(time.time() * 1000)
