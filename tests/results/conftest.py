"""A real SQLite store, made once because that takes seconds, and trackers on a client that counts, hangs and fails."""

import threading
from contextlib import ExitStack
from types import SimpleNamespace

import pytest

from results.tracking import delivery
from results.tracking.tracker import Tracker
from search.execution.journal import Journal


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Works in an empty folder, which must stay empty: no ./mlruns, no ./mlflow.db."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(delivery, "PAUSE", 0.01)
    monkeypatch.setattr(delivery, "POLL", 0.01)
    cwd = tmp_path / "cwd"
    cwd.mkdir()
    monkeypatch.chdir(cwd)
    yield
    assert list(cwd.iterdir()) == []


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    """A folder with the default store."""
    folder = tmp_path_factory.mktemp("sweep 1")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        Tracker.open(folder, "first").close()
    return folder


@pytest.fixture
def client(store):
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=f"sqlite:///{store}/mlflow.db")


class Stub:
    """An `MlflowClient` that raises the errors it was given, then notes what comes, while `gate` is open."""

    def __init__(self, *errors):
        self.errors, self.broken, self.calls = list(errors), False, []
        self.gate, self.entered = threading.Event(), threading.Event()
        self.gate.set()

    def _call(self, name, *what):
        self.entered.set()
        self.gate.wait()
        if self.broken:
            raise ConnectionError("no route to http://user:s3cr3t@host/")
        if self.errors and (error := self.errors.pop(0)):
            raise error
        self.calls.append((name, *what))

    def create_run(self, experiment_id, start_time=None, tags=None, run_name=None):
        self._call("create", run_name, tags)
        return SimpleNamespace(info=SimpleNamespace(run_id=f"id-{run_name}"))

    def update_run(self, run_id, status):
        self._call("update", run_id, status)

    def search_runs(self, experiment_ids, filter_string, max_results):
        made = [c for c in self.calls if c[0] == "create" and c[2]["roletune.uuid"] in filter_string]
        return [SimpleNamespace(info=SimpleNamespace(run_id=f"id-{c[1]}")) for c in made]

    def log_batch(self, run_id, metrics=(), params=(), tags=()):
        points = [(m.key, m.value, m.step) for m in metrics]
        self._call("batch", run_id, points, {t.key: t.value for t in tags}, {p.key: p.value for p in params})

    def log_artifact(self, run_id, path):
        self._call("artifact", run_id, path)

    def log_text(self, run_id, text, name):
        self._call("text", run_id, name)

    def set_terminated(self, run_id, status, end_time):
        self._call("end", run_id, status)

    def named(self, name):
        return [call for call in self.calls if call[0] == name]


@pytest.fixture
def stubbed(tmp_path):
    """Makes trackers on stubs, each of which follows the journal in the same folder."""
    made = []
    with ExitStack() as journals:

        def make(*errors, calls=()):
            client = Stub(*errors)
            client.calls += calls
            tracker = Tracker(tmp_path, "http://user:s3cr3t@host", "7", client)
            tracker.journal = journals.enter_context(Journal(tmp_path))
            made.append((tracker.follow(tracker.journal), client))
            return made[-1]

        yield make
        for tracker, client in made:
            client.broken = False
            client.gate.set()
            tracker.close()
