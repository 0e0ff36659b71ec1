"""A ranking of augmentations by T. stddev: as a table, as a picture, as data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from spaces.core.io import write_atomic

KEPT, UNINFORMATIVE, REFERENCE = "#2171b5", "#bdbdbd", "#636363"


@dataclass(frozen=True)
class ScreeningResult:
    """What a screening found.

    Args:
        folder: everything that it wrote.
        tracking_uri: MLflow's store, without credentials.
        seconds: from start to end.
        images: drawn for a mean; a mean is over twice as many answers.
        means: taken.
        stopped_early: whether every interval was narrow enough before all means were taken.
        rows: one for each augmentation, as plain data: the informative ones, best first, then the others.
        dropped: labels of those that a sweep goes on without.
    """

    folder: str
    tracking_uri: str
    seconds: float
    images: int
    means: int
    stopped_early: bool
    rows: tuple[Mapping[str, Any], ...]
    dropped: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain data for programs; what is not a number is null."""
        rows = [{key: _finite(value) for key, value in row.items()} for row in self.rows]
        return {**asdict(self), "rows": rows, "dropped": list(self.dropped)}

    def table(self) -> Table:
        """The ranking for a terminal."""
        table = Table(header_style="bold", show_edge=False, pad_edge=False)
        table.add_column("augmentation", overflow="fold")  # so that a long name takes nothing from the figures
        for heading in ("T. stddev\n×1e-3", "ratio to\nidentity", "agree-\nment", "entropy\nnats", "s"):
            table.add_column(heading, justify="right", no_wrap=True)
        for row in self.rows:
            table.add_row(
                escape(_name(row, self.dropped)),
                f"{1e3 * row['t_stddev']:.2f} ± {500 * (row['high'] - row['low']):.2f}",
                f"{row['ratio']:.3f} ± {(row['ratio_high'] - row['ratio_low']) / 2:.3f}",
                f"{row['agreement']:.2f}",
                f"{row['entropy']:.2f}",
                f"{row['seconds']:.1f}",
                style=None if row["informative"] else "dim",
            )
        return table

    def notes(self) -> list[str]:
        """How to read it, and how far to trust it."""
        why = "every interval was narrow enough" if self.stopped_early else "that is all that were asked for"
        notes = [
            "Lower is better; ± is half of the 95 % interval, of a ratio the paired one. A ratio whose interval holds 1"
            " is no better than no augmentation.",
            f"{self.means} means of {2 * self.images} answers ({self.images} images, drawn with replacement); {why}.",
        ]
        if not any(row["informative"] for row in self.rows):
            notes.append("Nothing is ranked: the teacher itself is hardly better than chance on these images.")
        elif uninformative := [row["label"] for row in self.rows if not row["informative"]]:
            names = ", ".join(uninformative)
            notes.append(f"Not ranked, because the teacher no longer knows what it sees: {names}.")
        if self.dropped:
            notes.append(f"Dropped before students are trained: {', '.join(self.dropped)}.")
        return notes

    def markdown(self) -> str:
        """The ranking as a Markdown table."""
        lines = ["| augmentation | T. stddev ×1e-3 | ratio to identity | agreement |", "| --- | ---: | ---: | ---: |"]
        for row in self.rows:
            ratio = f"{row['ratio']:.3f} ({row['ratio_low']:.3f} … {row['ratio_high']:.3f})"
            name = _name(row, self.dropped)
            lines.append(f"| {name} | {1e3 * row['t_stddev']:.2f} | {ratio} | {row['agreement']:.2f} |")
        return "\n".join([*lines, "", *(f"- {note}" for note in self.notes())]) + "\n"

    def plot(self, path: Path | str) -> Path:
        """The ratios as bars with their intervals, best at the top; gray: the teacher no longer knows what it sees."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        rows = self.rows[::-1]
        figure = Figure(figsize=(7.5, 0.34 * len(rows) + 1.3), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        ratios = [row["ratio"] for row in rows]
        ends = [[row["ratio"] - row["ratio_low"] for row in rows], [row["ratio_high"] - row["ratio"] for row in rows]]
        whiskers = [[max(0.0, _or_zero(value)) for value in side] for side in ends]
        colors = [KEPT if row["informative"] else UNINFORMATIVE for row in rows]
        axes.barh(range(len(rows)), ratios, xerr=whiskers, color=colors, height=0.66, error_kw={"elinewidth": 1})
        axes.axvline(1, color=REFERENCE, linewidth=1, linestyle="--")
        axes.set_yticks(range(len(rows)), [_name(row, self.dropped) for row in rows])
        low = min([1.0, *(row["ratio_low"] for row in rows if math.isfinite(row["ratio_low"]))])
        high = max([1.0, *(row["ratio_high"] for row in rows if math.isfinite(row["ratio_high"]))])
        axes.set_xlim(max(0.0, low - 0.1), high + 0.05)
        axes.set_xlabel("T. stddev, ratio to identity (lower is better; gray: not informative)")
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
        buffer = BytesIO()
        figure.savefig(buffer, format="png", dpi=120, metadata={"Software": None})
        return write_atomic(path, buffer.getvalue())


def _name(row: Mapping[str, Any], dropped: tuple[str, ...]) -> str:
    marks = [mark for mark, holds in (("?", not row["informative"]), ("dropped", row["label"] in dropped)) if holds]
    return f"{row['label']} ({', '.join(marks)})" if marks else str(row["label"])


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _or_zero(value: float) -> float:
    return value if math.isfinite(value) else 0.0
