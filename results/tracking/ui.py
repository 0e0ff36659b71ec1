"""MLflow's page for the store of a sweep."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

from results.tracking.experiment_page import runs_page, schedules_page
from results.tracking.quiet import BRISK
from results.tracking.store import reason, sqlite_uri
from spaces import RequestError

DEFAULT_STORAGE = Path("runs")
STORE = "mlflow.db"

FROM_ROLETUNE = "tags.`mlflow.source.name` = 'roletune'"
"""Filter for runs that a sweep made."""


def serve(folder: Path | None, *, host: str, port: int, say: Callable[[str], None]) -> int:
    """Run `mlflow server` on the store of a sweep until it is stopped.

    Args:
        folder: Folder of a sweep; None: the newest in `runs/`.
        host: Address to listen on.
        port: Port to listen on.
        say: Called with the addresses of the page before the server starts.

    Returns:
        Exit status of the server.

    Raises:
        RequestError: There is no such sweep, MLflow cannot open its store, or the port is in use.
    """
    folder = folder or newest(DEFAULT_STORAGE)
    command = [sys.executable, "-m", "mlflow", "server", *store_arguments(folder)]
    command += ["--host", host, "--port", str(port), "--workers", "1"]  # each worker is a process of 250 MB
    _check_free(host, port)
    experiment_id = newest_experiment(folder / STORE)
    home = f"http://{host}:{port}/"
    say(f"{home}{runs_page(experiment_id)}  ·  runs of {folder}  ·  Ctrl-C stops the server")
    say(f"{home}{schedules_page(experiment_id)}  ·  charts of the schedules")
    elsewhere = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")
    environment = {key: value for key, value in os.environ.items() if key not in elsewhere}
    environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"  # nine more processes, seven of which survive Ctrl-C
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C, or the server would keep running
    with subprocess.Popen(command, env=environment) as server:
        try:
            return server.wait()
        except KeyboardInterrupt:
            server.terminate()  # leaving the block waits: the server passes the signal on to its worker
            return 0


def newest(storage: Path) -> Path:
    """Return the folder of the sweep in `storage` that was started last.

    Raises:
        RequestError: There is none.
    """
    sweeps = sorted(storage.glob("*/sweep.yaml"), key=lambda path: path.stat().st_mtime)
    if not sweeps:
        raise RequestError(f"no sweep in {storage.resolve()}", hint="give the sweep's folder")
    return sweeps[-1].parent


def store_arguments(folder: Path) -> list[str]:
    """Return the options of `mlflow server` for the store in `folder`.

    Raises:
        RequestError: The folder has no store.
    """
    store = folder / STORE
    if not store.is_file():
        elsewhere = _tracked_elsewhere(folder)
        hint = f"this sweep is tracked at {elsewhere}" if elsewhere else "is this a sweep's folder?"
        raise RequestError(f"no MLflow store in {folder}", hint=hint)
    artifacts = (folder / "artifacts").resolve()
    return ["--backend-store-uri", sqlite_uri(store.resolve()), "--artifacts-destination", artifacts.as_uri()]


def newest_experiment(store: Path) -> str:
    """Return the id of the experiment with the newest sweep in an SQLite store; without a sweep, the newest experiment.

    The store is opened read-only: MLflow would otherwise create its tables in any database.

    Raises:
        RequestError: The file is not an MLflow store, or has another schema than that of the installed MLflow.
    """
    from mlflow import MlflowClient, __version__
    from mlflow.exceptions import MlflowException

    # MLflow creates the parent folder of an address that starts with `sqlite:///`, here a folder named `file:`.
    uri = f"sqlite+pysqlite:///file:{quote(quote(str(store.resolve())))}?mode=ro&uri=true"
    upgrade = f"for a store of an older version, copy the file, then `mlflow db upgrade {sqlite_uri(store.resolve())}`"
    try:
        with BRISK.calls():
            client = MlflowClient(tracking_uri=uri)
            experiments = client.search_experiments(order_by=["creation_time DESC"])
            ids = [str(experiment.experiment_id) for experiment in experiments]
            sweeps = client.search_runs(ids, FROM_ROLETUNE, max_results=1, order_by=["attributes.start_time DESC"])
    except MlflowException as error:
        rule = f"{store} must have the schema of MLflow {__version__}"
        raise RequestError(f"{rule}: {reason(error)}", hint=upgrade) from error
    except Exception as error:  # whatever SQLAlchemy raises for other files
        raise RequestError(f"{store} is not an MLflow store", hint=f"give the folder of a sweep; {upgrade}") from error
    return str(sweeps[0].info.experiment_id) if sweeps else ids[0]


def _tracked_elsewhere(folder: Path) -> str:
    try:
        uri = json.loads((folder / "result.json").read_text("utf-8"))["tracking_uri"]
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    return str(uri)


def _check_free(host: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise RequestError(
                f"cannot listen on {host}:{port}: {error.strerror}", hint="choose another --port"
            ) from error
