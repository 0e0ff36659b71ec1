"""Confirmation of a policy and headroom of a role, in words and as a table."""

from __future__ import annotations

import math

from results.analysis.summary import arm_name
from results.analysis.tables import TextTable, format_percent
from results.runlog.events import HeadroomMeasured, PolicyConfirmed


def describe_confirmation(event: PolicyConfirmed) -> str:
    """Return the outcome of a confirmation as one sentence, without a full stop.

    Example:
        >>> event = PolicyConfirmed(role="teacher", winner="policy", against="uniform", free=False, seeds=3,
        ...                         difference=0.012, half_width=0.004, accuracies={})
        >>> describe_confirmation(event)
        'confirmed: with policy − uniform = +1.20 ± 0.40 points on validation images (3 seeds)'
    """
    winner, against = arm_name(event.winner), arm_name(event.against)
    if not event.against:
        return f"{winner} is the only candidate"
    ours, theirs = (against, winner) if event.free else (winner, against)
    seeds = f"{event.seeds} seed{'s' if event.seeds != 1 else ''}"
    verdict = f"not confirmed, {winner} is exported" if event.free else "confirmed"
    difference = points(event.difference, event.half_width)
    return f"{verdict}: {ours} − {theirs} = {difference} on validation images ({seeds})"


def confirmation_table(event: PolicyConfirmed) -> TextTable:
    """Return the mean validation accuracy of each candidate, the best first.

    Example:
        >>> event = PolicyConfirmed(role="teacher", winner="policy", against="none", free=False, seeds=1,
        ...                         difference=0.1, half_width=math.nan, accuracies={"none": 0.8, "policy": 0.9})
        >>> confirmation_table(event).rows
        [['with policy', '90.00', 'exported'], ['no augmentation', '80.00', 'in the last round']]
    """
    outcome = {event.winner: "exported", event.against: "in the last round"}
    ranked = sorted(event.accuracies, key=lambda name: (math.isnan(event.accuracies[name]), -event.accuracies[name]))
    rows = []
    for name in ranked:
        accuracy = event.accuracies[name]
        shown = "failed" if math.isnan(accuracy) else format_percent(accuracy)
        rows.append([arm_name(name), shown, outcome.get(name, "rejected")])
    return TextTable(["trained", "validation accuracy, %", "outcome"], rows, numbers=(1,))


def describe_headroom(event: HeadroomMeasured) -> str:
    """Return what augmentation gains before a search as one sentence, without a full stop.

    Example:
        >>> describe_headroom(HeadroomMeasured(role="teacher", seeds=3, difference=0.02, half_width=0.01))
        'headroom: uniform − no augmentation = +2.00 ± 1.00 points over 3 seeds'
    """
    seeds = f"{event.seeds} seed{'s' if event.seeds != 1 else ''}"
    return f"headroom: uniform − no augmentation = {points(event.difference, event.half_width)} over {seeds}"


def points(mean: float, half_width: float) -> str:
    """Return a difference of accuracies in percentage points, with its interval unless that is NaN.

    Example:
        >>> points(0.01, math.nan)
        '+1.00 points'
    """
    interval = "" if math.isnan(half_width) else f" ± {100 * half_width:.2f}"
    return f"{100 * mean:+.2f}{interval} points"
