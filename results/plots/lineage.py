"""Plot of a population: scores of all members, copies between them, and the lineage of the winner."""

from __future__ import annotations

import math
from pathlib import Path
from statistics import median

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PatchCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from results.plots.style import PAPER, Style, new_figure, png_bytes
from results.runlog.lineage import Lineage, count
from spaces.core.io import write_atomic

GAP = 0.3
"""Fraction of a slice that is left free for arrows."""

MANY = 100
"""From this number of copies on, arrows are thin lines without heads."""

FEW = 20
"""With more slices than this, the lowest 5 % of the scores share one color."""

ROWS = 60
"""With more members than this, the plot does not grow higher."""


def plot_lineage(lineage: Lineage, path: Path | str, title: str = "") -> Path:
    """Draw the lineage of a population as a PNG at `path`.

    Each row is a member, the x axis is the number of epochs that its weights were trained. A cell is the training
    between two perturbations: darker for a higher score, hatched without one. Arrows lead from the donor of a copy to
    its target; a bold line follows the ancestors of the winner.

    Args:
        lineage: Population with its copies.
        path: PNG file to write.
        title: Title of the plot; empty: a default.

    Returns:
        `path`.

    Raises:
        RequestError: The file cannot be written.

    Example:
        >>> import tempfile
        >>> from results.runlog.lineage import Slice
        >>> lineage = Lineage.of("student-pbt", ["student-pbt-00"], [Slice("student-pbt-00", 0, 2, 0.9)], [])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     plot_lineage(lineage, f"{folder}/lineage.png").name
        'lineage.png'
    """
    return write_atomic(path, lineage_png(lineage, title))


def lineage_png(lineage: Lineage, title: str = "") -> bytes:
    """Return the PNG that `plot_lineage` writes; the same population gives the same bytes."""
    return png_bytes(lineage_figure(lineage, title))


def lineage_figure(lineage: Lineage, title: str = "", style: Style = PAPER, width: float = 8) -> Figure:
    """Return the plot as a figure of `width` inches in given colors."""
    rows = {member: row for row, member in enumerate(lineage.members)}
    height = (0.3 if len(rows) <= 16 else 0.19) * max(2, min(len(rows), ROWS))
    figure = new_figure(width, 1.7 + height)
    axes = figure.subplots()
    gap = GAP * median([each.end - each.start for each in lineage.slices] or [1])
    cells = _draw_cells(axes, lineage, rows, gap, style)
    _draw_copies(axes, lineage, rows, gap, style)
    _draw_winner(axes, lineage, rows, gap, style)
    _label(axes, lineage, rows, style)
    axes.set_title(title or f"Lineage of {lineage.name}", loc="left")
    if cells is not None:
        extend = "min" if len(lineage.slices) > FEW else "neither"
        figure.colorbar(cells, ax=axes, pad=0.01, aspect=8 * height, label="validation accuracy", extend=extend)
    if style is PAPER:  # a page has its own text
        size = f"{count(lineage.generations, 'generation')}, {count(len(lineage.exploits), 'copy', 'copies')}"
        axes.set_title(size, loc="right", fontsize=8, color=style.faint)
        figure.supxlabel(_legend(lineage), x=0.01, ha="left", fontsize=8, color=style.faint)
    return figure


def _draw_cells(axes: Axes, lineage: Lineage, rows: dict[str, int], gap: float, style: Style) -> PatchCollection | None:
    """A cell for each slice; None: none was scored."""
    boxes, scores, empty = [], [], []
    for part in lineage.slices:
        left = part.start + (gap if part.start else 0)
        box = Rectangle((left, rows[part.member] - 0.4), max(part.end - left, gap), 0.8)
        if math.isnan(part.score):
            empty.append(box)
        else:
            boxes.append(box)
            scores.append(part.score)
    unscored = PatchCollection(empty, facecolor=style.page, edgecolor=style.faint, hatch="/////", linewidth=0.5)
    axes.add_collection(unscored, autolim=False)
    if not scores:
        return None
    # A few members that learned nothing must not set the scale.
    low, high = float(np.quantile(scores, 0.05 if len(lineage.slices) > FEW else 0)), max(scores)
    cells = PatchCollection(boxes, cmap=style.colors, edgecolor="none")
    cells.set_array(np.array(scores))
    cells.set_clim(low - 0.005 * (low == high), high + 0.005 * (low == high))
    axes.add_collection(cells, autolim=False)
    return cells


def _draw_copies(axes: Axes, lineage: Lineage, rows: dict[str, int], gap: float, style: Style) -> None:
    """Draw copies from the end of the donor's slice to the start of the target's, but those of the winner's lineage."""
    many = len(lineage.exploits) > MANY
    line = {id(step.copy) for step in lineage.path}
    copies = [copy for copy in lineage.exploits if id(copy) not in line]
    ends = [(copy.epoch, rows[copy.donor], copy.epoch + gap, rows[copy.target]) for copy in copies]
    lines = LineCollection(
        [((x1, y1), (x2, y2)) for x1, y1, x2, y2 in ends],
        colors=style.faint if many else style.ink,
        linewidths=0.4 if many else 0.9,
        alpha=0.5 if many else 1.0,
    )
    axes.add_collection(lines, autolim=False)
    if not many:
        axes.scatter([end[2] for end in ends], [end[3] for end in ends], s=14, marker=">", color=style.ink, zorder=3)


def _draw_winner(axes: Axes, lineage: Lineage, rows: dict[str, int], gap: float, style: Style) -> None:
    points = [
        (x, rows[step.member]) for step in lineage.path for x in (step.start + gap * (step.copy is not None), step.end)
    ]
    wide = 2.6 if lineage.generations <= 30 else 1.6
    border = withStroke(linewidth=wide + 2, foreground=style.page)
    axes.plot(
        [x for x, _ in points],
        [y for _, y in points],
        color=style.control,
        linewidth=wide,
        path_effects=[border],
        zorder=4,
    )


def _label(axes: Axes, lineage: Lineage, rows: dict[str, int], style: Style) -> None:
    """Label rows by the number of the member; of many rows some, and always the winner's."""
    apart = -(-len(rows) // ROWS)
    shown = [member for member, row in rows.items() if row % apart == 0]
    if lineage.winner and lineage.winner not in shown:
        shown = [member for member in shown if abs(rows[member] - rows[lineage.winner]) >= apart] + [lineage.winner]
    names = [_short(lineage, member) for member in shown]
    axes.set_yticks([rows[member] for member in shown], names, fontsize=9 if len(rows) <= 16 else 7)
    for label, member in zip(axes.get_yticklabels(), shown, strict=True):
        if member == lineage.winner:
            label.set(color=style.control, fontweight="bold")
    ends = sorted({0, *(part.end for part in lineage.slices)})
    axes.set(xlim=(0, ends[-1] or 1), ylim=(max(len(rows), 1) - 0.5, -0.5), xlabel="epoch", ylabel="member")
    if len(ends) == lineage.generations + 1:  # the members were synchronized
        axes.set_xticks(ends[:: -(-len(ends) // 13)])
    else:
        axes.xaxis.set_major_locator(MaxNLocator(nbins=12, integer=True))
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)


def _legend(lineage: Lineage) -> str:
    """Return the legend."""
    parts = [f"Orange: lineage of {_short(lineage, lineage.winner)}, the best member."] if lineage.winner else []
    if lineage.exploits:
        mark = "Gray lines" if len(lineage.exploits) > MANY else "Arrows"
        parts.append(f"{mark}: copies, from donor to target.")
    if any(math.isnan(part.score) for part in lineage.slices):
        parts.append("Hatched: not scored.")
    return "  ".join(parts)


def _short(lineage: Lineage, member: str) -> str:
    return member.removeprefix(f"{lineage.name}-")
