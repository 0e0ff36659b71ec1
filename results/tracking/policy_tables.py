"""All schedules of a sweep side by side: tables that MLflow shows and compares, one row an operation."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from results.analysis.schedule_table import Overview
from results.analysis.strength import Strengths
from spaces import Schedule

TABLE, ONE = "policies.json", "policy.json"
"""The artifacts: of a sweep's run with all schedules, and of a full training's with its own."""

QUARTERS = 4
"""Parts of the training that strengths are told for."""

COLUMNS = (
    *("strength by quarter", "probability", "level", "strength"),
    *(f"strength, quarter {part + 1}" for part in range(QUARTERS)),
)
"""After what a row is of. MLflow compares runs by the first two columns of a table, unless it is told otherwise."""


def policies(schedules: Mapping[tuple[str, str], Schedule]) -> str:
    """The table of several schedules, as MLflow's `log_table` writes one.

    Args:
        schedules: by role and arm. A schedule without an operation in force has one row, of the operation `none`.

    Returns:
        One row an operation of each; means over the epochs, levels and strengths from 0 to 9.
    """
    rows = [
        [f"{role}, {arm}: {row[0]}", row[1], role, arm, row[0], *row[2:]]
        for (role, arm), schedule in schedules.items()
        for row in _rows(schedule)
    ]
    return _table(("policy: operation", COLUMNS[0], "role", "arm", "operation", *COLUMNS[1:]), rows)


def policy(schedule: Schedule) -> str:
    """The table of one schedule; MLflow puts those of several runs side by side, operation by operation."""
    return _table(("operation", *COLUMNS), _rows(schedule))


def _rows(schedule: Schedule) -> list[list[Any]]:
    strengths = Strengths.of(schedule)
    quarters = strengths.binned(strengths.strength, QUARTERS).tolist()
    rows: list[list[Any]] = []
    for row, parts in zip(Overview(schedule).rows, quarters, strict=True):
        level = None if row.level is None else round(row.level, 3)
        told = "  ".join(f"{part:.1f}" for part in parts)
        rows.append([row.op, told, round(row.probability, 3), level, round(row.strength, 3)])
        rows[-1] += [round(part, 3) for part in parts]
    return rows or [["none", "no image is changed", 0.0, None, 0.0, *[0.0] * QUARTERS]]


def _table(columns: Sequence[str], rows: list[list[Any]]) -> str:
    return json.dumps({"columns": columns, "data": rows})


def table_tag(name: str) -> dict[str, str]:
    """By which MLflow's page knows that the artifact `name` is a table."""
    return {"mlflow.loggedArtifacts": json.dumps([{"path": name, "type": "table"}])}
