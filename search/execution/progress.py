"""What a person sees while a sweep runs: stage, generation, best so far, time left."""

from __future__ import annotations

import math
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class ProgressReporter:
    """Progress on a terminal as one living line, elsewhere as a line per event.

    Args:
        console: written to; None keeps quiet.
        total: epochs of training in the whole sweep, over all trials.
    """

    def __init__(self, console: Console | None, total: int) -> None:
        """Prepare the line; it appears on entering."""
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
        """Show the line."""
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take the line away."""
        self._progress.stop()

    def stage(self, title: str) -> None:
        """A new stage begins."""
        self._title, self._best, self._generation = title, -math.inf, ""
        self.say(f"[bold]{title}[/bold]")
        self._describe()

    def epoch(self, score: float | None) -> None:
        """One epoch of one trial was trained; `score` is its validation accuracy, if it was measured."""
        if score is not None and score > self._best:
            self._best = score
        self._progress.advance(self._task)
        self._describe()

    def skip(self, epochs: int) -> None:
        """`epochs` of a trial that failed will not come."""
        self._progress.advance(self._task, epochs)

    def generation(self, number: int, count: int, scores: dict[str, float], copies: int) -> None:
        """The population was perturbed."""
        known = [score for score in scores.values() if not math.isnan(score)]
        spread = f"{min(known):.3f} … {max(known):.3f}" if known else "no score"
        self._generation = f"generation {number}/{count}"
        copied = f"{copies} {'copy' if copies == 1 else 'copies'}"
        self.say(f"  generation {number}/{count}  validation {spread}  {copied}")
        self._describe()

    def say(self, text: str) -> None:
        """A line that stays."""
        if self._console is not None:
            self._progress.console.print(text, highlight=False)

    def _describe(self) -> None:
        best = f"best {self._best:.3f}" if self._best > -math.inf else ""
        parts = [part for part in (self._title, self._generation, best) if part]
        self._progress.update(self._task, description=" · ".join(parts))
