"""Real servers that are killed, that want a password, that keep runs in PostgreSQL: each number arrives, and once."""

import json

import pytest
from servers import Mlflow, Postgres, tool

from results import sender, spool
from results.calls import Calls
from results.spool import UNSENT, lines
from results.sync import sync
from results.tracking import Tracker

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("place")]

STEPS, METRICS, RUNS = 200, 10, 4


@pytest.fixture(autouse=True)
def brisk(monkeypatch):
    monkeypatch.setattr(sender, "LONGEST_PAUSE", 0.2)
    monkeypatch.setattr(sender, "CLOSING_PAUSE", 0.2)
    monkeypatch.setattr(spool, "PAUSE", 0.1)


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

    def check(self, client):
        """Everything is there, each number once."""
        runs = {run.info.run_name: run for run in client.search_runs([self.tracker.experiment_id])}
        found = client.search_runs([self.tracker.experiment_id])
        assert sorted(run.info.run_name for run in found) == sorted(["sweep", *(run.name for run in self.runs)])
        assert {run.info.status for run in found} == {"FINISHED"} and runs["sweep"].data.params == {"seed": "0"}
        for number, run in enumerate(self.runs):
            there = runs[run.name]
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
    assert sweep.parent.id() and sweep.runs[0].id()
    sweep.report(range(60))
    mlflow.kill()  # with something on its way
    sweep.report(range(60, 140))
    assert not sweep.tracker.flush(0.5)
    mlflow.start()
    sweep.report(range(140, STEPS))
    assert sweep.tracker.flush(100)
    sweep.end()
    assert not (folder / UNSENT).exists()
    sweep.check(client_of(mlflow.uri))


def test_what_a_server_missed_at_the_end_is_sent_later_even_in_pieces(mlflow, folder, monkeypatch, caplog):
    monkeypatch.setattr(sender, "GRACE_DOWN", 0.5)
    sweep = Sweep(folder, mlflow.uri)
    assert sweep.parent.id()
    mlflow.kill()
    sweep.report(range(STEPS))
    sweep.end()
    assert f"roletune sync {folder}" in caplog.text
    kept = len(lines(folder))
    mlflow.start()

    send, calls = Calls.send, 0

    def cut_off(self, job):
        nonlocal calls
        calls += 1
        if calls % 4 == 0:
            raise KeyboardInterrupt if calls % 8 else ConnectionError("gone")
        send(self, job)
        if calls % 4 == 3:  # it arrived, and the answer got lost
            raise ConnectionError("gone")

    with monkeypatch.context() as patch:
        patch.setattr(Calls, "send", cut_off)
        patch.setattr(spool, "TRIES", 1)
        for _ in range(3):
            try:
                assert sync(folder).left
            except KeyboardInterrupt:
                pass
    assert 0 < len(lines(folder)) < kept
    assert sync(folder).left == 0 and not (folder / UNSENT).exists()
    sweep.check(client_of(mlflow.uri))


@pytest.mark.parametrize("kind", ["sqlite", "server"])
def test_whatever_is_sent_twice_is_there_once(mlflow, folder, store, monkeypatch, kind):
    send = Calls.send

    def twice(self, job):
        send(self, job)
        job.tries += 1
        send(self, job)

    monkeypatch.setattr(Calls, "send", twice)
    uri = mlflow.uri if kind == "server" else f"sqlite:///{store}/mlflow.db"
    sweep = Sweep(folder, uri)
    sweep.report(range(STEPS))
    sweep.end()
    sweep.check(client_of(uri))
