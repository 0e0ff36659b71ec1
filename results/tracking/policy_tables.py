"""Tables of schedules that MLflow shows side by side, one row for each operation."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from results.analysis.schedule_table import ScheduleTable
from results.analysis.strength import Strengths
from spaces import Schedule

POLICIES_FILE, POLICY_FILE = "policies.json", "policy.json"
"""Artifacts: all schedules in a sweep's run, and one schedule in the run of a final training."""

QUARTERS = 4
"""Number of parts of the training with a strength each."""

COLUMNS = (
    *("strength by quarter", "probability", "level", "strength"),
    *(f"strength, quarter {part + 1}" for part in range(QUARTERS)),
)
"""Columns after the name of a row; by default, MLflow compares runs by the first two columns of a table."""


def policies_table(schedules: Mapping[tuple[str, str], Schedule]) -> str:
    """Return the table of several schedules, in the format of MLflow's `log_table`.

    Args:
        schedules: Schedules by role and arm.

    Returns:
        JSON with one row for each active operation of each schedule, or one row `none` without any: means over the
        epochs; levels and strengths from 0 to 9.
    """
    rows = [
        [f"{role}, {arm}: {row[0]}", row[1], role, arm, row[0], *row[2:]]
        for (role, arm), schedule in schedules.items()
        for row in _rows(schedule)
    ]
    return _table(("policy: operation", COLUMNS[0], "role", "arm", "operation", *COLUMNS[1:]), rows)


def policy_table(schedule: Schedule) -> str:
    """Return the table of one schedule; MLflow shows those of several runs side by side, by operation."""
    return _table(("operation", *COLUMNS), _rows(schedule))


def _rows(schedule: Schedule) -> list[list[Any]]:
    strengths = Strengths.of(schedule)
    quarters = strengths.binned(strengths.strength, QUARTERS).tolist()
    rows: list[list[Any]] = []
    for row, parts in zip(ScheduleTable(schedule).rows, quarters, strict=True):
        level = None if row.level is None else round(row.level, 3)
        quarterly = "  ".join(f"{part:.1f}" for part in parts)
        rows.append([row.op, quarterly, round(row.probability, 3), level, round(row.strength, 3)])
        rows[-1] += [round(part, 3) for part in parts]
    return rows or [["none", "no image is changed", 0.0, None, 0.0, *[0.0] * QUARTERS]]


def _table(columns: Sequence[str], rows: list[list[Any]]) -> str:
    return json.dumps({"columns": columns, "data": rows})


def table_tag(name: str) -> dict[str, str]:
    """Return the tag by which MLflow's page shows the artifact `name` as a table."""
    return {"mlflow.loggedArtifacts": json.dumps([{"path": name, "type": "table"}])}
