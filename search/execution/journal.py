"""The journal of a sweep: the one writer of its events, and the owner of its checkpoints.

A sweep that is resumed runs through the same code as a new one. What the journal says is over is not done again, and
what was half done goes on from its last checkpoint. Draws follow from seeds and places, so nothing else is stored.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import shutil
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from results.runlog import events
from results.runlog.events import JOURNAL_FILE, Event
from results.runlog.history import History
from results.runlog.lineage import Exploit
from results.runlog.progress import Progress
from spaces.core.errors import RequestError, WorkError

__all__ = ["JOURNAL_FILE", "Journal", "Progress"]


class Journal:
    """The journal of the sweep in `folder`: one writer at a time, which also removes old checkpoints.

    Args:
        folder: Folder of the sweep.

    Attributes:
        folder: Absolute path of the folder.
        history: What happened so far, in all sessions, without the reports.
        session: Number of this session, from 1.
        seconds: Time that earlier sessions took.

    Raises:
        RequestError: If another process runs this sweep, the file cannot be read or written, or an earlier version of
            roletune wrote it.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> with Journal(Path(tempfile.mkdtemp())) as journal:
        ...     journal.reported("student-pbt-00", 1, {"validation_accuracy": 0.5})
        ...     journal.progress("student-pbt-00").last.epoch
        True
        1
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.history = History(self.folder, keep_reports=False)
        path = self.folder / JOURNAL_FILE
        try:
            self._file = path.open("a+b")
            try:
                self._lock()
                self._file.truncate(self.history.load(path))  # without a last line that a crash cut off
            except BaseException:
                self._file.close()
                raise
        except OSError as error:
            raise RequestError(f"cannot keep a journal in {folder}: {error.strerror or error}") from error
        sessions = self.history.sessions
        self.session = len(sessions) + 1
        self.seconds = (
            sum(max(0, each.last_event - each.started) for each in sessions) / 1000
        )  # a clock may be set back
        checkpoints = (trial.checkpoint for trial in self.history.trials.values())
        self._users = Counter(checkpoint for checkpoint in checkpoints if checkpoint is not None)
        self.write(events.SessionStarted(session=self.session, uuid=self.history.uuid or uuid.uuid4().hex))
        self._remove_orphans()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let another process go on."""
        with contextlib.suppress(OSError):  # what could not be written was reported when it could not
            self._file.close()

    @property
    def path(self) -> Path:
        """Path of the file."""
        return self.folder / JOURNAL_FILE

    @property
    def members(self) -> Mapping[str, Progress]:
        """How far each trial is, by name."""
        return self.history.trials

    @property
    def trials(self) -> Path:
        """Folder that this session's trials write to."""
        return self.folder / "trials" / f"{self.session:03d}"

    def progress(self, trial: str) -> Progress:
        """Return how far a trial is."""
        return self.history.progress(trial)

    # What happens -----------------------------------------------------------------------------------------------------

    def write(self, event: Event) -> None:
        """Append an event with the present time, and fold it into the history.

        Raises:
            WorkError: If the file cannot be written.
        """
        event = replace(event, at=int(time.time() * 1000))
        try:
            self._file.write(json.dumps(event.to_json(), allow_nan=False).encode() + b"\n")
            self._file.flush()
            if event.durable:
                os.fsync(self._file.fileno())
        except OSError as error:
            hint = "make room, and go on with --resume"
            raise WorkError(f"cannot write {self.path}: {error.strerror or error}; {hint}") from error
        self._apply(event)

    def reported(self, trial: str, epoch: int, metrics: Mapping[str, float]) -> bool:
        """Record an epoch; return False if it was recorded before the trial went back to its checkpoint."""
        if epoch in self.progress(trial).unsaved:
            return False
        finite = {name: value if math.isfinite(value) else math.nan for name, value in metrics.items()}
        self.write(events.TrialReported(trial=trial, epoch=epoch, metrics=finite))
        return True

    def saved(self, trial: str, epoch: int, checkpoint: Path) -> None:
        """Record a checkpoint of the last epoch that was reported, and remove the one before."""
        place = checkpoint.relative_to(self.folder).as_posix()  # a sweep's folder may be moved
        self.write(events.CheckpointSaved(trial=trial, epoch=epoch, checkpoint=place))

    def perturbed(
        self, stage: str, epoch: int, scores: Mapping[str, float], copies: Sequence[Exploit], generation: int = 0
    ) -> None:
        """Record a perturbation of the trials in `scores`, some of which copied others."""
        plain = tuple(copy.to_json() for copy in copies)
        self.write(
            events.PopulationPerturbed(stage=stage, epoch=epoch, generation=generation, scores=scores, copies=plain)
        )

    def ended(self, trial: str, *, stopped: bool = False, error: str = "", traceback: str = "") -> None:
        """Record that a trial is complete, was stopped early, or failed."""
        epoch = self.progress(trial).epoch
        self.write(events.TrialEnded(trial=trial, epoch=epoch, stopped=stopped, error=error, traceback=traceback))

    def retry_failed(self, trials: Sequence[str]) -> None:
        """Try `trials` again where all of them failed in an earlier session: then nothing was found."""
        known = [self.progress(name) for name in trials]
        if known and all(progress.ended and progress.error for progress in known):
            for progress in known:
                self.write(events.TrialRetried(trial=progress.name))

    # Checkpoints ------------------------------------------------------------------------------------------------------

    def _apply(self, event: Event) -> None:
        """Fold an event in, and remove checkpoints that no trial goes on from any more."""
        changed: set[str] = set()
        if isinstance(event, events.CheckpointSaved):
            changed = {event.trial}
        elif isinstance(event, events.PopulationPerturbed):
            changed = {copy["target"] for copy in event.copies}
        before = [self.progress(name).checkpoint for name in changed]
        self.history.apply(event)
        for name in changed:
            if (checkpoint := self.progress(name).checkpoint) is not None:
                self._users[checkpoint] += 1
        for checkpoint in before:
            if checkpoint is not None:
                self._release(checkpoint)

    def _release(self, checkpoint: Path) -> None:
        self._users[checkpoint] -= 1
        if not self._users[checkpoint]:
            del self._users[checkpoint]
            shutil.rmtree(checkpoint, ignore_errors=True)

    def _remove_orphans(self) -> None:
        """Remove checkpoints of earlier sessions that no trial goes on from: written, and never recorded."""
        for checkpoint in self._checkpoints():
            if checkpoint not in self._users:
                shutil.rmtree(checkpoint, ignore_errors=True)

    def _checkpoints(self) -> Iterator[Path]:
        with contextlib.suppress(OSError):
            yield from (self.folder / "trials").glob("*/*/*/checkpoint_*")

    def _lock(self) -> None:
        """Keep other writers out; a file system without locks keeps nobody out."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RequestError(f"another process runs the sweep in {self.folder}", hint="wait, or end it") from error
        except OSError:
            return
