"""The saved views that an experiment is made with, read as MLflow's page reads them."""

import base64
import json
import zlib

import pytest
from support import tracked

from results.tracking.views import RESULTS, RUNS, SCHEDULES, tags
from spaces import OPERATIONS


def state(key, of=None):
    view = json.loads((of or tags())[f"mlflow.sharedViewState.{key}"])
    kind, _, packed = view["state"].partition(";")
    assert kind == "deflate" and isinstance(view["name"], str) and isinstance(view["createdAt"], int)
    return json.loads(zlib.decompress(base64.b64decode(packed)))


def test_each_view_shows_the_columns_that_matter():
    for key in (RUNS, RESULTS, SCHEDULES):
        shown = state(key)
        assert shown["selectedColumns"] == shown["columnOrder"] == list(shown["columnWidths"])
        assert {"tags.`stage`", "tags.`role`", "metrics.`final_test_accuracy`"} <= set(shown["selectedColumns"])
    assert "tags.`exploited_from`" in state(RUNS)["selectedColumns"]


def test_the_schedules_have_one_chart_an_operation_in_one_section():
    shown = state(SCHEDULES)
    places = {chart["metricKey"]: chart["metricSectionId"] for chart in shown["compareRunCharts"]}
    assert {places[f"policy/{op}/strength"] for op in OPERATIONS} == {"strength"}
    assert {section["uuid"] for section in shown["compareRunSections"]} == set(places.values())
    assert len({chart["uuid"] for chart in shown["compareRunCharts"]}) == len(OPERATIONS) + 1


def test_tags_are_short_enough_for_any_server():
    assert all(len(value) < 5000 for value in tags().values())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning")
def test_a_new_experiment_has_them(place, store, client, tmp_path):
    with tracked(store, "viewed", journal=tmp_path) as tracker:
        pass
    assert state(RUNS, client.get_experiment(tracker.experiment_id).tags)["columnWidths"]
