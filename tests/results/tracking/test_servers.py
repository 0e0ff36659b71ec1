"""Real servers that are killed, that want a password, that keep runs in PostgreSQL: each number arrives, and once."""

import contextlib
import json
import tempfile
from pathlib import Path

import pytest
from servers import Mlflow, Postgres, tool
from sqlalchemy import create_engine
from support import run_id

from results.runlog.events import JOURNAL_FILE
from results.tracking import delivery
from results.tracking import sync as sync_module
from results.tracking.client import TrackingClient
from results.tracking.cursor import CURSOR_FILE, read_cursors
from results.tracking.delivery import remaining
from results.tracking.sync import sync
from results.tracking.tracker import Tracker
from search.execution.journal import Journal
from spaces.core.errors import RequestError

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("place")]

STEPS, METRICS, RUNS = 200, 10, 4


@pytest.fixture(autouse=True)
def brisk(monkeypatch):
    monkeypatch.setattr(delivery, "LONGEST_PAUSE", 0.2)
    monkeypatch.setattr(delivery, "CLOSING_PAUSE", 0.2)
    monkeypatch.setattr(sync_module, "PAUSE", 0.1)


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory):
    server = Mlflow(tmp_path_factory.mktemp("mlflow")).start()
    yield server
    server.kill()


@pytest.fixture
def folder(tmp_path):
    """Of a sweep."""
    folder = tmp_path / "sweep"
    folder.mkdir()
    (folder / "sweep.yaml").write_text(f"name: {tmp_path.name}\n")
    (folder / "policy.json").write_text("{}")
    return folder


class Sweep:
    """Some runs under one, of which everything is a number that tells where it belongs."""

    def __init__(self, folder, uri):
        self.tracker = Tracker.open(folder, folder.parent.name, uri)
        self.journal = Journal(folder)
        self.tracker.follow(self.journal)
        self.folder = folder
        self.parent = self.tracker.start("sweep", params={"seed": 0})
        self.runs = [self.tracker.start(f"run-{n}", parent=self.parent) for n in range(RUNS)]

    def report(self, steps):
        for step in steps:
            for number, run in enumerate(self.runs):
                self.tracker.log(run, {f"m{m}": value(number, m, step) for m in range(METRICS)}, step)
                if step % 50 == 0:
                    self.tracker.tag(run, {f"at.{step}": str(number), "latest": str(step)})

    def end(self):
        self.tracker.artifact(self.runs[0], self.folder / "policy.json")
        self.tracker.close("FINISHED")
        self.journal.__exit__(None, None, None)

    def check(self, client):
        """Everything is there, each number once."""
        runs = {run.info.run_name: run for run in client.search_runs([self.tracker.experiment_id])}
        found = client.search_runs([self.tracker.experiment_id])
        assert sorted(run.info.run_name for run in found) == sorted(["sweep", *self.runs])
        assert {run.info.status for run in found} == {"FINISHED"} and runs["sweep"].data.params == {"seed": "0"}
        for number, run in enumerate(self.runs):
            there = runs[run]
            assert there.data.tags["mlflow.parentRunId"] == runs["sweep"].info.run_id
            assert there.data.tags["latest"] == "150" and there.data.tags["at.100"] == str(number)
            for m in range(METRICS):
                points = client.get_metric_history(there.info.run_id, f"m{m}")
                expected = [(step, value(number, m, step)) for step in range(STEPS)]
                assert sorted((point.step, point.value) for point in points) == expected
        assert [item.path for item in client.list_artifacts(runs["run-0"].info.run_id)] == ["policy.json"]


def value(number, metric, step):
    return number + metric / 16 + step / 4096


def client_of(uri):
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=uri)


def test_a_server_that_is_killed_and_started_again_has_everything_once(mlflow, folder):
    sweep = Sweep(folder, mlflow.uri)
    assert sweep.tracker.flush()
    sweep.report(range(60))
    mlflow.kill()  # with something on its way
    sweep.report(range(60, 140))
    assert not sweep.tracker.flush(0.5)
    mlflow.start()
    sweep.report(range(140, STEPS))
    assert sweep.tracker.flush(100)
    sweep.end()
    assert remaining(*read_cursors(folder)) == 0
    sweep.check(client_of(mlflow.uri))


def test_what_a_server_missed_at_the_end_is_sent_later_even_in_pieces(mlflow, folder, monkeypatch, caplog):
    monkeypatch.setattr(delivery, "GRACE_DOWN", 0.5)
    sweep = Sweep(folder, mlflow.uri)
    assert sweep.tracker.flush()
    mlflow.kill()
    sweep.report(range(STEPS))
    sweep.end()
    assert f"roletune sync {folder}" in caplog.text
    kept = remaining(*read_cursors(folder))
    mlflow.start()

    send, calls = TrackingClient.send, 0

    def cut_off(self, call):
        nonlocal calls
        calls += 1
        if calls % 4 == 0:
            raise KeyboardInterrupt if calls % 8 else ConnectionError("gone")
        send(self, call)
        if calls % 4 == 3:  # it arrived, and the answer got lost
            raise ConnectionError("gone")

    with monkeypatch.context() as patch:
        patch.setattr(TrackingClient, "send", cut_off)
        patch.setattr(sync_module, "TRIES", 1)
        for _ in range(3):
            with contextlib.suppress(KeyboardInterrupt):
                assert sync(folder).left
    assert 0 < remaining(*read_cursors(folder)) < kept
    assert sync(folder).left == 0 and remaining(*read_cursors(folder)) == 0
    sweep.check(client_of(mlflow.uri))


@pytest.mark.parametrize("kind", ["sqlite", "server"])
def test_whatever_is_sent_twice_is_there_once(mlflow, folder, store, monkeypatch, kind):
    send = TrackingClient.send

    def twice(self, call):
        send(self, call)
        call.tries += 1
        send(self, call)

    monkeypatch.setattr(TrackingClient, "send", twice)
    uri = mlflow.uri if kind == "server" else f"sqlite:///{store}/mlflow.db"
    sweep = Sweep(folder, uri)
    sweep.report(range(STEPS))
    sweep.end()
    sweep.check(client_of(uri))


# A server that wants a password ---------------------------------------------------------------------------------------

USER, PASSWORD = "keeper", "correct-horse-staple"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    pytest.importorskip("flask_wtf", reason="mlflow[auth] is not installed")
    folder = tmp_path_factory.mktemp("guarded")
    (folder / "auth.ini").write_text(
        "[mlflow]\n"
        "default_permission = NO_PERMISSIONS\n"
        f"database_uri = sqlite:///{folder}/auth.db\n"
        f"admin_username = {USER}\n"
        f"admin_password = {PASSWORD}\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
    )
    environment = {"MLFLOW_AUTH_CONFIG_PATH": str(folder / "auth.ini"), "MLFLOW_FLASK_SERVER_SECRET_KEY": "any"}
    server = Mlflow(folder, words=["--app-name", "basic-auth"], **environment).start()
    yield server
    server.kill()


def with_credentials(uri, password=PASSWORD):
    return uri.replace("://", f"://{USER}:{password}@")


@pytest.mark.parametrize("place_of_password", ["address", "environment"])
def test_a_server_that_wants_a_password_gets_it_and_nobody_else(
    guarded, folder, monkeypatch, caplog, capfd, place_of_password
):
    caplog.set_level("DEBUG")
    uri = with_credentials(guarded.uri) if place_of_password == "address" else guarded.uri
    if place_of_password == "environment":
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", USER)
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
    journal = Journal(folder)
    tracker = Tracker.open(folder, folder.parent.name, uri).follow(journal)
    run = tracker.start("run", params={"uri": uri, "said": {"by": uri}}, description=uri, tags={"at": uri})
    tracker.log(run, {"a": 0.5}, 1)
    tracker.artifact(run, folder / "policy.json")
    tracker.text(run, f"Traceback: no route to {uri}", "error.txt")
    tracker.finish(run, "FAILED", f"no route to {uri}")
    assert tracker.flush()
    later = tracker.start("later")
    assert tracker.flush()

    def away(call):
        raise ConnectionError(f"no route to {uri}")

    monkeypatch.setattr(delivery, "GRACE_DOWN", 0.2)
    monkeypatch.setattr(tracker._thread, "_send", away)
    tracker.text(later, f"told at {uri}", "note.txt")
    tracker.close("FINISHED")
    journal.__exit__(None, None, None)
    said = [(folder / name).read_text() for name in (JOURNAL_FILE, CURSOR_FILE)]
    assert remaining(*read_cursors(folder)) == 2
    if place_of_password == "address":
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    done = sync(folder)
    assert (done.sent, done.left) == (2, 0)

    client = client_of(uri)
    (there,) = client.search_runs([tracker.experiment_id], "attributes.run_name = 'run'")
    assert (there.info.status, there.data.metrics) == ("FAILED", {"a": 0.5})
    run, later = (run_id(client, tracker, name) for name in (run, later))
    files = {item.path: client.download_artifacts(run, item.path, str(folder)) for item in client.list_artifacts(run)}
    assert set(files) == {"policy.json", "error.txt"}
    client.download_artifacts(later, "note.txt", str(folder))
    said += [str(there), caplog.text, *capfd.readouterr(), repr(tracker), tracker.uri, json.dumps(done.to_json())]
    written = [path.read_bytes() for path in folder.parent.rglob("*") if path.is_file()]
    assert len(written) == 6 and not any(PASSWORD.encode() in content for content in written)
    assert not any(PASSWORD in text for text in said)


@pytest.mark.parametrize("password", ["wrong-horse-staple", ""])
def test_wrong_credentials_are_refused_in_one_line_that_says_what_to_set(guarded, folder, password, caplog, capfd):
    uri = with_credentials(guarded.uri, password) if password else guarded.uri
    with pytest.raises(RequestError) as refusal:
        Tracker.open(folder, "x", uri)
    told = str(refusal.value)
    assert "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD" in told and "\n" not in told
    assert "wrong-horse" not in told + caplog.text + "".join(capfd.readouterr())


# PostgreSQL -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def postgres():
    try:
        create_engine("postgresql://host/name")
    except ModuleNotFoundError as error:
        pytest.skip(f"PostgreSQL's driver is not installed: {error}")
    if not tool("initdb") or not tool("pg_ctl"):
        pytest.skip("PostgreSQL is not installed")
    with tempfile.TemporaryDirectory() as folder:  # pytest's own may not be entered by another user
        Path(folder).chmod(0o755)
        server = Postgres(Path(folder) / "cluster").start()
        yield server
        server.stop()


@pytest.mark.parametrize("kind", ["direct", "server"])
def test_postgresql_keeps_a_run(postgres, folder, tmp_path_factory, kind, caplog, capfd):
    server = None
    if kind == "server":
        server = Mlflow(tmp_path_factory.mktemp("before-postgres"), backend=postgres.uri).start()
    try:
        uri = postgres.uri if server is None else server.uri
        sweep = Sweep(folder, uri)
        sweep.report(range(STEPS))
        sweep.end()
        sweep.check(client_of(uri))
        assert postgres.password not in sweep.tracker.uri + caplog.text + "".join(capfd.readouterr())
    finally:
        if server is not None:
            server.kill()
    with pytest.raises(RequestError, match=r"password authentication failed.*PGPASSWORD") as refusal:
        Tracker.open(folder, "x", postgres.uri.replace(postgres.password, "wr0ng"))
    assert "wr0ng" not in str(refusal.value) and "\n" not in str(refusal.value)
