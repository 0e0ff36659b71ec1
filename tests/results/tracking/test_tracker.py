"""The tracker against a real SQLite store, and what it refuses and mends."""

import subprocess
import sys

import numpy as np
import pytest
from support import runs_of, tracked

from results.tracking import projection, tracker
from results.tracking.cursor import read_cursors
from results.tracking.delivery import remaining
from results.tracking.store import find_artifact
from results.tracking.tracker import Tracker
from spaces.core.errors import RequestError

pytestmark = [
    pytest.mark.usefixtures("place"),
    pytest.mark.filterwarnings(  # MLflow's own models use it, and SQLAlchemy 2.1 says so once
        "ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning"
    ),
]


@pytest.mark.slow
def test_everything_arrives(store, client, tmp_path, capfd):
    (tmp_path / "policy.json").write_text("{}")
    with tracked(store, "everything", journal=tmp_path) as tracker:
        sweep = tracker.start("sweep", description="two *roles*", params={"a": {"b": 1, "c": [1, 2]}, "d@": None})
        trial = tracker.start("trial", parent=sweep, tags={"role": "teacher"}, params={"long": "x" * 7000})
        tracker.start("below", parent=trial)
        for step in range(3):
            tracker.log(trial, {"acc": step / 4, "loss@val": np.float32(0.5), "n": 3}, step)
        tracker.artifact(trial, tmp_path / "policy.json")
        tracker.text(trial, "hällo", "notes/a.txt")
        tracker.finish(trial, error="")
        assert tracker.flush()
    runs = runs_of(client, tracker)
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    assert runs["sweep"].data.params == {"a.b": "1", "a.c": "[1, 2]", "d_": "None"}
    assert runs["sweep"].data.tags["mlflow.note.content"] == "two *roles*"
    assert runs["sweep"].data.tags["mlflow.source.name"] == "roletune"
    assert runs["sweep"].data.tags["mlflow.user"] and "mlflow.parentRunId" not in runs["sweep"].data.tags
    tags = runs["trial"].data.tags
    assert (tags["mlflow.parentRunId"], tags["role"]) == (runs["sweep"].info.run_id, "teacher")
    assert runs["below"].data.tags["mlflow.parentRunId"] == runs["sweep"].info.run_id  # one level
    assert len(runs["trial"].data.params["long"]) == 6000 and runs["trial"].data.params["long"].endswith("x…")
    history = client.get_metric_history(runs["trial"].info.run_id, "acc")
    assert [(m.step, m.value) for m in history] == [(0, 0.0), (1, 0.25), (2, 0.5)]
    assert runs["trial"].data.metrics == {"acc": 0.5, "loss_val": 0.5, "n": 3.0}
    files = {p.name for p in (store / "artifacts").rglob("*") if p.is_file()}
    assert {"policy.json", "a.txt"} <= files
    assert find_artifact(tracker.uri, runs["trial"].info.run_id, "notes/a.txt").decode() == "hällo"
    assert remaining(*read_cursors(tmp_path)) == 0
    assert capfd.readouterr() == ("", "")  # neither MLflow's log lines nor its prints


@pytest.mark.slow
@pytest.mark.parametrize(
    ("error", "status"),
    [(ValueError("bad\nthing"), "FAILED"), (KeyboardInterrupt(), "KILLED"), (None, "FINISHED")],
)
def test_open_runs_end_with_the_block(store, client, tmp_path, error, status):
    try:
        with tracked(store, f"ends-{status}", journal=tmp_path) as tracker:
            tracker.start("child", parent=tracker.start("sweep"))
            if error:
                raise error
    except (ValueError, KeyboardInterrupt):
        pass
    runs = runs_of(client, tracker)
    assert [run.info.status for run in runs.values()] == [status] * 2
    assert all(run.info.end_time for run in runs.values())
    said = {run.data.tags.get("error") for run in runs.values()}
    assert said == ({"ValueError: bad thing"} if status == "FAILED" else {None})


@pytest.mark.slow
def test_a_file_that_is_not_there_is_dropped(store, client, tmp_path, caplog, monkeypatch):
    with tracked(tmp_path, "absent", f"sqlite:///{store}/mlflow.db") as tracker:
        tracker.artifact(tracker.start("run"), tmp_path / "absent.txt")
    assert runs_of(client, tracker)["run"].info.status == "FINISHED"
    assert "No such file" in caplog.messages[0] and "roletune sync" in caplog.messages[1]
    (cursor,) = read_cursors(tmp_path)
    (refused,) = cursor.refused.values()
    assert (refused.op, refused.run) == ("artifact", "run") and "absent.txt" in refused.reason


@pytest.mark.slow
def test_nonfinite_values_become_tags(store, client, tmp_path):
    with tracked(store, "nan", journal=tmp_path) as tracker:
        run = tracker.start("run")
        tracker.log(run, {"loss": float("nan"), "acc": 0.5}, 3)
        tracker.log(run, {"loss": float("inf"), "acc": float("-inf")}, 4)
        tracker.log(run, {"loss": 2.0}, 5)
    data = runs_of(client, tracker)[run].data
    assert data.metrics == {"loss": 2.0, "acc": 0.5}
    assert data.tags["nonfinite/loss"] == "nan at step 3" and data.tags["nonfinite/acc"] == "-inf at step 4"


@pytest.mark.slow
def test_environment_names_the_store(store, client, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{store}/mlflow.db")
    tracker = Tracker.open(tmp_path / "elsewhere", "by environment")
    assert client.get_experiment_by_name("by environment").experiment_id == tracker.experiment_id
    assert client.get_experiment(tracker.experiment_id).artifact_location == (store / "artifacts").as_uri()
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.slow
@pytest.mark.parametrize("value", ["0.5", None, True, [1.0], np.zeros(2), 1j])
def test_what_is_no_number_is_refused(stubbed, value):
    tracker, client = stubbed()
    run = tracker.start("run")
    with pytest.raises(RequestError, match="the metric 'acc' must be a number, got"):
        tracker.log(run, {"fine": 1.0, "acc": value})
    tracker.flush()
    assert client.named("batch") == []


@pytest.mark.slow
def test_an_unknown_status_is_refused(stubbed):
    tracker, client = stubbed()
    run = tracker.start("run")
    with pytest.raises(RequestError, match="FINISHED, FAILED, KILLED, got 'DONE'"):
        tracker.finish(run, "DONE")
    with pytest.raises(RequestError, match="the status of a run must be one of"):
        tracker.close("DONE")
    tracker.finish(run, "FAILED", "\x1b[31mboom\x1b[0m\n" + "x" * 900)
    tracker.finish(run)
    tracker.flush()
    assert client.named("end") == [("end", "id-run", "FAILED")]
    error = client.named("batch")[0][3]["error"]
    assert error.startswith("boom xxx") and len(error) == 500


@pytest.mark.parametrize(
    ("name", "legal"),
    [("acc", "acc"), ("a@b#", "a_b_"), ("/x//y/", "x/y"), ("../up", "up"), ("", "_"), ("k" * 300, "k" * 250)],
)
def test_names_are_made_legal(name, legal):
    assert projection.legal_name(name) == legal


@pytest.mark.slow
def test_importing_is_cheap():
    code = "import sys, results.tracking.tracker; sys.exit('mlflow' in sys.modules)"
    root = tracker.__file__.rsplit("/", 2)[0]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, timeout=60).returncode == 0
