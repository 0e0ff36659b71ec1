"""Calls to MLflow that fail at once, and print nothing."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator


class _Brisk:
    """Context of calls to MLflow without its own minutes of retries, its log lines and its prints.

    MLflow takes these settings only from the environment: they are set while a call runs, in any thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls = 0
        self._before: dict[str, str | None] = {}

    @contextlib.contextmanager
    def calls(self) -> Iterator[None]:
        """Make the calls in this block fail at once and print nothing."""
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
