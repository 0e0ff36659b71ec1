"""Tables of schedules that MLflow shows and compares, one row an operation."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from results.analysis.schedule_table import Overview
from results.analysis.strength import Strengths
from spaces import Schedule

TABLE, ONE = "policies.json", "policy.json"
"""Names of the artifacts: all schedules in a sweep's run, its own in that of a final training."""

QUARTERS = 4
"""Number of parts of the training that strengths are averaged over."""

COLUMNS = (
    *("strength by quarter", "probability", "level", "strength"),
    *(f"strength, quarter {part + 1}" for part in range(QUARTERS)),
)
"""Columns after the one that names a row. By default MLflow compares runs by the first two columns."""


def policies(schedules: Mapping[tuple[str, str], Schedule]) -> str:
    """Return the table of several schedules, as MLflow's `log_table` writes one.

    Args:
        schedules: Schedules by role and arm. One that applies no operation has a single row, `none`.

    Returns:
        JSON text with one row for each operation of each schedule: means over the epochs, levels and strengths from
        0 to 9.
    """
    rows = [
        [f"{role}, {arm}: {row[0]}", row[1], role, arm, row[0], *row[2:]]
        for (role, arm), schedule in schedules.items()
        for row in _rows(schedule)
    ]
    return _table(("policy: operation", COLUMNS[0], "role", "arm", "operation", *COLUMNS[1:]), rows)


def policy(schedule: Schedule) -> str:
    """Return the table of one schedule; MLflow shows those of several runs side by side, operation by operation."""
    return _table(("operation", *COLUMNS), _rows(schedule))


def _rows(schedule: Schedule) -> list[list[Any]]:
    strengths = Strengths.of(schedule)
    quarters = strengths.binned(strengths.strength, QUARTERS).tolist()
    rows: list[list[Any]] = []
    for row, parts in zip(Overview(schedule).rows, quarters, strict=True):
        level = None if row.level is None else round(row.level, 3)
        text = "  ".join(f"{part:.1f}" for part in parts)
        rows.append([row.op, text, round(row.probability, 3), level, round(row.strength, 3)])
        rows[-1] += [round(part, 3) for part in parts]
    return rows or [["none", "no image is changed", 0.0, None, 0.0, *[0.0] * QUARTERS]]


def _table(columns: Sequence[str], rows: list[list[Any]]) -> str:
    return json.dumps({"columns": columns, "data": rows})


def table_tag(name: str) -> dict[str, str]:
    """Return the tag by which MLflow's page knows that the artifact `name` is a table."""
    return {"mlflow.loggedArtifacts": json.dumps([{"path": name, "type": "table"}])}
