"""A picture of a population: who trained how well, who copied whom, and the way to the winner."""

from __future__ import annotations

import math
from io import BytesIO
from pathlib import Path
from statistics import median

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PatchCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from results.plots.style import PAPER, Style, canvas
from results.runlog.lineage import Family, count
from spaces.core.io import write_atomic

GAP = 0.3
"""Share of a slice that is left free for arrows."""

MANY = 100
"""From so many copies on the arrows lose their heads, and grow pale."""

FEW = 20
"""From more slices than that on, the lowest twentieth of the scores has one color."""

ROWS = 60
"""From so many members on the picture grows no higher."""


def plot_family(family: Family, path: Path | str, title: str = "") -> Path:
    """Draw the family as a PNG at `path`.

    One row a member, from left to right the epochs that its weights were trained; a cell is what it trained between
    two perturbations, the darker, the higher its score, hatched where it has none. Arrows lead from who was copied to
    who goes on from there, and a bold line through the winner's ancestors.

    Raises:
        RequestError: the place cannot be written to.
    """
    return write_atomic(path, family_png(family, title))


def family_png(family: Family, title: str = "") -> bytes:
    """The picture that `plot_family` writes; the same family gives the same bytes."""
    buffer = BytesIO()
    family_figure(family, title).savefig(buffer, format="png", dpi=120, metadata={"Software": None})
    return buffer.getvalue()


def family_figure(family: Family, title: str = "", theme: Style = PAPER, width: float = 8) -> Figure:
    """The same as a figure of `width` inches, in the colors of a page."""
    rows = {member: row for row, member in enumerate(family.members)}
    height = (0.3 if len(rows) <= 16 else 0.19) * max(2, min(len(rows), ROWS))
    figure = canvas(width, 1.7 + height)
    axes = figure.subplots()
    gap = GAP * median([each.end - each.start for each in family.slices] or [1])
    cells = _draw_cells(axes, family, rows, gap, theme)
    _draw_copies(axes, family, rows, gap, theme)
    _draw_line(axes, family, rows, gap, theme)
    _label(axes, family, rows, theme)
    axes.set_title(title or f"{family.name}: who descends from whom", loc="left")
    if cells is not None:
        extend = "min" if len(family.slices) > FEW else "neither"
        figure.colorbar(cells, ax=axes, pad=0.01, aspect=8 * height, label="validation accuracy", extend=extend)
    if theme is PAPER:  # a page has words of its own
        size = f"{count(family.generations, 'generation')}, {count(len(family.exploits), 'copy', 'copies')}"
        axes.set_title(size, loc="right", fontsize=8, color=theme.faint)
        figure.supxlabel(_key(family), x=0.01, ha="left", fontsize=8, color=theme.faint)
    return figure


def _draw_cells(axes: Axes, family: Family, rows: dict[str, int], gap: float, theme: Style) -> PatchCollection | None:
    """A cell for each slice; None: none was scored."""
    boxes, scores, empty = [], [], []
    for part in family.slices:
        left = part.start + (gap if part.start else 0)
        box = Rectangle((left, rows[part.member] - 0.4), max(part.end - left, gap), 0.8)
        if math.isnan(part.score):
            empty.append(box)
        else:
            boxes.append(box)
            scores.append(part.score)
    unscored = PatchCollection(empty, facecolor=theme.page, edgecolor=theme.faint, hatch="/////", linewidth=0.5)
    axes.add_collection(unscored, autolim=False)
    if not scores:
        return None
    # A few that learned nothing do not decide.
    low, high = float(np.quantile(scores, 0.05 if len(family.slices) > FEW else 0)), max(scores)
    cells = PatchCollection(boxes, cmap=theme.colors, edgecolor="none")
    cells.set_array(np.array(scores))
    cells.set_clim(low - 0.005 * (low == high), high + 0.005 * (low == high))
    axes.add_collection(cells, autolim=False)
    return cells


def _draw_copies(axes: Axes, family: Family, rows: dict[str, int], gap: float, theme: Style) -> None:
    """From the end of the donor's slice to where the target's next one begins; those of the winner's line follow."""
    many = len(family.exploits) > MANY
    line = {id(step.copy) for step in family.path}
    copies = [copy for copy in family.exploits if id(copy) not in line]
    ends = [(copy.epoch, rows[copy.donor], copy.epoch + gap, rows[copy.target]) for copy in copies]
    lines = LineCollection(
        [((x1, y1), (x2, y2)) for x1, y1, x2, y2 in ends],
        colors=theme.faint if many else theme.ink,
        linewidths=0.4 if many else 0.9,
        alpha=0.5 if many else 1.0,
    )
    axes.add_collection(lines, autolim=False)
    if not many:
        axes.scatter([end[2] for end in ends], [end[3] for end in ends], s=14, marker=">", color=theme.ink, zorder=3)


def _draw_line(axes: Axes, family: Family, rows: dict[str, int], gap: float, theme: Style) -> None:
    points = [
        (x, rows[step.member]) for step in family.path for x in (step.start + gap * (step.copy is not None), step.end)
    ]
    wide = 2.6 if family.generations <= 30 else 1.6
    border = withStroke(linewidth=wide + 2, foreground=theme.page)
    axes.plot(
        [x for x, _ in points],
        [y for _, y in points],
        color=theme.control,
        linewidth=wide,
        path_effects=[border],
        zorder=4,
    )


def _label(axes: Axes, family: Family, rows: dict[str, int], theme: Style) -> None:
    """Rows by the member's number; where these would touch, some of them, and always the winner's."""
    apart = -(-len(rows) // ROWS)
    shown = [member for member, row in rows.items() if row % apart == 0]
    if family.winner and family.winner not in shown:
        shown = [member for member in shown if abs(rows[member] - rows[family.winner]) >= apart] + [family.winner]
    names = [_short(family, member) for member in shown]
    axes.set_yticks([rows[member] for member in shown], names, fontsize=9 if len(rows) <= 16 else 7)
    for label, member in zip(axes.get_yticklabels(), shown, strict=True):
        if member == family.winner:
            label.set(color=theme.control, fontweight="bold")
    ends = sorted({0, *(part.end for part in family.slices)})
    axes.set(xlim=(0, ends[-1] or 1), ylim=(max(len(rows), 1) - 0.5, -0.5), xlabel="epoch", ylabel="member")
    if len(ends) == family.generations + 1:  # members waited for each other
        axes.set_xticks(ends[:: -(-len(ends) // 13)])
    else:
        axes.xaxis.set_major_locator(MaxNLocator(nbins=12, integer=True))
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)


def _key(family: Family) -> str:
    """What is to be seen, in words."""
    parts = [f"Orange: the way to {_short(family, family.winner)}, which is best."] if family.winner else []
    if family.exploits:
        mark = "Gray lines" if len(family.exploits) > MANY else "Arrows"
        parts.append(f"{mark}: copies, from the donor to who goes on from there.")
    if any(math.isnan(part.score) for part in family.slices):
        parts.append("Hatched: not scored.")
    return "  ".join(parts)


def _short(family: Family, member: str) -> str:
    return member.removeprefix(f"{family.name}-")
