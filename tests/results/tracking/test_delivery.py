"""The queue behind the tracker, on a client that counts, hangs and fails."""

import json
import logging

import pytest

from results.tracking import delivery
from results.tracking.spool import UNSENT
from spaces.core.errors import WorkError

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
    assert tracker.start("run").id() == "id-run"
    assert len(client.named("create")) == 1


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
    lost, other = tracker.start("lost"), tracker.start("other")
    tracker.log(lost, {"a": 1.0})
    assert lost.id() is None and other.id() == "id-other"
    assert tracker.flush() and client.named("batch") == []


def test_an_artifact_store_that_is_away_does_not_hold_back_the_metrics(stubbed, tmp_path):
    tracker, client = stubbed(None, *[ConnectionError("down")] * 6)
    run = tracker.start("run")
    tracker.artifact(run, tmp_path / "x")
    tracker.log(run, {"a": 1.0})
    assert tracker.flush()
    assert [call[0] for call in client.calls] == ["create", "batch"]


def test_what_cannot_be_sent_is_written_down(stubbed, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(delivery, "GRACE_DOWN", 0.2)
    (tmp_path / UNSENT).write_text('{"op": "earlier"}\n')
    tracker, client = stubbed()
    run = tracker.start("run")
    assert run.id() == "id-run"
    client.broken = True
    tracker.log(run, {"a": 1.5}, 2)
    late = tracker.start("late", tags={"uri": "http://user:s3cr3t@host"})
    assert not tracker.flush(0.1)
    tracker.close()
    tracker.close()
    assert late.id() is None
    written = (tmp_path / UNSENT).read_text()
    lines = [json.loads(line) for line in written.splitlines()]
    assert [(line["op"], line.get("run")) for line in lines] == [
        ("earlier", None), ("log", "run"), ("start", "late"), ("finish", "late"), ("finish", "run")
    ]  # fmt: skip
    assert lines[1]["id"] == "id-run" and lines[1]["metrics"][0][:2] == ["a", 1.5] and lines[-1]["status"] == "KILLED"
    warnings = [r.message for r in caplog.records if UNSENT in r.message]
    assert len(warnings) == 1 and str(tmp_path / UNSENT) in warnings[0]
    assert "s3cr3t" not in caplog.text + written + repr(tracker)
    assert tracker.uri == "http://user:***@host"
    with pytest.raises(WorkError, match="closed"):
        tracker.log(run, {"a": 1.0})


def test_a_hanging_call_does_not_hang_the_close(stubbed, tmp_path, monkeypatch):
    monkeypatch.setattr(delivery, "GRACE_UP", 0.2)
    tracker, client = stubbed()
    client.gate.clear()
    tracker.start("run")
    tracker.close("FAILED")
    assert len((tmp_path / UNSENT).read_text().splitlines()) == 2
    client.gate.set()
