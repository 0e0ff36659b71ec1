"""Processes that a test starts, that Ctrl-C reaches, and of which nothing is left afterwards."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import contextmanager, suppress


@contextmanager
def child(command, **words):
    """A process that leads a group of its own, and heeds SIGINT; at the end the whole group is killed.

    A process that was started with SIGINT ignored, as a script's `… &` and nohup do, hands that on to its children;
    where the signal is caught instead, a new program has it at its default.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen(command, start_new_session=True, **words)
    finally:
        signal.signal(signal.SIGINT, before)
    with process:  # waits for it and closes its pipes, or the collector complains in the middle of another test
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
