"""Plots of HARD's adversarial game: views and answers, distributions of the augmentor's parameters, and phases."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from results.plots.contact_sheet import Band, Cell, ContactSheet
from results.plots.style import png_bytes
from spaces.core.io import write_atomic

INK, FAINT, LINE = "#1f2328", "#57606a", "#d0d7de"

MOST_EPOCHS, MOST_IMAGES, MOST_PANELS = 5, 8, 16
"""Largest number of epochs and of images in the sheet of views, and of panels of parameters."""

MOST_LABELED_PHASES = 40
"""Up to this number of phases, the steps of the augmentor are written beside their bars."""

COLORS = {"student": "#0072b2", "augmentor": "#d55e00"}
"""Colors that are safe for color blindness; the markers have different shapes as well."""

LEGEND = """Upper row: images with the teacher's prediction (class, probability). Lower row: their views with the
predictions of teacher and student, and the disagreement, which is the distillation loss. Frame and ≠: the student
predicts another class than the teacher."""


def plot_game(game: Mapping[str, Any], folder: Path) -> tuple[Path, ...]:
    """Draw a game as PNG files: `hard.grid.png` if images were kept, `hard.parameters.png` and `hard.phases.png`.

    Args:
        game: State of the game, `game` in the student's state; the same state gives the same bytes.
        folder: Folder to write to; it is created if needed.

    Returns:
        The files.

    Raises:
        RequestError: A file cannot be written.
    """
    pictures = {"grid": views_sheet(game).png()} if game["grids"] else {}
    pictures |= {"parameters": png_bytes(parameters_figure(game)), "phases": png_bytes(phases_figure(game))}
    return tuple(write_atomic(folder / f"hard.{name}.png", content) for name, content in pictures.items())


def views_sheet(game: Mapping[str, Any]) -> ContactSheet:
    """Return images and their views at some epochs, marked where the predictions of teacher and student differ."""
    kept = game["grids"]
    chosen = sorted({round(at) for at in np.linspace(0, len(kept) - 1, MOST_EPOCHS)})
    return ContactSheet(f"Views of {game['augment']['kind']}", [_band(kept[number]) for number in chosen], LEGEND)


def _band(grid: Mapping[str, Any]) -> Band:
    teacher, student = grid["teacher"], grid["student"]
    differs = [ours != theirs for ours, theirs in zip(student["label"], teacher["label"], strict=True)]
    originals, views = [], []
    for number, marked in enumerate(differs[:MOST_IMAGES]):
        originals.append(Cell(grid["images"][number], [_prediction("teacher", grid["teacher_before"], number)]))
        caption = [
            _prediction("teacher", teacher, number),
            _prediction("student", student, number) + " ≠" * marked,
            f"disagreement {grid['disagreement'][number]:.2g}",
        ]
        views.append(Cell(grid["views"][number], caption, marked=marked))
    note = f"student and teacher differ on {sum(differs)} of {len(differs)} views"
    return Band(f"epoch {grid['epoch']}", note, (tuple(originals), tuple(views)))


def _prediction(network: str, predictions: Mapping[str, Sequence[Any]], number: int) -> str:
    return f"{network} {predictions['label'][number]}, {100 * predictions['probability'][number]:.0f} %"


def _figure(width: float, height: float, title: str) -> Figure:
    figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08))
    FigureCanvasAgg(figure)
    figure.suptitle(title, x=0.08 / width, ha="left", size=12, weight="bold", color=INK)
    return figure


def parameters_figure(game: Mapping[str, Any]) -> Figure:
    """Return the distribution of each parameter over the epochs; of many, those whose medians changed most."""
    names, epochs = game["names"], np.array([entry["epoch"] for entry in game["epochs"]], dtype=float)
    table = np.array([entry["quantiles"] for entry in game["epochs"]], dtype=float).reshape(len(epochs), len(names), 5)
    chosen, title = list(range(len(names))), f"Parameters of {game['augment']['kind']}"
    if len(names) > MOST_PANELS:
        moved = np.ptp(table[:, :, 2], axis=0) if len(epochs) else np.zeros(len(names))
        chosen = sorted(np.argsort(-moved, kind="stable")[:MOST_PANELS].tolist())
        title += f": {MOST_PANELS} of {len(names)}, those whose medians changed most"
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
    legend = "line: median; dark: 25–75 %; light: 5–95 % of the last batch" if len(epochs) else "none has ended yet"
    figure.supxlabel(f"epoch ({legend})", size=9, color=INK)
    figure.supylabel("fraction of the bound", size=9, color=INK)
    return figure


def _draw_bands(axes: Axes, epochs: Any, levels: Any) -> None:
    """Draw each epoch from its start to its end, so that a single one is visible; leave a gap for a missing one."""
    x, y = np.add.outer(epochs, (0.0, 1.0, 1.0)).ravel(), np.repeat(levels, 3, axis=0)
    y[2:-1:3][np.diff(epochs) > 1] = np.nan
    axes.fill_between(x, y[:, 0], y[:, 4], color=COLORS["student"], alpha=0.2, linewidth=0)
    axes.fill_between(x, y[:, 1], y[:, 3], color=COLORS["student"], alpha=0.4, linewidth=0)
    axes.plot(x, y[:, 2], color=INK, linewidth=1.4)


def phases_figure(game: Mapping[str, Any]) -> Figure:
    """Return the running disagreement at the end of each phase with its last thresholds, and the augmentor's steps."""
    phases, rules = game["phases"], game["augment"]
    student, augmentor = (sum(entry[f"{player}_steps"] for entry in game["epochs"]) for player in COLORS)
    figure = _figure(9, 5, f"{rules['kind']}: {student:,} student steps, {augmentor:,} augmentor steps")
    line, steps = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": [3, 1]})
    line.set_title(f"{len(phases):,} phases ended" if phases else "no phase has ended yet", loc="left", size=9)
    size = min(6, max(2, 300 / max(1, len(phases))))
    line.plot(*_ends(phases), color=FAINT if size > 2 else LINE, linewidth=size / 6)
    for player, marker in (("student", "o"), ("augmentor", "^")):
        ended = [phase for phase in phases if phase["phase"] == player]
        line.plot(*_ends(ended), marker, color=COLORS[player], markersize=size, label=f"end of a phase of the {player}")
    line.legend(fontsize=8, frameon=False, loc="lower right", bbox_to_anchor=(1, 0.98), ncols=2, markerscale=6 / size)
    sides = {} if math.isnan(game["scale"]) else {"low": "top", "high": "bottom"}
    for name, side in sides.items():
        limit = rules[name] * game["scale"]
        line.axhline(limit, color=INK, linewidth=1, linestyle="--")
        line.text(1, limit, f" {name} · ℓ = {limit:.3g}", transform=line.get_yaxis_transform(), va=side, size=9)
    _set_scale(line, [*_ends(phases)[1], *(rules[name] * game["scale"] for name in sides)])
    _draw_augmentor_steps(steps, phases)
    line.set(xlim=(0, max(1, 1.02 * student)), ylabel="running disagreement")
    steps.set(xlabel="student steps", ylabel="augmentor\nsteps")
    steps.xaxis.set_major_locator(MaxNLocator(integer=True))
    steps.xaxis.set_major_formatter("{x:,.0f}")
    for axes in (line, steps):
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _ends(phases: Sequence[Mapping[str, Any]]) -> tuple[list[int], list[float]]:
    return [phase["student_steps"] for phase in phases], [phase["disagreement"] for phase in phases]


def _set_scale(axes: Axes, values: Sequence[float]) -> None:
    """Use a logarithmic scale if the values are more than tenfold apart."""
    if 0 < 10 * min(values, default=0) < max(values, default=0):
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if max(values) < 1000 * min(values) else (1,)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_ylim(0, 1.1 * (max(values, default=0) or 1))


def _draw_augmentor_steps(axes: Axes, phases: Sequence[Mapping[str, Any]]) -> None:
    steps = np.diff([phase["augmentor_steps"] for phase in phases], prepend=0).tolist()
    ended = [number for number, phase in enumerate(phases) if phase["phase"] == "augmentor"]
    at, counts = [phases[number]["student_steps"] for number in ended], [steps[number] for number in ended]
    axes.vlines(at, 0, counts, color=COLORS["augmentor"], linewidth=min(5, max(0.6, 200 / max(1, len(ended)))))
    for x, count in zip(at, counts, strict=True) if len(phases) <= MOST_LABELED_PHASES else ():
        axes.annotate(str(count), (x, count), (0, 2), textcoords="offset points", ha="center", size=8)
    axes.set_ylim(0, 1.3 * max([1, *steps]))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=3, integer=True))
