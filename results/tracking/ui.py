"""MLflow's own page on a sweep's store."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from results.tracking.database import page
from results.tracking.store import sqlite_uri
from spaces import RequestError

DEFAULT_STORAGE = Path("runs")
STORE = "mlflow.db"


def serve(folder: Path | None, *, host: str, port: int, say: Callable[[str], None]) -> int:
    """Run `mlflow server` on the store of the sweep in `folder` until it is stopped; returns its exit status.

    Args:
        folder: of a sweep; None: the newest in `runs/`.
        host: loopback unless the user says otherwise.
        port: to listen on.
        say: is told the page's address before the server starts.

    Raises:
        RequestError: no such sweep, its store is none that MLflow can open, or the port is taken.
    """
    folder = folder or newest(DEFAULT_STORAGE)
    command = [sys.executable, "-m", "mlflow", "server", *store_arguments(folder)]
    command += ["--host", host, "--port", str(port), "--workers", "1"]  # one reader; each worker is a process of 250 MB
    _check_free(host, port)
    say(f"http://{host}:{port}/{page(folder / STORE)}  ·  {folder}  ·  Ctrl-C stops it")
    elsewhere = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")
    environment = {key: value for key, value in os.environ.items() if key not in elsewhere}
    environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"  # nine more processes, seven of which survive Ctrl-C
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C, or the server would stay behind
    with subprocess.Popen(command, env=environment) as server:
        try:
            return server.wait()
        except KeyboardInterrupt:
            server.terminate()  # and wait: it passes the signal on to the process that answers
            return 0


def newest(storage: Path) -> Path:
    """The sweep in `storage` that was started last.

    Raises:
        RequestError: there is none.
    """
    sweeps = sorted(storage.glob("*/sweep.yaml"), key=lambda path: path.stat().st_mtime)
    if not sweeps:
        raise RequestError(f"no sweep in {storage.resolve()}", hint="give the sweep's folder")
    return sweeps[-1].parent


def store_arguments(folder: Path) -> list[str]:
    """What `mlflow server` must be told to show the store of `folder`.

    Raises:
        RequestError: the sweep keeps no store of its own.
    """
    store = folder / STORE
    if not store.is_file():
        elsewhere = _tracked_elsewhere(folder)
        hint = f"its tracking is at {elsewhere}" if elsewhere else "is this a sweep's folder?"
        raise RequestError(f"no MLflow store in {folder}", hint=hint)
    artifacts = (folder / "artifacts").resolve()
    return ["--backend-store-uri", sqlite_uri(store.resolve()), "--artifacts-destination", artifacts.as_uri()]


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
