"""MLflow's page for the store of a sweep."""

import json
import os
import signal
import socket
import sys
import time
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
from children import child
from support import run_id, tracked

from results.tracking.experiment_page import runs_page, schedules_page
from results.tracking.ui import newest, newest_experiment, serve, store_arguments
from spaces import RequestError

pytestmark = [
    pytest.mark.usefixtures("place"),
    pytest.mark.filterwarnings(  # MLflow's own models use it, and SQLAlchemy 2.1 says so once
        "ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning"
    ),
]


def sweep(folder, seconds=0):
    folder.mkdir(parents=True)
    (folder / "sweep.yaml").write_text("data: {name: digits}\n")
    os.utime(folder / "sweep.yaml", (seconds, seconds))
    return folder


def test_the_server_is_told_where_the_store_and_its_files_are(tmp_path):
    folder = tmp_path / "50% ?"
    folder.mkdir()
    (folder / "mlflow.db").touch()
    assert store_arguments(folder) == [
        "--backend-store-uri",
        f"sqlite:///{tmp_path}/50%25 %3F/mlflow.db",
        "--artifacts-destination",
        (folder / "artifacts").as_uri(),
    ]


def test_a_relative_folder_is_made_absolute(tmp_path, monkeypatch):
    (tmp_path / "mlflow.db").touch()
    monkeypatch.chdir(tmp_path)
    assert store_arguments(Path())[1] == f"sqlite:///{tmp_path}/mlflow.db"


@pytest.mark.parametrize(
    ("result", "hint"),
    [
        (None, "is this a sweep's folder?"),
        ("{", "is this a sweep's folder?"),
        ("[]", "is this a sweep's folder?"),
        ('{"tracking_uri": "http://host:5000"}', "this sweep is tracked at http://host:5000"),
    ],
)
def test_a_folder_without_a_store_is_refused(tmp_path, result, hint):
    if result is not None:
        (tmp_path / "result.json").write_text(result)
    with pytest.raises(RequestError) as caught:
        store_arguments(tmp_path)
    assert str(caught.value) == f"no MLflow store in {tmp_path}; {hint}"


def test_the_newest_sweep_is_the_one_that_started_last(tmp_path):
    sweep(tmp_path / "b-001", 300)
    sweep(tmp_path / "a-002", 500)
    sweep(tmp_path / "c-003", 100)
    (tmp_path / "z-no-sweep").mkdir()
    assert newest(tmp_path) == tmp_path / "a-002"


def test_no_sweep_at_all_is_said(tmp_path):
    for storage in (tmp_path / "absent", tmp_path):
        with pytest.raises(RequestError, match=f"no sweep in {storage}; give the sweep's folder"):
            newest(storage)


def test_a_port_that_is_taken_is_refused_before_anything_starts(tmp_path):
    (tmp_path / "mlflow.db").touch()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(RequestError, match=f"cannot listen on 127.0.0.1:{port}: .* in use; choose another --port"):
            serve(tmp_path, host="127.0.0.1", port=port, say=pytest.fail)


# The real server ------------------------------------------------------------------------------------------------------


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def fetch(address, data=None):
    headers = {"Content-Type": "application/json"}
    request = Request(address, json.dumps(data).encode() if data else None, headers)
    with urlopen(request, timeout=60) as answer:
        return answer.read().decode()


def fetch_when_it_is_up(process, address):
    while process.poll() is None:
        try:
            return fetch(address)
        except OSError:  # not yet
            time.sleep(0.1)
    raise AssertionError(f"the server ended with {process.returncode}")


@pytest.mark.slow
def test_the_real_server_shows_the_sweep_and_leaves_nothing_running(store, client, tmp_path):
    (tmp_path / "policy.json").write_text('{"of": "the sweep"}')
    with tracked(store, "shown", journal=tmp_path) as tracker:
        run = tracker.start("sweep")
        tracker.artifact(run, tmp_path / "policy.json")
    port = free_port()
    code = f"""
import sys
from pathlib import Path
from results.tracking.ui import serve
sys.exit(serve(Path({str(store)!r}), host="127.0.0.1", port={port}, say=lambda text: print(text, flush=True)))
"""
    environment = {**os.environ, "MLFLOW_TRACKING_URI": "http://127.0.0.1:1"}  # the sweep's own store counts
    root, log = Path(__file__).parents[3], tmp_path / "log"
    command = [sys.executable, "-c", code]
    with (
        log.open("w") as output,
        child(command, env=environment, cwd=root, stdout=output, stderr=output) as process,
    ):
        page = fetch_when_it_is_up(process, f"http://127.0.0.1:{port}/")
        listed = fetch(f"http://127.0.0.1:{port}/api/2.0/mlflow/experiments/search", {"max_results": 100})
        policy = fetch(f"http://127.0.0.1:{port}/get-artifact?path=policy.json&run_uuid={run_id(client, tracker, run)}")
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        with pytest.raises(ProcessLookupError):  # nobody of its process group is left
            os.killpg(process.pid, 0)
    experiment_id = newest_experiment(store / "mlflow.db")
    lines = log.read_text().splitlines()
    home = f"http://127.0.0.1:{port}/"
    assert lines[0] == f"{home}{runs_page(experiment_id)}  ·  runs of {store}  ·  Ctrl-C stops the server"
    assert lines[1] == f"{home}{schedules_page(experiment_id)}  ·  charts of the schedules"
    assert "<title>MLflow</title>" in page
    assert "shown" in [experiment["name"] for experiment in json.loads(listed)["experiments"]]
    assert policy == '{"of": "the sweep"}'
