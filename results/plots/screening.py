"""Plot of a screening: the T. stddev ratio of every augmentation with its confidence interval."""

from __future__ import annotations

import math
from pathlib import Path

from matplotlib.figure import Figure

from results.analysis.schedule_table import printable
from results.analysis.screening import ScreeningResult, display_label
from results.plots.style import PAPER, Style, new_figure, png_bytes
from spaces.core.io import write_atomic

INFORMATIVE, UNINFORMATIVE = "#2171b5", "#bdbdbd"

LONGEST_NAME = 48
"""Longest name at the axis; what was learned is named by all its numbers."""


def plot_screening(result: ScreeningResult, path: Path | str) -> Path:
    """Draw the ratios to no augmentation as bars, the best at the top, as a PNG at `path`.

    Bars are gray where the teacher no longer recognizes the images.

    Args:
        result: Ranking to draw.
        path: PNG file to write.

    Returns:
        `path`.

    Raises:
        RequestError: The file cannot be written.
    """
    return write_atomic(path, png_bytes(screening_figure(result)))


def screening_figure(result: ScreeningResult, style: Style = PAPER) -> Figure:
    """Return the plot as a figure in given colors."""
    rows = result.rows[::-1]
    figure = new_figure(7.5, 0.34 * len(rows) + 1.3)
    axes = figure.subplots()
    ratios = [row["ratio"] for row in rows]
    ends = [[row["ratio"] - row["ratio_low"] for row in rows], [row["ratio_high"] - row["ratio"] for row in rows]]
    whiskers = [[max(0.0, value) if math.isfinite(value) else 0.0 for value in side] for side in ends]
    colors = [INFORMATIVE if row["informative"] else UNINFORMATIVE for row in rows]
    error_bars = {"elinewidth": 1, "ecolor": style.ink}
    axes.barh(range(len(rows)), ratios, xerr=whiskers, color=colors, height=0.66, error_kw=error_bars)
    axes.axvline(1, color=style.faint, linewidth=1, linestyle="--")
    names = [printable(display_label(row, result.dropped), LONGEST_NAME) for row in rows]
    axes.set_yticks(range(len(rows)), names)
    low = min([1.0, *(row["ratio_low"] for row in rows if math.isfinite(row["ratio_low"]))])
    high = max([1.0, *(row["ratio_high"] for row in rows if math.isfinite(row["ratio_high"]))])
    axes.set_xlim(max(0.0, low - 0.1), high + 0.05)
    axes.set_xlabel("T. stddev, ratio to no augmentation (lower is better; gray: not informative)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    return figure
