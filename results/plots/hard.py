"""Pictures of HARD's game: what the augmentor makes of images, how its draws move, and how the phases alternate."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from results.plots.contact_sheet import INK, LINE
from results.plots.schedule import FAINT
from spaces.core.io import write_atomic

MOST_EPOCHS, MOST_IMAGES, MOST_PANELS, FEW = 5, 8, 16, 40
"""In one picture; FEW: up to so many phases, the augmentor's steps are written out."""

COLORS = {"student": "#0072b2", "augmentor": "#d55e00"}
"""They differ without color vision as well, and whatever bears them has a shape of its own."""

DPI, SIDE, GAP, MARGIN = 120, 1.25, 0.16, 0.25
"""Dots an inch, and inches: an image, between neighbors, round the sheet."""

TITLE, HEADING, BEFORE, AFTER, FOOT = 0.26, 0.36, 0.30, 0.66, 0.3
"""Inches: above everything, above an epoch's images, below originals, below views, and the legend."""

LEGEND = """Above: images, and what the teacher says of them (class, probability). Below: their views, what both say
of these, and the disagreement, which is the distillation loss. Frame and ≠: the student names another class."""


def plot_game(game: Mapping[str, Any], folder: Path) -> tuple[Path, ...]:
    """Draw a game as PNGs in `folder`: `hard.grid.png`, where it kept images, `hard.parameters.png`, `hard.phases.png`.

    Args:
        game: its state, which is `game` in the student's; the same gives the same bytes.
        folder: where to write; made where it is missing.

    Raises:
        RequestError: the place cannot be written to.
    """
    grid = {"grid": grid_figure(game)} if game["grids"] else {}
    figures = grid | {"parameters": parameters_figure(game), "phases": phases_figure(game)}
    written = []
    for name, figure in figures.items():
        buffer = BytesIO()
        figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
        written.append(write_atomic(folder / f"hard.{name}.png", buffer.getvalue()))
    return tuple(written)


def grid_figure(game: Mapping[str, Any]) -> Figure:
    """For each of some kept epochs, a row of images and one of their views; marked where teacher and student differ."""
    kept = game["grids"]
    grids = [kept[place] for place in sorted({round(at) for at in np.linspace(0, len(kept) - 1, MOST_EPOCHS)})]
    columns = min(MOST_IMAGES, max(len(grid["images"]) for grid in grids))
    height = 2 * MARGIN + TITLE + len(grids) * (HEADING + BEFORE + AFTER + 2 * SIDE) + FOOT
    figure = Figure(figsize=(max(6.9, 2 * MARGIN + columns * (SIDE + GAP) - GAP), height))
    FigureCanvasAgg(figure)
    inches: dict[str, Any] = {"transform": figure.dpi_scale_trans, "color": INK}
    title = f"What {game['augment']['kind']} shows the student"
    figure.text(MARGIN, height - MARGIN, title, va="top", size=13, weight="bold", **inches)
    top = height - MARGIN - TITLE
    for grid in grids:
        teacher, student = grid["teacher"], grid["student"]
        marks = [" ≠" * (theirs != own) for theirs, own in zip(teacher["label"], student["label"], strict=True)]
        differ = f"the student differs from the teacher on {sum(map(bool, marks))} of {len(marks)} views"
        figure.text(MARGIN, top - 0.12, f"epoch {grid['epoch']}: {differ}", va="top", size=9.5, **inches)
        top -= HEADING + SIDE
        for place, mark in enumerate(marks[:columns]):
            left = MARGIN + place * (SIDE + GAP)
            _put(figure, left, top, grid["images"][place], _said("teacher", grid["teacher_before"], place))
            text = f"{_said('teacher', teacher, place)}\n{_said('student', student, place)}{mark}\n"
            text += f"disagreement {grid['disagreement'][place]:.2g}"
            _put(figure, left, top - BEFORE - SIDE, grid["views"][place], text, marked=bool(mark))
        top -= BEFORE + SIDE + AFTER
    figure.text(MARGIN, MARGIN / 2, LEGEND, size=8, **inches | {"color": FAINT})
    return figure


def _put(figure: Figure, left: float, bottom: float, image: Any, text: str, *, marked: bool = False) -> None:
    """An image, (C, H, W) uint8, at so many inches, with words below."""
    width, height = figure.get_size_inches()
    axes = figure.add_axes((left / width, bottom / height, SIDE / width, SIDE / height))
    pixels = image.permute(1, 2, 0).numpy()
    way = "nearest" if max(pixels.shape[:2]) <= SIDE * DPI else "antialiased"
    axes.imshow(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels, "gray", vmin=0, vmax=255, interpolation=way)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(color=COLORS["augmentor"] if marked else LINE, linewidth=3.5 if marked else 1)
    axes.set_xlabel(text, size=8, color=INK if marked else FAINT, weight="bold" if marked else "normal")


def _said(who: str, answers: Mapping[str, Sequence[Any]], place: int) -> str:
    return f"{who} {answers['label'][place]}, {100 * answers['probability'][place]:.0f} %"


def _figure(width: float, height: float, title: str) -> Figure:
    figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08))
    FigureCanvasAgg(figure)
    figure.suptitle(title, x=0.08 / width, ha="left", size=12, weight="bold", color=INK)
    return figure


def parameters_figure(game: Mapping[str, Any]) -> Figure:
    """The distribution of each drawn parameter over the epochs; of too many, those whose medians moved most."""
    names, epochs = game["names"], np.array([entry["epoch"] for entry in game["epochs"]], dtype=float)
    table = np.array([entry["quantiles"] for entry in game["epochs"]], dtype=float).reshape(len(epochs), len(names), 5)
    chosen, title = list(range(len(names))), f"What {game['augment']['kind']} draws"
    if len(names) > MOST_PANELS:
        moved = np.ptp(table[:, :, 2], axis=0) if len(epochs) else np.zeros(len(names))
        chosen = sorted(np.argsort(-moved, kind="stable")[:MOST_PANELS].tolist())
        title += f": {MOST_PANELS} of {len(names)} parameters, those whose medians moved most"
    columns = math.ceil(math.sqrt(len(chosen)))
    rows = math.ceil(len(chosen) / columns)
    figure = _figure(max(6.9, 2.3 * columns), 1.65 * rows + 1.1, title)
    panels = list(figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flat)
    panels[0].set(xlim=(epochs[0], epochs[-1] + 1) if len(epochs) else (0, 1), ylim=(-1.05, 1.05), yticks=(-1, 0, 1))
    for axes in panels[len(chosen) :]:
        axes.set_axis_off()
    for place, axes in zip(chosen, panels, strict=False):
        _draw_bands(axes, epochs, table[:, place])
        axes.set_title(names[place], loc="left", size=9, color=INK)
        axes.axhline(0, color=LINE, linewidth=0.8, zorder=0)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
        axes.tick_params(labelsize=8, labelbottom=place in chosen[-columns:])
        axes.spines[["top", "right"]].set_visible(False)
    read = "line: median; dark: 25–75 %; light: 5–95 % of its last batch" if len(epochs) else "none has ended yet"
    figure.supxlabel(f"epoch ({read})", size=9, color=INK)
    figure.supylabel("share of the bound", size=9, color=INK)
    return figure


def _draw_bands(axes: Axes, epochs: Any, levels: Any) -> None:
    """Each epoch from its beginning to its end, so that one alone is seen too; a gap where one is missing."""
    x, y = np.add.outer(epochs, (0.0, 1.0, 1.0)).ravel(), np.repeat(levels, 3, axis=0)
    y[2:-1:3][np.diff(epochs) > 1] = np.nan
    axes.fill_between(x, y[:, 0], y[:, 4], color=COLORS["student"], alpha=0.2, linewidth=0)
    axes.fill_between(x, y[:, 1], y[:, 3], color=COLORS["student"], alpha=0.4, linewidth=0)
    axes.plot(x, y[:, 2], color=INK, linewidth=1.4)


def phases_figure(game: Mapping[str, Any]) -> Figure:
    """The running disagreement at the phases' ends, its thresholds by the last rules, and the augmentor's turns."""
    phases, rules = game["phases"], game["augment"]
    student, augmentor = (sum(entry[f"{who}_steps"] for entry in game["epochs"]) for who in COLORS)
    figure = _figure(9, 5, f"{rules['kind']}: {student:,} student steps, {augmentor:,} augmentor steps")
    line, turns = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": [3, 1]})
    line.set_title(f"phases ended: {len(phases):,}" if phases else "no phase has ended yet", loc="left", size=9)
    size = min(6, max(2, 300 / max(1, len(phases))))
    line.plot(*_ends(phases), color=FAINT if size > 2 else LINE, linewidth=size / 6)
    for who, shape in (("student", "o"), ("augmentor", "^")):
        own = [phase for phase in phases if phase["phase"] == who]
        line.plot(*_ends(own), shape, color=COLORS[who], markersize=size, label=f"the {who}'s phase ends")
    line.legend(fontsize=8, frameon=False, loc="lower right", bbox_to_anchor=(1, 0.98), ncols=2, markerscale=6 / size)
    sides = {} if math.isnan(game["scale"]) else {"low": "top", "high": "bottom"}
    for name, side in sides.items():
        limit = rules[name] * game["scale"]
        line.axhline(limit, color=INK, linewidth=1, linestyle="--")
        line.text(1, limit, f" {name} · ℓ = {limit:.3g}", transform=line.get_yaxis_transform(), va=side, size=9)
    _set_scale(line, [*_ends(phases)[1], *(rules[name] * game["scale"] for name in sides)])
    _draw_turns(turns, phases)
    line.set(xlim=(0, max(1, 1.02 * student)), ylabel="running disagreement")
    turns.set(xlabel="student steps", ylabel="augmentor\nsteps")
    turns.xaxis.set_major_locator(MaxNLocator(integer=True))
    turns.xaxis.set_major_formatter("{x:,.0f}")
    for axes in (line, turns):
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _ends(phases: Sequence[Mapping[str, Any]]) -> tuple[list[int], list[float]]:
    return [phase["student_steps"] for phase in phases], [phase["disagreement"] for phase in phases]


def _set_scale(axes: Axes, values: Sequence[float]) -> None:
    """Logarithmic where the values are more than tenfold apart."""
    if 0 < 10 * min(values, default=0) < max(values, default=0):
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if max(values) < 1000 * min(values) else (1,)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_ylim(0, 1.1 * (max(values, default=0) or 1))


def _draw_turns(axes: Axes, phases: Sequence[Mapping[str, Any]]) -> None:
    steps = np.diff([phase["augmentor_steps"] for phase in phases], prepend=0).tolist()
    own = [place for place, phase in enumerate(phases) if phase["phase"] == "augmentor"]
    at, counts = [phases[place]["student_steps"] for place in own], [steps[place] for place in own]
    axes.vlines(at, 0, counts, color=COLORS["augmentor"], linewidth=min(5, max(0.6, 200 / max(1, len(own)))))
    for x, count in zip(at, counts, strict=True) if len(phases) <= FEW else ():
        axes.annotate(str(count), (x, count), (0, 2), textcoords="offset points", ha="center", size=8)
    axes.set_ylim(0, 1.3 * max([1, *steps]))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=3, integer=True))
