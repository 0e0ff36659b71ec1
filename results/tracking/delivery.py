"""The queue to MLflow: one daemon thread sends the jobs in their order, each until it arrived or was refused for good.

It waits while the server is away, and joins what piles up for one run to batches. Nobody who queues ever waits.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from results.tracking.store import fault, may_pass, reason
from spaces.core.errors import WorkError

BATCH = 1000
"""Metrics a job: what is sent, and sent again, at once."""

PAUSE, LONGEST_PAUSE, CLOSING_PAUSE = 0.5, 30.0, 1.0
"""Seconds between two attempts: the first pause, doubled up to the longest; while closing, always the last."""

GRACE_DOWN, GRACE_UP = 10.0, 60.0
"""Seconds without progress that `drain` bears: server known to be away, or not."""

TRIES = 6
"""Of an upload: an artifact store that stays away must not hold back the metrics for ever."""

OPS = ("start", "reopen", "params", "log", "artifact", "text", "model", "finish")

UPLOADS = ("artifact", "text", "model")

_log = logging.getLogger("roletune.tracking")


class Run:
    """One MLflow run: a handle that is there at once; its id comes when the run has been created.

    What starts with an underscore is the tracker's and its sender's.
    """

    def __init__(self, name: str, parent: Run | None = None, ticket: str | None = None) -> None:
        """A run not yet created; a parent that is itself a child passes on its own parent (one level)."""
        self.name = name
        self._parent: Run | None = (parent._parent or parent) if parent else None
        self._ticket = ticket or uuid.uuid4().hex  # the run is found again by it, if MLflow's answer got lost
        self._id: str | None = None
        self._settled = threading.Event()  # its id is known, or will never be
        self._last: Job | None = None  # the last that waits, which more metrics may join
        self._nonfinite: set[str] = set()

    def id(self, timeout: float = 30.0) -> str | None:
        """MLflow's id of the run, after at most `timeout` seconds; None if it is not known by then."""
        self._settled.wait(timeout)
        return self._id


@dataclass
class Job:
    """One thing to tell MLflow, as `results.tracking.client` does it: `op` is one of `OPS`."""

    op: str
    run: Run
    data: dict[str, Any] = field(default_factory=dict)
    tries: int = 0


class DeliveryThread:
    """Calls `send` with one job at a time; an error that may pass is tried again, any other one drops the job."""

    def __init__(self, send: Callable[[Job], None]) -> None:
        """Start the thread."""
        self._send = send
        self._jobs: deque[Job] = deque()
        self._refused: deque[Job] = deque(maxlen=1000)
        self._warned: set[tuple[str, str]] = set()
        self._changed = threading.Condition()
        self._failing = self._closing = self._stopped = False
        self._moved = time.monotonic()
        self._thread = threading.Thread(target=self._work, name="roletune-tracking", daemon=True)
        self._thread.start()

    def add(self, job: Job) -> None:
        """Queue `job`.

        Raises:
            WorkError: the sender is closed.
        """
        with self._changed:
            if self._closing:
                raise WorkError(f"the tracker is closed: nothing more can be told about run {job.run.name!r}")
            self._jobs.append(job)
            job.run._last = job
            self._changed.notify_all()

    def log(self, run: Run, points: list[Any], tags: dict[str, str]) -> None:
        """Queue at most `BATCH` metrics, and tags, in the last job of the run if that can take them."""
        with self._changed:
            last = run._last
            if last and last.op == "log" and _entities(last) + len(points) + len(tags) <= BATCH:
                last.data["metrics"] += points
                last.data["tags"] |= tags
            else:
                self.add(Job("log", run, {"metrics": points, "tags": tags}))

    def wait(self, timeout: float) -> bool:
        """Wait until all is sent; False if that took longer than `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._jobs, timeout)

    def drain(self) -> None:
        """Take no more jobs, and wait until all are sent or nothing moves any more."""
        with self._changed:
            self._closing, self._moved = True, time.monotonic()
            self._changed.notify_all()
            while self._jobs and time.monotonic() < self._moved + (GRACE_DOWN if self._failing else GRACE_UP):
                self._changed.wait(0.1)

    def stop(self) -> list[Job]:
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
                self._send(job)
            except Exception as error:
                if self._later(job, error):
                    continue
                self._refuse(job, error)
            self._done()

    def _next(self) -> Job | None:
        with self._changed:
            self._changed.wait_for(lambda: self._jobs or self._stopped)
            if self._stopped:
                return None
            job = self._jobs[0]
            if job.run._last is job:  # it is on its way: nothing may join it
                job.run._last = None
            return job

    def _done(self) -> None:
        with self._changed:
            if not self._stopped:  # else the job is already handed over as not sent
                self._jobs.popleft()
            if self._failing:
                _log.info("MLflow answers again")
            self._failing, self._moved = False, time.monotonic()
            self._changed.notify_all()

    def _later(self, job: Job, error: Exception) -> bool:
        """Pause, and say True, if the error may pass."""
        job.tries += 1
        if not may_pass(error) or (job.op in UPLOADS and job.tries >= TRIES):
            return False
        with self._changed:
            if not self._failing:
                _log.warning("MLflow does not answer, training goes on and what it logs waits: %s", reason(error))
            self._failing, closing = True, self._closing
            pause = CLOSING_PAUSE if closing else min(PAUSE * 2 ** min(job.tries - 1, 10), LONGEST_PAUSE)
            self._changed.wait_for(lambda: self._stopped or self._closing != closing, pause)
        return True

    def _refuse(self, job: Job, error: Exception) -> None:
        self._refused.append(job)
        kind = job.op, fault(error)
        if kind not in self._warned:
            self._warned.add(kind)
            _log.warning("MLflow refused %r of run %r: %s", job.op, job.run.name, reason(error))
        if job.op == "start":
            job.run._settled.set()


def _entities(job: Job) -> int:
    """What MLflow counts against the limit of one call."""
    return len(job.data["metrics"]) + len(job.data["tags"])
