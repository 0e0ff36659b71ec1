"""Which calls a sweep's events become: no store, no journal, no thread."""

import math
from pathlib import Path

import pytest

from results.runlog.events import (
    ArtifactWritten,
    CheckpointSaved,
    HeadroomMeasured,
    MetricsLogged,
    PolicyConfirmed,
    PopulationPerturbed,
    RunEnded,
    RunStarted,
    SessionEnded,
    SessionStarted,
    TagsSet,
    TrialEnded,
    TrialReported,
    TrialRetried,
    TrialStarted,
    TrialTested,
)
from results.runlog.lineage import Exploit
from results.tracking.projection import Call, Op, Projection, RunKey, merge_calls
from spaces import Genome

A, B = "student-pbt-00", "student-pbt-01"


def started(trial, **more):
    image = {"size": 8, "channels": 1, "fill": [0]}
    plain = {"role": "student", "stage": "pbt search", "seed": 7, "epochs": 4, "image": image}
    return TrialStarted(trial=trial, at=2, **(plain | more))


class Told:
    """A projection, and all calls so far."""

    def __init__(self):
        self.projection, self.calls = Projection(Path("/runs/s"), "ada"), []
        self(SessionStarted(session=1, uuid="a" * 32), RunStarted(run="s", at=1))

    def __call__(self, *events):
        """The calls of the next events: kind, run, arguments."""
        found = [call for event in events for call in self.projection.calls(event)]
        self.calls += found
        return [(call.op, call.run.name, call.data) for call in found]

    def logged(self, run):
        """What one run has logged: metrics as (name, value, step), and tags."""
        logs = [call.data for call in self.calls if call.op is Op.LOG and call.run.name == run]
        points = [(name, value, step) for log in logs for name, value, _, step in log["metrics"]]
        return points, {name: value for log in logs for name, value in log["tags"].items()}


@pytest.fixture
def told():
    return Told()


def test_a_trial_is_a_child_of_the_sweep_with_its_parameters(told):
    start, params = told(started(A, choices={"augment": "flip"}, arm="policy"))
    assert start[:2] == (Op.START, A) and start[2]["at"] == 2
    tags = start[2]["tags"]
    assert (tags["role"], tags["stage"], tags["member"], tags["arm"]) == ("student", "pbt search", A, "policy")
    assert (tags["generation"], tags["mlflow.user"], tags["mlflow.source.name"]) == ("0", "ada", "roletune")
    assert params == (Op.PARAMS, A, {"params": {"seed": "7", "epochs": "4", "augment": "flip"}})
    root, child = told.calls[0].run, told.calls[-1].run
    assert root == RunKey("s", "a" * 32, None) and child.parent == root.uuid != child.uuid


def test_the_last_values_and_the_best_score_are_logged_at_the_end(told):
    told(started(A))
    for epoch, score in ((1, 0.5), (2, 0.75), (3, math.nan)):
        told(TrialReported(trial=A, epoch=epoch, at=epoch, metrics={"loss": 1 / epoch, "validation_accuracy": score}))
    found = told(TrialEnded(trial=A, epoch=3, stopped=True, at=9))
    points, tags = told.logged(A)
    assert points[-2:] == [("final_loss", 1 / 3, 3), ("best_validation_accuracy", 0.75, 3)]
    assert tags["stopped_at_epoch"] == "3" and tags["nonfinite/validation_accuracy"] == "nan at step 3"
    assert found[-1] == (Op.FINISH, A, {"status": "FINISHED", "at": 9})


def test_headroom_and_confirmation_are_figures_of_the_sweep(told):
    told(
        HeadroomMeasured(role="teacher", seeds=1, difference=0.5, half_width=math.nan, at=3),
        PolicyConfirmed(
            role="teacher",
            winner="policy",
            against="uniform",
            free=False,
            seeds=3,
            difference=0.25,
            half_width=0.125,
            accuracies={"policy": 0.75, "policy mean": 0.625, "none": math.nan},
            at=4,
        ),
    )
    points, tags = told.logged("s")
    assert points == [
        ("headroom_teacher", 0.5, 0),
        ("confirmed_teacher_difference", 0.25, 0),
        ("confirmed_teacher_difference_half_width", 0.125, 0),
        ("confirmed_teacher_validation_accuracy/policy", 0.75, 0),
        ("confirmed_teacher_validation_accuracy/policy mean", 0.625, 0),
    ]
    assert tags == {"confirmed.teacher": "policy"}


def test_a_failure_has_its_traceback_and_a_retry_opens_the_run_again(told):
    told(started(A))
    found = told(TrialEnded(trial=A, error="it broke", traceback="Traceback: it broke"))
    assert found[0] == (Op.TEXT, A, {"text": "Traceback: it broke", "name": "error.txt"})
    assert told.logged(A)[1] == {"error": "it broke"} and found[-1][2]["status"] == "FAILED"
    again = told(SessionStarted(session=2, uuid="a" * 32), TrialRetried(trial=A), started(A, epochs=8))
    assert again == [(Op.REOPEN, A, {})], "parameters never change"


def test_a_copy_is_told_on_the_target_and_the_generation_on_all(told):
    told(started(A), started(B))
    copies = [Exploit(2, A, B, 0.25, 0.5, Genome(), Genome()), Exploit(4, A, B, 0.25, 0.5, Genome(), Genome())]
    for number, copy in enumerate(copies, start=1):
        scores = {A: 0.25, B: 0.5}
        told(
            PopulationPerturbed(
                stage="student-pbt", epoch=2, generation=number, scores=scores, copies=(copy.to_json(),)
            )
        )
    tags = told.logged(A)[1]
    assert tags["generation"] == told.logged(B)[1]["generation"] == "2"
    assert (tags["exploited_from"], tags["exploited_at_epoch"]) == (B, "4")
    assert tags["exploit.0002"] == f"epoch 2: copied {B} (0.2500 < 0.5000)"


def test_the_test_is_logged_at_the_last_epoch(told):
    told(started(A))
    told(TrialTested(trial=A, scores={"accuracy": 0.5}, at=5))
    assert told.logged(A)[0] == [("final_test_accuracy", 0.5, 4)]


def test_runs_still_open_end_with_the_session_children_first(told):
    told(started(A), started(B), RunStarted(run="below", parent=A), RunEnded(run="below", status="FINISHED"))
    ends = told(SessionEnded(status="KILLED", at=9))
    assert [(op, run, data["status"]) for op, run, data in ends] == [
        (Op.FINISH, name, "KILLED") for name in (B, A, "s")
    ]
    assert told(SessionEnded(status="KILLED")) == []
    below = next(call.run for call in told.calls if call.run.name == "below")
    assert below.parent == "a" * 32, "one level"


def test_what_is_nothing_to_mlflow_makes_no_call(told):
    assert told(CheckpointSaved(trial=A, epoch=1, checkpoint="c"), TagsSet(run="unknown", tags={"a": "b"})) == []
    assert told(TrialReported(trial="unknown", epoch=1, metrics={"loss": 1.0})) == []


def test_paths_are_in_the_journals_folder_unless_they_are_absolute(told):
    found = told(ArtifactWritten(run="s", path="report/a.png"), ArtifactWritten(run="s", path="/vae/b"))
    assert [data["path"] for _, _, data in found] == ["/runs/s/report/a.png", "/vae/b"]


def test_the_same_events_become_the_same_calls():
    events = [started(A), TrialReported(trial=A, epoch=1, metrics={"loss": 1.0}), TrialEnded(trial=A)]
    one, two = Told(), Told()
    assert one(*events) == two(*events) and one.calls == two.calls
    assert [call.events for call in one.calls] == [1, 0, 1, 1, 0, 1], "each event is counted with its last call"


def test_calls_of_one_run_are_merged_as_far_as_nothing_comes_between():
    one, two = RunKey("one", "1" * 32), RunKey("two", "2" * 32)

    def log(run, step, tags=None):
        return Call(Op.LOG, run, {"metrics": [("a", 1.0, 5, step)], "tags": tags or {}}, [step], 1)

    text = Call(Op.TEXT, one, {"text": "", "name": "n"}, [3], 1)
    merged = merge_calls([log(one, 0), log(two, 1), log(one, 2, {"t": "1"}), text, log(two, 4), log(one, 5)])
    assert [(call.op, call.run.name, call.offsets, call.events) for call in merged] == [
        (Op.LOG, "one", [0, 2], 2),
        (Op.LOG, "two", [1, 4], 2),
        (Op.TEXT, "one", [3], 1),
        (Op.LOG, "one", [5], 1),
    ]
    assert merged[0].data["tags"] == {"t": "1"}


def test_a_batch_is_not_larger_than_mlflow_takes(told):
    found = told(MetricsLogged(run="s", metrics={f"m{place}": float(place) for place in range(2500)}))
    assert [len(data["metrics"]) for _, _, data in found] == [1000, 1000, 500]
