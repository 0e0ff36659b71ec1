"""The table of all schedules: its numbers against hand-made ones, and that MLflow takes it for a table."""

import json

import pytest

from results.policies import COLUMNS, TABLE, policies, table_tag
from results.tracking import Tracker
from spaces import Entry, Genome, ImageSpec, Phase, Policy, Schedule


def schedule(role, *phases):
    genomes = [(epochs, Genome(Policy(entries))) for epochs, entries in phases]
    return Schedule(tuple(Phase(epochs, genome) for epochs, genome in genomes), role, ImageSpec(8, 1, (0,)))


TWO = schedule("student", (2, (Entry("Rotate", 0, 0),)), (2, (Entry("Rotate", 5, 8), Entry("Invert", 10, 3))))


def rows(schedules):
    table = json.loads(policies(schedules))
    assert table["columns"] == list(COLUMNS)
    return [dict(zip(COLUMNS, row, strict=True)) for row in table["data"]]


def test_means_and_quarters_are_those_of_the_epochs():
    invert, rotate = sorted(rows({("student", "policy"): TWO}), key=lambda row: row["operation"])
    assert (rotate["policy"], rotate["role"], rotate["arm"]) == ("student, policy", "student", "policy")
    assert (rotate["probability"], rotate["level"], rotate["strength"]) == (0.25, 8.0, 2.0)
    assert [rotate[f"strength, quarter {part}"] for part in (1, 2, 3, 4)] == [0.0, 0.0, 4.0, 4.0]
    assert invert["level"] is None  # it takes none
    assert invert["probability"] == 0.5


def test_a_schedule_without_operations_has_a_row_that_says_so():
    nothing = schedule("teacher", (3, ()))
    both = rows({("teacher", "none"): nothing, ("student", "policy"): TWO})
    assert (both[0]["operation"], both[0]["strength"]) == ("none", 0.0)
    assert {row["policy"] for row in both} == {"teacher, none", "student, policy"}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning")
def test_mlflow_reads_it_back_as_a_table(place, store, client):
    with Tracker.open(store, "tables") as tracker:
        run = tracker.start("sweep")
        tracker.text(run, policies({("student", "policy"): TWO}), TABLE)
        tracker.tag(run, table_tag())
    with pytest.MonkeyPatch.context() as patch:  # MLflow's own reader asks its global store
        patch.setenv("MLFLOW_TRACKING_URI", client.tracking_uri)
        frame = client.load_table(tracker.experiment_id, TABLE, [run.id()])
    assert list(frame.columns) == list(COLUMNS) and set(frame["operation"]) == {"Rotate", "Invert"}
