"""A sweep's journal: what happened, one line each, written before anybody is told, so that a sweep survives any death.

A sweep that is resumed runs through the same code as a new one; where the journal says that something is over, it is
not done again, and what was half done goes on from its last checkpoint. Nothing else has to be kept for that: draws
follow from seeds and places, not from a state.
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
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from results.runlog.history import FILE
from results.runlog.lineage import Exploit
from results.runlog.members import METRIC, Report
from spaces.core.errors import RequestError, WorkError


@dataclass
class Progress:
    """How far a member is.

    Args:
        name: the member's.
        epoch: that its checkpoint was written after; 0: there is none.
        checkpoint: folder of the state that it goes on from: its own, or that of the donor that it copied.
        genome: its present one, as plain data; None: the one that it started with.
        boundary: the epoch of the last perturbation that it took part in.
        reports: of every epoch that it was trained, in order; of earlier lives of the sweep, as read from the file.
        scores: (epoch, validation accuracy) of the weights that it has now.
        last: its last report.
        ended: nothing more will be done with it.
        stopped: it ended early, because a scheduler wanted it to.
        error: why it failed, one line; empty: it did not.
    """

    name: str
    epoch: int = 0
    checkpoint: Path | None = None
    genome: Mapping[str, Any] | None = None
    boundary: int = 0
    reports: list[Report] = field(default_factory=list)
    scores: list[tuple[int, float]] = field(default_factory=list)
    last: Report | None = None
    ended: bool = False
    stopped: bool = False
    error: str = ""
    ahead: set[int] = field(default_factory=set)
    """Epochs reported since the checkpoint: after a retry they come again."""

    def score(self, window: int) -> float:
        """The last score, if it is of the last `window` epochs, else NaN.

        Not the best: that is an epoch's luck, of weights that are gone (see `benchmarks/training/validation.py`).
        """
        recent = (score for epoch, score in reversed(self.scores) if epoch > self.epoch - window)
        return next((score for score in recent if not math.isnan(score)), math.nan)

    def over(self, epochs: int) -> bool:
        """Whether nothing is left to do of a training of `epochs`."""
        return self.epoch >= epochs or (self.ended and (bool(self.error) or self.stopped))


class Journal:
    """The journal of the sweep in `folder`; there is one writer at a time, which also removes old checkpoints.

    `life` counts the times that the sweep was started, `ticket` is the name by which MLflow knows its run.

    Raises:
        RequestError: another process runs this sweep, or the file cannot be written or read.
    """

    def __init__(self, folder: Path) -> None:
        """Read what is there, and begin a new life."""
        self.folder = folder.resolve()
        self.members: dict[str, Progress] = {}
        self.life, self.ticket, self.seconds = 0, "", 0.0
        self._notes: dict[str, list[dict[str, Any]]] = {}
        self._births: list[tuple[int, int]] = []
        self._users: Counter[Path] = Counter()
        path = self.folder / FILE
        try:
            self._file = path.open("a+b")
            try:
                self._lock()
                self._read(path)
            except BaseException:
                self._file.close()
                raise
        except OSError as error:
            raise RequestError(f"cannot keep a journal in {folder}: {error.strerror or error}") from error
        self.seconds = sum(max(0, last - first) for first, last in self._births) / 1000  # a clock may be set back
        self._write("started", life=self.life + 1, ticket=self.ticket or uuid.uuid4().hex)
        self._tidy()

    def __enter__(self) -> Self:
        """This journal."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let another process go on."""
        with contextlib.suppress(OSError):  # what could not be written was told when it could not
            self._file.close()

    @property
    def trials(self) -> Path:
        """Where this life's trials keep what Ray Tune writes."""
        return self.folder / "trials" / f"{self.life:03d}"

    def progress(self, member: str) -> Progress:
        """How far the member is; of one that nobody heard of, not at all."""
        return self.members.get(member) or Progress(member)

    # What happens ---------------------------------------------------------------------------------------------------

    def reported(self, member: str, epoch: int, metrics: Mapping[str, float]) -> bool:
        """A member reported an epoch; False: it had done so before it was started again from its checkpoint."""
        if epoch in self.progress(member).ahead:
            return False
        numbers = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        self._write("reported", member=member, epoch=epoch, metrics=numbers)
        return True

    def saved(self, member: str, epoch: int, checkpoint: Path) -> None:
        """A member's checkpoint is on disk, of the last epoch that it reported; the one before is removed."""
        self._write("saved", durable=True, member=member, epoch=epoch, checkpoint=self._relative(checkpoint))

    def perturbed(self, stage: str, epoch: int, scores: Mapping[str, float], copies: Sequence[Exploit]) -> None:
        """A population was perturbed: those in `scores` waited for it, and some of them copied others."""
        numbers = {name: None if math.isnan(score) else score for name, score in scores.items()}
        events = [event.to_json() for event in copies]
        self._write("perturbed", durable=True, stage=stage, epoch=epoch, scores=numbers, copies=events)

    def ended(self, member: str, *, stopped: bool = False, error: str = "") -> None:
        """A member is through, failed, or was stopped early."""
        self._write("ended", durable=True, member=member, stopped=stopped, error=error)

    def note(self, kind: str, **content: Any) -> None:
        """Anything else that must not be done twice, as plain data."""
        self._write(kind, durable=True, **content)

    def notes(self, kind: str) -> list[dict[str, Any]]:
        """What was noted of a kind, in order."""
        return self._notes.get(kind, [])

    def forgive(self, members: Sequence[str]) -> None:
        """Where all of `members` failed, nothing was found: a new life tries them again from where they were."""
        known = [self.progress(name) for name in members]
        if known and all(progress.ended and progress.error for progress in known):
            for progress in known:
                self._write("retried", member=progress.name)

    def copies(self, stage: str) -> list[Exploit]:
        """Who copied whom in a stage, in order."""
        events = [event for event in self.notes("perturbed") if event["stage"] == stage]
        return [Exploit.from_json(copy) for event in events for copy in event["copies"]]

    # The file -------------------------------------------------------------------------------------------------------

    def _write(self, kind: str, *, durable: bool = False, **content: Any) -> None:
        line = {"event": kind, "at": int(time.time() * 1000), **content}
        try:
            self._file.write(json.dumps(line, allow_nan=False).encode() + b"\n")
            self._file.flush()
            if durable:
                os.fsync(self._file.fileno())
        except OSError as error:
            hint = "make room, and go on with --resume"
            raise WorkError(f"cannot write {self.folder / FILE}: {error.strerror or error}; {hint}") from error
        self._apply(line)

    def _read(self, path: Path) -> None:
        whole = 0
        for number, line in enumerate(path.read_bytes().splitlines(keepends=True), start=1):
            try:
                event = json.loads(line) if line.endswith(b"\n") else None
                if event is not None:
                    self._apply(event, past=True)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise RequestError(f"line {number} of {path} is damaged: {error!r}") from error
            if event is None:
                break  # the last line was cut off by a crash
            whole += len(line)
        self._file.truncate(whole)

    def _apply(self, event: dict[str, Any], past: bool = False) -> None:
        """Fold one line into what is known; `past`: it is from an earlier life."""
        kind = event["event"]
        if past and self._births:
            self._births[-1] = self._births[-1][0], event["at"]
        progress = self.members.setdefault(event["member"], Progress(event["member"])) if "member" in event else None
        if kind == "started":
            self.life, self.ticket = event["life"], event["ticket"]
            if past:
                self._births.append((event["at"], event["at"]))
        elif kind == "reported" and progress is not None:
            metrics = {name: math.nan if value is None else value for name, value in event["metrics"].items()}
            progress.last = Report(event["epoch"], event["at"], metrics)
            progress.ahead.add(event["epoch"])
            if METRIC in metrics:
                progress.scores.append((event["epoch"], metrics[METRIC]))
            if past:
                progress.reports.append(progress.last)
        elif kind == "saved" and progress is not None:
            progress.epoch = event["epoch"]
            progress.ahead.clear()
            self._goes_on_from(progress, self.folder / event["checkpoint"], past)
        elif kind == "ended" and progress is not None:
            progress.ended, progress.stopped, progress.error = True, event["stopped"], event["error"]
        elif kind == "retried" and progress is not None:
            progress.ended, progress.stopped, progress.error = False, False, ""
        else:
            self._notes.setdefault(kind, []).append(event)
            if kind == "perturbed":
                self._perturb(event, past)

    def _perturb(self, event: dict[str, Any], past: bool) -> None:
        for name in event["scores"]:
            self.members[name].boundary = self.members[name].epoch
        for copy in event["copies"]:
            target, donor = self.members[copy["target"]], self.members[copy["donor"]]
            target.epoch = target.boundary = copy["epoch"]
            target.genome = copy["after"]
            target.scores = []
            target.ahead.clear()
            self._goes_on_from(target, donor.checkpoint, past)

    def _lock(self) -> None:
        """One writer; where the file system knows no locks, nobody is kept out."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RequestError(f"another process runs the sweep in {self.folder}", hint="wait, or end it") from error
        except OSError:
            return

    # Checkpoints ----------------------------------------------------------------------------------------------------

    def _relative(self, checkpoint: Path) -> str:
        """As it is written down: a sweep's folder may be moved."""
        return checkpoint.relative_to(self.folder).as_posix()

    def _goes_on_from(self, progress: Progress, checkpoint: Path | None, past: bool) -> None:
        """Give a member another checkpoint, and remove the one that it had if nobody goes on from that any more."""
        before, progress.checkpoint = progress.checkpoint, checkpoint
        if checkpoint is not None:
            self._users[checkpoint] += 1
        if before is None:
            return
        self._users[before] -= 1
        if not self._users[before]:
            del self._users[before]
            if not past:
                shutil.rmtree(before, ignore_errors=True)

    def _tidy(self) -> None:
        """Remove what earlier lives left behind that nobody goes on from: written, and never heard of."""
        for checkpoint in self._checkpoints():
            if checkpoint not in self._users:
                shutil.rmtree(checkpoint, ignore_errors=True)

    def _checkpoints(self) -> Iterator[Path]:
        with contextlib.suppress(OSError):
            yield from (self.folder / "trials").glob("*/*/*/checkpoint_*")
