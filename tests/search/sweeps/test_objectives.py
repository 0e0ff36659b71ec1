"""Accuracy and size together: what a sweep file may ask for, what TPE is told, and the front that is left."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
from optuna.study import StudyDirection
from support import start_search

from results.runlog.members import METRIC
from search.algorithms.optuna_searcher import Suggestions
from search.config.registry import ALGORITHMS
from search.config.schema import SweepConfig
from search.execution.journal import Journal
from search.execution.members import Outcome
from search.sweeps.artifacts import Records
from search.sweeps.plan import SweepPlan
from spaces import Genome, RequestError, Space
from trainables import Recipe, Task
from trainables.data import load

BITS = {"weights": [2, 4, 8, 32], "activations": [4, 32]}
BOTH = ["accuracy", "size"]
KINDS = list(ALGORITHMS)
NO_SIZE = [kind for kind in KINDS if kind not in ("random", "grid", "tpe")]
COPYING = [kind for kind in KINDS if kind in ("pbt", "pba", "pb2")]


def sweep(kind="random", bits=None, **sections):
    space = {} if bits is None else {"bits": bits}
    student = {"search": {"algorithm": kind, **sections.pop("search", {})}}
    return SweepConfig.from_mapping({"data": {"name": "digits"}, "space": space, "student": student, **sections})


def refusal(*arguments, **sections):
    with pytest.raises(RequestError) as error:
        sweep(*arguments, **sections)
    assert "\n" not in str(error.value)
    return str(error.value)


# ---- the sweep file --------------------------------------------------------------------------------


def test_accuracy_alone_unless_it_is_asked_for():
    assert sweep().student.search.objective == ("accuracy",) and sweep().space.bits == {}


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in NO_SIZE])
def test_accuracy_and_size(kind, tmp_path):
    config = sweep(kind, BITS, search={"objective": BOTH})
    assert config.student.search.objective == ("accuracy", "size") and config.space.bits == BITS
    (tmp_path / "again.yaml").write_text(config.to_yaml())
    assert SweepConfig.load(tmp_path / "again.yaml") == config


@pytest.mark.parametrize("objective", [[], ["size"], ["size", "accuracy"], ["accuracy", "accuracy"]])
def test_objectives_that_are_none(objective):
    assert f"objective must name accuracy first, and each once, got {objective}" in refusal(
        "tpe", BITS, search={"objective": objective}
    )
    assert "'accuracy' or 'size'" in refusal("tpe", BITS, search={"objective": ["accuracy", "speed"]})


@pytest.mark.parametrize("kind", NO_SIZE)
def test_kinds_that_have_one_objective(kind):
    rule = "objective must be [accuracy], except for algorithm: random, tpe or grid"
    assert rule in refusal(kind, BITS, search={"objective": BOTH})


@pytest.mark.parametrize("bits", [None, {"weights": 2}, {"weights": [2]}, {"activations": [2, 4]}])
def test_size_is_an_objective_only_where_it_differs(bits):
    assert "free space.bits.weights" in refusal("tpe", bits, search={"objective": BOTH})


@pytest.mark.parametrize("kind", COPYING)
def test_members_that_copy_each_other_have_the_same_bits(kind):
    assert f"algorithm: {kind}, which copies weights between members" in refusal(kind, BITS)
    assert "use random, successive_halving, tpe, grid or factorial for student.search" in refusal(
        kind, {"weights": [32], "activations": [4, 2]}
    )
    assert sweep(kind, {"weights": 2, "activations": [4]}).space.zero().bits == {"weights": 2, "activations": 4}


@pytest.mark.parametrize(
    ("bits", "rule"),
    [
        ({"weights": [2, 3]}, "bits.weights must be one of 1, 2, 4, 8, 32, got 3"),
        (
            {"weights": [2, 4], "activations": [32, "full"]},
            "bits.activations must be one of 1, 2, 4, 8, 32, got 'full'",
        ),
        ({"weights": [2.0, 4]}, "bits.weights must be one of 1, 2, 4, 8, 32, got 2.0"),
        (
            {"weights": {"low": 1, "high": 8}},
            "space.bits.weights must be a list of 1, 2, 4, 8 and 32; a range holds others",
        ),
        ({"weight": [2, 4]}, "did you mean 'weights'?"),
        ({"weights": []}, "space.bits.weights must be a choice of at least one item"),
    ],
)
def test_bits_that_are_none(bits, rule):
    assert rule in refusal("random", bits)


def test_bits_that_nobody_would_look_at():
    assert "space.bits must be left out with student: null" in refusal("random", BITS, student=None)


def test_a_teacher_has_no_size_to_choose():
    rule = "teacher.search.objective must be [accuracy]; size is an objective of the student"
    assert rule in refusal("random", BITS, teacher={"search": {"algorithm": "tpe", "objective": BOTH}})


def test_early_stopping_has_one_objective():
    rule = "objective must be [accuracy], except for algorithm: random, tpe or grid without early_stopping"
    assert rule in refusal("tpe", BITS, search={"objective": BOTH, "early_stopping": "asha"})


# ---- what TPE is told ------------------------------------------------------------------------------

SPACE = Space(operations=(), bits=BITS)


@pytest.fixture(scope="module")
def task():
    data = load("digits", train=60, validation=60)
    return Task("student", "cnn", data, Recipe(batch_size=20), 2, validation=data.validation)


@pytest.fixture
def journal(tmp_path):
    with Journal(tmp_path) as journal:
        yield journal


@pytest.fixture
def stage(task, journal):
    def make(trials=40, objective=("accuracy", "size"), role="student", space=SPACE):
        settings = {"trials": trials, "epochs": 2, "objective": objective}
        return start_search(f"{role}-tpe", "tpe", replace(task, role=role), space, journal, **settings)

    return make


def accuracy(genome):
    """A score in which more bits are better."""
    return 0.9 - 0.2 / genome.bits["weights"] - 0.1 / genome.bits["activations"]


def played(tpe, score=accuracy):
    """Run the search without Ray; returns the outcomes."""
    journal = tpe._journal
    searcher, outcomes = Suggestions(tpe, (), journal), []
    for index in range(tpe.search.trials):
        member = searcher.suggest(str(index))["member"]
        value = score(Genome.from_json(member["genome"]))
        outcomes.append(Outcome(member["name"], 2, value, None, ""))
        journal.reported(member["name"], 2, {METRIC: value})
        journal.saved(member["name"], 2, journal.folder / "trials" / member["name"])
        journal.ended(member["name"])
    tpe._tell(tpe.search.trials)
    return outcomes


def test_a_study_of_two_directions_is_told_both(stage, task):
    tpe = stage()
    played(tpe)
    study = tpe._study(seed=0)
    assert study.directions == [StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE]
    assert len(study.trials) == 40
    for member, trial in zip(tpe.members, study.trials, strict=True):
        assert trial.values == [accuracy(member.source), task.size_in_bits(member.source)]
        assert set(trial.params) == {"bits.weights", "bits.activations"}
    best = {tuple(trial.values) for trial in study.best_trials}
    sizes = {task.size_in_bits(Genome(bits={"weights": bits})) for bits in BITS["weights"]}
    assert {size for _, size in best} == sizes, "each size has a best member, and no other is on the front"
    assert all(
        value == pytest.approx(0.9 - 0.2 / bits - 0.1 / 32)
        for (value, _), bits in zip(sorted(best), BITS["weights"], strict=True)
    )


def test_one_objective_has_one_direction_whatever_is_free(stage):
    for tpe in (stage(objective=("accuracy",)), stage(role="teacher", space=Space(("Rotate",), 1))):
        played(tpe, score=lambda genome: 0.5)
        assert tpe._study(seed=0).directions == [StudyDirection.MAXIMIZE]
        assert {tuple(trial.values) for trial in tpe._study(seed=0).trials} == {(0.5,)}


def test_what_failed_has_no_size_to_tell(stage):
    tpe = stage(trials=8)
    scores = iter([math.nan, 0.5] * 4)
    played(tpe, score=lambda genome: next(scores))
    assert [trial.state.name for trial in tpe._study(seed=0).trials] == ["FAIL", "COMPLETE"] * 4
    assert [trial.values is None for trial in tpe._study(seed=0).trials] == [True, False] * 4


# ---- the front that is left ------------------------------------------------------------------------


class Kept:
    """Stands in for MLflow."""

    def __init__(self):
        self.files = []

    def start(self, *args, **kwargs):
        return "parent"

    def artifact(self, run, path):
        self.files.append(Path(path).name)


def records(folder):
    tracker = Kept()
    content = {"data": {"name": "digits"}, "teacher": None, "student": {"model": "mlp", "distill": {"alpha": 0}}}
    kept = Records(SweepPlan.resolve(SweepConfig.from_mapping(content)), folder, tracker)
    tracker.files.clear()
    return kept, tracker


def test_the_front_is_written_and_returned(stage, task, tmp_path):
    tpe = stage()
    outcomes = played(tpe)
    outcomes[0] = replace(outcomes[0], score=1.0, error="it broke")
    outcomes[1] = replace(outcomes[1], score=math.nan)
    kept, tracker = records(tmp_path)
    found = kept.front(tpe, [*outcomes, Outcome("student-random-00", 2, 1.0, None, "")], task)
    assert [each.choices["bits.weights"] for each in found] == sorted(each.choices["bits.weights"] for each in found)
    assert {each.choices["bits.weights"] for each in found} == set(BITS["weights"])
    assert {each.name for each in found} <= {member.name for member in tpe.members[2:]}
    for each in found:
        bits = {"weights": each.choices["bits.weights"], "activations": each.choices["bits.activations"]}
        assert each.size_in_bits == task.size_in_bits(Genome(bits=bits)) and each.accuracy < 0.9
    assert tracker.files == ["pareto.student.md", "pareto.student.png"]
    text = (tmp_path / "report" / "pareto.student.md").read_text()
    assert text.startswith("# student-tpe\n") and "The members of 38" in text and found[0].name in text


def test_no_front_without_a_second_objective(stage, task, tmp_path):
    tpe = stage(objective=("accuracy",), trials=8)
    outcomes = played(tpe)
    kept, tracker = records(tmp_path)
    assert kept.front(tpe, outcomes, task) == ()
    both = stage(trials=8)
    assert kept.front(both, outcomes, replace(task, role="teacher")) == ()
    assert kept.front(both, [replace(outcome, error="it broke") for outcome in outcomes], task) == ()
    assert tracker.files == [] and not (tmp_path / "report").exists()


def test_fixed_random_genomes_leave_a_front_too(task, journal, tmp_path):
    settings = {"trials": 30, "epochs": 2, "objective": ("accuracy", "size")}
    random = start_search("student-random", "random", task, SPACE, journal, **settings)
    outcomes = [Outcome(member.name, 2, accuracy(member.source), None, "") for member in random.members]
    kept, _ = records(tmp_path)
    assert len({each.size_in_bits for each in kept.front(random, outcomes, task)}) == 4
