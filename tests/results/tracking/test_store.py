"""Stores that open, stores that do not, and what may be shown of them."""

import os
import socket
from pathlib import Path
from types import SimpleNamespace

import pytest
import sqlalchemy
from support import run_id, tracked

from results.tracking import store as stores
from results.tracking.store import find_artifact, may_pass, one_line, reason, sqlite_uri
from results.tracking.tracker import Tracker
from spaces.core.errors import RequestError

pytestmark = [
    pytest.mark.usefixtures("place"),
    pytest.mark.filterwarnings(  # MLflow's own models use it, and SQLAlchemy 2.1 says so once
        "ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning"
    ),
]


@pytest.mark.slow
def test_a_deleted_experiment_is_refused(store, client):
    client.delete_experiment(client.create_experiment("gone"))
    with pytest.raises(RequestError, match=r"'gone' was deleted; choose another name, or .*restore"):
        Tracker.open(store, "gone")


@pytest.mark.slow
def test_an_experiment_that_another_sweep_makes_meanwhile_is_taken():
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS

    answers = [None, SimpleNamespace(lifecycle_stage="active", experiment_id=7)]

    def create(name, artifact_location, tags):
        raise MlflowException("taken", error_code=RESOURCE_ALREADY_EXISTS)

    client = SimpleNamespace(get_experiment_by_name=lambda name: answers.pop(0), create_experiment=create)
    assert stores._experiment_id(client, "x", None) == "7"


@pytest.mark.parametrize("name", ["plain", "a sweep", "50% ?", "a%20b", "ä#1"])
def test_any_folder_can_hold_a_database(tmp_path, name):
    file = tmp_path / name / "mlflow.db"
    file.parent.mkdir()
    engine = sqlalchemy.create_engine(sqlite_uri(file))
    engine.connect().close()
    engine.dispose()
    assert [path.name for path in tmp_path.rglob("*.db")] == ["mlflow.db"] and file.exists()
    assert stores._sqlite_file(sqlite_uri(file)) == file


@pytest.mark.parametrize(
    ("uri", "artifacts"),
    [
        ("sqlite:////a/b/mlflow.db", "file:///a/b/artifacts"),
        ("postgresql+psycopg2://u@h/db", "file:///sweep/artifacts"),
        ("http://host:5000", None),
        ("file:///a/b", None),
    ],
)
def test_artifacts_are_beside_the_database_or_the_servers_affair(uri, artifacts):
    assert stores._artifacts(uri, Path("/sweep")) == artifacts


@pytest.mark.slow
def test_find_artifact_lists_what_there_is(store, client, tmp_path):
    with tracked(store, "find", journal=tmp_path) as tracker:
        run = tracker.start("run")
        tracker.text(run, "1", "deep/er/policy.json")
    run = run_id(client, tracker, run)
    with pytest.raises(RequestError, match=r"no artifact 'policy.json'; there is: deep/er/policy.json"):
        find_artifact(tracker.uri, run, "policy.json")
    with pytest.raises(RequestError, match="0123456789abcdef"):
        find_artifact(tracker.uri, "0123456789abcdef" * 2, "policy.json")
    with pytest.raises(RequestError, match="must be there"):
        find_artifact(f"sqlite:///{store}/other.db", run, "policy.json")
    assert not (store / "other.db").exists()


@pytest.mark.slow
def test_the_environment_is_as_before(store, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "77")
    before = dict(os.environ)
    with stores.BRISK.calls():
        assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "0"
        assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "77"
        Tracker.open(store, "first").close()
    assert dict(os.environ) == before


def closed_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["http", "postgresql"])
def test_an_unreachable_server_is_refused_at_once(tmp_path, scheme, caplog, capfd, monkeypatch):
    monkeypatch.setattr(stores, "REMOTE", 60.0)
    uri = f"{scheme}://user:s3cr3t/@127.0.0.1:{closed_port()}"
    if scheme == "http":
        uri = uri.replace("s3cr3t/", "s3cr3t")
    with pytest.raises(RequestError) as caught:
        Tracker.open(tmp_path, "x", uri)
    assert "no answer within" not in str(caught.value)  # it was refused, not given up
    assert f"{scheme}://user:***@127.0.0.1" in str(caught.value) and "; " in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "s3cr3t" not in str(caught.value) + caplog.text + "".join(capfd.readouterr())
    assert caught.value.__suppress_context__


@pytest.mark.slow
def test_a_silent_server_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(stores, "REMOTE", 0.5)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(RequestError, match=r"no answer within 0\.5 seconds"):
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


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (ConnectionError("down"), True),
        (TimeoutError(), True),
        (FileNotFoundError("x"), False),
        (PermissionError("x"), False),
        (LookupError("x"), False),
    ],
)
def test_which_errors_are_worth_another_try(error, passes):
    assert may_pass(error) is passes


def test_the_reason_is_the_deepest_error_of_the_system():
    try:
        try:
            raise ConnectionRefusedError("refused by http://u:s3cr3t@h")
        except OSError as error:
            raise ValueError("wrapped") from error
    except ValueError as error:
        assert reason(error) == "refused by http://u:***@h"
    assert reason(ValueError("itself")) == "itself" and reason(KeyError()) == "KeyError"


def test_what_is_shown_is_one_short_line():
    assert one_line("\x1b[31mboom\x1b[0m\n\tat\x00 home", 99) == "boom at home"
    assert one_line("x" * 20, 10) == "x" * 9 + "…"
