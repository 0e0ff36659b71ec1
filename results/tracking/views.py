"""How MLflow's own page shows an experiment: saved views with the columns and charts that matter, and a note.

MLflow keeps a saved view as a tag of the experiment and lists it under "Views": `mlflow.sharedViewState.ID`, with the
state of the page as JSON. A page that does not know them shows its usual table.
"""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any

from spaces import OPERATIONS

RUNS, RESULTS, SCHEDULES = "roletune-runs", "roletune-results", "roletune-schedules"
"""The views by their ids, which a link may name (`viewStateShareKey`)."""

NOTE = """One run a sweep; below it, one run for each member of a search and for each full training.

- **Runs** (under *Views*): sweeps, with the test accuracy of what they found; + opens one.
- **Results**: the full trainings by their accuracy on the test set.
- **Schedules**: what each member of a search saw, operation by operation. Open it with the chart symbol.
- **Policies side by side**: choose trainings in *Results*, then the table symbol and `policy.json`.
- **Model registry**: the networks trained with the policies found.
"""

_WIDTHS = {
    "tags.`role`": 90,
    "tags.`stage`": 130,
    "metrics.`final_test_accuracy`": 180,
    "metrics.`best_validation_accuracy`": 200,
    "tags.`generation`": 110,
    "tags.`exploited_from`": 150,
}
"""Columns of the table of runs, in their order, with their widths in pixels."""

_BY_SCORE = {"orderByKey": "metrics.`best_validation_accuracy`", "orderByAsc": False}
_BY_TEST = {"orderByKey": "metrics.`final_test_accuracy`", "orderByAsc": False}


def _columns(number: int) -> dict[str, Any]:
    """The first of the columns."""
    widths = dict(list(_WIDTHS.items())[:number])
    return {"selectedColumns": list(widths), "columnOrder": list(widths), "columnWidths": widths}


def tags() -> dict[str, str]:
    """The tags that a new experiment is made with."""
    charts = [_line(f"policy/{op}/strength", "strength") for op in OPERATIONS]
    charts.append(_line("validation_accuracy", "score"))
    titles = {"strength": "strength of each operation, 0 to 9", "score": "score"}
    common = {"display": True, "isReordered": True, "deleted": False, "isGenerated": False}
    sections = [{"uuid": key, "name": title, **common} for key, title in titles.items()]
    schedules = {"compareRunCharts": charts, "compareRunSections": sections, "isAccordionReordered": True}
    return {
        "mlflow.experimentKind": "custom_model_development",  # not the chat traces that MLflow expects
        "mlflow.note.content": NOTE,
        **_view(RUNS, "Runs", 3, **_columns(6)),
        **_view(RESULTS, "Results", 2, searchFilter="tags.stage = 'final training'", **_BY_TEST, **_columns(3)),
        **_view(
            SCHEDULES, "Schedules", 1, searchFilter="tags.stage != 'sweep'", **_BY_SCORE, **_columns(6), **schedules
        ),
    }


def _view(key: str, name: str, order: int, **state: Any) -> dict[str, str]:
    """One view; MLflow lists the newest first, so that `order` stands for a time."""
    packed = "deflate;" + base64.b64encode(zlib.compress(json.dumps(state).encode(), 9)).decode()
    value = {"name": name, "createdAt": order, "updatedAt": order, "state": packed}
    return {f"mlflow.sharedViewState.{key}": json.dumps(value)}


def _line(metric: str, section: str) -> dict[str, Any]:
    """A chart of one metric over the epochs, as MLflow describes it to itself."""
    return {
        "type": "LINE",
        "uuid": metric,
        "metricSectionId": section,
        "metricKey": metric,
        "displayName": metric,
        "runsCountToCompare": 10,
        "deleted": False,
        "isGenerated": False,
        "lineSmoothness": 0,
        "scaleType": "linear",
        "xAxisScaleType": "linear",
        "xAxisKey": "step",
        "selectedXAxisMetricKey": "",
        "yAxisKey": "metric",
        "yAxisExpressions": [],
        "range": {},
        "ignoreOutliers": False,
        "useGlobalXaxisKey": True,
        "useGlobalLineSmoothing": True,
    }
