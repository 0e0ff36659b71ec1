"""What MLflow missed is delivered later, once, by `sync`; on a client that counts and fails, without a server."""

import json

import pytest

from results.runlog.events import JOURNAL_FILE, ArtifactWritten, MetricsLogged, RunEnded, RunStarted, TextWritten
from results.tracking import delivery
from results.tracking import sync as module
from results.tracking.client import TrackingClient
from results.tracking.cursor import CURSOR_FILE, Cursor, read_cursors
from results.tracking.delivery import remaining
from results.tracking.sync import sync
from search.execution.journal import Journal
from spaces.core.errors import RequestError

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("place")]


@pytest.fixture
def behind(stubbed, tmp_path, monkeypatch):
    """A folder whose server went away, and the client, with the server back."""
    monkeypatch.setattr(delivery, "GRACE_DOWN", 0.05)
    monkeypatch.setattr(module, "PAUSE", 0.0)
    tracker, client = stubbed()
    sweep = tracker.start("sweep")
    assert tracker.flush()
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
    tracker.journal.__exit__(None, None, None)
    client.broken = False
    client.calls[1:] = []  # what was created is in the store
    (tmp_path / "sweep.yaml").write_text("name: a sweep\ntracking: {uri: null}\n")
    client.asked = []
    monkeypatch.setattr(module, "check_run", lambda uri, name, uuid: client.asked.append((uri, uuid is not None)))
    monkeypatch.setattr(module, "connect", lambda uri, name, folder: (client, "7"))
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
EVENTS = 8
"""Two starts, three times metrics, a file, a text, and the end of the session."""


def calls(client):
    return [call[:2] for call in client.calls[1:]]


def left(folder):
    return sum(map(remaining, read_cursors(folder)))


def test_all_that_was_missed_arrives_in_order(behind):
    folder, client = behind
    assert "s3cr3t" not in (folder / JOURNAL_FILE).read_text() and left(folder) == EVENTS
    done = sync(folder)
    assert (done.sent, done.left, done.dropped, done.notes) == (EVENTS, 0, 0, ())
    assert calls(client) == ALL
    assert [call[2]["mlflow.parentRunId"] for call in client.named("create")[1:]] == ["id-sweep"] * 2
    assert client.named("batch")[1][2] == [("a", 0.5, 1)] and left(folder) == 0
    assert client.asked == [("http://host", True)], "the store that it was meant for, without credentials"
    assert sync(folder).lines() == [f"{folder}: nothing is left to deliver"]


@pytest.mark.parametrize("arrived", [False, True], ids=["before it arrived", "when it had arrived"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, ConnectionError])
@pytest.mark.parametrize("after", range(len(ALL)))
def test_interrupted_anywhere_the_rest_is_left_and_sent_by_the_next(behind, monkeypatch, after, error, arrived):
    folder, client = behind
    send, made = TrackingClient.send, 0

    def cut_off(self, call):
        nonlocal made
        made += 1
        if made > after:
            if arrived:
                send(self, call)
            raise error("no route to http://user:s3cr3t@host/")
        send(self, call)

    with monkeypatch.context() as patch:
        patch.setattr(TrackingClient, "send", cut_off)
        patch.setattr(module, "TRIES", 1)
        if error is KeyboardInterrupt:
            with pytest.raises(KeyboardInterrupt):
                sync(folder)
        else:
            done = sync(folder)
            assert done.sent + done.left == EVENTS and done.sent <= after
            assert done.notes[-1].endswith("no route to http://user:***@host/")
    assert left(folder) > 0
    assert sync(folder).left == 0
    once = [call[:2] for number, call in enumerate(client.calls) if call not in client.calls[:number]]
    assert sorted(once[1:]) == sorted(ALL) and len(client.named("create")) == 3, "no run is made twice"
    for run in ("child", "grandchild", "sweep"):  # among runs the order may differ, within one it does not
        assert [call for call in once[1:] if call[1].endswith(run)] == [call for call in ALL if call[1].endswith(run)]
    assert all(call[2]["mlflow.parentRunId"] == "id-sweep" for call in client.named("create")[1:])


def refusal():
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

    return MlflowException("the run is deleted", error_code=INVALID_PARAMETER_VALUE)


def test_what_can_never_be_sent_stays_and_is_told_until_it_is_dropped(behind, monkeypatch):
    folder, client = behind
    (folder / "policy.json").unlink()

    def artifact(run_id, path):
        raise FileNotFoundError(2, "No such file or directory", path)

    monkeypatch.setattr(client, "log_artifact", artifact)
    client.errors = [None, None, None, refusal(), None, refusal()]
    done = sync(folder)
    assert (done.sent, done.left, done.dropped) == (EVENTS - 3, 3, 0)
    assert done.notes == (
        "log of run 'child': the run is deleted (and 1 more)",
        f"artifact of run 'child': [Errno 2] No such file or directory: '{folder / 'policy.json'}'",
    )
    (cursor,) = read_cursors(folder)
    kept = [(entry.op, entry.run) for entry in cursor.refused.values()]
    assert kept == [("log", "child"), ("artifact", "child"), ("log", "grandchild")]
    done = sync(folder, drop=True)
    assert (done.sent, done.left, done.dropped) == (2, 0, 1) and left(folder) == 0
    assert done.lines()[0] == f"{folder}: 2 events sent, 0 left, 1 given up, to http://host"


def test_an_artifact_store_that_is_away_holds_back_nothing_else(behind, monkeypatch):
    folder, client = behind
    tried = []

    def away(run_id, *what):
        tried.append(what)
        raise ConnectionError("down")

    monkeypatch.setattr(client, "log_artifact", away)
    monkeypatch.setattr(client, "log_text", away)
    assert sync(folder).sent == EVENTS - 2
    (cursor,) = read_cursors(folder)
    assert [entry.op for entry in cursor.refused.values()] == ["artifact", "text"]
    assert len(tried) == module.TRIES + 1, "the second upload is not waited for"


def test_a_folder_may_be_moved(behind, tmp_path_factory):
    folder, client = behind
    moved = tmp_path_factory.mktemp("moved") / "there"
    folder.rename(moved)
    assert sync(moved).left == 0
    assert client.named("artifact") == [("artifact", "id-child", str(moved / "policy.json"))]
    moved.rename(folder)


def test_credentials_come_from_the_environment_if_it_names_the_same_store(behind, monkeypatch):
    folder, client = behind
    before = (folder / CURSOR_FILE).read_text()
    for environment, given, asked in [
        ("http://user:s3cr3t@host", None, "http://user:s3cr3t@host"),
        ("http://user:s3cr3t@elsewhere", None, "http://host"),
        ("http://user:s3cr3t@host", "http://other", "http://other"),
    ]:
        (folder / CURSOR_FILE).write_text(before)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", environment)
        assert sync(folder, given).left == 0
        assert client.asked.pop()[0] == asked


def test_a_second_store_waits_its_turn(behind):
    """A sweep that was resumed with another store is told to both in full."""
    folder, client = behind
    Cursor.open(folder, "http://second")
    done = sync(folder)
    assert (done.sent, done.left, done.notes) == (EVENTS, EVENTS + 1, ("meant for http://second; sync once more",))
    assert sync(folder).left == 0 and client.asked[-1] == ("http://second", False)


def test_an_evaluation_beside_the_sweep_is_delivered_too(behind):
    folder, client = behind
    inner = folder / "evaluation.student"
    inner.mkdir()
    with Journal(inner) as journal:
        journal.write(RunStarted(run="evaluation"))
        journal.write(ArtifactWritten(run="evaluation", path="../policy.json"))
    Cursor.open(inner, "http://host")
    done = sync(folder)
    assert (done.sent, done.left) == (EVENTS + 2, 0)
    assert client.named("artifact")[-1] == ("artifact", "id-evaluation", str(inner / "../policy.json"))


@pytest.mark.parametrize("line", ["{", "[]", "{}", '{"event": "run_started", "at": 1}'])
def test_a_damaged_line_is_named(behind, line):
    folder, _ = behind
    before = (folder / JOURNAL_FILE).read_text()
    (folder / JOURNAL_FILE).write_text(f"{before}{line}\n")
    with pytest.raises(RequestError, match=rf"the line at byte {len(before)} of .*{JOURNAL_FILE} is damaged"):
        sync(folder)
    assert (folder / JOURNAL_FILE).read_text() == f"{before}{line}\n"


@pytest.mark.parametrize("text", ["{", "[]", '{"stores": [{"store": "s"}]}'])
def test_a_damaged_cursor_is_named(behind, text):
    folder, _ = behind
    (folder / CURSOR_FILE).write_text(text)
    with pytest.raises(RequestError, match=rf"{CURSOR_FILE} is damaged; remove it"):
        sync(folder)


def test_a_folder_without_a_sweep_is_refused(tmp_path):
    with pytest.raises(RequestError, match="cannot read the sweep file"):
        sync(tmp_path)
    with pytest.raises(RequestError, match="no folder"):
        sync(tmp_path / "absent")
    (tmp_path / "sweep.yaml").write_text("[]")
    with pytest.raises(RequestError, match="must be the sweep file"):
        sync(tmp_path)


def test_a_sweep_that_goes_on_delivers_first_what_is_left(behind, stubbed):
    folder, client = behind
    tracker, again = stubbed(calls=client.calls[:1])
    tracker.tag("sweep", {"t": "1"})
    assert tracker.flush()
    tracker.close()
    assert calls(again) == [*ALL, ("batch", "id-sweep")] and left(folder) == 0


def test_a_name_has_one_uuid_in_all_sessions(stubbed):
    uuids = set()
    for _ in range(2):
        tracker, client = stubbed()
        sweep = tracker.start("sweep")
        for name in ("a", "b"):
            tracker.start(name, parent=sweep)
        assert tracker.flush()
        tracker.close()
        tracker.journal.__exit__(None, None, None)
        uuids |= {call[2]["roletune.uuid"] for call in client.named("create")}
    assert len(uuids) == 3


def test_events_survive_the_journal(tmp_path):
    with Journal(tmp_path) as journal:
        written = [RunStarted(run="r", tags={"a": "b"}), MetricsLogged(run="r", metrics={"m": float("-inf")}, step=3)]
        written += [TextWritten(run="r", name="n", text="ä"), RunEnded(run="r", status="FAILED", error="e")]
        for event in written:
            journal.write(event)
    lines = [json.loads(line) for line in (tmp_path / JOURNAL_FILE).read_text().splitlines()][1:]
    read = [type(event).from_json(line | {"at": 0}) for event, line in zip(written, lines, strict=True)]
    assert read == written
