"""Curves with their spread over a population, and accuracy over T. stddev, for a page that is light or dark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from results.plots.style import Picture, Style, canvas, picture
from results.runlog.members import METRIC, StageHistory

RATIO = "t_stddev_ratio"
WIDTH, HEIGHT = 5.2, 3.3
"""Inches: about what a phone shows without shrinking the words too much."""


@dataclass(frozen=True)
class Spread:
    """A population over its epochs.

    Letters: E epochs at which members were scored.

    Args:
        epochs: (E,) in order.
        quartiles: (3, E) validation accuracy, 0 … 1: lower, median, upper.
    """

    epochs: tuple[int, ...]
    quartiles: np.ndarray[tuple[int, int], np.dtype[np.float64]]

    @classmethod
    def of(cls, stage: StageHistory) -> Spread:
        """Over the members of a search, at the epochs at which half of them were scored."""
        at: dict[int, list[float]] = {}
        for member in stage.members.values():
            for epoch, value in member.curve(METRIC):
                at.setdefault(epoch, []).append(value)
        most = max(map(len, at.values()), default=0)
        epochs = tuple(sorted(epoch for epoch, scores in at.items() if 2 * len(scores) >= most))
        quartiles = [np.quantile(at[epoch], (0.25, 0.5, 0.75)) for epoch in epochs]
        return cls(epochs, np.array(quartiles).reshape(-1, 3).T)


def curves(stages: Sequence[StageHistory]) -> Picture | None:
    """The validation accuracy of every member, the first of `stages` against the others; None: nobody was scored."""
    spreads = [(name, stage, Spread.of(stage)) for name, stage in _called(stages)]
    spreads = [each for each in spreads if each[2].epochs]
    if not spreads:
        return None

    def draw(theme: Style) -> Figure:
        figure = canvas(WIDTH, HEIGHT)
        axes = figure.subplots()
        for place, (name, stage, spread) in enumerate(spreads):
            color, dashes = (theme.control, (0, (4, 2))) if place else (theme.lead, "solid")
            for member in stage.members.values():
                points = member.curve(METRIC)
                axes.plot(*_percent(points), color=color, alpha=0.45, linewidth=0.7, linestyle=dashes)
            low, middle, high = 100 * spread.quartiles
            axes.fill_between(spread.epochs, low, high, color=color, alpha=0.18, linewidth=0)
            axes.plot(
                spread.epochs, middle, color=color, linewidth=2.4, linestyle=dashes, label=f"{name}: median, quartiles"
            )
        _dress(axes, "epoch", "validation accuracy, %")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
        axes.legend(loc="lower right", fontsize=8.5)
        return figure

    said = "; ".join(_told(*each) for each in spreads)
    return picture(draw, f"Validation accuracy of every member over the epochs. {said}.")


def scatter(stages: Sequence[StageHistory]) -> Picture | None:
    """Each member's last T. stddev ratio against its last validation accuracy; None: fewer than two have both."""
    found = [(name, points) for name, stage in _called(stages) if (points := _ratios(stage))]
    if sum(len(points) for _, points in found) < 2:
        return None

    def draw(theme: Style) -> Figure:
        figure = canvas(WIDTH, HEIGHT)
        axes = figure.subplots()
        for place, (name, points) in enumerate(found):
            color, marker = (theme.control, "^") if place else (theme.lead, "o")
            ratios, scores = zip(*points, strict=True)
            accuracy = [100 * score for score in scores]
            axes.scatter(ratios, accuracy, s=34, color=color, marker=marker, alpha=0.85, label=name)
        axes.axvline(1, color=theme.faint, linewidth=0.8, linestyle=":")
        _dress(axes, "T. stddev, ratio to no augmentation", "validation accuracy, %")
        axes.legend(fontsize=8.5)
        return figure

    said = "; ".join(
        f"{name}: {len(points)} members, ratio {min(r for r, _ in points):.3f} to "
        f"{max(r for r, _ in points):.3f}, accuracy {100 * min(s for _, s in points):.1f} to "
        f"{100 * max(s for _, s in points):.1f} %"
        for name, points in found
    )
    return picture(draw, f"T. stddev ratio of each member against its validation accuracy. {said}.")


def _ratios(stage: StageHistory) -> list[tuple[float, float]]:
    last = [(member.curve(RATIO)[-1:], member.score) for member in stage.members.values()]
    return [(ratio[0][1], score) for ratio, score in last if ratio and not math.isnan(score)]


def _percent(points: Sequence[tuple[int, float]]) -> tuple[list[int], list[float]]:
    return [epoch for epoch, _ in points], [100 * value for _, value in points]


def _called(stages: Sequence[StageHistory]) -> list[tuple[str, StageHistory]]:
    """Each with its name: a search at random is a control where it is not the only one."""
    control = len(stages) > 1
    return [("random control" if control and s.kind == "random" else f"search {s.kind}", s) for s in stages]


def _told(name: str, stage: StageHistory, spread: Spread) -> str:
    low, middle, high = (100 * spread.quartiles[:, -1]).tolist()
    best = max((m for m in stage.members.values() if not math.isnan(m.score)), key=lambda member: member.score)
    return (
        f"{name}, {len(stage.members)} members: at epoch {spread.epochs[-1]} median {middle:.1f} %, "
        f"quartiles {low:.1f} and {high:.1f} %, best {100 * best.score:.1f} % ({best.name})"
    )


def _dress(axes: Axes, across: str, up: str) -> None:
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.grid(axis="y")
    axes.set_axisbelow(True)
