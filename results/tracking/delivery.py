"""Delivery of a journal to MLflow: reads events behind the cursor, makes the calls, and moves the cursor on.

Live tracking, a resumed sweep and `sync` use the same loop. While the server is away the cursor stands still; the
journal is the queue, so memory does not grow with what is undelivered. A crash between a call and the next write of
the cursor makes some calls twice, which leaves the store as if they were made once.
"""

from __future__ import annotations

import getpass
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from results.runlog.events import JOURNAL_FILE, parse_event
from results.tracking.cursor import Cursor, Refused
from results.tracking.projection import UPLOADS, Call, Projection, merge_calls
from results.tracking.store import error_kind, may_pass, reason
from spaces.core.errors import RequestError

CHUNK = 2_000_000
"""Bytes of the journal that are read at once; all that is held in memory."""

SAVE_EVERY = 1.0
"""Seconds between two writes of the cursor."""

POLL = 0.2
"""Seconds between two looks at the end of the journal."""

PAUSE, LONGEST_PAUSE, CLOSING_PAUSE = 0.5, 30.0, 1.0
"""Seconds between two attempts: the first pause, doubled up to the longest; while closing, always the last."""

GRACE_DOWN, GRACE_UP = 10.0, 60.0
"""Seconds without progress that `DeliveryThread.drain` waits: server known to be away, or not."""

TRIES = 6
"""Attempts at an upload: an artifact store that stays away must not hold back the metrics for ever."""

_log = logging.getLogger("roletune.tracking")


@dataclass(frozen=True)
class Failure:
    """A call that did not arrive.

    Args:
        kind: Kind of the call, and of the error.
        run: Name of the run.
        reason: Why, one line.
    """

    kind: tuple[str, str]
    run: str
    reason: str

    @classmethod
    def of(cls, call: Call, error: Exception) -> Failure:
        """Return the failure of a call."""
        return cls((str(call.op), error_kind(error)), call.run.name, reason(error))


class Delivery:
    """Delivers the journal in a folder from the cursor on, each call in order until it arrives or is refused for good.

    Args:
        cursor: How far the store is; its folder holds the journal.
        send: Makes one call; raises any error of MLflow or of the network.
        pause: Waits after a failed attempt, given the call and its error; returns False to give up for now.
        tries: Attempts at an upload.
        drop: True to give up what is refused, instead of keeping it in the cursor for the next time.
    """

    def __init__(
        self,
        cursor: Cursor,
        send: Callable[[Call], None],
        pause: Callable[[Call, Exception], bool],
        *,
        tries: int = TRIES,
        drop: bool = False,
    ) -> None:
        self.cursor = cursor
        self.sent = self.dropped = 0
        self.failures: list[Failure] = []
        self.offset = cursor.offset  # behind the last event whose calls have all been made
        self._send, self._pause, self._tries, self._drop = send, pause, tries, drop
        self._upload_tries = tries
        self._projection = Projection(cursor.folder, _user())
        self._calls: deque[Call] = deque()
        self._again: deque[Call] = deque()
        self._read_to = 0
        self._saved = time.monotonic()
        self._dirty = self.closed = False

    def advance(self) -> bool | None:
        """Deliver the next part of the journal.

        Returns:
            True if there was something; False at the end of the journal; None if the store is away and `pause` gave up.

        Raises:
            RequestError: If the journal is damaged, or the cursor cannot be written.
        """
        if self._read_to < self.cursor.offset:
            self._replay()
        if not (self._again or self._calls or self._read()):
            return False
        for queue in (self._again, self._calls):
            while queue:
                if not self._deliver(queue[0]):
                    return None
                queue.popleft()
                self.save_if_due()
        self.offset = self._read_to
        return True

    def save_if_due(self) -> None:
        """Write the cursor unless it was written less than `SAVE_EVERY` seconds ago."""
        if time.monotonic() > self._saved + SAVE_EVERY:
            self.save()

    def save(self) -> None:
        """Write the cursor: before the first event that still has a call to be made."""
        if self.closed:
            return
        pending = [offset for call in list(self._calls) for offset in call.offsets]
        offset = max(self.cursor.offset, min(pending, default=self._read_to))
        if offset != self.cursor.offset or self._dirty:
            self.cursor.offset, self._dirty = offset, False
            self.cursor.save()
        self._saved = time.monotonic()

    def remaining(self) -> int:
        """Return the number of events that are still to be delivered; nothing is sent.

        Nothing more can be delivered afterwards.
        """
        if self._read_to < self.cursor.offset:
            self._replay()
        count = sum(call.events for call in self._calls)
        for part in self._parts():
            count += sum(call.events for call in part)
        return count

    # The journal ------------------------------------------------------------------------------------------------------

    def _replay(self) -> None:
        """Read what has been delivered, for what the projection knows, and take up what was refused."""
        end = self.cursor.offset
        for part in self._parts(end):
            for call in part:
                if (call.offsets[0], str(call.op), call.run.name) in self.cursor.refused:
                    self._again.append(call)

    def _read(self) -> bool:
        part = next(self._parts(), None)
        if part is None:
            return False
        self._calls.extend(merge_calls(part))
        return True

    def _parts(self, end: int | None = None) -> Iterator[list[Call]]:
        """Yield the calls of the next events, a chunk at a time, as far as there are complete lines, up to `end`."""
        path = self.cursor.folder / JOURNAL_FILE
        with path.open("rb") as file:
            while end is None or self._read_to < end:
                file.seek(self._read_to)
                size = CHUNK if end is None else min(CHUNK, end - self._read_to)
                chunk = file.read(size)
                if chunk and b"\n" not in chunk:
                    chunk += file.readline()
                chunk = chunk[: chunk.rfind(b"\n") + 1]
                if not chunk:
                    return
                if end is None:
                    os.fsync(file.fileno())  # the journal must not lose what MLflow has
                calls: list[Call] = []
                offset = self._read_to
                for line in chunk.splitlines(keepends=True):
                    calls += self._translated(path, offset, line)
                    offset += len(line)
                self._read_to = offset
                yield calls

    def _translated(self, path: Path, offset: int, line: bytes) -> list[Call]:
        try:
            found = self._projection.calls(parse_event(line))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise RequestError(f"the line at byte {offset} of {path} is damaged: {error!r}") from error
        for call in found:
            call.offsets.append(offset)
        return found

    # A call -----------------------------------------------------------------------------------------------------------

    def _deliver(self, call: Call) -> bool:
        """Make a call; return False if the store is away and `pause` gave up."""
        upload = call.op in UPLOADS
        while True:
            try:
                self._send(call)
            except Exception as error:
                call.tries += 1
                passing = may_pass(error)
                if passing and not (upload and call.tries >= self._upload_tries):
                    if self._pause(call, error):
                        continue
                    self.failures.append(Failure.of(call, error))
                    return False
                if passing:
                    self._upload_tries = 1  # the artifact store is away: later uploads are tried once
                self._refuse(call, error)
            else:
                self._upload_tries = self._tries if upload else self._upload_tries
                self.sent += self._forget(call) or call.events
            return True

    def _refuse(self, call: Call, error: Exception) -> None:
        self.failures.append(Failure.of(call, error))
        known = self._forget(call)
        if self._drop:
            self.dropped += known or len(call.offsets)
            return
        for offset in call.offsets:
            refused = Refused(offset, str(call.op), call.run.name, reason(error))
            self.cursor.refused[refused.key] = refused
        self._dirty = True

    def _forget(self, call: Call) -> int:
        """Take a call out of what was refused; return the number of entries that it had there."""
        keys = [(offset, str(call.op), call.run.name) for offset in call.offsets]
        count = sum(self.cursor.refused.pop(key, None) is not None for key in keys)
        self._dirty |= count > 0
        return count


def remaining(cursor: Cursor) -> int:
    """Return the number of events that MLflow lacks: those behind the cursor, and those that it has refused."""
    reader = Delivery(cursor, lambda call: None, lambda call, error: False)
    return reader.remaining() + len(cursor.refused)


class DeliveryThread:
    """Runs a delivery in the background; nobody who writes the journal ever waits.

    Args:
        cursor: How far the store is.
        send: Makes one call.
    """

    def __init__(self, cursor: Cursor, send: Callable[[Call], None]) -> None:
        self._send = send
        self._delivery = Delivery(cursor, self._sending, self._pause)
        self._path = cursor.folder / JOURNAL_FILE
        self._changed = threading.Condition()
        self._failing = self._closing = self._stopped = False
        self._moved = time.monotonic()
        self._warned: set[tuple[str, str]] = set()
        self._thread = threading.Thread(target=self._work, name="roletune-tracking", daemon=True)
        self._thread.start()

    def wait(self, timeout: float) -> bool:
        """Wait until all that the journal holds by now is delivered; return False after `timeout` seconds."""
        end, deadline = self._path.stat().st_size, time.monotonic() + timeout
        while self._delivery.offset < end and self._thread.is_alive() and time.monotonic() < deadline:
            time.sleep(0.01)
        return self._delivery.offset >= end

    def drain(self) -> None:
        """Wait until all is delivered, or nothing moves any more."""
        end = self._path.stat().st_size
        with self._changed:
            self._closing, self._moved = True, time.monotonic()
            self._changed.notify_all()
            while (
                self._delivery.offset < end
                and self._thread.is_alive()
                and time.monotonic() < self._moved + (GRACE_DOWN if self._failing else GRACE_UP)
            ):
                self._changed.wait(0.05)

    def stop(self) -> Cursor:
        """End the thread, and return the cursor."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        self._thread.join(timeout=1.0)  # it may hang in a call; it is a daemon
        self._delivery.save()
        self._delivery.closed = True
        return self._delivery.cursor

    def _work(self) -> None:
        try:
            while not self._stopped:
                there = self._delivery.advance()
                self._report()
                if there is False:
                    self._idle()
            self._delivery.save()
        except (RequestError, OSError) as error:
            _log.warning("delivery to MLflow stopped: %s", reason(error))

    def _idle(self) -> None:
        self._delivery.save_if_due()
        with self._changed:
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._stopped, POLL)

    def _sending(self, call: Call) -> None:
        if self._stopped:  # a call that hung until after the end
            raise ConnectionError("the delivery has ended")
        self._send(call)
        with self._changed:
            if self._failing:
                _log.info("MLflow answers again")
            self._failing, self._moved = False, time.monotonic()
            self._changed.notify_all()

    def _pause(self, call: Call, error: Exception) -> bool:
        with self._changed:
            if not self._failing and not self._stopped:
                _log.warning(
                    "MLflow does not answer; training goes on, and its events wait in the journal: %s", reason(error)
                )
            self._failing, closing = True, self._closing
            pause = CLOSING_PAUSE if closing else min(PAUSE * 2 ** min(call.tries - 1, 10), LONGEST_PAUSE)
            self._changed.wait_for(lambda: self._stopped or self._closing != closing, pause)
            return not self._stopped

    def _report(self) -> None:
        """Warn once of each kind of refusal."""
        failures, self._delivery.failures = self._delivery.failures, []
        for failure in failures:
            if failure.kind not in self._warned and not self._stopped:
                self._warned.add(failure.kind)
                _log.warning("MLflow refused %r of run %r: %s", failure.kind[0], failure.run, failure.reason)


def _user() -> str:
    with suppress(KeyError, OSError):  # a container without a user database
        return getpass.getuser()
    return "unknown"
