"""MLflow's store: connections, errors, and artifacts; no credential is ever shown.

Only `mlflow.tracking.MlflowClient` is used: no fluent calls, no global active run, no autolog.
"""

from __future__ import annotations

import re
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import unquote, urlsplit

from results.tracking.experiment_page import EXPERIMENT_TAGS
from results.tracking.quiet import BRISK
from spaces.core.errors import RequestError
from spaces.core.redaction import mask

if TYPE_CHECKING:  # importing MLflow takes seconds
    from mlflow.tracking import MlflowClient

T = TypeVar("T")

REMOTE, LOCAL, DOWNLOAD = 10.0, 60.0, 600.0
"""Time limits in s: of a server, of a database (creating one takes some), of an artifact."""

_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
_PERMANENT = {
    *("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "INVALID_STATE", "NOT_IMPLEMENTED"),
    *("RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS", "NOT_FOUND", "ALREADY_EXISTS"),
}  # not: refused credentials, which may be renewed, nor an unknown address, which a restarting proxy answers


# The store ------------------------------------------------------------------------------------------------------------


def sqlite_uri(path: Path) -> str:
    """Return the address of the database file at `path`.

    Example:
        >>> from pathlib import Path
        >>> sqlite_uri(Path("/runs/50% done/mlflow.db"))
        'sqlite:////runs/50%25 done/mlflow.db'
    """
    escaped = str(path.absolute()).replace("%", "%25").replace("?", "%3F")
    return f"sqlite:///{escaped}"


def connect(uri: str, experiment: str, folder: Path) -> tuple[MlflowClient, str]:
    """Return a client of the store at `uri`, and the id of `experiment`, which is created if it is new.

    A database that is used without a server gets its artifacts beside it, or in `folder`, not in `./mlruns`.

    Raises:
        RequestError: If the store does not answer, is of an unknown kind, or the experiment was deleted.
    """

    def question(client: MlflowClient) -> tuple[MlflowClient, str]:
        return client, _experiment_id(client, experiment, _artifacts(uri, folder))

    return _ask(uri, question, LOCAL if _is_database(uri) else REMOTE)


def check_store(uri: str) -> None:
    """Check that the store at `uri` answers; nothing is created there.

    Raises:
        RequestError: If it does not answer, or is of an unknown kind.
    """
    if (file := _sqlite_file(uri)) and not file.exists():
        return  # it will be created
    _ask(uri, lambda client: client.search_experiments(max_results=1), LOCAL if file else REMOTE)


def check_run(uri: str, experiment: str, uuid: str | None) -> None:
    """Check that the store at `uri` has the run of this uuid; nothing is created there.

    Args:
        uri: Address of the store.
        experiment: Name of the experiment.
        uuid: The run's tag `roletune.uuid`; None asks only that the store answers.

    Raises:
        RequestError: If the store does not answer, or is another one.
    """
    if (file := _sqlite_file(uri)) and not file.exists():
        raise RequestError("an MLflow store must be there", value=str(file), hint="check the path")

    def question(client: MlflowClient) -> bool:
        if uuid is None:
            return bool(client.search_experiments(max_results=1)) or True
        found = client.get_experiment_by_name(experiment)
        query = f"tags.`roletune.uuid` = '{uuid}'"
        return found is not None and bool(list(client.search_runs([found.experiment_id], query, max_results=1)))

    if not _ask(uri, question, LOCAL if file else REMOTE):
        hint = "give the one that the sweep was tracked in, with --tracking-uri"
        raise RequestError(f"the MLflow store {mask(uri)} has none of the sweep's runs", hint=hint)


def find_artifact(uri: str, run_id: str, name: str) -> bytes:
    """Return the content of the artifact `name` of a run.

    Raises:
        RequestError: If the store does not answer, or there is no such run or artifact (it lists what there is).
    """
    if (file := _sqlite_file(uri)) and not file.exists():
        raise RequestError("an MLflow store must be there", value=str(file), hint="check the path")

    def fetch(client: MlflowClient) -> bytes:
        names = list(_names(client, run_id))
        if name not in names:
            there = ", ".join(names) or "nothing"
            raise RequestError(f"MLflow run {run_id} has no artifact {name!r}", hint=f"there is: {there}")
        with tempfile.TemporaryDirectory() as folder:
            return Path(client.download_artifacts(run_id, name, folder)).read_bytes()

    return _ask(uri, fetch, DOWNLOAD)


def _ask(uri: str, question: Callable[[MlflowClient], T], limit: float) -> T:
    """Return what the store at `uri` answers to `question` within `limit` seconds.

    Raises:
        RequestError: If it does not answer, or refuses.
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
    """Connect to a database once: MLflow itself tries ten times, for 100 s, and says why only in its log."""
    if not _is_database(uri):
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
            return str(client.create_experiment(name, artifact_location=artifacts, tags=dict(EXPERIMENT_TAGS)))
        except Exception as error:
            if _code(error) != "RESOURCE_ALREADY_EXISTS" or not (found := client.get_experiment_by_name(name)):
                raise  # else another sweep was faster
    if found.lifecycle_stage == "deleted":
        hint = f"choose another name, or `mlflow experiments restore --experiment-id {found.experiment_id}`"
        raise RequestError(f"the MLflow experiment {name!r} was deleted", hint=hint)
    return str(found.experiment_id)


def _artifacts(uri: str, folder: Path) -> str | None:
    """Return where a new experiment keeps its artifacts; None where a server decides."""
    if file := _sqlite_file(uri):
        return (file.parent / "artifacts").as_uri()
    return None if urlsplit(uri).scheme in ("", "file", "http", "https") else (folder / "artifacts").as_uri()


def _is_database(uri: str) -> bool:
    return urlsplit(uri).scheme.partition("+")[0] in _DATABASES


def _sqlite_file(uri: str) -> Path | None:
    scheme, _, path = uri.partition(":///")
    return Path(unquote(path.partition("?")[0])).absolute() if scheme.startswith("sqlite") and path else None


def _names(client: MlflowClient, run_id: str, folder: str | None = None) -> Iterator[str]:
    for entry in client.list_artifacts(run_id, folder):
        if entry.is_dir:
            yield from _names(client, run_id, entry.path)
        else:
            yield entry.path


# What its errors mean -------------------------------------------------------------------------------------------------


def may_pass(error: Exception) -> bool:
    """Return True if a call is worth trying again: MLflow's errors say so by their code, others by their class."""
    if code := _code(error):
        return code not in _PERMANENT
    lasting = (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError)
    return isinstance(error, OSError) and not isinstance(error, lasting)


def error_kind(error: Exception) -> str:
    """Return the code of an MLflow error, or the class of any other."""
    return _code(error) or type(error).__name__


def reason(error: BaseException) -> str:
    """Return the message of the deepest OSError that led to `error`, or its own, on one line.

    MLflow wraps "connection refused" four times.
    """
    deepest, at = error, error.__cause__ or error.__context__
    while at:
        deepest = at if isinstance(at, OSError) else deepest
        at = at.__cause__ or at.__context__
    said = str(deepest).partition("(Background on this error")[0]
    return one_line(said or type(deepest).__name__, 300)


def _refusal(uri: str, error: Exception) -> RequestError:
    rule, value = f"the MLflow store {mask(uri)} must answer", reason(error)
    hint = "start it with `mlflow server`, or unset MLFLOW_TRACKING_URI for a store in the sweep's own folder"
    if "MLFLOW_ALLOW_FILE_STORE" in str(error):
        value = "MLflow no longer writes to plain folders"
        hint = "give sqlite:///PATH/mlflow.db, or set MLFLOW_ALLOW_FILE_STORE=true"
    elif "FATAL:" in str(error):  # PostgreSQL's own words, behind three lots of others'
        value = one_line(str(error).partition("FATAL:")[2].partition("\n")[0], 100)
        hint = "check the address; its password may also be in PGPASSWORD or ~/.pgpass"
    elif isinstance(error, ModuleNotFoundError):
        hint = f"install the database's driver ({error.name}), or name yours, as in postgresql+psycopg2://…"
    elif "unsupported URI" in str(error):
        value, hint = "an address of unknown kind", "use http(s)://HOST:PORT or sqlite:///PATH"
    elif _code(error) in ("UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED", "PERMISSION_DENIED"):
        hint = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
    elif _code(error) in _PERMANENT:
        rule, hint = f"the MLflow store {mask(uri)} must accept the request", "check the name or id"
    return RequestError(rule, value=value, hint=hint)


def _code(error: BaseException) -> str:
    return str(getattr(error, "error_code", ""))


# Text that may be shown ----------------------------------------------------------------------------------------------


def one_line(text: str, most: int) -> str:
    """Return `text` on one line of at most `most` characters, masked, without colors and control characters.

    Example:
        >>> one_line("no route to http://ada:secret@host:5000", 100)
        'no route to http://ada:***@host:5000'
    """
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    return cut(" ".join("".join(c if c.isprintable() else " " for c in mask(plain)).split()), most)


def cut(text: str, most: int) -> str:
    """Return `text`, or its beginning with an ellipsis, `most` characters in all.

    Example:
        >>> cut("validation", 5)
        'vali…'
    """
    return text if len(text) <= most else text[: most - 1] + "…"
