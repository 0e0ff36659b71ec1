"""The tracker against a real SQLite store, and against a stub that counts, hangs and fails."""

import json
import logging
import socket
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

from results import tracking
from results.tracking import Tracker, find_artifact, mask
from spaces.errors import RequestError, WorkError

pytestmark = [
    pytest.mark.filterwarnings(  # MLflow's own models use it, and SQLAlchemy 2.1 says so once
        "ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning"
    )
]


@pytest.fixture(autouse=True)
def _place(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(tracking, "_PAUSE", 0.01)
    cwd = tmp_path / "cwd"
    cwd.mkdir()
    monkeypatch.chdir(cwd)
    yield
    assert list(cwd.iterdir()) == []  # no ./mlruns, no ./mlflow.db


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A folder with the default store, whose creation takes seconds."""
    folder = tmp_path_factory.mktemp("sweep 1")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        Tracker.open(folder, "first").close()
    return folder


@pytest.fixture
def client(store):
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=f"sqlite:///{store}/mlflow.db")


def runs_of(client, tracker):
    found = client.search_runs([tracker.experiment_id])
    return {run.info.run_name: run for run in found}


class Stub:
    """An `MlflowClient` that raises the errors it was given, then notes what comes, while `gate` is open."""

    def __init__(self, *errors, broken=False):
        self.errors, self.broken, self.calls = list(errors), broken, []
        self.gate, self.entered = threading.Event(), threading.Event()
        self.gate.set()

    def _call(self, name, *what):
        self.entered.set()
        self.gate.wait(10)
        if self.broken:
            raise ConnectionError("no route to http://user:s3cr3t@host/")
        if self.errors and (error := self.errors.pop(0)):
            raise error
        self.calls.append((name, *what))

    def create_run(self, experiment_id, start_time=None, tags=None, run_name=None):
        self._call("create", run_name, tags)
        return SimpleNamespace(info=SimpleNamespace(run_id=f"id-{run_name}"))

    def search_runs(self, experiment_ids, filter_string, max_results):
        made = [c for c in self.calls if c[0] == "create" and c[2]["roletune.ticket"] in filter_string]
        return [SimpleNamespace(info=SimpleNamespace(run_id=f"id-{c[1]}")) for c in made]

    def log_batch(self, run_id, metrics=(), params=(), tags=()):
        points = [(m.key, m.value, m.step) for m in metrics]
        self._call("batch", run_id, points, {t.key: t.value for t in tags}, {p.key: p.value for p in params})

    def log_artifact(self, run_id, path, folder):
        self._call("artifact", run_id, path, folder)

    def log_text(self, run_id, text, name):
        self._call("text", run_id, name)

    def set_terminated(self, run_id, status, end_time):
        self._call("end", run_id, status)

    def named(self, name):
        return [call for call in self.calls if call[0] == name]


@pytest.fixture
def stubbed(tmp_path):
    """Makes trackers on stubs."""
    made = []

    def make(*errors, **how):
        client = Stub(*errors, **how)
        made.append(Tracker(tmp_path, "http://user:s3cr3t@host", "7", client))
        return made[-1], client

    yield make
    for tracker in made:
        tracker._client.broken = False
        tracker._client.gate.set()
        tracker.close()


def failure(code, text="no"):
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import ErrorCode

    return MlflowException(text, error_code=ErrorCode.Value(code))


# --- the real store ---


@pytest.mark.slow
def test_everything_arrives(store, client, tmp_path, capfd):
    (tmp_path / "policy.json").write_text("{}")
    with Tracker.open(store, "everything") as tracker:
        sweep = tracker.start("sweep", description="two *roles*", params={"a": {"b": 1, "c": [1, 2]}, "d@": None})
        trial = tracker.start("trial", parent=sweep, tags={"role": "teacher"}, params={"long": "x" * 7000})
        below = tracker.start("below", parent=trial)
        for step in range(3):
            tracker.log(trial, {"acc": step / 4, "loss@val": np.float32(0.5), "n": 3}, step)
        tracker.artifact(trial, tmp_path / "policy.json", "best")
        tracker.text(trial, "hällo", "notes/a.txt")
        tracker.finish(trial, error="")
        assert trial.id() and tracker.flush()
    runs = runs_of(client, tracker)
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    assert runs["sweep"].data.params == {"a.b": "1", "a.c": "[1, 2]", "d_": "None"}
    assert runs["sweep"].data.tags["mlflow.note.content"] == "two *roles*"
    assert runs["sweep"].data.tags["mlflow.source.name"] == "roletune"
    assert runs["sweep"].data.tags["mlflow.user"] and "mlflow.parentRunId" not in runs["sweep"].data.tags
    tags = runs["trial"].data.tags
    assert (tags["mlflow.parentRunId"], tags["role"]) == (sweep.id(), "teacher")
    assert runs["below"].data.tags["mlflow.parentRunId"] == sweep.id() and below.id()  # one level
    assert len(runs["trial"].data.params["long"]) == 6000 and runs["trial"].data.params["long"].endswith("x…")
    history = client.get_metric_history(trial.id(), "acc")
    assert [(m.step, m.value) for m in history] == [(0, 0.0), (1, 0.25), (2, 0.5)]
    assert runs["trial"].data.metrics == {"acc": 0.5, "loss_val": 0.5, "n": 3.0}
    files = {p.name for p in (store / "artifacts").rglob("*") if p.is_file()}
    assert {"policy.json", "a.txt"} <= files
    assert find_artifact(tracker.uri, trial.id(), "notes/a.txt").decode() == "hällo"
    assert not (store / tracking.UNSENT).exists()
    assert capfd.readouterr() == ("", "")  # neither MLflow's log lines nor its prints


@pytest.mark.slow
@pytest.mark.parametrize(
    ("error", "status"),
    [(ValueError("bad\nthing"), "FAILED"), (KeyboardInterrupt(), "KILLED"), (None, "FINISHED")],
)
def test_open_runs_end_with_the_block(store, client, error, status):
    tracker = Tracker.open(store, f"ends-{status}")
    try:
        with tracker:
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
    tracker = Tracker.open(tmp_path, "absent", f"sqlite:///{store}/mlflow.db")
    with tracker:
        tracker.artifact(tracker.start("run"), tmp_path / "absent.txt")
    assert runs_of(client, tracker)["run"].info.status == "FINISHED"
    assert "No such file" in caplog.messages[0] and tracking.UNSENT in caplog.messages[1]
    assert json.loads((tmp_path / tracking.UNSENT).read_text())["path"].endswith("absent.txt")


@pytest.mark.slow
def test_nonfinite_values_become_tags(store, client):
    with Tracker.open(store, "nan") as tracker:
        run = tracker.start("run")
        tracker.log(run, {"loss": float("nan"), "acc": 0.5}, 3)
        tracker.log(run, {"loss": float("inf"), "acc": float("-inf")}, 4)
        tracker.log(run, {"loss": 2.0}, 5)
    data = client.get_run(run.id()).data
    assert data.metrics == {"loss": 2.0, "acc": 0.5}
    assert data.tags["nonfinite/loss"] == "nan at step 3" and data.tags["nonfinite/acc"] == "-inf at step 4"


@pytest.mark.slow
def test_environment_names_the_store(store, client, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{store}/mlflow.db")
    with Tracker.open(tmp_path / "elsewhere", "by environment") as tracker:
        pass
    assert client.get_experiment_by_name("by environment").experiment_id == tracker.experiment_id
    assert client.get_experiment(tracker.experiment_id).artifact_location == (store / "artifacts").as_uri()
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.slow
def test_a_deleted_experiment_is_refused(store, client):
    client.delete_experiment(client.create_experiment("gone"))
    with pytest.raises(RequestError, match=r"'gone' was deleted; choose another name, or .*restore"):
        Tracker.open(store, "gone")


@pytest.mark.slow
def test_find_artifact_lists_what_there_is(store):
    with Tracker.open(store, "find") as tracker:
        run = tracker.start("run")
        tracker.text(run, "1", "deep/er/policy.json")
    with pytest.raises(RequestError, match=r"no artifact 'policy.json'; there is: deep/er/policy.json"):
        find_artifact(tracker.uri, run.id(), "policy.json")
    with pytest.raises(RequestError, match="0123456789abcdef"):
        find_artifact(tracker.uri, "0123456789abcdef" * 2, "policy.json")
    with pytest.raises(RequestError, match="must be there"):
        find_artifact(f"sqlite:///{store}/other.db", run.id(), "policy.json")
    assert not (store / "other.db").exists()


@pytest.mark.slow
def test_the_environment_is_as_before(store, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "77")
    before = dict(tracking.os.environ)
    with tracking._BRISK.calls():
        assert tracking.os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "0"
        assert tracking.os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "77"
        Tracker.open(store, "first").close()
    assert dict(tracking.os.environ) == before


# --- stores that do not open ---


def closed_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["http", "postgresql"])
def test_an_unreachable_server_is_refused_at_once(tmp_path, scheme, caplog, capfd):
    began = time.monotonic()
    uri = f"{scheme}://user:s3cr3t/@127.0.0.1:{closed_port()}"
    if scheme == "http":
        uri = uri.replace("s3cr3t/", "s3cr3t")
    with pytest.raises(RequestError) as caught:
        Tracker.open(tmp_path, "x", uri)
    assert time.monotonic() - began < 12
    assert f"{scheme}://user:***@127.0.0.1" in str(caught.value) and "; " in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "s3cr3t" not in str(caught.value) + caplog.text + "".join(capfd.readouterr())
    assert caught.value.__suppress_context__


@pytest.mark.slow
def test_a_silent_server_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(tracking, "_REMOTE", 0.5)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(RequestError, match="no answer within 0 seconds"):
            Tracker.open(tmp_path, "x", f"http://127.0.0.1:{silent.getsockname()[1]}")


@pytest.mark.slow
def test_stores_of_the_wrong_kind_are_refused(tmp_path):
    with pytest.raises(RequestError, match=r"ftp://user:\*\*\*@host/x must answer.* unknown kind.*use http"):
        Tracker.open(tmp_path, "x", "ftp://user:s3cr3t@host/x")
    with pytest.raises(RequestError, match=r"plain folders.*sqlite:///PATH/mlflow.db"):
        Tracker.open(tmp_path, "x", f"file://{tmp_path}/runs")
    (tmp_path / "text.db").write_text("this is no database at all" * 99)
    with pytest.raises(RequestError, match="not a database"):
        Tracker.open(tmp_path, "x", f"sqlite:///{tmp_path}/text.db")


# --- the background thread ---


@pytest.mark.slow
def test_a_slow_server_gets_few_batches(stubbed):
    tracker, client = stubbed()
    client.gate.clear()
    run, other = tracker.start("run"), tracker.start("other")
    client.entered.wait(5)
    began = time.monotonic()
    for step in range(600):
        tracker.log(run, {"a": 1.0, "b": 2.0, "c": 3.0}, step)
        tracker.log(other, {"a": 1.0}, step)
    tracker.tag(run, {"t": "1"})
    tracker.tag(run, {"t": "2"})
    assert time.monotonic() - began < 2
    client.gate.set()
    assert tracker.flush()
    batches = [call for call in client.named("batch") if call[1] == "id-run"]
    assert [len(points) for _, _, points, _, _ in batches] == [999, 801]
    sent = [(key, step) for call in batches for key, _, step in call[2]]
    assert sent == [(key, step) for step in range(600) for key in "abc"]
    assert batches[-1][3] == {"t": "2"}
    assert len([call for call in client.named("batch") if call[1] == "id-other"]) == 1


@pytest.mark.slow
def test_one_call_is_one_batch_and_a_big_one_is_cut(stubbed):
    tracker, client = stubbed()
    run = tracker.start("run")
    for _ in range(2):
        tracker.log(run, {"a": 1.0, "b": 2.0})
        tracker.flush()
    tracker.log(run, {f"m{i}": i for i in range(1500)})
    tracker.flush()
    assert [len(call[2]) for call in client.named("batch")] == [2, 2, 1000, 500]


@pytest.mark.slow
def test_passing_failures_lose_and_double_nothing(stubbed, caplog):
    down = [ConnectionError("down"), failure("TEMPORARILY_UNAVAILABLE"), failure("UNAUTHENTICATED")]
    tracker, client = stubbed(*down, None, failure("INTERNAL_ERROR"), None, *down)
    with caplog.at_level(logging.INFO):
        parent = tracker.start("parent", params={"p": 1})
        child = tracker.start("child", parent=parent)
        tracker.log(child, {"a": 1.0}, 1)
        tracker.text(child, "text", "name")
        tracker.log(child, {"a": 2.0}, 2)
        tracker.finish(child, "FAILED", "why")
        assert tracker.flush(20)
    assert [call[:2] for call in client.calls] == [
        ("create", "parent"),
        ("batch", "id-parent"),
        ("create", "child"),
        ("batch", "id-child"),
        ("text", "id-child"),
        ("batch", "id-child"),
        ("end", "id-child"),
    ]
    assert client.calls[2][2]["mlflow.parentRunId"] == "id-parent"
    assert client.calls[5][2:4] == ([("a", 2.0, 2)], {"error": "why"})
    assert "does not answer" in caplog.text and "answers again" in caplog.text


@pytest.mark.slow
def test_a_run_whose_answer_got_lost_is_found_again(stubbed):
    tracker, client = stubbed()
    create = client.create_run

    def lose(*args, **kwargs):
        client.create_run = create
        create(*args, **kwargs)
        raise ConnectionError("the answer got lost")

    client.create_run = lose
    assert tracker.start("run").id(5) == "id-run"
    assert len(client.named("create")) == 1


@pytest.mark.slow
def test_lasting_errors_are_dropped_with_one_warning_a_kind(stubbed, caplog):
    refusal = failure("INVALID_PARAMETER_VALUE", "bad\nkey at http://user:s3cr3t@host")
    tracker, client = stubbed(None, refusal, refusal, refusal)
    run = tracker.start("run")
    for step in range(4):
        tracker.log(run, {"a": 1.0}, step)
        assert tracker.flush(5)
    assert [call[2][0][2] for call in client.named("batch")] == [3]
    assert [r.message for r in caplog.records] == [
        "MLflow refused 'log' of run 'run': bad key at http://user:***@host",
    ]


@pytest.mark.slow
def test_a_run_that_was_refused_does_not_block(stubbed):
    tracker, client = stubbed(failure("INVALID_PARAMETER_VALUE"))
    lost, other = tracker.start("lost"), tracker.start("other")
    tracker.log(lost, {"a": 1.0})
    assert lost.id(5) is None and other.id(5) == "id-other"
    assert tracker.flush(5) and client.named("batch") == []


@pytest.mark.slow
def test_an_artifact_store_that_is_away_does_not_hold_back_the_metrics(stubbed, tmp_path):
    tracker, client = stubbed(None, *[ConnectionError("down")] * 6)
    run = tracker.start("run")
    tracker.artifact(run, tmp_path / "x")
    tracker.log(run, {"a": 1.0})
    assert tracker.flush(20)
    assert [call[0] for call in client.calls] == ["create", "batch"]


@pytest.mark.slow
def test_what_cannot_be_sent_is_written_down(stubbed, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(tracking, "_GRACE_DOWN", 0.2)
    (tmp_path / tracking.UNSENT).write_text('{"op": "earlier"}\n')
    tracker, client = stubbed()
    run = tracker.start("run")
    assert run.id() == "id-run"
    client.broken = True
    tracker.log(run, {"a": 1.5}, 2)
    late = tracker.start("late", tags={"uri": "http://user:s3cr3t@host"})
    assert not tracker.flush(0.1)
    began = time.monotonic()
    tracker.close()
    tracker.close()
    assert time.monotonic() - began < 5 and late.id() is None
    written = (tmp_path / tracking.UNSENT).read_text()
    lines = [json.loads(line) for line in written.splitlines()]
    assert [(line["op"], line.get("run")) for line in lines] == [
        ("earlier", None), ("log", "run"), ("start", "late"), ("finish", "late"), ("finish", "run")
    ]  # fmt: skip
    assert lines[1]["id"] == "id-run" and lines[1]["metrics"][0][:2] == ["a", 1.5] and lines[-1]["status"] == "KILLED"
    warnings = [r.message for r in caplog.records if tracking.UNSENT in r.message]
    assert len(warnings) == 1 and str(tmp_path / tracking.UNSENT) in warnings[0]
    assert "s3cr3t" not in caplog.text + written + repr(tracker)
    with pytest.raises(WorkError, match="closed"):
        tracker.log(run, {"a": 1.0})


@pytest.mark.slow
def test_a_hanging_call_does_not_hang_the_close(stubbed, tmp_path, monkeypatch):
    monkeypatch.setattr(tracking, "_GRACE_UP", 0.2)
    tracker, client = stubbed()
    client.gate.clear()
    tracker.start("run")
    tracker.close("FAILED")
    assert len((tmp_path / tracking.UNSENT).read_text().splitlines()) == 2
    client.gate.set()


# --- what is refused and what is mended ---


@pytest.mark.slow
@pytest.mark.parametrize("value", ["0.5", None, True, [1.0], np.zeros(2), 1j])
def test_what_is_no_number_is_refused(stubbed, value):
    tracker, client = stubbed()
    run = tracker.start("run")
    with pytest.raises(RequestError, match="the metric 'acc' must be a number, but got"):
        tracker.log(run, {"fine": 1.0, "acc": value})
    tracker.flush()
    assert client.named("batch") == []


@pytest.mark.slow
def test_an_unknown_status_is_refused(stubbed):
    tracker, client = stubbed()
    run = tracker.start("run")
    with pytest.raises(RequestError, match="FINISHED, FAILED, KILLED, but got 'DONE'"):
        tracker.finish(run, "DONE")
    with pytest.raises(RequestError, match="a run ends as one of"):
        tracker.close("DONE")
    tracker.finish(run, "FAILED", "\x1b[31mboom\x1b[0m\n" + "x" * 900)
    tracker.finish(run)
    tracker.flush()
    assert client.named("end") == [("end", "id-run", "FAILED")]
    error = client.named("batch")[0][3]["error"]
    assert error.startswith("boom xxx") and len(error) == 500


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("http://user:pw@host:5000/a", "http://user:***@host:5000/a"),
        ("https://t0ken@host", "https://***@host"),
        ("postgresql://u:a/b@h/db?sslmode=x", "postgresql://u:***@h/db?sslmode=x"),
        ("postgresql://h/db?user=u&password=pw", "postgresql://h/db?user=u&password=***"),
        ("Authorization: Bearer abcdefgh.ijk", "Authorization: Bearer ***"),
        ("the hunter22 is known", "the *** is known"),
        ("http://host:5000 and sqlite:////a/b.db", "http://host:5000 and sqlite:////a/b.db"),
    ],
)
def test_credentials_are_masked(monkeypatch, text, masked):
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "hunter22")
    assert mask(text) == masked


@pytest.mark.parametrize(
    ("name", "legal"),
    [("acc", "acc"), ("a@b#", "a_b_"), ("/x//y/", "x/y"), ("../up", "up"), ("", "_"), ("k" * 300, "k" * 250)],
)
def test_names_are_made_legal(name, legal):
    assert tracking._key(name) == legal


@pytest.mark.slow
def test_importing_is_cheap():
    code = "import sys, results.tracking; sys.exit('mlflow' in sys.modules)"
    root = tracking.__file__.rsplit("/", 2)[0]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, timeout=60).returncode == 0
