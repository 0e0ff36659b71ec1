"""What goes wrong while a sweep runs: members, workers, the disk, the tracking server, the clock."""

from __future__ import annotations

import errno
import gc
import io
import json
import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from mlflow.tracking import MlflowClient
from rich.console import Console
from servers import Mlflow
from support import start_search

import search.execution.callbacks
from results.runlog.events import (
    JOURNAL_FILE,
    CheckpointSaved,
    PopulationPerturbed,
    TrialEnded,
    TrialReported,
    TrialTested,
)
from results.tracking import delivery
from results.tracking.client import TrackingClient
from search.cli import main
from search.config.sections import ResourceConfig
from search.execution.callbacks import SweepCallback
from search.execution.journal import Journal
from search.execution.progress import ProgressReporter
from search.execution.trials import JournalCallback, error_line, run_trials
from spaces import RequestError, Space, WorkError
from trainables import Recipe, Task
from trainables.data import load

pytestmark = pytest.mark.slow

EPOCHS, INTERVAL, SIZE = 6, 2, 4
HOUR = 3600.0


@pytest.fixture(scope="module")
def task():
    data = load("digits", train=60, validation=60)  # three batches an epoch: a ninth batch is in the third
    recipe = Recipe(lr=0.05, batch_size=20)
    return Task("teacher", "mlp", data, recipe, EPOCHS, validation=data.validation, validate_every=INTERVAL)


def searched(task, folder, keeper=JournalCallback, kind="random", **resources):
    """A search to its end: its stage, and what became of the members."""
    folder.mkdir(exist_ok=True)
    settings = {"epochs": EPOCHS, "interval": INTERVAL, "population" if kind == "pbt" else "trials": SIZE}
    with Journal(folder) as journal:
        stage = start_search(f"teacher-{kind}", kind, task, Space(), journal, seed=5, **settings)
        outcomes = run_trials(
            stage.members,
            task,
            ResourceConfig(**resources),
            keeper(journal),
            name=stage.name,
            save_every=INTERVAL,
            scheduler=stage.scheduler(),
        )
    return stage, outcomes


def policy(task, folder, keeper=JournalCallback):
    """The bytes that a population finds."""
    stage, outcomes = searched(task, folder, keeper, "pbt")
    assert [(outcome.epochs, outcome.error) for outcome in outcomes] == [(EPOCHS, "")] * SIZE
    return stage.result(outcomes, {}).schedule.dumps()


@pytest.fixture(scope="module")
def undisturbed(task, _ray, tmp_path_factory):
    """What the population finds when nothing goes wrong."""
    return policy(replace(task, model="faulty:whose_process"), tmp_path_factory.mktemp("undisturbed"))


def watch(said, limit):
    """What makes the keeper that sweeps have; it speaks to `said`."""
    ticker = ProgressReporter(Console(file=said, width=1000), 0)
    return lambda journal: SweepCallback(journal, ticker, limit)


def events(folder, kind):
    """The lines of a kind in a sweep's journal."""
    found = [json.loads(line) for line in (folder / JOURNAL_FILE).read_text().splitlines()]
    return [event for event in found if event["event"] == kind.kind]


def epochs_reported(folder):
    """Of each member, in the order in which they came."""
    found = {}
    for event in events(folder, TrialReported):
        found.setdefault(event["trial"], []).append(event["epoch"])
    return found


# Members and workers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "why"),
    [
        ("raises_twice", "RuntimeError: a cable was pulled"),
        ("diverges", "spaces.core.errors.WorkError: the loss is not finite in epoch 2 (loss = nan"),
    ],
)
def test_a_member_that_fails_again_is_named_and_the_others_go_on(task, marks, tmp_path, model, why):
    _, outcomes = searched(replace(task, model=f"faulty:{model}"), tmp_path, retries=1)
    (failed,) = (outcome for outcome in outcomes if outcome.error)
    assert failed.error.startswith(why) and "\n" not in failed.error
    assert failed.epochs == 2, "as far as its checkpoint"
    assert len(list(marks.glob("fault-*"))) == 2, "it was tried once more"
    assert [outcome.epochs for outcome in outcomes if not outcome.error] == [EPOCHS] * (SIZE - 1)


def test_a_member_whose_worker_dies_has_each_epoch_once(task, marks, tmp_path):
    _, outcomes = searched(replace(task, model="faulty:dies_once"), tmp_path)
    assert list(marks.glob("fault-*"))
    assert [(outcome.epochs, outcome.error) for outcome in outcomes] == [(EPOCHS, "")] * SIZE
    assert list(epochs_reported(tmp_path).values()) == [[1, 2, 3, 4, 5, 6]] * SIZE


@pytest.mark.parametrize("retries", [1, 0])
def test_a_member_that_hangs_is_ended_by_the_epoch_limit(task, marks, tmp_path, monkeypatch, retries):
    def monotonic():
        """An hour passes as soon as nobody runs but the one that hangs."""
        others = len(events(tmp_path, TrialEnded)) >= SIZE - 1
        return time.monotonic() + HOUR * (others and (marks / "fault-0").exists())

    monkeypatch.setattr(search.execution.callbacks, "time", SimpleNamespace(monotonic=monotonic))
    said = io.StringIO()
    _, outcomes = searched(replace(task, model="faulty:hangs_once"), tmp_path, watch(said, 600.0), retries=retries)
    why = "an epoch took more than 600 s, so its worker was ended; raise resources.epoch_limit if it was no hang"
    if retries:
        assert [(outcome.epochs, outcome.error) for outcome in outcomes] == [(EPOCHS, "")] * SIZE
        assert f"goes on from epoch 2, after: {why}" in said.getvalue()
    else:
        assert sorted((outcome.epochs, outcome.error) for outcome in outcomes) == [(2, why), *[(EPOCHS, "")] * 3]
    assert all(len(epochs) == len(set(epochs)) for epochs in epochs_reported(tmp_path).values())


@pytest.mark.parametrize("when", ["reported", "perturbed"], ids=["as they train", "as they wait"])
def test_a_population_outlives_all_of_its_workers(task, marks, tmp_path, monkeypatch, undisturbed, when):
    """While they wait, Ray hears of it only at a worker's next trial, and twice: `search.execution.ray_patches`."""
    happen, calls, killed = getattr(Journal, when), 0, set()

    def and_all_die(journal, *what):
        nonlocal calls
        calls += 1
        if calls == 2:
            killed.update(kill_workers(marks))
        return happen(journal, *what)

    monkeypatch.setattr(Journal, when, and_all_die)
    found = policy(replace(task, model="faulty:whose_process"), tmp_path)
    assert killed and workers(marks) - killed, "there were others afterwards"
    assert found == undisturbed
    assert [sorted(epochs) for epochs in epochs_reported(tmp_path).values()] == [[1, 2, 3, 4, 5, 6]] * SIZE


def workers(marks):
    """The processes that have trained so far."""
    return {int(mark.name.removeprefix("pid-")) for mark in marks.glob("pid-*")}


def kill_workers(marks):
    """End those that are still there; returns which these were."""
    pids = {pid for pid in workers(marks) if trains(pid)}
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    while any(map(trains, pids)):
        time.sleep(0.01)
    return pids


def trains(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().startswith("ray::")
    except OSError:
        return False


def test_the_last_failure_of_several_is_the_one_that_is_told(tmp_path):
    path = tmp_path / "error.txt"
    raised = "Traceback (most recent call last):\n  File 'x.py', line 1, in f\n    g()\nValueError: no\nand more\n"
    died = "The actor died unexpectedly before finishing this task.\n\tclass_name: RoleTrial\nThe actor is dead.\n"
    trial = SimpleNamespace(error_file=str(path))
    for text, told in ((raised, "ValueError: no"), (died, "The actor died unexpectedly before finishing this task.")):
        for before in ("", f"Failure # 1 (occurred at 1)\n{raised}", f"Failure # 1 (occurred at 1)\n{died}"):
            path.write_text(f"{before}Failure # 2 (occurred at 2)\n{text}")
            assert error_line(trial) == told


# The clock ------------------------------------------------------------------------------------------------------------


def test_a_clock_that_is_set_ends_nobody_and_changes_nothing(task, marks, tmp_path, monkeypatch, undisturbed):
    tell, calls = time.time, 0

    def told():
        nonlocal calls
        calls += 1
        return tell() + (0, 5 * HOUR, -5 * HOUR)[calls // 20 % 3]

    said = io.StringIO()
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", told)
        found = policy(replace(task, model="faulty:whose_process"), tmp_path, watch(said, 600.0))
    at = [event["at"] for event in events(tmp_path, TrialReported)]
    assert max(at) - min(at) > 4 * HOUR * 1000 and at != sorted(at), "it was set, in either direction"
    assert "goes on" not in said.getvalue() and found == undisturbed
    assert list(epochs_reported(tmp_path).values()) == [[1, 2, 3, 4, 5, 6]] * SIZE
    with Journal(tmp_path) as journal:
        assert journal.seconds >= 0


# The disk -------------------------------------------------------------------------------------------------------------

SWEEP = """
name: small
data: {name: digits, train: 60, validation: 60}
teacher: {model: mlp, pretrained: false}
student: {model: mlp, recipe: {batch_size: 20}, search: {population: 2, epochs: 4, interval: 2}}
baselines: []
"""


@pytest.fixture
def roletune(sweep_file, marks, scored_here, monkeypatch, capsys):
    """Runs `roletune search` on a small sweep; returns its status and standard error."""
    sweep_file(SWEEP)

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["roletune", "search", "sweep.yaml", *words])
        try:
            main()
        except SystemExit as end:
            return end.code or 0, capsys.readouterr().err
        return 0, capsys.readouterr().err

    return call


class FullDisk(io.RawIOBase):
    """A file that cannot grow."""

    def __init__(self, file):
        self._file = file

    def writable(self):
        return True

    def write(self, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def fileno(self):
        return self._file.fileno()

    def close(self):
        self._file.close()
        super().close()


def test_a_full_disk_stops_the_sweep_with_one_line_and_it_goes_on_when_there_is_room(roletune, tmp_path, monkeypatch):
    write = Journal.write

    def filling_up(journal, event):
        if isinstance(event, CheckpointSaved) and not isinstance(getattr(journal._file, "raw", None), FullDisk):
            journal._file = io.BufferedWriter(FullDisk(journal._file))
        write(journal, event)

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "write", filling_up)
        status, err = roletune()
    assert status == 1 and len(err.splitlines()) == 1, err
    assert err.startswith("roletune: cannot write ") and "journal.jsonl: No space left on device" in err
    assert "--resume" in err and not (tmp_path / "runs" / "small-001" / "result.json").exists()
    assert roletune("--resume") == (0, "")
    assert (tmp_path / "runs" / "small-001" / "result.json").is_file()


def test_a_search_that_failed_as_a_whole_is_tried_again(roletune, tmp_path):
    words = ("--set", "student.model=faulty:raises_for_two", "--set", "resources.retries=0")
    status, err = roletune(*words)
    assert status == 1 and "every member of student-pbt failed; the first: RuntimeError: a cable was pulled" in err
    assert roletune("--resume", *words) == (0, "")
    folder = tmp_path / "runs" / "small-001"
    assert [event["epoch"] for event in events(folder, PopulationPerturbed)] == [2], "what went well is not done again"
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("small").experiment_id])
    assert {run.info.run_name: run.info.status for run in runs} == {
        name: "FINISHED" for name in ("small-001", "student-pbt-00", "student-pbt-01", "student-full-policy-0")
    }


def test_a_disk_that_is_full_for_a_worker_costs_no_member(task, marks, tmp_path):
    task = replace(task, model="faulty:fills_up_twice")
    with pytest.raises(
        WorkError, match=r"^teacher-random-0\d: OSError: .* No space left on device; make room, and go on"
    ):
        searched(task, tmp_path, retries=1)
    gc.collect()  # lets go of the workers
    assert not any(event["error"] for event in events(tmp_path, TrialEnded))
    _, outcomes = searched(task, tmp_path)
    assert [(outcome.epochs, outcome.error) for outcome in outcomes] == [(EPOCHS, "")] * SIZE


def test_a_storage_that_is_read_only_is_refused(roletune, tmp_path, monkeypatch):
    def read_only(*_, **more):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    where = Path.open

    def opened(path, mode="r", *more, **others):
        return read_only() if path.name == JOURNAL_FILE else where(path, mode, *more, **others)

    monkeypatch.setattr(Path, "open", opened)
    status, err = roletune()
    assert (status, len(err.splitlines())) == (2, 1), err
    assert "cannot keep a journal in" in err and "Read-only file system" in err
    with pytest.raises(RequestError, match="Read-only file system"):
        Journal(tmp_path)


# The tracking server --------------------------------------------------------------------------------------------------


def test_what_the_tracking_server_missed_arrives_when_it_is_back(roletune, tmp_path, monkeypatch):
    send, refused = TrackingClient.send, []

    def away(calls, call):
        """From the first epoch's report on, until the test set was opened."""
        folder = tmp_path / "runs" / "small-001"
        if events(folder, TrialReported) and not events(folder, TrialTested):
            refused.append(call.op)
            raise ConnectionError("connection refused")
        send(calls, call)

    monkeypatch.setattr(delivery, "PAUSE", 0.01)
    monkeypatch.setattr(delivery, "LONGEST_PAUSE", 0.1)
    monkeypatch.setattr(TrackingClient, "send", away)
    assert roletune()[0] == 0 and refused
    folder = tmp_path / "runs" / "small-001"
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("small").experiment_id])
    assert {run.info.status for run in runs} == {"FINISHED"} and len(runs) == 1 + 2 + 1
    steps = {
        run.info.run_name: [point.step for point in client.get_metric_history(run.info.run_id, "loss")] for run in runs
    }
    assert {name: epochs for name, epochs in steps.items() if epochs} == epochs_reported(folder)
    assert list(epochs_reported(folder).values()) == [[1, 2, 3, 4]] * 3


def test_a_password_in_the_address_is_in_nothing_that_a_sweep_leaves(roletune, tmp_path, tmp_path_factory):
    server = Mlflow(tmp_path_factory.mktemp("server")).start()  # it wants none, and takes any
    try:
        address = server.uri.replace("://", "://keeper:correct-horse@")
        told = [roletune("--set", f"tracking.uri={address}")]
        told += [roletune("--resume", "--set", f"tracking.uri={address.replace('correct', 'renewed')}")]
        assert [status for status, _ in told] == [0, 0], told
        client = MlflowClient(server.uri)
        runs = client.search_runs([client.get_experiment_by_name("small").experiment_id])
        assert len(runs) == 1 + 2 + 1 and {run.info.status for run in runs} == {"FINISHED"}
    finally:
        server.kill()
    written = [*(tmp_path / "runs").rglob("*"), *server.folder.rglob("*")]
    assert {"sweep.yaml", "result.json", "server.db", "journal.jsonl"} <= {path.name for path in written}
    for path in written:
        assert not path.is_file() or b"-horse" not in path.read_bytes(), path
    assert server.uri in (tmp_path / "runs" / "small-001" / "sweep.yaml").read_text()
    assert "-horse" not in str(told)
