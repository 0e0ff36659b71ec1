"""Plots of one schedule and of the difference between two."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator

from results.analysis.schedule_diff import ScheduleDiff
from results.analysis.strength import STRONGEST, Array, Strengths
from results.plots.style import PAPER, Style, new_figure, png_bytes
from spaces import Schedule
from spaces.core.io import write_atomic

COLUMNS = 600
"""Largest number of parts of the epochs; more would be narrower than a pixel."""


def plot_schedule(schedule: Schedule, path: Path | str, title: str = "") -> Path:
    """Draw the strength of each operation over the epochs, and their mean, as a PNG at `path`.

    Each row is an operation, sorted by mean strength; darker is stronger, white is not active. The colors are
    monotonic in lightness, so they are readable with color blindness and in grayscale. Operations that the schedule
    names and that are never active are listed below.

    Args:
        schedule: Schedule to draw.
        path: PNG file to write.
        title: Title of the plot; empty: a default.

    Returns:
        `path`.

    Raises:
        RequestError: The file cannot be written.

    Example:
        >>> import tempfile
        >>> from spaces import Entry, Genome, ImageSpec, Phase, Policy
        >>> rotate = Genome(Policy((Entry("Rotate", 5, 8),)))
        >>> schedule = Schedule((Phase(2, Genome()), Phase(2, rotate)), "student", ImageSpec(8, 1, (0,)))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     plot_schedule(schedule, f"{folder}/schedule.png").name
        'schedule.png'
    """
    return write_atomic(path, schedule_png(schedule, title))


def schedule_png(schedule: Schedule, title: str = "") -> bytes:
    """Return the PNG that `plot_schedule` writes; the same schedule gives the same bytes."""
    return png_bytes(schedule_figure(schedule, title))


def schedule_figure(schedule: Schedule, title: str = "", style: Style = PAPER, width: float = 8) -> Figure:
    """Return the plot as a figure of `width` inches in given colors."""
    strengths = Strengths.of(schedule)
    annotated = style is PAPER  # a page has its own text
    never = textwrap.wrap(f"Never active: {', '.join(strengths.never)}", 125) if strengths.never and annotated else []
    rows = max(1, len(strengths.operations))
    figure = new_figure(width, 0.27 * rows + 2.2 + 0.17 * len(never))
    heat, line = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": [max(rows, 4), 4]})
    image = _draw_heat(heat, strengths, style)
    heat.set_title(title or f"Augmentation schedule of the {schedule.role}", loc="left")
    if annotated:
        heat.set_title("strength = probability × level", loc="right", fontsize=8, color=style.faint)
    figure.colorbar(image, ax=heat, pad=0.01, ticks=range(0, 10, 3))
    _draw_mean(line, strengths, style.lead)
    if never:
        figure.supxlabel("\n".join(never), x=0.01, ha="left", fontsize=8, color=style.faint)
    return figure


def plot_difference(difference: ScheduleDiff, path: Path | str, names: tuple[str, str] = ("", "")) -> Path:
    """Draw two schedules, and the strength of A minus that of B, as a PNG at `path`.

    Each row is an operation that is active in either, the largest difference first. The left and middle panels are as
    in `plot_schedule`; the right one is orange where A is stronger, purple where B is, white where they are equal.
    These colors are safe for color blindness.

    Args:
        difference: Comparison by `compare_schedules`.
        path: PNG file to write.
        names: Names of A and B.

    Returns:
        `path`.

    Raises:
        RequestError: The file cannot be written.
    """
    return write_atomic(path, difference_png(difference, names))


def difference_png(difference: ScheduleDiff, names: tuple[str, str] = ("", "")) -> bytes:
    """Return the PNG that `plot_difference` writes; the same schedules give the same bytes."""
    ops, columns = [*(row.op for row in difference.rows), *difference.equal], min(difference.epochs, COLUMNS)
    height = 0.27 * max(2, len(ops)) + 1.5
    figure = new_figure(12, height)
    panels = figure.subplots(1, 3, sharey=True)
    strengths = np.array([difference.strengths(op, columns) for op in ops]).reshape(-1, 2, columns)
    active = np.array([difference.active(op, columns) for op in ops]).reshape(-1, 2, columns)
    for side, axes in enumerate(panels[:2]):
        image = _heat(axes, ops, np.where(active[:, side], strengths[:, side], np.nan), difference.epochs, PAPER)
        axes.set_title("AB"[side] + (f": {_shorten(names[side])}" if names[side] else ""), loc="left", fontsize=10)
    figure.colorbar(image, ax=panels[:2], pad=0.01, ticks=range(0, 10, 3), label="strength")
    gap = np.array([difference.difference(op, columns) for op in ops]).reshape(-1, columns)
    most = max(1.0, float(np.abs(gap).max(initial=0)))
    image = _heat(panels[2], ops, gap, difference.epochs, PAPER, mpl.colormaps["PuOr_r"], -most, most)
    panels[2].set_title("A minus B; orange: A is stronger", loc="left", fontsize=10)
    figure.colorbar(image, ax=panels[2], pad=0.02)
    for axes in panels:
        _epochs(axes)
    figure.suptitle(difference.sentence, x=0.01, ha="left", fontsize=11)
    return png_bytes(figure)


def _shorten(name: str, most: int = 34) -> str:
    """Return the end of a long name, which is the distinctive part of a path."""
    return name if len(name) <= most else f"…{name[1 - most :]}"


def _draw_heat(axes: Axes, strengths: Strengths, style: Style) -> AxesImage:
    ops, columns = list(strengths.operations), min(strengths.epochs, COLUMNS)
    active = strengths.binned(strengths.probability, columns) > 0
    table = np.where(active, strengths.binned(strengths.strength, columns), np.nan)
    return _heat(axes, ops, table, strengths.epochs, style)


def _heat(
    axes: Axes,
    ops: Sequence[str],
    table: Array,
    epochs: int,
    style: Style,
    colors: Colormap | None = None,
    low: float = 0,
    high: float = STRONGEST,
) -> AxesImage:
    """Draw one row for each operation; without operations, one row without values."""
    rows = max(1, len(ops))
    image = axes.imshow(
        table if ops else np.full((1, 1), np.nan),
        aspect="auto",
        cmap=colors or style.colors,
        vmin=low,
        vmax=high,
        extent=(0, epochs, rows, 0),
        interpolation="none",
    )
    axes.set_yticks(np.arange(rows) + 0.5, ops or ["no operation"])
    axes.set_yticks(np.arange(1, rows), minor=True)
    axes.grid(which="minor", color=style.line, linewidth=0.6)
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
