"""Pictures of a schedule."""

from __future__ import annotations

import textwrap
from io import BytesIO
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator

from results.strengths import STRONGEST, Strengths
from results.theme import PAPER, Theme, canvas
from spaces import Schedule
from spaces.files import write_atomic

COLUMNS = 600
"""Into how many parts more epochs than that are divided: there are no more pixels."""

FAINT = "#57606a"


def plot_schedule(schedule: Schedule, path: Path | str, title: str = "") -> Path:
    """Draw each operation's strength over the epochs, and their mean, as a PNG at `path`.

    One row an operation, sorted by its mean strength; darker is stronger, white is not in force. The colours run from
    light to dark without changing sides, so they read the same without colour vision and in print. Operations that
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


def schedule_figure(schedule: Schedule, title: str = "", theme: Theme = PAPER, width: float = 8) -> Figure:
    """The same as a figure of `width` inches, in the colours of a page."""
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


def _draw_heat(axes: Axes, strengths: Strengths, theme: Theme) -> AxesImage:
    ops, columns = list(strengths.operations), min(strengths.epochs, COLUMNS)
    table = np.full((1, columns), np.nan)
    if ops:
        in_force = strengths.binned(strengths.probability, columns) > 0
        table = np.where(in_force, strengths.binned(strengths.strength, columns), np.nan)
    rows = len(table)
    image = axes.imshow(
        table,
        aspect="auto",
        cmap=theme.colours,
        vmin=0,
        vmax=STRONGEST,
        extent=(0, strengths.epochs, rows, 0),
        interpolation="none",
    )
    axes.set_yticks(np.arange(rows) + 0.5, ops or ["no operation"])
    axes.set_yticks(np.arange(1, rows), minor=True)
    axes.grid(which="minor", color=theme.line, linewidth=0.6)
    axes.tick_params(which="both", length=0)
    return image


def _draw_mean(axes: Axes, strengths: Strengths, colour: str) -> None:
    columns = min(strengths.epochs, COLUMNS)
    mean = strengths.binned(strengths.mean, columns)
    edges = np.arange(columns + 1) * float(strengths.epochs) / columns
    axes.stairs(mean, edges, color=colour, linewidth=1.6 if columns <= 100 else 0.9, baseline=None)
    axes.set_ylim(0, max(1.0, 1.15 * float(mean.max())))
    axes.set_ylabel("mean")
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=9, steps=(1, 2, 5, 10), integer=True))
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.spines[["top", "right"]].set_visible(False)
