"""Servers that a test starts for itself, on loopback, and kills as it likes."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import requests

SECONDS = 120.0
"""That a server may take to answer."""


def empty_store(path):
    """Put MLflow's empty store at `path`; without the tests' own way to do it, the server makes one."""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Mlflow:
    """`mlflow server` on a database; its address stays the same when it is killed and started again."""

    def __init__(self, folder, backend=None, words=(), **environment):
        self.folder, self.port = folder, free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self._store = None if backend else folder / "server.db"
        store = ["--backend-store-uri", backend or f"sqlite:///{self._store}"]
        self._command = [sys.executable, "-m", "mlflow", "server", *words, *store]
        self._command += ["--artifacts-destination", str(folder / "served")]
        self._command += ["--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        kept = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
        self._environment = kept | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"} | environment
        self._process = None

    def start(self):
        if self._store is not None and not self._store.exists():
            empty_store(self._store)
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=self.folder,
                env=self._environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        end = time.monotonic() + SECONDS
        while time.monotonic() < end and self._process.poll() is None:
            try:
                requests.get(f"{self.uri}/health", timeout=5)
            except requests.ConnectionError:
                time.sleep(0.1)
            else:
                return self
        self.kill()
        raise AssertionError((self.folder / "server.log").read_text()[-3000:])

    def kill(self):
        """All of its processes, at once: it can finish nothing."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


class Postgres:
    """A cluster in a folder of its own, on loopback, with one user who has a password."""

    user, password = "keeper", "s3cr3t-of-the-database"

    def __init__(self, folder):
        self._folder, self.port = folder, free_port()
        self.uri = f"postgresql://{self.user}:{self.password}@127.0.0.1:{self.port}/postgres"
        # The superuser may not run it; anybody who may write to the folder can.
        self._as = {"user": "nobody", "group": "nogroup"} if os.geteuid() == 0 else {}

    def start(self):
        self._folder.mkdir()
        secret = self._folder / "password"
        secret.write_text(self.password)
        if self._as:
            shutil.chown(self._folder, self._as["user"])
            shutil.chown(secret, self._as["user"])
        words = ["-U", self.user, "--pwfile", str(secret), "--auth", "scram-sha-256", "--encoding", "UTF8", "--no-sync"]
        self._run("initdb", "-D", self._data, *words)
        options = f"-h 127.0.0.1 -p {self.port} -k '' -F"
        self._run("pg_ctl", "-D", self._data, "-w", "-l", str(self._folder / "log"), "-o", options, "start")
        return self

    def stop(self):
        self._run("pg_ctl", "-D", self._data, "-m", "immediate", "stop")

    @property
    def _data(self):
        return str(self._folder / "data")

    def _run(self, program, *words):
        done = subprocess.run(
            [tool(program), *words],
            cwd=self._folder,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            timeout=SECONDS,
            **self._as,
        )
        assert done.returncode == 0, done.stderr


def tool(program):
    """One of PostgreSQL's programs; None: it is not installed."""
    versions = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{program}"))
    return shutil.which(program) or (str(versions[-1]) if versions else None)
