"""Plot of an evaluation: the test accuracy of every arm with its confidence interval."""

from __future__ import annotations

import math

from matplotlib.figure import Figure

from results.analysis.evaluation import Evaluation
from results.analysis.statistics import interval
from results.plots.style import LIGHT, Style, new_figure, png_bytes


def evaluation_png(evaluation: Evaluation) -> bytes:
    """Return the plot as PNG; the same evaluation gives the same bytes."""
    return png_bytes(evaluation_figure(evaluation))


def evaluation_figure(evaluation: Evaluation, style: Style = LIGHT) -> Figure:
    """Return the test accuracy of every arm, the best at the top: a dot for each seed, the mean with its interval.

    Policies are blue, baselines gray, controls gray and hollow; the dashed line is the mean of the best baseline.

    Args:
        evaluation: Evaluation to draw; arms whose trainings all failed are left out.
        style: Colors.

    Example:
        >>> from results.analysis.evaluation import Arm
        >>> arms = Arm("mine", "policy", (0.9, 0.8), (1.0, 1.0)), Arm("none", "baseline", (0.7, 0.8), (1.0, 1.0))
        >>> figure = evaluation_figure(Evaluation("digits", "student", 60, arms))
        >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
        ['mine', 'none']
    """
    arms = [arm for arm in evaluation.ranked if not math.isnan(arm.mean)]
    figure = new_figure(7.5, 1.2 + 0.36 * max(2, len(arms)))
    axes = figure.subplots()
    for place, arm in enumerate(arms):
        mean, half_width = interval(arm.scores)
        color = style.lead if arm.kind == "policy" else style.faint
        dots = [100 * value for value in arm.scores]
        axes.scatter(dots, [place] * len(dots), s=14, color=color, alpha=0.45, linewidths=0)
        face = style.page if arm.kind == "control" else color
        bar = 100 * half_width if half_width else None
        axes.errorbar(100 * mean, place, xerr=bar, fmt="o", color=color, capsize=3, markersize=7, markerfacecolor=face)
    if (best := evaluation.best_baseline) is not None:
        axes.axvline(100 * best.mean, color=style.faint, linestyle="--", linewidth=1, zorder=0)
    scores = [100 * value for arm in arms for value in arm.scores]
    if scores:  # a wide interval must not hide the distances between the arms, and accuracy ends at 100 %
        room = max(1.0, 0.35 * (max(scores) - min(scores)))
        axes.set_xlim(max(0.0, min(scores) - room), min(100.0, max(scores) + room))
    axes.set_yticks(range(len(arms)), [arm.name for arm in arms])
    axes.invert_yaxis()
    axes.set_xlabel(f"test accuracy, % (mean and 95 % confidence interval, {evaluation.seeds} seeds)")
    axes.set_title(f"Test accuracy of the {evaluation.role}, {evaluation.epochs} epochs", loc="left", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    return figure
