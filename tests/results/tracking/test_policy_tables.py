"""The table of all schedules: its numbers against hand-made ones, and that MLflow takes it for a table."""

import json

import pytest
from support import run_id, tracked

from results.tracking.policy_tables import COLUMNS, POLICY_FILE, policies_table, policy_table, table_tag
from spaces import Entry, Genome, ImageSpec, Phase, Policy, Schedule


def schedule(role, *phases):
    genomes = [(epochs, Genome(Policy(entries))) for epochs, entries in phases]
    return Schedule(tuple(Phase(epochs, genome) for epochs, genome in genomes), role, ImageSpec(8, 1, (0,)))


TWO = schedule("student", (2, (Entry("Rotate", 0, 0),)), (2, (Entry("Rotate", 5, 8), Entry("Invert", 10, 3))))


def rows(table):
    table = json.loads(table)
    return [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]


def test_means_and_quarters_are_those_of_the_epochs():
    invert, rotate = sorted(rows(policy_table(TWO)), key=lambda row: row["operation"])
    assert (rotate["probability"], rotate["level"], rotate["strength"]) == (0.25, 8.0, 2.0)
    assert [rotate[f"strength, quarter {part}"] for part in (1, 2, 3, 4)] == [0.0, 0.0, 4.0, 4.0]
    assert rotate["strength by quarter"] == "0.0  0.0  4.0  4.0"
    assert invert["level"] is None  # it takes none
    assert invert["probability"] == 0.5


def test_all_of_a_sweep_say_whose_they_are():
    nothing = schedule("teacher", (3, ()))
    both = rows(policies_table({("teacher", "none"): nothing, ("student", "policy"): TWO}))
    assert (both[0]["operation"], both[0]["strength"], both[0]["policy: operation"]) == (
        "none",
        0.0,
        "teacher, none: none",
    )
    assert {(row["role"], row["arm"]) for row in both} == {("teacher", "none"), ("student", "policy")}
    assert [row["policy: operation"] for row in both[1:]] == [
        f"student, policy: {row['operation']}" for row in both[1:]
    ]
    alone = rows(policy_table(TWO))
    assert [{key: row[key] for key in alone[0]} for row in both[1:]] == alone


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning")
def test_mlflow_reads_it_back_as_a_table(place, store, client, tmp_path):
    with tracked(store, "tables", journal=tmp_path) as tracker:
        run = tracker.start("student-full-policy-0")
        tracker.text(run, policy_table(TWO), POLICY_FILE)
        tracker.tag(run, table_tag(POLICY_FILE))
    with pytest.MonkeyPatch.context() as patch:  # MLflow's own reader asks its global store
        patch.setenv("MLFLOW_TRACKING_URI", client.tracking_uri)
        frame = client.load_table(tracker.experiment_id, POLICY_FILE, [run_id(client, tracker, run)])
    assert list(frame.columns) == ["operation", *COLUMNS] and set(frame["operation"]) == {"Rotate", "Invert"}
