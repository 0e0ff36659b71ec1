"""Progress of a sweep on the terminal: stage, generation, best score so far, time left."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from results.runlog.members import is_loss


class ProgressReporter:
    """Progress bar on a terminal, elsewhere one line per event.

    Args:
        console: Console to write to; None prints nothing.
        total: Epochs of training in the whole sweep, over all trials.

    Example:
        >>> with ProgressReporter(None, total=2) as reporter:
        ...     reporter.stage("student search")
        ...     reporter.epoch(0.5)
    """

    def __init__(self, console: Console | None, total: int) -> None:
        self._console = console
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed}/{task.total} epochs"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console or Console(quiet=True),
            disable=console is None or not console.is_terminal,
            transient=True,
        )
        self._task = self._progress.add_task("starting", total=total)
        self._title = ""
        self._best = -math.inf
        self._generation = ""

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def stage(self, title: str) -> None:
        """Begin a new stage."""
        self._title, self._best, self._generation = title, -math.inf, ""
        self.say(f"[bold]{title}[/bold]")
        self._describe()

    def epoch(self, score: float | None) -> None:
        """Count one epoch of one trial; `score` is its validation accuracy, None or NaN if it was not measured."""
        if score is not None and score > self._best:
            self._best = score
        self._progress.advance(self._task)
        self._describe()

    def skip(self, epochs: int) -> None:
        """Count epochs that will not be trained in this session."""
        self._progress.advance(self._task, epochs)

    def generation(
        self, number: int, count: int, scores: Sequence[float], accuracies: Sequence[float], copies: int
    ) -> None:
        """Show that the population was perturbed: validation accuracy, and the loss where that is what counts."""
        loss = ""
        if (known := _known(scores)) and is_loss(min(known)):
            loss = f" (loss {_spread([-score for score in known])})"
        self._generation = f"generation {number}/{count}"
        copied = f"{copies} {'copy' if copies == 1 else 'copies'}"
        self.say(f"  generation {number}/{count}  validation {_spread(_known(accuracies))}{loss}  {copied}")
        self._describe()

    def say(self, text: RenderableType) -> None:
        """Print a line, or a table, that stays."""
        if self._console is not None:
            self._progress.console.print(text, highlight=False)

    def _describe(self) -> None:
        best = f"best {self._best:.3f}" if self._best > -math.inf else ""
        parts = [part for part in (self._title, self._generation, best) if part]
        self._progress.update(self._task, description=" · ".join(parts))


def _known(values: Sequence[float]) -> list[float]:
    return [value for value in values if not math.isnan(value)]


def _spread(values: Sequence[float]) -> str:
    return f"{min(values):.3f} … {max(values):.3f}" if values else "no score"
