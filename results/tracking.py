"""Everything that roletune says to MLflow, from a background thread: a dead server never slows training.

Only `mlflow.tracking.MlflowClient` is used: no fluent calls, no global active run, no autolog. `Tracker`
turns each call into a job; one daemon thread sends the jobs in order, waits while the server is away, and
joins what piles up for one run to batches. What cannot be sent is written to `tracking.unsent.jsonl`, one job
a line, where a metric is [name, value, time in milliseconds, step].
"""

from __future__ import annotations

import contextlib
import getpass
import json
import logging
import math
import numbers
import os
import posixpath
import re
import tempfile
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import unquote, urlsplit

from spaces.errors import RequestError, WorkError
from spaces.files import write_atomic

if TYPE_CHECKING:  # importing MLflow takes seconds
    from mlflow.tracking import MlflowClient

T = TypeVar("T")

BATCH = 1000  # metrics a batch, MLflow's limit
ENDS = ("FINISHED", "FAILED", "KILLED")
UNSENT = "tracking.unsent.jsonl"

_log = logging.getLogger("roletune.tracking")
_PAUSE, _LONGEST_PAUSE = 0.5, 30.0  # seconds between two attempts: the first pause, doubled up to the longest
_TRIES = 6  # an artifact store that stays away must not hold back the metrics for ever
_REMOTE, _LOCAL, _DOWNLOAD = (
    10.0,
    60.0,
    600.0,
)  # seconds that one question may take; a new SQLite store takes some
_GRACE_DOWN, _GRACE_UP = (
    10.0,
    60.0,
)  # seconds without progress that `close` bears: server known to be away, or not
_PERMANENT = {
    *("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "INVALID_STATE", "NOT_IMPLEMENTED"),
    *("RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS", "NOT_FOUND", "ALREADY_EXISTS"),
}  # not: refused credentials, which may be renewed, nor an unknown address, which a restarting proxy answers


class Run:
    """One MLflow run: a handle that is there at once; its id comes when the run has been created."""

    def __init__(self, name: str, parent: Run | None = None) -> None:
        """A run not yet created; a parent that is itself a child passes on its own parent (one level)."""
        self.name = name
        self._parent: Run | None = (parent._parent or parent) if parent else None
        self._ticket = uuid.uuid4().hex  # the run is found again by it, if MLflow's answer got lost
        self._id: str | None = None
        self._settled = threading.Event()
        self._last: _Job | None = None
        self._nonfinite: set[str] = set()

    def id(self, timeout: float = 30.0) -> str | None:
        """MLflow's id of the run, after at most `timeout` seconds; None if it is not known by then."""
        self._settled.wait(timeout)
        return self._id


@dataclass
class _Job:
    """One thing to tell MLflow: `op` is start, params, log, artifact, text or finish."""

    op: str
    run: Run
    data: dict[str, Any] = field(default_factory=dict)
    taken: bool = False
    tries: int = 0

    def takes(self, points: list[Any], tags: Mapping[str, str]) -> bool:
        """May these metrics and tags still join this batch?"""
        if self.op != "log" or self.taken:
            return False
        return len(self.data["metrics"]) + len(points) <= BATCH and len(self.data["tags"]) + len(tags) <= 100


class _Sender:
    """Sends jobs in their order from a daemon thread, each until it arrived or was refused for good."""

    def __init__(self, send: Callable[[_Job], None]) -> None:
        self._send = send
        self._jobs: deque[_Job] = deque()
        self._refused: deque[_Job] = deque(maxlen=1000)
        self._warned: set[tuple[str, str]] = set()
        self._changed = threading.Condition()
        self._failing = self._closing = self._stopped = False
        self._moved = time.monotonic()
        self._thread = threading.Thread(target=self._work, name="roletune-tracking", daemon=True)
        self._thread.start()

    def add(self, job: _Job) -> None:
        """Queue `job`.

        Raises:
            WorkError: the tracker is closed.
        """
        with self._changed:
            if self._closing:
                raise WorkError(f"the tracker is closed: nothing more can be told about run {job.run.name!r}")
            self._jobs.append(job)
            job.run._last = job
            self._changed.notify_all()

    def log(self, run: Run, points: list[Any], tags: dict[str, str]) -> None:
        """Queue metrics and tags, in the last batch of the run if that still waits and has room."""
        with self._changed:
            last = run._last
            if last and last.takes(points, tags):
                last.data["metrics"] += points
                last.data["tags"] |= tags
            else:
                self.add(_Job("log", run, {"metrics": points, "tags": tags}))

    def wait(self, timeout: float) -> bool:
        """Wait until all is sent; False if that took longer than `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._jobs, timeout)

    def drain(self) -> None:
        """Take no more jobs, and wait until all are sent or nothing moves any more."""
        with self._changed:
            self._closing, self._moved = True, time.monotonic()
            self._changed.notify_all()
            while self._jobs and time.monotonic() < self._moved + (_GRACE_DOWN if self._failing else _GRACE_UP):
                self._changed.wait(0.1)

    def stop(self) -> list[_Job]:
        """End the thread, and hand over the jobs that were refused or not sent."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
            left = [*self._refused, *self._jobs]
        self._thread.join(timeout=1.0)  # it may hang in a call; it is a daemon
        for job in left:
            job.run._settled.set()
        return left

    def _work(self) -> None:
        while job := self._next():
            try:
                with _BRISK.calls():
                    self._send(job)
            except Exception as error:
                if self._later(job, error):
                    continue
                self._refuse(job, error)
            self._done(job)

    def _next(self) -> _Job | None:
        with self._changed:
            self._changed.wait_for(lambda: self._jobs or self._stopped)
            if self._stopped:
                return None
            self._jobs[0].taken = True
            return self._jobs[0]

    def _done(self, job: _Job) -> None:
        with self._changed:
            if self._jobs and not self._stopped:  # a stopped queue is already written down as not sent
                self._jobs.popleft()
            if job.run._last is job:
                job.run._last = None
            if self._failing:
                _log.info("MLflow answers again")
            self._failing, self._moved = False, time.monotonic()
            self._changed.notify_all()

    def _later(self, job: _Job, error: Exception) -> bool:
        """Pause, and say True, if the error may pass."""
        job.tries += 1
        if not _may_pass(error) or (job.op in ("artifact", "text") and job.tries >= _TRIES):
            return False
        with self._changed:
            if not self._failing:
                _log.warning("MLflow does not answer, training goes on and what it logs waits: %s", _reason(error))
            self._failing, closing = True, self._closing
            pause = 1.0 if closing else min(_PAUSE * 2 ** min(job.tries - 1, 10), _LONGEST_PAUSE)
            self._changed.wait_for(lambda: self._stopped or self._closing != closing, pause)
        return True

    def _refuse(self, job: _Job, error: Exception) -> None:
        self._refused.append(job)
        kind = job.op, str(getattr(error, "error_code", type(error).__name__))
        if kind not in self._warned:
            self._warned.add(kind)
            _log.warning("MLflow refused %r of run %r: %s", job.op, job.run.name, _reason(error))
        if job.op == "start":
            job.run._settled.set()


class Tracker:
    """Tells MLflow about runs, and never makes the caller wait but in `open`, `flush` and `close`.

    Names are made legal (`acc@1` becomes `acc_1`), values are cut to MLflow's limits, credentials are masked.
    """

    def __init__(self, folder: Path, uri: str, experiment_id: str, client: MlflowClient) -> None:
        """Use `open`; this is for a client that is already connected."""
        self.uri = uri
        self.experiment_id = experiment_id
        self._folder = folder
        self._client = client
        self._open: dict[Run, None] = {}
        self._closed = False
        self._sender = _Sender(self._send)

    @classmethod
    def open(cls, folder: Path, experiment: str, uri: str | None = None) -> Tracker:
        """Connect to the store, and make the experiment if it is new.

        Args:
            folder: the sweep's folder; it holds the default store, and what could not be sent.
            experiment: name of the experiment.
            uri: of the store; None takes `MLFLOW_TRACKING_URI`, else SQLite in `folder`. A database that is
                used without a server gets its artifacts beside it, not in `./mlruns`.

        Raises:
            RequestError: the store does not answer, is of no known kind, or the experiment was deleted.
        """
        folder = Path(folder).resolve()
        escaped = str(folder).replace("%", "%25").replace("?", "%3F")
        uri = uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{escaped}/mlflow.db"

        def connect(client: MlflowClient) -> tuple[MlflowClient, str]:
            return client, _experiment(client, experiment, _artifacts(uri, folder))

        client, experiment_id = _ask(uri, connect, _LOCAL if _sqlite_file(uri) else _REMOTE)
        return cls(folder, uri, experiment_id, client)

    def __repr__(self) -> str:
        """The store and the experiment, credentials masked."""
        return f"Tracker({mask(self.uri)!r}, experiment_id={self.experiment_id!r})"

    def start(
        self,
        name: str,
        *,
        parent: Run | None = None,
        tags: Mapping[str, str] = {},
        params: Mapping[str, object] = {},
        description: str = "",
    ) -> Run:
        """Begin a run; nested `params` are flattened with dots."""
        run = Run(name, parent)
        fixed = {"mlflow.source.name": "roletune", "mlflow.user": _user(), "roletune.ticket": run._ticket}
        note = {"mlflow.note.content": description} if description else {}
        self._sender.add(_Job("start", run, {"tags": _tags({**fixed, **note, **tags}), "at": _now()}))
        self._open[run] = None
        if params:
            values = {_key(k): _cut(mask(str(v)), 6000) for k, v in _flat(params)}
            self._sender.add(_Job("params", run, {"params": values}))
        return run

    def log(self, run: Run, metrics: Mapping[str, float], step: int = 0) -> None:
        """Log numbers at a step; a metric's first NaN or infinity becomes a tag `nonfinite/NAME` instead.

        MLflow keeps NaN in SQLite as 0 with a flag and infinity as 1.8e308, which spoils plots and sorting.

        Raises:
            RequestError: a value is not a number; none of the metrics is logged then.
        """
        values = {_key(name): _number(name, value) for name, value in metrics.items()}
        now = _now()
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

    def artifact(self, run: Run, path: Path, folder: str = "") -> None:
        """Upload a file or folder to `folder` of the run's artifacts; it must be there until it is sent."""
        self._sender.add(_Job("artifact", run, {"path": str(Path(path).absolute()), "folder": folder}))

    def text(self, run: Run, text: str, name: str) -> None:
        """Upload `text` as the artifact `name`."""
        self._sender.add(_Job("text", run, {"text": text, "name": name}))

    def finish(self, run: Run, status: str = "FINISHED", error: str = "") -> None:
        """End a run, once; the error goes to the tag `error`, on one line of at most 500 characters.

        Raises:
            RequestError: `status` is none of `ENDS`.
        """
        _check_end(status)
        if run not in self._open:
            return
        if error:
            self.tag(run, {"error": _line(error, 500)})
        self._sender.add(_Job("finish", run, {"status": status, "at": _now()}))
        self._open.pop(run, None)

    def flush(self, timeout: float = 60.0) -> bool:
        """Wait until all is sent; False if that took longer than `timeout` seconds."""
        return self._sender.wait(timeout)

    def close(self, status_of_open_runs: str = "KILLED") -> None:
        """End the runs still open, send what is left while that moves, and write down what could not be sent.

        Raises:
            RequestError: the status is none of `ENDS`.
        """
        self._close(status_of_open_runs, "")

    def __enter__(self) -> Self:
        """This tracker."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close; runs still open end as FINISHED, as KILLED on Ctrl-C, as FAILED on any other exception."""
        if error is None:
            self._close("FINISHED", "")
        elif isinstance(error, KeyboardInterrupt):
            self._close("KILLED", "")
        else:
            self._close("FAILED", f"{type(error).__name__}: {error}")

    def _close(self, status: str, error: str) -> None:
        _check_end(status)
        if self._closed:
            return
        for run in reversed(list(self._open)):  # children before their parent
            self.finish(run, status, error)
        self._closed = True
        try:
            self._sender.drain()
        finally:  # also on a second Ctrl-C
            self._spool(self._sender.stop())

    def _spool(self, jobs: list[_Job]) -> None:
        if not jobs:
            return
        path = self._folder / UNSENT
        lines = [{"op": j.op, "run": j.run.name, "ticket": j.run._ticket, "id": j.run._id, **j.data} for j in jobs]
        try:
            before = path.read_text(encoding="utf-8") if path.exists() else ""
            write_atomic(path, before + "".join(json.dumps(line) + "\n" for line in lines))
            _log.warning("%d entries for MLflow at %s could not be sent: see %s", len(jobs), mask(self.uri), path)
        except (RequestError, OSError, UnicodeDecodeError) as error:
            _log.warning("%d entries for MLflow could be neither sent nor kept: %s", len(jobs), _reason(error))

    def _send(self, job: _Job) -> None:
        from mlflow.entities import Metric, Param, RunTag

        client, run_id, data = self._client, job.run._id, job.data
        if job.op == "start":
            self._create(job)
        elif run_id is None:
            raise LookupError("MLflow has not created this run")
        elif job.op == "params":
            client.log_batch(run_id, params=[Param(*item) for item in data["params"].items()])
        elif job.op == "log":
            tags = [RunTag(*item) for item in data["tags"].items()]
            client.log_batch(run_id, metrics=[Metric(*point) for point in data["metrics"]], tags=tags)
        elif job.op == "artifact":
            client.log_artifact(run_id, data["path"], data["folder"] or None)
        elif job.op == "text":
            client.log_text(run_id, data["text"], data["name"])
        else:
            client.set_terminated(run_id, data["status"], data["at"])

    def _create(self, job: _Job) -> None:
        run, tags, parent = job.run, dict(job.data["tags"]), job.run._parent
        if parent and parent._id:
            tags["mlflow.parentRunId"] = parent._id
        found = []
        if job.tries:  # the answer to the earlier attempt may have been lost after the run was made
            query = f"tags.`roletune.ticket` = '{run._ticket}'"
            found = list(self._client.search_runs([self.experiment_id], query, max_results=1))
        made = found[0] if found else self._client.create_run(self.experiment_id, job.data["at"], tags, run.name)
        run._id = made.info.run_id
        run._settled.set()


def find_artifact(uri: str, run_id: str, name: str) -> bytes:
    """The content of the artifact `name` of a run.

    Raises:
        RequestError: the store does not answer, or there is no such run or artifact (it lists what there is).
    """
    if (file := _sqlite_file(uri)) and not file.exists():
        raise RequestError("an MLflow store must be there", got=str(file), mend="check the path")

    def fetch(client: MlflowClient) -> bytes:
        names = list(_names(client, run_id))
        if name not in names:
            there = ", ".join(names) or "nothing"
            raise RequestError(f"MLflow run {run_id} has no artifact {name!r}", mend=f"there is: {there}")
        with tempfile.TemporaryDirectory() as folder:
            return Path(client.download_artifacts(run_id, name, folder)).read_bytes()

    return _ask(uri, fetch, _DOWNLOAD)


def mask(text: str) -> str:
    """`text` without credentials: those in addresses, and those that MLflow reads from the environment."""
    for pattern, instead in _CREDENTIALS:
        text = pattern.sub(instead, text)
    for name in ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"):
        if len(secret := os.environ.get(name, "")) > 3:  # a shorter one would be found in any word
            text = text.replace(secret, "***")
    return text


_CREDENTIALS = [
    (re.compile(r"(://[^/@\s:]*:)\S*@"), r"\1***@"),  # also a password with a slash that should be %2F
    (re.compile(r"://[^/@\s:]+@"), "://***@"),
    (re.compile(r"(?i)\b(password|passwd|pwd|token|secret|api_?key|sig|signature)=[^&;,\s'\"]+"), r"\1=***"),
    (re.compile(r"(?i)\b(bearer|basic) +[\w.~+/=-]{8,}"), r"\1 ***"),
]


def _ask(uri: str, question: Callable[[MlflowClient], T], limit: float) -> T:
    """What the store at `uri` answers to `question` within `limit` seconds.

    Raises:
        RequestError: it does not answer, or refuses.
    """
    from mlflow.tracking import MlflowClient

    answer: Future[T] = Future()

    def work() -> None:
        try:
            with _BRISK.calls():
                _probe(uri)
                answer.set_result(question(MlflowClient(tracking_uri=uri)))
        except BaseException as error:
            answer.set_exception(error)

    threading.Thread(target=work, name="roletune-tracking-ask", daemon=True).start()
    try:
        return answer.result(limit)
    except RequestError:
        raise
    except Exception as error:  # `from None`: MLflow's own error may spell out the password
        slow = TimeoutError(f"no answer within {limit:.0f} seconds")
        raise _refusal(uri, error if answer.done() else slow) from None


def _probe(uri: str) -> None:
    """Try a database once: MLflow itself tries ten times, for 100 seconds, and says why only in its log."""
    if urlsplit(uri).scheme.partition("+")[0] not in ("sqlite", "postgresql", "mysql", "mssql"):
        return
    import sqlalchemy

    if file := _sqlite_file(uri):
        file.parent.mkdir(parents=True, exist_ok=True)
    engine = sqlalchemy.create_engine(uri)
    try:
        sqlalchemy.inspect(engine).get_table_names()
    finally:
        engine.dispose()


def _refusal(uri: str, error: Exception) -> RequestError:
    rule, reason = f"the MLflow store {mask(uri)} must answer", _reason(error)
    mend = "start it with `mlflow server`, or unset MLFLOW_TRACKING_URI for a store in the sweep's own folder"
    if "MLFLOW_ALLOW_FILE_STORE" in str(error):
        reason = "MLflow no longer writes to plain folders"
        mend = "give sqlite:///PATH/mlflow.db, or set MLFLOW_ALLOW_FILE_STORE=true"
    elif "unsupported URI" in str(error):
        reason, mend = "an address of unknown kind", "use http(s)://HOST:PORT or sqlite:///PATH"
    elif _code(error) in ("UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED", "PERMISSION_DENIED"):
        mend = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
    elif _code(error) in _PERMANENT:
        rule, mend = f"the MLflow store {mask(uri)} must accept the request", "check the name or id"
    return RequestError(rule, got=reason, mend=mend)


def _experiment(client: MlflowClient, name: str, artifacts: str | None) -> str:
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name, artifact_location=artifacts))
        except Exception as error:
            if _code(error) != "RESOURCE_ALREADY_EXISTS" or not (found := client.get_experiment_by_name(name)):
                raise  # else another sweep was faster
    if found.lifecycle_stage == "deleted":
        mend = f"choose another name, or `mlflow experiments restore --experiment-id {found.experiment_id}`"
        raise RequestError(f"the MLflow experiment {name!r} was deleted", mend=mend)
    return str(found.experiment_id)


def _artifacts(uri: str, folder: Path) -> str | None:
    """Where a new experiment keeps its artifacts: beside the database; None where a server decides."""
    if file := _sqlite_file(uri):
        return (file.parent / "artifacts").as_uri()
    return None if urlsplit(uri).scheme in ("", "file", "http", "https") else (folder / "artifacts").as_uri()


def _sqlite_file(uri: str) -> Path | None:
    scheme, _, path = uri.partition(":///")
    return Path(unquote(path.partition("?")[0])).absolute() if scheme.startswith("sqlite") and path else None


def _names(client: MlflowClient, run_id: str, folder: str | None = None) -> Iterator[str]:
    for entry in client.list_artifacts(run_id, folder):
        if entry.is_dir:
            yield from _names(client, run_id, entry.path)
        else:
            yield entry.path


class _Brisk:
    """Calls to MLflow without its own minutes of retry, its log lines and its prints.

    MLflow takes these settings only from the environment: they are there while a call runs, in any thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls = 0
        self._before: dict[str, str | None] = {}

    @contextlib.contextmanager
    def calls(self) -> Iterator[None]:
        from mlflow.utils.logging_utils import suppress_logs_in_thread

        self._count(1)
        try:
            with suppress_logs_in_thread():
                yield
        finally:
            self._count(-1)

    def _count(self, change: int) -> None:
        with self._lock:
            if not self._calls:
                patient = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "60"}
                wanted = {k: v for k, v in patient.items() if k not in os.environ} | {
                    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # it prints the password of the address
                    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
                }
                self._before = {name: os.environ.get(name) for name in wanted}
                os.environ.update(wanted)
            self._calls += change
            if not self._calls:
                for name, value in self._before.items():
                    os.environ.pop(name, None)
                    os.environ.update({} if value is None else {name: value})


_BRISK = _Brisk()


def _may_pass(error: Exception) -> bool:
    """Is it worth trying again? MLflow's own errors say so by their code, others by their kind."""
    if code := _code(error):
        return code not in _PERMANENT
    lasting = (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError)
    return isinstance(error, OSError) and not isinstance(error, lasting)


def _code(error: BaseException) -> str:
    return str(getattr(error, "error_code", ""))


def _reason(error: BaseException) -> str:
    """The deepest OSError that led to `error`, or itself: MLflow wraps "connection refused" four times."""
    deepest, at = error, error.__cause__ or error.__context__
    while at:
        deepest = at if isinstance(at, OSError) else deepest
        at = at.__cause__ or at.__context__
    said = str(deepest).partition("(Background on this error")[0]
    return _line(said or type(deepest).__name__, 300)


def _line(text: str, most: int) -> str:
    """`text` on one line, masked, without colours and control characters."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    return _cut(" ".join("".join(c if c.isprintable() else " " for c in mask(plain)).split()), most)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _key(name: object) -> str:
    """A legal name for MLflow: no odd characters, no path that means another one."""
    return posixpath.normpath(re.sub(r"[^/\w.\- :]", "_", str(name))).lstrip("/.")[:250] or "_"


def _tags(tags: Mapping[str, object]) -> dict[str, str]:
    return {_key(name): _cut(mask(str(value)), 8000) for name, value in tags.items()}


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
    raise RequestError(f"the metric {name!r} must be a number", got=value, mend="log anything else with tag or text")


def _check_end(status: str) -> None:
    if status not in ENDS:
        raise RequestError(f"a run ends as one of {', '.join(ENDS)}", got=status)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container without a user database
        return "unknown"


def _now() -> int:
    return int(time.time() * 1000)
