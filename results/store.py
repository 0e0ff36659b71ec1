"""MLflow's store: reached quickly or refused with the reason, and no credential is ever shown.

Only `mlflow.tracking.MlflowClient` is used: no fluent calls, no global active run, no autolog.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import unquote, urlsplit

from results import views
from spaces.errors import RequestError

if TYPE_CHECKING:  # importing MLflow takes seconds
    from mlflow.tracking import MlflowClient

T = TypeVar("T")

REMOTE, LOCAL, DOWNLOAD = 10.0, 60.0, 600.0
"""Seconds that a server, a SQLite file (a new one takes some) and an artifact may take to answer."""

_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
_PERMANENT = {
    *("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "INVALID_STATE", "NOT_IMPLEMENTED"),
    *("RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS", "NOT_FOUND", "ALREADY_EXISTS"),
}  # not: refused credentials, which may be renewed, nor an unknown address, which a restarting proxy answers
_CREDENTIALS = [
    (re.compile(r"(://[^/@\s:]*:)\S*@"), r"\1***@"),  # also a password with a slash that should be %2F
    (re.compile(r"://[^/@\s:]+@"), "://***@"),
    (re.compile(r"(?i)\b(password|passwd|pwd|token|secret|api_?key|sig|signature)=[^&;,\s'\"]+"), r"\1=***"),
    (re.compile(r"(?i)\b(bearer|basic) +[\w.~+/=-]{8,}"), r"\1 ***"),
]


# The store ------------------------------------------------------------------------------------------------------------


def sqlite_uri(path: Path) -> str:
    """The address of the database file at `path`."""
    escaped = str(path.absolute()).replace("%", "%25").replace("?", "%3F")
    return f"sqlite:///{escaped}"


def connect(uri: str, experiment: str, folder: Path) -> tuple[MlflowClient, str]:
    """A client of the store at `uri`, and the id of `experiment`, which is made if it is new.

    A database that is used without a server gets its artifacts beside it, or in `folder`, not in `./mlruns`.

    Raises:
        RequestError: the store does not answer, is of no known kind, or the experiment was deleted.
    """

    def question(client: MlflowClient) -> tuple[MlflowClient, str]:
        return client, _experiment_id(client, experiment, _artifacts(uri, folder))

    return _ask(uri, question, LOCAL if _sqlite_file(uri) else REMOTE)


def answer(client: MlflowClient, question: Callable[[MlflowClient], T]) -> T:
    """What a store that answered before says to `question`.

    Raises:
        RequestError: it does not answer, or refuses.
    """
    try:
        with BRISK.calls():
            return question(client)
    except Exception as error:  # `from None`: MLflow's own error may spell out the password
        raise _refusal(client.tracking_uri, error) from None


def check_store(uri: str) -> None:
    """Ask the store at `uri` for an answer; nothing is made there.

    Raises:
        RequestError: it does not answer, or is of no known kind.
    """
    if (file := _sqlite_file(uri)) and not file.exists():
        return  # it will be made
    _ask(uri, lambda client: client.search_experiments(max_results=1), LOCAL if file else REMOTE)


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

    return _ask(uri, fetch, DOWNLOAD)


def _ask(uri: str, question: Callable[[MlflowClient], T], limit: float) -> T:
    """What the store at `uri` answers to `question` within `limit` seconds.

    Raises:
        RequestError: it does not answer, or refuses.
    """
    from mlflow.tracking import MlflowClient

    answer: Future[T] = Future()

    def work() -> None:
        try:
            with BRISK.calls():
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
        slow = TimeoutError(f"no answer within {limit:g} seconds")
        raise _refusal(uri, error if answer.done() else slow) from None


def _probe(uri: str) -> None:
    """Try a database once: MLflow itself tries ten times, for 100 seconds, and says why only in its log."""
    if urlsplit(uri).scheme.partition("+")[0] not in _DATABASES:
        return
    import sqlalchemy

    if file := _sqlite_file(uri):
        file.parent.mkdir(parents=True, exist_ok=True)
    engine = sqlalchemy.create_engine(uri)
    try:
        sqlalchemy.inspect(engine).get_table_names()
    finally:
        engine.dispose()


def _experiment_id(client: MlflowClient, name: str, artifacts: str | None) -> str:
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name, artifact_location=artifacts, tags=views.tags()))
        except Exception as error:
            if _code(error) != "RESOURCE_ALREADY_EXISTS" or not (found := client.get_experiment_by_name(name)):
                raise  # else another sweep was faster
    if found.lifecycle_stage == "deleted":
        mend = f"choose another name, or `mlflow experiments restore --experiment-id {found.experiment_id}`"
        raise RequestError(f"the MLflow experiment {name!r} was deleted", mend=mend)
    return str(found.experiment_id)


def _artifacts(uri: str, folder: Path) -> str | None:
    """Where a new experiment keeps its artifacts; None where a server decides."""
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
        """Calls in this block are brisk."""
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


BRISK = _Brisk()


# What its errors mean -------------------------------------------------------------------------------------------------


def may_pass(error: Exception) -> bool:
    """Is it worth trying again? MLflow's own errors say so by their code, others by their kind."""
    if code := _code(error):
        return code not in _PERMANENT
    lasting = (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError)
    return isinstance(error, OSError) and not isinstance(error, lasting)


def reason(error: BaseException) -> str:
    """The deepest OSError that led to `error`, or itself: MLflow wraps "connection refused" four times."""
    deepest, at = error, error.__cause__ or error.__context__
    while at:
        deepest = at if isinstance(at, OSError) else deepest
        at = at.__cause__ or at.__context__
    said = str(deepest).partition("(Background on this error")[0]
    return one_line(said or type(deepest).__name__, 300)


def _refusal(uri: str, error: Exception) -> RequestError:
    rule, got = f"the MLflow store {mask(uri)} must answer", reason(error)
    mend = "start it with `mlflow server`, or unset MLFLOW_TRACKING_URI for a store in the sweep's own folder"
    if "MLFLOW_ALLOW_FILE_STORE" in str(error):
        got = "MLflow no longer writes to plain folders"
        mend = "give sqlite:///PATH/mlflow.db, or set MLFLOW_ALLOW_FILE_STORE=true"
    elif "unsupported URI" in str(error):
        got, mend = "an address of unknown kind", "use http(s)://HOST:PORT or sqlite:///PATH"
    elif _code(error) in ("UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED", "PERMISSION_DENIED"):
        mend = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
    elif _code(error) in _PERMANENT:
        rule, mend = f"the MLflow store {mask(uri)} must accept the request", "check the name or id"
    return RequestError(rule, got=got, mend=mend)


def _code(error: BaseException) -> str:
    return str(getattr(error, "error_code", ""))


# What may be shown ----------------------------------------------------------------------------------------------------


def mask(text: str) -> str:
    """`text` without credentials: those in addresses, and those that MLflow reads from the environment."""
    for pattern, instead in _CREDENTIALS:
        text = pattern.sub(instead, text)
    for name in ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"):
        if len(secret := os.environ.get(name, "")) > 3:  # a shorter one would be found in any word
            text = text.replace(secret, "***")
    return text


def one_line(text: str, most: int) -> str:
    """`text` on one line of at most `most` characters, masked, without colours and control characters."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    return cut(" ".join("".join(c if c.isprintable() else " " for c in mask(plain)).split()), most)


def cut(text: str, most: int) -> str:
    """`text`, or its beginning with an ellipsis, `most` characters in all."""
    return text if len(text) <= most else text[: most - 1] + "…"
