"""Validation accuracy of a population over the epochs, and over T. stddev, for a light and a dark page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from results.plots.style import Picture, Style, draw_picture, new_figure
from results.runlog.members import METRIC, StageHistory

RATIO = "t_stddev_ratio"
WIDTH, HEIGHT = 5.2, 3.3
"""Size in inches, which keeps the labels readable on a phone."""


@dataclass(frozen=True)
class Spread:
    """Quartiles of a population at its E scored epochs.

    Args:
        epochs: (E,), in order.
        quartiles: (3, E): lower quartile, median and upper quartile of the validation accuracy, 0 to 1.
    """

    epochs: tuple[int, ...]
    quartiles: np.ndarray[tuple[int, int], np.dtype[np.float64]]

    @classmethod
    def of(cls, stage: StageHistory) -> Spread:
        """Compute the quartiles at the epochs at which at least half of the members were scored."""
        at: dict[int, list[float]] = {}
        for member in stage.members.values():
            for epoch, value in member.curve(METRIC):
                at.setdefault(epoch, []).append(value)
        most = max(map(len, at.values()), default=0)
        epochs = tuple(sorted(epoch for epoch, scores in at.items() if 2 * len(scores) >= most))
        quartiles = [np.quantile(at[epoch], (0.25, 0.5, 0.75)) for epoch in epochs]
        return cls(epochs, np.array(quartiles).reshape(-1, 3).T)


def accuracy_picture(stages: Sequence[StageHistory]) -> Picture | None:
    """Return the validation accuracy of every member over the epochs.

    Args:
        stages: Searches of a role; the first is compared with the others.

    Returns:
        The picture; None if no member was scored.
    """
    spreads = [(name, stage, Spread.of(stage)) for name, stage in _named(stages)]
    spreads = [each for each in spreads if each[2].epochs]
    if not spreads:
        return None

    def draw(style: Style) -> Figure:
        figure = new_figure(WIDTH, HEIGHT)
        axes = figure.subplots()
        for number, (name, stage, spread) in enumerate(spreads):
            color, dashes = (style.control, (0, (4, 2))) if number else (style.lead, "solid")
            for member in stage.members.values():
                points = member.curve(METRIC)
                axes.plot(*_percent(points), color=color, alpha=0.45, linewidth=0.7, linestyle=dashes)
            low, middle, high = 100 * spread.quartiles
            axes.fill_between(spread.epochs, low, high, color=color, alpha=0.18, linewidth=0)
            axes.plot(
                spread.epochs, middle, color=color, linewidth=2.4, linestyle=dashes, label=f"{name}: median, quartiles"
            )
        _label(axes, "epoch", "validation accuracy, %")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
        _add_legend(axes)
        return figure

    summary = "; ".join(_describe(*each) for each in spreads)
    return draw_picture(draw, f"Validation accuracy of every member over the epochs. {summary}.")


def t_stddev_picture(stages: Sequence[StageHistory]) -> Picture | None:
    """Return the last T. stddev ratio of each member against its last validation accuracy.

    Args:
        stages: Searches of a role; the first is compared with the others.

    Returns:
        The picture; None if fewer than two members have both values.
    """
    points_by_stage = [(name, points) for name, stage in _named(stages) if (points := _ratios(stage))]
    if sum(len(points) for _, points in points_by_stage) < 2:
        return None

    def draw(style: Style) -> Figure:
        figure = new_figure(WIDTH, HEIGHT)
        axes = figure.subplots()
        for number, (name, points) in enumerate(points_by_stage):
            color, marker = (style.control, "^") if number else (style.lead, "o")
            ratios, scores = zip(*points, strict=True)
            accuracy = [100 * score for score in scores]
            axes.scatter(ratios, accuracy, s=34, color=color, marker=marker, alpha=0.85, label=name)
        axes.axvline(1, color=style.faint, linewidth=0.8, linestyle=":")
        _label(axes, "T. stddev, ratio to no augmentation", "validation accuracy, %")
        _add_legend(axes)
        return figure

    summary = "; ".join(
        f"{name}: {len(points)} members, ratio {min(r for r, _ in points):.3f} to "
        f"{max(r for r, _ in points):.3f}, accuracy {100 * min(s for _, s in points):.1f} to "
        f"{100 * max(s for _, s in points):.1f} %"
        for name, points in points_by_stage
    )
    return draw_picture(draw, f"T. stddev ratio of each member against its validation accuracy. {summary}.")


def _ratios(stage: StageHistory) -> list[tuple[float, float]]:
    last = [(member.curve(RATIO)[-1:], member.score) for member in stage.members.values()]
    return [(ratio[0][1], score) for ratio, score in last if ratio and not math.isnan(score)]


def _percent(points: Sequence[tuple[int, float]]) -> tuple[list[int], list[float]]:
    return [epoch for epoch, _ in points], [100 * value for _, value in points]


def _named(stages: Sequence[StageHistory]) -> list[tuple[str, StageHistory]]:
    """Return each stage with its name; a random search beside another one is its control."""
    control = len(stages) > 1
    return [("random control" if control and s.kind == "random" else f"search {s.kind}", s) for s in stages]


def _describe(name: str, stage: StageHistory, spread: Spread) -> str:
    low, middle, high = (100 * spread.quartiles[:, -1]).tolist()
    best = max((m for m in stage.members.values() if not math.isnan(m.score)), key=lambda member: member.score)
    return (
        f"{name}, {len(stage.members)} members: at epoch {spread.epochs[-1]} median {middle:.1f} %, "
        f"quartiles {low:.1f} and {high:.1f} %, best {100 * best.score:.1f} % ({best.name})"
    )


def _label(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(axis="y")
    axes.set_axisbelow(True)


def _add_legend(axes: Axes) -> None:
    """Put the legend above the axes, where its markers cannot be taken for data."""
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, fontsize=8, columnspacing=1.2, borderaxespad=0.2)
