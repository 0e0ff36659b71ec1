"""What could not be sent is sent later, once, by `sync`; on a client that counts and fails, without a server."""

import json

import pytest
from results.tracking.spool import UNSENT, lines

from results.tracking import delivery, spool
from results.tracking import sync as module
from results.tracking.client import TrackingClient
from results.tracking.sync import sync
from spaces.core.errors import RequestError

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("place")]


@pytest.fixture
def spooled(stubbed, tmp_path, monkeypatch):
    """A folder with the entries of a server that went away, and the client, with the server back."""
    monkeypatch.setattr(delivery, "GRACE_DOWN", 0.05)
    monkeypatch.setattr(spool, "PAUSE", 0.0)
    tracker, client = stubbed()
    sweep = tracker.start("sweep")
    assert sweep.id() == "id-sweep"
    client.broken = True
    (tmp_path / "policy.json").write_text("{}")
    child = tracker.start("child", parent=sweep, params={"p": 1})
    grandchild = tracker.start("grandchild", parent=child)
    tracker.log(child, {"a": 0.5}, 1)
    tracker.artifact(child, tmp_path / "policy.json")
    tracker.log(child, {"a": 0.25}, 2)
    tracker.log(grandchild, {"a": 1.0}, 1)
    tracker.text(child, "told by http://user:s3cr3t@host", "note.txt")
    tracker.close("FINISHED")
    client.broken = False
    client.calls.clear()
    (tmp_path / "sweep.yaml").write_text("name: a sweep\ntracking: {uri: null}\n")
    monkeypatch.setattr(module, "check_runs", lambda uri, ids: teacher_inputs.append((uri, ids)))
    monkeypatch.setattr(module, "connect", lambda uri, name, folder: (client, "7"))
    teacher_inputs = client.teacher_inputs = []
    return tmp_path, client


ALL = [
    ("create", "child"),
    ("batch", "id-child"),
    ("create", "grandchild"),
    ("batch", "id-child"),
    ("artifact", "id-child"),
    ("batch", "id-child"),
    ("batch", "id-grandchild"),
    ("text", "id-child"),
    ("end", "id-grandchild"),
    ("end", "id-child"),
    ("end", "id-sweep"),
]


def test_all_that_was_kept_arrives_in_order_and_the_file_is_gone(spooled):
    folder, client = spooled
    assert "s3cr3t" not in (folder / UNSENT).read_text()
    done = sync(folder)
    assert (done.sent, done.left, done.dropped, done.notes) == (len(ALL), 0, 0, ())
    assert [call[:2] for call in client.calls] == ALL
    assert [call[2]["mlflow.parentRunId"] for call in client.named("create")] == ["id-sweep"] * 2
    assert client.named("batch")[1][2] == [("a", 0.5, 1)] and not (folder / UNSENT).exists()
    assert client.teacher_inputs == [("http://host", {"id-sweep"})], (
        "the store that it was meant for, without credentials"
    )
    assert sync(folder).lines() == [f"{folder}: nothing waits to be sent"]


OPS = ["start", "params", "start", "log", "artifact", "log", "log", "text", "finish", "finish", "finish"]


@pytest.mark.parametrize("arrived", [False, True], ids=["before it arrived", "when it had arrived"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, ConnectionError])
@pytest.mark.parametrize("after", range(len(ALL)))
def test_interrupted_anywhere_the_rest_is_left_and_sent_by_the_next(spooled, monkeypatch, after, error, arrived):
    folder, client = spooled
    send, calls = TrackingClient.send, 0

    def cut_off(self, job):
        nonlocal calls
        calls += 1
        if calls > after:
            if arrived:
                send(self, job)
            raise error("no route to http://user:s3cr3t@host/")
        send(self, job)

    with monkeypatch.context() as patch:
        patch.setattr(TrackingClient, "send", cut_off)
        patch.setattr(spool, "TRIES", 1)
        if error is KeyboardInterrupt:
            with pytest.raises(KeyboardInterrupt):
                sync(folder)
        else:
            done = sync(folder)
            assert (done.sent, done.left) == (after, len(ALL) - after)
            assert done.notes[-1].endswith("no route to http://user:***@host/")
    assert [line["op"] for line in lines(folder)] == OPS[after:], "exactly what is left"
    assert sync(folder).left == 0
    once = [call[:2] for number, call in enumerate(client.calls) if call not in client.calls[:number]]
    assert once == ALL and len(client.named("create")) == 2, "no run is made twice"
    assert all(call[2]["mlflow.parentRunId"] == "id-sweep" for call in client.named("create"))


def refusal():
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

    return MlflowException("the run is deleted", error_code=INVALID_PARAMETER_VALUE)


def test_what_can_never_be_sent_stays_and_is_told_until_it_is_dropped(spooled, monkeypatch):
    folder, client = spooled
    (folder / "policy.json").unlink()

    def artifact(run_id, path):
        raise FileNotFoundError(2, "No such file or directory", path)

    monkeypatch.setattr(client, "log_artifact", artifact)
    client.errors = [None, None, None, refusal(), None, refusal()]
    done = sync(folder)
    assert (done.sent, done.left, done.dropped) == (len(ALL) - 3, 3, 0)
    assert done.notes == (
        "log of run 'child': the run is deleted (and 1 more)",
        f"artifact of run 'child': [Errno 2] No such file or directory: '{folder / 'policy.json'}'",
    )
    assert [line["op"] for line in lines(folder)] == ["log", "artifact", "log"]
    assert [line["id"] for line in lines(folder)] == ["id-child", "id-child", "id-grandchild"]
    done = sync(folder, drop=True)
    assert (done.sent, done.left, done.dropped) == (2, 0, 1) and not (folder / UNSENT).exists()
    assert done.lines()[0] == f"{folder}: 2 entries sent, 0 left, 1 given up, to http://host"


def test_an_artifact_store_that_is_away_holds_back_nothing_else(spooled, monkeypatch):
    folder, client = spooled
    tried = []

    def away(run_id, *what):
        tried.append(what)
        raise ConnectionError("down")

    monkeypatch.setattr(client, "log_artifact", away)
    monkeypatch.setattr(client, "log_text", away)
    assert sync(folder).sent == len(ALL) - 2
    assert [line["op"] for line in lines(folder)] == ["artifact", "text"]
    assert len(tried) == spool.TRIES + 1, "the second upload is not waited for"


def test_a_folder_may_be_moved(spooled, tmp_path_factory):
    folder, client = spooled
    moved = tmp_path_factory.mktemp("moved") / "there"
    folder.rename(moved)
    assert sync(moved).left == 0
    assert client.named("artifact") == [("artifact", "id-child", str(moved / "policy.json"))]
    moved.rename(folder)


def test_an_older_file_without_parent_and_store_still_works(spooled, monkeypatch):
    folder, client = spooled
    older = [{k: v for k, v in line.items() if k not in ("parent", "store")} for line in lines(folder)]
    (folder / UNSENT).write_text("".join(json.dumps(line) + "\n" for line in older))
    with pytest.raises(RequestError, match=r"no MLflow store in .*; set MLFLOW_TRACKING_URI, or give --tracking-uri"):
        sync(folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:s3cr3t@host")
    done = sync(folder)
    assert (done.sent, done.left, done.store) == (len(ALL), 0, "http://user:***@host")
    assert [call[:2] for call in client.calls] == ALL


def test_credentials_come_from_the_environment_if_it_names_the_same_store(spooled, monkeypatch):
    folder, client = spooled
    kept = (folder / UNSENT).read_text()
    for environment, given, teacher_inputs in [
        ("http://user:s3cr3t@host", None, "http://user:s3cr3t@host"),
        ("http://user:s3cr3t@elsewhere", None, "http://host"),
        ("http://user:s3cr3t@host", "http://other", "http://other"),
    ]:
        (folder / UNSENT).write_text(kept)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", environment)
        assert sync(folder, given).left == 0
        assert client.teacher_inputs.pop()[0] == teacher_inputs


def test_what_is_meant_for_another_store_waits_its_turn(spooled):
    folder, client = spooled
    more = {"op": "finish", "run": "r", "ticket": "t", "id": "i", "parent": None, "store": "http://second", "at": 1}
    with (folder / UNSENT).open("a") as file:
        file.write(json.dumps(more | {"status": "FINISHED"}) + "\n")
    done = sync(folder)
    assert (done.sent, done.left, done.notes) == (len(ALL), 1, ("meant for http://second; sync once more",))
    assert lines(folder) == [more | {"status": "FINISHED"}]
    assert sync(folder).left == 0 and client.teacher_inputs[-1] == ("http://second", {"i"})


@pytest.mark.parametrize("line", ["{", "[]", "{}", '{"op": "dance", "run": "r", "ticket": "t", "id": null}'])
def test_a_damaged_line_is_named(spooled, line):
    folder, _ = spooled
    before = (folder / UNSENT).read_text()
    (folder / UNSENT).write_text(f"{before}{line}\n")
    with pytest.raises(RequestError, match=rf"line {len(ALL) + 1} of .*{UNSENT} is damaged; remove the line"):
        sync(folder)
    assert (folder / UNSENT).read_text() == f"{before}{line}\n"


def test_a_folder_without_a_sweep_is_refused(tmp_path):
    with pytest.raises(RequestError, match="cannot read the sweep file"):
        sync(tmp_path)
    with pytest.raises(RequestError, match="no folder"):
        sync(tmp_path / "absent")
    (tmp_path / "sweep.yaml").write_text("[]")
    with pytest.raises(RequestError, match="is not what a sweep keeps"):
        sync(tmp_path)


def test_a_sweep_that_goes_on_sends_first_what_is_kept(spooled, stubbed):
    folder, _ = spooled
    tracker, again = stubbed()
    again.search_runs = lambda *what, **more: Page()
    tracker.recall("0" * 32, "sweep")
    assert [call[:2] for call in again.calls] == ALL and not (folder / UNSENT).exists()


class Page(list):
    """Of no runs, and the last."""

    token = None


def test_where_runs_are_recalled_a_name_has_one_ticket(stubbed):
    tickets = set()
    for _ in range(2):
        tracker, client = stubbed()
        client.search_runs = lambda *what, **more: Page()
        tracker.recall("0" * 31 + "1", "sweep")
        sweep = tracker.start("sweep")
        runs = sweep, tracker.start("a", parent=sweep), tracker.start("b", parent=sweep)
        tickets.add(tuple(run._ticket for run in runs))
    assert len(tickets) == 1 and len({*tickets.pop()}) == 3
