"""Forest plot of the effects of an experiment: teacher and student side by side."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean
from typing import Any, TypeAlias

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from results.analysis.effects import MIDDLE, UNITS, Effect, EffectsReport, RoleEffects
from results.plots.style import PAPER, Style, new_figure, png_bytes
from spaces.core.io import write_atomic

Row: TypeAlias = tuple[str, tuple[Any, ...]]
"""Factor and compared levels of a row."""

WIDTH, WIDTH_ALONE = 7.6, 5.4
"""Width in inches with both roles, which is 912 px at the resolution of PNG files, and with one."""

ROW, FRAME = 0.2, 1.25
"""Height in inches of a row, and of all around the rows."""

STRENGTHS = {"low": "mild", "high": "strong", MIDDLE: "medium"}
"""Words for the chosen strength of an operation."""

ROOM = 0.2
"""Share of the width that is left free for the chosen strengths."""

BAND = 0.13
"""Opacity of the band behind a row in which the roles differ."""


def plot_effects(report: EffectsReport, path: Path | str) -> Path:
    """Draw the effects of operations, choices and settings with their 95 % intervals as a PNG at `path`.

    Operations are in the order of their mean effect over the roles. The strength that was chosen for an operation is
    beside its interval.

    Args:
        report: Effects of one role or both.
        path: PNG file to write.

    Returns:
        `path`.

    Raises:
        RequestError: The file cannot be written.

    Example:
        >>> import tempfile
        >>> effect = Effect("Rotate", "operation", ("off", "on"), 0.4, 0.1, 0.7, 0.99, 2.3)
        >>> report = EffectsReport({"teacher": RoleEffects("teacher", "accuracy", 24, 0.5, (effect,))})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     plot_effects(report, f"{folder}/effects.png").name
        'effects.png'
    """
    return write_atomic(path, png_bytes(effects_figure(report)))


def effects_figure(report: EffectsReport, style: Style = PAPER) -> Figure:
    """Return the plot as a figure in given colors."""
    operations, others = _rows(report, operations=True), _rows(report, operations=False)
    gap = 0.6 if operations and others else 0.0
    places = {row: float(place) for place, row in enumerate(operations)}
    places |= {row: len(operations) + gap + place for place, row in enumerate(others)}
    height = FRAME + ROW * (len(places) + gap)
    figure = new_figure(WIDTH if len(report.roles) > 1 else WIDTH_ALONE, height)
    figure.get_layout_engine().set(wspace=0.05)  # type: ignore[call-arg, union-attr]  # the figure has a constrained layout
    comparable = len({each.score for each in report.roles.values()}) == 1
    axes = figure.subplots(1, len(report.roles), sharey=True, sharex=comparable, squeeze=False)[0]
    different = {(each.factor, each.levels) for each in report.different}
    for axis, effects in zip(axes, report.roles.values(), strict=True):
        _draw_role(axis, effects, places, style)
        for row in different & places.keys():
            axis.axhspan(places[row] - 0.5, places[row] + 0.5, color=style.control, alpha=BAND, linewidth=0, zorder=0)
    for axis in axes[: 1 if comparable else None]:
        low, high = axis.get_xlim()
        axis.set_xlim(low, high + ROOM * (high - low))
    axes[0].set_yticks(list(places.values()), [_label(report, row) for row in places], fontsize=9)
    axes[0].set_ylim(max(places.values()) + 0.7, -0.7)
    for row, tick in zip(places, axes[0].get_yticklabels(), strict=True):
        tick.set_color(style.control if row in different else style.ink)
        tick.set_fontweight("bold" if row in different else "normal")
    _add_legend(figure, bool(different), style)
    return figure


def _rows(report: EffectsReport, *, operations: bool) -> list[Row]:
    """Return operations by their mean effect over the roles, the largest first; or choices and settings in order."""
    means: dict[Row, list[float]] = {}
    for effects in report.roles.values():
        for effect in effects.effects:
            if effect.kind != "level" and (effect.kind == "operation") == operations:
                means.setdefault((effect.factor, effect.levels), []).append(effect.estimate)
    return sorted(means, key=lambda row: -fmean(means[row])) if operations else list(means)


def _label(report: EffectsReport, row: Row) -> str:
    """Return the label of a row, without the section of the sweep file that a choice is in."""
    every = (effect for effects in report.roles.values() for effect in effects.effects)
    label = next(effect.label for effect in every if (effect.factor, effect.levels) == row)
    return label.removeprefix("distill.")


def _draw_role(axis: Axes, effects: RoleEffects, places: dict[Row, float], style: Style) -> None:
    known = {(effect.factor, effect.levels): effect for effect in effects.effects}
    across = axis.get_yaxis_transform()
    axis.axvline(0, color=style.ink, linewidth=1.1, zorder=1)
    for row, place in places.items():
        if (effect := known.get(row)) is None:
            continue
        kept = effects.kept(effect)
        color = style.lead if kept else style.faint
        line = 2.0 if kept else 1.2
        axis.plot(
            [effect.low, effect.high], [place, place], color=color, linewidth=line, solid_capstyle="butt", zorder=2
        )
        face = color if kept else style.page
        axis.plot(effect.estimate, place, "o", markersize=5.5, color=color, markerfacecolor=face, zorder=3)
        if chosen := _chosen(effects, effect):
            axis.text(0.995, place, chosen, transform=across, va="center", ha="right", fontsize=8, color=style.faint)
    axis.set_title(f"{effects.role.capitalize()}", loc="left", fontsize=11, fontweight="bold")
    axis.set_title(f"{effects.trials} trials", loc="right", fontsize=8.5, color=style.faint)
    axis.set_xlabel(f"effect on {UNITS[effects.score]}, 95 % interval", fontsize=8.5)
    axis.grid(axis="x", color=style.line, zorder=0)
    axis.tick_params(axis="x", labelsize=8.5, colors=style.faint)
    axis.tick_params(axis="y", length=0)
    axis.spines[["top", "right", "left"]].set_visible(False)


def _chosen(effects: RoleEffects, effect: Effect) -> str:
    """Return the chosen strength of an operation in the policy, or the chosen one of two levels; else nothing."""
    if effect.kind == "operation":
        return STRENGTHS.get(effects.strength_of(effect.factor), "")
    return str(effects.policy.get(effect.factor, "")) if len(effect.levels) == 2 else ""


def _add_legend(figure: Figure, differ: bool, style: Style) -> None:
    mark: dict[str, Any] = {"marker": "o", "markersize": 5.5}
    entries: list[Line2D | Patch] = [
        Line2D([], [], color=style.lead, linewidth=2, label="in the policy (right: its strength)", **mark),
        Line2D([], [], color=style.faint, linewidth=1.2, markerfacecolor=style.page, label="left out", **mark),
    ]
    if differ:
        label = "roles differ (Holm, p < 0.05)"
        entries.append(Patch(color=style.control, alpha=2.5 * BAND, linewidth=0, label=label))
    figure.legend(handles=entries, loc="outside lower right", ncols=3, fontsize=8.5, frameon=False)
