"""Plot of the members of a search by each of their choices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from results.analysis.choices import MemberChoices, format_value, group_scores, is_grouped, varying_choices
from results.plots.style import PAPER, Style, new_figure, png_bytes
from spaces.core.io import write_atomic

MOST_COLUMNS = 4


def plot_choices(members: Sequence[MemberChoices], path: Path | str) -> Path:
    """Draw the validation accuracy of members by the value of each choice that differs, as a PNG at `path`.

    Args:
        members: Members of one search.
        path: PNG file to write.

    Returns:
        `path`.

    Raises:
        RequestError: The file cannot be written.

    Example:
        >>> import tempfile
        >>> members = [MemberChoices(loss, score, {"loss": loss}) for loss, score in (("kd", 0.9), ("dkd", 0.8))]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     plot_choices(members, f"{folder}/choices.png").name
        'choices.png'
    """
    return write_atomic(path, png_bytes(choices_figure(members)))


def choices_figure(members: Sequence[MemberChoices], style: Style = PAPER) -> Figure:
    """Return the plot as a figure in given colors."""
    names = varying_choices(members)
    columns = min(MOST_COLUMNS, max(1, len(names)))
    rows = math.ceil(max(1, len(names)) / columns)
    figure = new_figure(3.4 * columns + 0.6, 2.9 * rows + 0.3)
    axes = figure.subplots(rows, columns, sharey=True, squeeze=False)
    best = max(members, key=lambda member: member.score)
    for axis, name in zip(axes.flat, names, strict=False):
        _draw_choice(axis, name, members, best, style)
    for axis in list(axes.flat)[len(names) :]:
        axis.set_visible(False)
    for row in axes:
        row[0].set_ylabel("validation accuracy, %")
    figure.suptitle(f"{len(members)} members by their choices; ring: the best, {best.name}", fontsize=10)
    return figure


def _draw_choice(axis: Axes, name: str, members: Sequence[MemberChoices], best: MemberChoices, style: Style) -> None:
    """Draw many numbers on an axis of their own, other values side by side with the mean of each."""
    chosen = [member for member in members if name in member.choices]
    if is_grouped([member.choices[name] for member in chosen]):
        places = {member.name: float(member.choices[name]) for member in chosen}
        if min(places.values()) > 0 and max(places.values()) / min(places.values()) > 20:
            axis.set_xscale("log")
    else:
        places = _draw_values(axis, name, chosen, style)
    scores = [100 * member.score for member in chosen]
    axis.scatter([places[member.name] for member in chosen], scores, s=16, color=style.lead, alpha=0.7, zorder=3)
    if best.name in places:
        at = [places[best.name]], [100 * best.score]
        axis.scatter(*at, s=70, facecolors="none", edgecolors=style.ink, zorder=4)
    axis.set_title(name, fontsize=10, loc="left")
    axis.grid(axis="y", color=style.line)
    axis.tick_params(labelsize=8, colors=style.faint)
    axis.spines[["top", "right"]].set_visible(False)


def _draw_values(axis: Axes, name: str, chosen: Sequence[MemberChoices], style: Style) -> dict[str, float]:
    """Draw the mean of each value, and return the x coordinate of each member."""
    groups = group_scores(chosen, name)
    values = [value for value, _ in groups]
    for place, (_, scores) in enumerate(groups):
        mean = 100 * fmean(scores)
        axis.plot([place - 0.3, place + 0.3], [mean, mean], color=style.control, linewidth=2)
    slanted = max(map(len, values)) * len(values) > 30
    axis.set_xticks(range(len(values)), values, rotation=35 if slanted else 0, ha="right" if slanted else "center")
    axis.set_xlim(-0.6, len(values) - 0.4)
    return {member.name: float(values.index(format_value(member.choices[name]))) for member in chosen}
