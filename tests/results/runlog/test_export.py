"""The best policy of a sweep: from its folder, finished or not, and from MLflow."""

import math

import pytest
from support import run_id

from results.runlog.events import JOURNAL_FILE, RungDecided, TrialStarted
from results.runlog.export import export_policy
from results.runlog.lineage import Exploit
from results.tracking.tracker import Tracker
from search.execution.journal import Journal
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


class Search:
    """A search that stands at a boundary: the members `NAME-00`, …, which started at level 0, 1, …"""

    def __init__(self, folder, name, size=4):
        self.folder, self.name = folder, name
        self.names = [f"{name}-{index:02d}" for index in range(size)]
        with Journal(folder) as journal:
            for index, trial in enumerate(self.names):
                role, image = name.partition("-")[0], IMAGE.to_json()
                start = {"image": image, "genome": genome(index).to_json(), "seed": 0, "epochs": 9}
                journal.write(TrialStarted(trial=trial, role=role, stage="search", **start))

    def perturb(self, scores, *copies, epoch=6):
        """Report up to `epoch`, then perturb."""
        scores = {name: math.nan if score is None else score for name, score in zip(self.names, scores, strict=True)}
        with Journal(self.folder) as journal:
            for name, score in scores.items():
                journal.reported(name, epoch, {"validation_accuracy": score})
                journal.saved(name, epoch, journal.trials / "search" / name / f"checkpoint_{epoch}")
            journal.perturbed(self.name, epoch, scores, copies)


COPY = Exploit(3, "student-pbt-01", "student-pbt-02", math.nan, 0.4, genome(2), genome(7))


# A sweep's folder -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_a_policy_file_is_taken_as_it_is(tmp_path, role):
    for each, level in (("teacher", 3), ("student", 4)):
        schedule(each, level).save(tmp_path / f"policy.{each}.json")
    Search(tmp_path, f"{role}-pbt", 1).perturb([0.9])  # what led to the policy is still there, and does not count
    found = export_policy(str(tmp_path), role)
    assert found == schedule(role, {"teacher": 3, "student": 4}[role])
    assert found.provenance == {"run": f"{role}-pbt-01", "value": 0.5}


def test_an_unfinished_search_gives_the_best_members_line(tmp_path):
    search = Search(tmp_path, "student-pbt")
    search.perturb([0.2, 0.1, 0.4, 0.3], COPY, epoch=3)
    search.perturb([0.3, 0.8, None, 0.5])
    found = export_policy(str(tmp_path), "student")
    assert found == Schedule((Phase(3, genome(2)), Phase(3, genome(7))), "student", IMAGE)
    assert found.provenance == {
        "run": "student-pbt-01",
        "metric": "validation_accuracy",
        "value": 0.8,
        "parents": ["student-pbt-02"],
        "unfinished": True,
    }


def test_a_last_line_that_a_crash_cut_off_is_left_out(tmp_path):
    search = Search(tmp_path, "student-pbt", 3)
    search.perturb([0.2, 0.1, 0.4], COPY, epoch=3)
    search.perturb([0.3, 0.8, 0.4])
    later = Exploit(7, "student-pbt-01", "student-pbt-00", 0.1, 0.9, genome(0), genome(9))
    before = (tmp_path / JOURNAL_FILE).stat().st_size
    search.perturb([0.9, 0.1, 0.4], later, epoch=7)
    whole = (tmp_path / JOURNAL_FILE).read_bytes()
    (tmp_path / JOURNAL_FILE).write_bytes(whole[:-20])
    assert len(whole) > before
    assert export_policy(str(tmp_path), "student").phases == (Phase(3, genome(2)), Phase(3, genome(7)))


def test_what_was_trained_since_the_last_boundary_is_left_out(tmp_path):
    """The best is that of the last boundary, where all stood at one epoch."""
    search = Search(tmp_path, "student-pbt", 3)
    search.perturb([0.2, 0.1, 0.4], COPY, epoch=3)
    search.perturb([0.3, 0.8, 0.4])
    with Journal(tmp_path) as journal:
        journal.reported("student-pbt-00", 9, {"validation_accuracy": 0.9})
    assert export_policy(str(tmp_path), "student").phases == (Phase(3, genome(2)), Phase(3, genome(7)))


def test_who_has_just_copied_another_has_no_score_of_its_own(tmp_path):
    Search(tmp_path, "student-pbt", 3).perturb([0.2, 0.9, 0.4], COPY, epoch=3)
    assert export_policy(str(tmp_path), "student").phases == (Phase(3, genome(2)),)


def test_before_the_first_copy_the_best_has_one_genome(tmp_path):
    Search(tmp_path, "teacher-pbt", 2).perturb([0.3, 0.2])
    assert export_policy(str(tmp_path), "teacher").phases == (Phase(6, genome(0)),)


def test_a_search_that_halves_gives_the_best_on_a_rung(tmp_path):
    search = Search(tmp_path, "student-asha", 3)
    standings = {
        name: (index, score, math.nan)
        for index, (name, score) in enumerate(zip(search.names, (0.1, 0.7, 0.3), strict=True))
    }
    with Journal(tmp_path) as journal:
        journal.write(RungDecided(stage="student-asha", epoch=2, standings=standings, kept=(search.names[1],)))
    assert export_policy(str(tmp_path), "student").phases == (Phase(2, genome(1)),)


def test_the_random_control_is_no_answer(tmp_path):
    Search(tmp_path, "student-random", 2).perturb([0.9, 0.95])
    with pytest.raises(RequestError, match="holds no policy for the student; a policy is there from the first"):
        export_policy(str(tmp_path), "student")
    Search(tmp_path, "student-apbt", 2).perturb([0.1, 0.2])
    assert export_policy(str(tmp_path), "student").provenance["run"] == "student-apbt-01"


def test_where_there_is_nothing_yet_is_said(tmp_path):
    with pytest.raises(RequestError, match="holds no policy for the teacher; a policy is there from the first"):
        export_policy(str(tmp_path), "teacher")
    Search(tmp_path, "student-pbt", 1).perturb([0.5])
    with pytest.raises(RequestError, match="holds no policy for the teacher"):  # the student's is not the teacher's
        export_policy(str(tmp_path), "teacher")
    Search(tmp_path, "teacher-pbt", 2).perturb([None, None])
    with pytest.raises(RequestError, match="no trial of teacher-pbt was scored yet"):
        export_policy(str(tmp_path), "teacher")


def test_an_unknown_role_is_refused(tmp_path):
    with pytest.raises(RequestError, match="unknown role 'techer'; did you mean 'teacher'"):
        export_policy(str(tmp_path), "techer")


# MLflow ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variable", [None, ""])
def test_a_run_id_needs_a_store(monkeypatch, variable):
    if variable is not None:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", variable)
    with pytest.raises(RequestError, match=r"no folder 0123abc, and no MLflow store .* --tracking-uri"):
        export_policy("0123abc", "student")


@pytest.mark.slow
def test_a_run_id_gives_the_policy_that_was_logged(store, client, tmp_path, monkeypatch):
    policy = schedule("student").save(tmp_path / "policy.student.json")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "policy.teacher.json").write_bytes(b'{"format": \xff')
    with Journal(tmp_path) as journal, Tracker.open(store, "export").follow(journal) as tracker:
        tracker.start("sweep")
        tracker.artifact("sweep", policy)
        tracker.artifact("sweep", tmp_path / "broken" / "policy.teacher.json")
    run = run_id(client, tracker, "sweep")
    assert export_policy(run, "student", tracker.uri) == schedule("student")
    with pytest.raises(RequestError, match=rf"policy\.teacher\.json of run {run} must be a policy file"):
        export_policy(run, "teacher", tracker.uri)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracker.uri)
    assert export_policy(run, "student").provenance == schedule("student").provenance
    other = run[::-1]
    with pytest.raises(RequestError, match=other):
        export_policy(other, "student")


@pytest.mark.parametrize("content", ["{", "[]", '{"event": "trial_reported"}'])
def test_a_damaged_journal_is_refused_in_one_line(tmp_path, content):
    (tmp_path / JOURNAL_FILE).write_text(f"{content}\n")
    with pytest.raises(RequestError) as error:
        export_policy(str(tmp_path), "student")
    assert len(str(error.value).splitlines()) == 1


def test_a_search_whose_start_is_unknown_is_refused_in_one_line(tmp_path):
    with Journal(tmp_path) as journal:
        journal.perturbed("student-pbt", 4, {"student-pbt-00": 0.5}, [])
    with pytest.raises(RequestError, match="lacks the start of a trial") as error:
        export_policy(str(tmp_path), "student")
    assert len(str(error.value).splitlines()) == 1


def test_a_sweep_of_an_earlier_version_is_named(tmp_path):
    (tmp_path / JOURNAL_FILE).write_text('{"event": "started", "at": 1, "life": 1, "ticket": "t"}\n')
    for read in (lambda: export_policy(str(tmp_path), "student"), lambda: Journal(tmp_path)):
        with pytest.raises(RequestError, match=r"was written by an earlier version of roletune; start a new sweep$"):
            read()
