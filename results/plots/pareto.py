"""Plot of the members of a search by size and accuracy, with their Pareto front."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

from results.analysis.pareto import Candidate, describe_bits, group_by_point, pareto_front
from results.plots.style import LIGHT, Style, new_figure, png_bytes
from spaces.core.io import write_atomic

DOMINATED = "#afb8c1"


def plot_pareto(candidates: Sequence[Candidate], path: Path | str) -> Path:
    """Draw accuracy over size, with the Pareto front as steps, as a PNG at `path`.

    Args:
        candidates: Members of one search, at least one.
        path: PNG file to write.

    Returns:
        `path`.

    Raises:
        RequestError: The file cannot be written.

    Example:
        >>> import tempfile
        >>> candidates = [Candidate("small", 0.90, 8000, {}), Candidate("large", 0.95, 64000, {})]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     plot_pareto(candidates, f"{folder}/pareto.png").name
        'pareto.png'
    """
    return write_atomic(path, png_bytes(pareto_figure(candidates)))


def pareto_figure(candidates: Sequence[Candidate], style: Style = LIGHT) -> Figure:
    """Return the plot as a figure in given colors."""
    front = pareto_front(candidates)
    figure = new_figure(7.2, 4.4)
    axis = figure.subplots()
    dominated = [each for each in candidates if each not in front]
    axis.step(*_coordinates(front), where="post", color=style.lead, linewidth=1.5, zorder=2)
    label = f"Pareto front ({len(front)})"
    axis.scatter(*_coordinates(front), s=44, color=style.lead, marker="D", zorder=4, label=label)
    if dominated:
        label = f"dominated ({len(dominated)})"
        axis.scatter(*_coordinates(dominated), s=30, color=DOMINATED, linewidths=0, zorder=3, label=label)
    _set_scale(axis, candidates)
    _label_front(axis, front)
    axis.set_xlabel("size of the exported student, kB")
    axis.set_ylabel("validation accuracy, %")
    axis.set_title("Members by size and accuracy", loc="left", fontsize=11)
    axis.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, frameon=False, fontsize=9)
    axis.grid(color=style.line, zorder=0)
    axis.tick_params(labelsize=9, colors=style.faint)
    axis.spines[["top", "right"]].set_visible(False)
    return figure


def _set_scale(axis: Axes, candidates: Sequence[Candidate]) -> None:
    """Use a logarithmic axis with a tick at each size, as far as the labels do not overlap."""
    sizes = sorted({each.kilobytes for each in candidates})
    low, high = sizes[0], sizes[-1]
    span = max(high / low, 1.5)
    axis.set_xscale("log")
    axis.set_xlim(low / span**0.08, high * span**0.25)
    ticks = [size for index, size in enumerate(sizes) if not index or size / sizes[index - 1] > span**0.07]
    axis.set_xticks(ticks)
    axis.xaxis.set_major_formatter(FuncFormatter(lambda size, _: f"{size:.3g}"))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_minor_formatter(NullFormatter())


def _label_front(axis: Axes, front: Sequence[Candidate]) -> None:
    """Label each point of the front by its bits, above its step, where no other point can be."""
    for group in group_by_point(front):
        place = (group[0].kilobytes, 100 * group[0].accuracy)
        text = "\n".join(describe_bits(group))
        axis.annotate(text, place, (5, 5), textcoords="offset points", va="bottom", fontsize=8, zorder=5)
    axis.margins(y=0.15)


def _coordinates(candidates: Sequence[Candidate]) -> tuple[list[float], list[float]]:
    return [each.kilobytes for each in candidates], [100 * each.accuracy for each in candidates]
