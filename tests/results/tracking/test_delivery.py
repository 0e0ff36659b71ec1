"""Delivery of a journal to MLflow, on a client that counts, hangs and fails."""

import logging
import tracemalloc

import pytest

from results.runlog.events import JOURNAL_FILE, CheckpointSaved, TrialStarted
from results.tracking import delivery
from results.tracking.client import TrackingClient
from results.tracking.cursor import CURSOR_FILE, Cursor, read_cursors
from results.tracking.delivery import Delivery, DeliveryThread, remaining
from search.execution.journal import Journal
from spaces.core.errors import RequestError

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("place")]


def failure(code, text="no"):
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import ErrorCode

    return MlflowException(text, error_code=ErrorCode.Value(code))


def test_a_slow_server_gets_few_batches(stubbed):
    tracker, client = stubbed()
    client.gate.clear()
    run, other = tracker.start("run"), tracker.start("other")
    assert client.entered.wait(60)
    for step in range(600):
        tracker.log(run, {"a": 1.0, "b": 2.0, "c": 3.0}, step)
        tracker.log(other, {"a": 1.0}, step)
    tracker.tag(run, {"t": "1"})
    tracker.tag(run, {"t": "2"})
    assert client.calls == []
    client.gate.set()
    assert tracker.flush()
    batches = [call for call in client.named("batch") if call[1] == "id-run"]
    assert [len(points) for _, _, points, _, _ in batches] == [999, 801]
    sent = [(key, step) for call in batches for key, _, step in call[2]]
    assert sent == [(key, step) for step in range(600) for key in "abc"]
    assert batches[-1][3] == {"t": "2"}
    assert len([call for call in client.named("batch") if call[1] == "id-other"]) == 1


def test_one_call_is_one_batch_and_a_big_one_is_cut(stubbed):
    tracker, client = stubbed()
    run = tracker.start("run")
    for _ in range(2):
        tracker.log(run, {"a": 1.0, "b": 2.0})
        tracker.flush()
    tracker.log(run, {f"m{i}": i for i in range(1500)})
    tracker.flush()
    assert [len(call[2]) for call in client.named("batch")] == [2, 2, 1000, 500]


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
        assert tracker.flush()
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


def test_a_run_whose_answer_got_lost_is_found_again(stubbed):
    tracker, client = stubbed()
    create = client.create_run

    def lose(*args, **kwargs):
        client.create_run = create
        create(*args, **kwargs)
        raise ConnectionError("the answer got lost")

    client.create_run = lose
    run = tracker.start("run")
    tracker.log(run, {"a": 1.0})
    assert tracker.flush()
    assert len(client.named("create")) == 1 and client.named("batch")[0][1] == "id-run"


def test_lasting_errors_are_dropped_with_one_warning_a_kind(stubbed, caplog):
    refusal = failure("INVALID_PARAMETER_VALUE", "bad\nkey at http://user:s3cr3t@host")
    tracker, client = stubbed(None, refusal, refusal, refusal)
    run = tracker.start("run")
    for step in range(4):
        tracker.log(run, {"a": 1.0}, step)
        assert tracker.flush()
    assert [call[2][0][2] for call in client.named("batch")] == [3]
    assert [r.message for r in caplog.records] == [
        "MLflow refused 'log' of run 'run': bad key at http://user:***@host",
    ]


def test_a_run_that_was_refused_does_not_block(stubbed):
    tracker, client = stubbed(failure("INVALID_PARAMETER_VALUE"))
    lost, _ = tracker.start("lost"), tracker.start("other")
    tracker.log(lost, {"a": 1.0})
    assert tracker.flush() and client.named("batch") == []
    assert [call[1] for call in client.named("create")] == ["other"]


def test_an_artifact_store_that_is_away_does_not_hold_back_the_metrics(stubbed, tmp_path):
    tracker, client = stubbed(None, *[ConnectionError("down")] * 6)
    run = tracker.start("run")
    tracker.artifact(run, tmp_path / "x")
    tracker.log(run, {"a": 1.0})
    assert tracker.flush()
    assert [call[0] for call in client.calls] == ["create", "batch"]


def test_what_cannot_be_sent_stays_in_the_journal(stubbed, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(delivery, "GRACE_DOWN", 0.2)
    tracker, client = stubbed()
    run = tracker.start("run")
    assert tracker.flush()
    client.broken = True
    tracker.log(run, {"a": 1.5}, 2)
    tracker.start("late", tags={"uri": "http://user:s3cr3t@host"})
    assert not tracker.flush(0.1)
    tracker.close()
    tracker.close()
    (cursor,) = read_cursors(tmp_path)
    journal = (tmp_path / JOURNAL_FILE).read_bytes()
    assert journal[cursor.offset :].startswith(b'{"event": "metrics_logged"') and remaining(cursor) == 3
    warnings = [r.message for r in caplog.records if "roletune sync" in r.message]
    assert len(warnings) == 1 and f"roletune sync {tmp_path}" in warnings[0] and warnings[0].startswith("3 events")
    written = journal.decode() + (tmp_path / CURSOR_FILE).read_text()
    assert "s3cr3t" not in caplog.text + written + repr(tracker)
    assert tracker.uri == "http://user:***@host"
    with pytest.raises(RequestError, match="closed"):
        tracker.log(run, {"a": 1.0})


def test_a_hanging_call_does_not_hang_the_close(stubbed, tmp_path, monkeypatch):
    monkeypatch.setattr(delivery, "GRACE_UP", 0.2)
    tracker, client = stubbed()
    client.gate.clear()
    tracker.start("run")
    tracker.close("FAILED")
    (cursor,) = read_cursors(tmp_path)
    assert remaining(cursor) == 2
    client.gate.set()


# The cursor -----------------------------------------------------------------------------------------------------------


def reported(folder, trials=4, epochs=3, metrics=2):
    """A journal with the reports of some trials."""
    image = {"size": 8, "channels": 1, "fill": [0]}
    with Journal(folder) as journal:
        for number in range(trials):
            name = f"student-pbt-{number:02d}"
            start = {"role": "student", "stage": "pbt search", "seed": number, "epochs": epochs, "image": image}
            journal.write(TrialStarted(trial=name, **start))
        for epoch in range(1, epochs + 1):
            for number in range(trials):
                values = {f"metric/{place}": epoch + place / 7 for place in range(metrics)}
                journal.reported(f"student-pbt-{number:02d}", epoch, values)


def points(client):
    return [(run, *point) for _, run, found, _, _ in client.named("batch") for point in found]


@pytest.mark.parametrize("chunk", [1, 300, 2_000_000])
def test_the_cursor_moves_behind_what_was_delivered(stubbed, tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(delivery, "CHUNK", chunk)
    tracker, client = stubbed()
    tracker.close()
    reported(tmp_path / "other") if (tmp_path / "other").mkdir() is None else None
    cursor = Cursor.open(tmp_path / "other", "http://host")
    deliveries = Delivery(cursor, TrackingClient(client, "7").send, lambda call, error: False)
    while deliveries.advance():
        deliveries.save()
    assert cursor.offset == (tmp_path / "other" / JOURNAL_FILE).stat().st_size
    assert len(points(client)) == len(set(points(client))) == 4 * 3 * 2
    assert read_cursors(tmp_path / "other") == [Cursor(cursor.folder, "http://host", cursor.offset, {}, known=True)]


@pytest.mark.parametrize("after", range(0, 20, 3))
def test_a_crash_between_delivery_and_the_cursors_write_doubles_nothing(store, client, tmp_path, monkeypatch, after):
    """The process dies before it writes the cursor; the next one makes the same calls again, on a real store."""
    monkeypatch.setattr(delivery, "SAVE_EVERY", 1e9)
    experiment = client.create_experiment(f"crash {tmp_path.name} {after}")
    reported(tmp_path, metrics=1)
    made = 0

    def dies(call):
        nonlocal made
        if made == after:
            raise KeyboardInterrupt
        made += 1
        first.send(call)

    first = TrackingClient(client, experiment)
    crashed = Delivery(Cursor.open(tmp_path, "s"), dies, lambda call, error: False)
    try:
        while crashed.advance():
            pass
    except KeyboardInterrupt:
        pass
    (cursor,) = read_cursors(tmp_path)
    assert (cursor.offset, cursor.known) == (0, True), "nothing was written since the delivery began"
    again = Delivery(cursor, TrackingClient(client, experiment, resumed=True).send, lambda call, error: False)
    while again.advance():
        pass
    runs = client.search_runs([experiment])
    assert sorted(run.info.run_name for run in runs) == [f"student-pbt-{number:02d}" for number in range(4)]
    for run in runs:
        found = client.get_metric_history(run.info.run_id, "metric/0")
        assert [(point.step, point.value) for point in found] == [(1, 1.0), (2, 2.0), (3, 3.0)]


def test_memory_does_not_grow_with_what_is_undelivered(stubbed, tmp_path, monkeypatch):
    """20,000 reports of 10 metrics wait for a server that is away; delivering them holds one part at a time."""
    monkeypatch.setattr(delivery, "LONGEST_PAUSE", 0.05)
    monkeypatch.setattr(delivery, "GRACE_DOWN", 0.1)
    folder = tmp_path / "large"
    folder.mkdir()
    tracker, client = stubbed()
    tracker.close()
    client.broken = True
    reported(folder, trials=1, epochs=1)
    tracemalloc.start()
    try:
        thread = DeliveryThread(Cursor.open(folder, "s"), TrackingClient(client, "7").send)
        with Journal(folder) as journal:
            tracemalloc.reset_peak()
            for epoch in range(2, 20_002):
                journal.reported("student-pbt-00", epoch, {f"metric/{place}": epoch + place / 7 for place in range(10)})
                if epoch % 50 == 0:
                    journal.write(CheckpointSaved(trial="student-pbt-00", epoch=epoch, checkpoint="c"))
            assert not thread.wait(0.1)
            waiting = tracemalloc.get_traced_memory()[1]
            client.broken = False
            client.named = lambda name: []
            client.log_batch = lambda *what, **more: None
            assert thread.wait(120)
            delivered = tracemalloc.get_traced_memory()[1]
            thread.stop()
    finally:
        tracemalloc.stop()
    size = (folder / JOURNAL_FILE).stat().st_size
    assert size > 4 * delivery.CHUNK / 2
    assert waiting < 30e6 and delivered < 40e6, (waiting, delivered, size)
