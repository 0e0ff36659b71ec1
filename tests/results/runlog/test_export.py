"""The best policy of a sweep: from its folder, finished or not, and from MLflow."""

import json
import math

import pytest

from results.runlog.export import export, read_lineage
from results.runlog.lineage import Exploit
from results.tracking.tracker import Tracker
from spaces import Entry, Genome, ImageSpec, Phase, Policy, RequestError, Schedule

pytestmark = [
    pytest.mark.usefixtures("place"),
    pytest.mark.filterwarnings(  # MLflow's own models use it, and SQLAlchemy 2.1 says so once
        "ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning"
    ),
]

IMAGE = ImageSpec(8, 3, (10, 20, 30))


def genome(level):
    return Genome(Policy((Entry("Rotate", 5, level),)))


def schedule(role, level=3):
    return Schedule(
        (Phase(2, genome(0)), Phase(4, genome(level))), role, IMAGE, {"run": f"{role}-pbt-01", "value": 0.5}
    )


def stage(folder, name, scores, *, epoch=6, kind="pbt"):
    """What a search leaves behind at a boundary: the members `NAME-00`, …, which started at level 0, 1, …"""
    members = [
        {"name": f"{name}-{index:02d}", "start": genome(index).to_json(), "epoch": epoch, "score": score}
        for index, score in enumerate(scores)
    ]
    role = name.partition("-")[0]
    content = {"name": name, "role": role, "kind": kind, "image": IMAGE.to_json(), "members": members}
    (folder / f"{name}.population.json").write_text(json.dumps(content))


def lineage(folder, name, *events, torn=""):
    lines = [json.dumps(event.to_json()) + "\n" for event in events]
    (folder / f"{name}.lineage.jsonl").write_text("".join(lines) + torn)


COPY = Exploit(3, "student-pbt-01", "student-pbt-02", math.nan, 0.4, genome(2), genome(7))


# A sweep's folder -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_a_policy_file_is_taken_as_it_is(tmp_path, role):
    for each, level in (("teacher", 3), ("student", 4)):
        schedule(each, level).save(tmp_path / f"policy.{each}.json")
    stage(tmp_path, f"{role}-pbt", [0.9])  # what led to the policy is still there, and does not count
    found = export(str(tmp_path), role)
    assert found == schedule(role, {"teacher": 3, "student": 4}[role])
    assert found.provenance == {"run": f"{role}-pbt-01", "value": 0.5}


def test_an_unfinished_search_gives_the_best_members_line(tmp_path):
    stage(tmp_path, "student-pbt", [0.3, 0.8, None, 0.5])
    lineage(tmp_path, "student-pbt", COPY)
    found = export(str(tmp_path), "student")
    assert found == Schedule((Phase(3, genome(2)), Phase(3, genome(7))), "student", IMAGE)
    assert found.provenance == {
        "run": "student-pbt-01",
        "metric": "validation_accuracy",
        "value": 0.8,
        "parents": ["student-pbt-02"],
        "unfinished": True,
    }


def test_a_last_line_that_a_crash_cut_off_is_left_out(tmp_path):
    later = Exploit(5, "student-pbt-01", "student-pbt-00", 0.1, 0.3, genome(0), genome(9))
    torn = json.dumps(later.to_json())[:-20]
    stage(tmp_path, "student-pbt", [0.3, 0.8, 0.4])
    lineage(tmp_path, "student-pbt", COPY, torn=torn)
    assert [event.epoch for event in read_lineage(tmp_path / "student-pbt.lineage.jsonl")] == [3]
    assert export(str(tmp_path), "student").phases == (Phase(3, genome(2)), Phase(3, genome(7)))


def test_a_copy_written_after_the_last_scores_is_left_out(tmp_path):
    """The driver died between the two files: the scores are of epoch 6, the last copy is of epoch 9."""
    stage(tmp_path, "student-pbt", [0.3, 0.8, 0.4])
    lineage(
        tmp_path, "student-pbt", COPY, Exploit(9, "student-pbt-01", "student-pbt-00", 0.1, 0.3, genome(0), genome(9))
    )
    assert export(str(tmp_path), "student").phases == (Phase(3, genome(2)), Phase(3, genome(7)))


def test_before_the_first_copy_the_best_has_one_genome(tmp_path):
    stage(tmp_path, "teacher-pbt", [0.3, 0.2])
    assert export(str(tmp_path), "teacher").phases == (Phase(6, genome(0)),)


def test_the_random_control_is_no_answer(tmp_path):
    stage(tmp_path, "student-apbt", [0.1, 0.2])
    stage(tmp_path, "student-random", [0.9, 0.95], kind="random")
    assert export(str(tmp_path), "student").provenance["run"] == "student-apbt-01"
    (tmp_path / "student-apbt.population.json").unlink()
    with pytest.raises(RequestError, match="holds no policy for the student; a policy is there from the first"):
        export(str(tmp_path), "student")


def test_where_there_is_nothing_yet_is_said(tmp_path):
    with pytest.raises(RequestError, match="holds no policy for the teacher; a policy is there from the first"):
        export(str(tmp_path), "teacher")
    stage(tmp_path, "student-pbt", [0.5])
    with pytest.raises(RequestError, match="holds no policy for the teacher"):  # the student's is not the teacher's
        export(str(tmp_path), "teacher")
    stage(tmp_path, "teacher-pbt", [None, None])
    with pytest.raises(RequestError, match="no member of teacher-pbt was scored yet"):
        export(str(tmp_path), "teacher")


def test_an_unknown_role_is_refused(tmp_path):
    with pytest.raises(RequestError, match="unknown role 'techer'; did you mean 'teacher'"):
        export(str(tmp_path), "techer")


# MLflow ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variable", [None, ""])
def test_a_run_id_needs_a_store(monkeypatch, variable):
    if variable is not None:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", variable)
    with pytest.raises(RequestError, match=r"no folder 0123abc, and no MLflow store .* --tracking-uri"):
        export("0123abc", "student")


@pytest.mark.slow
def test_a_run_id_gives_the_policy_that_was_logged(store, tmp_path, monkeypatch):
    policy = schedule("student").save(tmp_path / "policy.student.json")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "policy.teacher.json").write_bytes(b'{"format": \xff')
    with Tracker.open(store, "export") as tracker:
        run = tracker.start("sweep")
        tracker.artifact(run, policy)
        tracker.artifact(run, tmp_path / "broken" / "policy.teacher.json")
    assert export(run.id(), "student", tracker.uri) == schedule("student")
    with pytest.raises(RequestError, match=rf"policy\.teacher\.json of run {run.id()} is no policy file"):
        export(run.id(), "teacher", tracker.uri)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracker.uri)
    assert export(run.id(), "student").provenance == schedule("student").provenance
    other = run.id()[::-1]
    with pytest.raises(RequestError, match=other):
        export(other, "student")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"kind": "pbt"}', '{"kind": "pbt", "members": [{"name": "a"}]}'])
def test_a_damaged_record_of_a_search_is_refused_in_one_line(tmp_path, content):
    (tmp_path / "student-pbt.population.json").write_text(content)
    with pytest.raises(RequestError) as error:
        export(str(tmp_path), "student")
    assert len(str(error.value).splitlines()) == 1
