"""All schedules of a sweep side by side: a table that MLflow shows and compares, one row an operation of each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from results.overview import Overview
from results.strengths import Strengths
from spaces import Schedule

TABLE = "policies.json"

QUARTERS = 4
"""Parts of the training that strengths are told for."""

COLUMNS = (
    *("policy", "role", "arm", "operation", "probability", "level", "strength"),
    *(f"strength, quarter {part + 1}" for part in range(QUARTERS)),
)


def policies(schedules: Mapping[tuple[str, str], Schedule]) -> str:
    """The table as MLflow's `log_table` writes it; means over the epochs, levels and strengths from 0 to 9.

    Args:
        schedules: by role and arm. A schedule without an operation in force has one row, which says `none`.
    """
    rows: list[list[Any]] = []
    for (role, arm), schedule in schedules.items():
        strengths = Strengths.of(schedule)
        quarters = strengths.binned(strengths.strength, QUARTERS).tolist()
        place = [f"{role}, {arm}", role, arm]
        for row, parts in zip(Overview(schedule).rows, quarters, strict=True):
            level = None if row.level is None else round(row.level, 3)
            means = [round(row.probability, 3), level, round(row.strength, 3)]
            rows.append([*place, row.op, *means, *(round(part, 3) for part in parts)])
        if not quarters:
            rows.append([*place, "none", 0.0, None, 0.0, *[0.0] * QUARTERS])
    return json.dumps({"columns": COLUMNS, "data": rows})


def table_tag() -> dict[str, str]:
    """By which MLflow's page knows that the artifact is a table."""
    return {"mlflow.loggedArtifacts": json.dumps([{"path": TABLE, "type": "table"}])}
