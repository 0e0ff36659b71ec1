"""Pictures of a schedule, and of two."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator

from results.analysis.schedule_diff import Difference
from results.analysis.strength import STRONGEST, Array, Strengths
from results.plots.style import PAPER, Style, canvas
from spaces import Schedule
from spaces.core.io import write_atomic

COLUMNS = 600
"""Into how many parts more epochs than that are divided: there are no more pixels."""

FAINT = "#57606a"


def plot_schedule(schedule: Schedule, path: Path | str, title: str = "") -> Path:
    """Draw each operation's strength over the epochs, and their mean, as a PNG at `path`.

    One row an operation, sorted by its mean strength; darker is stronger, white is not in force. The colors run from
    light to dark without changing sides, so they read the same without color vision and in print. Operations that
    the schedule names and that are never in force are named below.

    Raises:
        RequestError: the place cannot be written to.
    """
    return write_atomic(path, schedule_png(schedule, title))


def schedule_png(schedule: Schedule, title: str = "") -> bytes:
    """The picture that `plot_schedule` writes; the same schedule gives the same bytes."""
    buffer = BytesIO()
    schedule_figure(schedule, title).savefig(buffer, format="png", dpi=120, metadata={"Software": None})
    return buffer.getvalue()


def schedule_figure(schedule: Schedule, title: str = "", theme: Style = PAPER, width: float = 8) -> Figure:
    """The same as a figure of `width` inches, in the colors of a page."""
    strengths = Strengths.of(schedule)
    worded = theme is PAPER  # a page has words of its own
    never = textwrap.wrap(f"Never in force: {', '.join(strengths.never)}", 125) if strengths.never and worded else []
    rows = max(1, len(strengths.operations))
    figure = canvas(width, 0.27 * rows + 2.2 + 0.17 * len(never))
    heat, line = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": [max(rows, 4), 4]})
    image = _draw_heat(heat, strengths, theme)
    heat.set_title(title or f"What the {schedule.role} sees", loc="left")
    if worded:
        heat.set_title("strength = probability × level", loc="right", fontsize=8, color=theme.faint)
    figure.colorbar(image, ax=heat, pad=0.01, ticks=range(0, 10, 3))
    _draw_mean(line, strengths, theme.lead)
    if never:
        figure.supxlabel("\n".join(never), x=0.01, ha="left", fontsize=8, color=theme.faint)
    return figure


def plot_difference(difference: Difference, path: Path | str, names: tuple[str, str] = ("", "")) -> Path:
    """Draw both policies and A's strength less B's as a PNG at `path`; `names`: what A and B are called.

    One row an operation that is in force in either, those that differ most first. Left and middle as `plot_schedule`
    does; on the right orange where A is stronger, purple where B is, white where they are equally strong: two colors
    that are told apart without full color vision too.

    Raises:
        RequestError: the place cannot be written to.
    """
    return write_atomic(path, difference_png(difference, names))


def difference_png(difference: Difference, names: tuple[str, str] = ("", "")) -> bytes:
    """The picture that `plot_difference` writes; the same policies give the same bytes."""
    ops, columns = [*(row.op for row in difference.rows), *difference.equal], min(difference.epochs, COLUMNS)
    height = 0.27 * max(2, len(ops)) + 1.5
    figure = canvas(12, height)
    panels = figure.subplots(1, 3, sharey=True)
    strong = np.array([difference.strengths(op, columns) for op in ops]).reshape(-1, 2, columns)
    here = np.array([difference.in_force(op, columns) for op in ops]).reshape(-1, 2, columns)
    for side, axes in enumerate(panels[:2]):
        image = _heat(axes, ops, np.where(here[:, side], strong[:, side], np.nan), difference.epochs, PAPER)
        axes.set_title("AB"[side] + (f": {_end(names[side])}" if names[side] else ""), loc="left", fontsize=10)
    figure.colorbar(image, ax=panels[:2], pad=0.01, ticks=range(0, 10, 3), label="strength")
    apart = np.array([difference.apart(op, columns) for op in ops]).reshape(-1, columns)
    most = max(1.0, float(np.abs(apart).max(initial=0)))
    image = _heat(panels[2], ops, apart, difference.epochs, PAPER, mpl.colormaps["PuOr_r"], -most, most)
    panels[2].set_title("A less B; orange: A is stronger", loc="left", fontsize=10)
    figure.colorbar(image, ax=panels[2], pad=0.02)
    for axes in panels:
        _epochs(axes)
    figure.suptitle(difference.sentence, x=0.01, ha="left", fontsize=11)
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=120, metadata={"Software": None})
    return buffer.getvalue()


def _end(name: str, most: int = 34) -> str:
    """The end of a long name: of a path, that is what tells it from others."""
    return name if len(name) <= most else f"…{name[1 - most :]}"


def _draw_heat(axes: Axes, strengths: Strengths, theme: Style) -> AxesImage:
    ops, columns = list(strengths.operations), min(strengths.epochs, COLUMNS)
    in_force = strengths.binned(strengths.probability, columns) > 0
    table = np.where(in_force, strengths.binned(strengths.strength, columns), np.nan)
    return _heat(axes, ops, table, strengths.epochs, theme)


def _heat(
    axes: Axes,
    ops: Sequence[str],
    table: Array,
    epochs: int,
    theme: Style,
    colors: Colormap | None = None,
    low: float = 0,
    high: float = STRONGEST,
) -> AxesImage:
    """A row an operation; no operation: one row without values."""
    rows = max(1, len(ops))
    image = axes.imshow(
        table if ops else np.full((1, 1), np.nan),
        aspect="auto",
        cmap=colors or theme.colors,
        vmin=low,
        vmax=high,
        extent=(0, epochs, rows, 0),
        interpolation="none",
    )
    axes.set_yticks(np.arange(rows) + 0.5, ops or ["no operation"])
    axes.set_yticks(np.arange(1, rows), minor=True)
    axes.grid(which="minor", color=theme.line, linewidth=0.6)
    axes.tick_params(which="both", length=0)
    return image


def _epochs(axes: Axes) -> None:
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=9, steps=(1, 2, 5, 10), integer=True))
    axes.xaxis.set_major_formatter("{x:,.0f}")


def _draw_mean(axes: Axes, strengths: Strengths, color: str) -> None:
    columns = min(strengths.epochs, COLUMNS)
    mean = strengths.binned(strengths.mean, columns)
    edges = np.arange(columns + 1) * float(strengths.epochs) / columns
    axes.stairs(mean, edges, color=color, linewidth=1.6 if columns <= 100 else 0.9, baseline=None)
    axes.set_ylim(0, max(1.0, 1.15 * float(mean.max())))
    axes.set_ylabel("mean")
    _epochs(axes)
    axes.spines[["top", "right"]].set_visible(False)
