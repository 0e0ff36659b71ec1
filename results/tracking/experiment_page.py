"""MLflow's page of an experiment: its note, and addresses that open it on the runs and on charts of the schedules.

Columns and charts are chosen on the page itself: MLflow has no public call for them.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote, urlencode

NOTE = """One run for each sweep; below it, one run for each member of a search and for each final training.

- **Sweeps**: + opens the runs of a sweep. *Columns* adds metrics such as `final_test_accuracy` and tags such as `role`.
- **Results**: search for `tags.stage = 'full training'` and sort by `final_test_accuracy`.
- **Schedules**: search for `tags.stage != 'sweep'` and switch to the chart view: one chart for each operation, under
  `policy/OPERATION/strength` (0 to 9). `roletune ui` prints the address of this view.
- **Policies side by side**: select final trainings, then the artifact view and `policy.json`.
- **Model registry**: networks trained with the policies found.
"""

EXPERIMENT_TAGS: Mapping[str, str] = {
    "mlflow.experimentKind": "custom_model_development",  # without it, the page opens on chat traces
    "mlflow.note.content": NOTE,
}
"""Tags of a new experiment."""

_RUNS = {"workflowType": "machine_learning"}
_CHARTS = {
    **_RUNS,
    "compareRunsMode": "CHART",
    "searchFilter": "tags.stage != 'sweep'",
    "orderByKey": "metrics.`best_validation_accuracy`",
    "orderByAsc": "false",
}


def runs_page(experiment_id: str) -> str:
    """Return the part of the address after the host that shows the runs of an experiment.

    Example:
        >>> runs_page("1")
        '#/experiments/1/runs?workflowType=machine_learning'
    """
    return _page(experiment_id, _RUNS)


def schedules_page(experiment_id: str) -> str:
    """Return the part of the address after the host that shows charts of all members, the best first."""
    return _page(experiment_id, _CHARTS)


def _page(experiment_id: str, parameters: Mapping[str, str]) -> str:
    return f"#/experiments/{experiment_id}/runs?{urlencode(parameters, quote_via=quote)}"
