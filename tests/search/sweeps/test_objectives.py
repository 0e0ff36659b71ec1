"""Accuracy and size together: what a sweep file may ask for, what TPE is told, and the front that is left."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
from optuna.study import StudyDirection

from search.algorithms.base import SearchAlgorithm
from search.algorithms.tpe import Suggestions, TPESearch
from search.config.schema import SearchConfig, StageConfig, SweepConfig
from search.execution.journal import METRIC, Journal
from search.execution.trials import Outcome
from search.sweeps.artifacts import Records
from spaces import Genome, RequestError, Space
from trainables import Recipe, Task
from trainables.data import load

BITS = {"weights": [2, 4, 8, 32], "activations": [4, 32]}
BOTH = ["accuracy", "size"]
KINDS = get_args(SearchConfig.model_fields["kind"].annotation)
NO_SIZE = [kind for kind in KINDS if kind not in ("random", "grid", "tpe")]
COPYING = [kind for kind in KINDS if kind in ("pbt", "pb2")]


def sweep(kind="random", bits=None, **sections):
    space = {} if bits is None else {"bits": bits}
    search = {"kind": kind, **sections.pop("search", {})}
    return SweepConfig.from_mapping({"data": {"name": "digits"}, "space": space, "search": search, **sections})


def refusal(*arguments, **sections):
    with pytest.raises(RequestError) as error:
        sweep(*arguments, **sections)
    assert "\n" not in str(error.value)
    return str(error.value)


# ---- the sweep file --------------------------------------------------------------------------------


def test_accuracy_alone_unless_it_is_asked_for():
    assert sweep().search.objective == ("accuracy",) and sweep().space.bits == {}


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in NO_SIZE])
def test_accuracy_and_size(kind, tmp_path):
    config = sweep(kind, BITS, search={"objective": BOTH})
    assert config.search.objective == ("accuracy", "size") and config.space.bits == BITS
    (tmp_path / "again.yaml").write_text(config.to_yaml())
    assert SweepConfig.load(tmp_path / "again.yaml") == config


@pytest.mark.parametrize("objective", [[], ["size"], ["size", "accuracy"], ["accuracy", "accuracy"]])
def test_objectives_that_are_none(objective):
    assert f"objective names accuracy first, and each once, got {objective}" in refusal(
        "tpe", BITS, search={"objective": objective}
    )
    assert "'accuracy' or 'size'" in refusal("tpe", BITS, search={"objective": ["accuracy", "speed"]})


@pytest.mark.parametrize("kind", NO_SIZE)
def test_kinds_that_have_one_objective(kind):
    rule = f"several objectives go with kind: random, grid or tpe, got {kind}"
    assert rule in refusal(kind, BITS, search={"objective": BOTH})


@pytest.mark.parametrize("bits", [None, {"weights": 2}, {"weights": [2]}, {"activations": [2, 4]}])
def test_size_is_an_objective_only_where_it_differs(bits):
    assert "free space.bits.weights, or leave it out" in refusal("tpe", bits, search={"objective": BOTH})


@pytest.mark.parametrize("kind", COPYING)
def test_members_that_copy_each_other_have_the_same_bits(kind):
    assert f"kind: {kind} copies weights between members" in refusal(kind, BITS)
    assert "take random, grid, tpe or asha" in refusal(kind, {"weights": [32], "activations": [4, 2]})
    assert sweep(kind, {"weights": 2, "activations": [4]}).space.zero().bits == {"weights": 2, "activations": 4}


@pytest.mark.parametrize(
    ("bits", "rule"),
    [
        ({"weights": [2, 3]}, "bits.weights is one of 1, 2, 4, 8, 32, got 3"),
        ({"weights": [2, 4], "activations": [32, "full"]}, "bits.activations is one of 1, 2, 4, 8, 32, got 'full'"),
        ({"weights": [2.0, 4]}, "bits.weights is one of 1, 2, 4, 8, 32, got 2.0"),
        (
            {"weights": {"low": 1, "high": 8}},
            "space.bits.weights is a choice among 1, 2, 4, 8 and 32, and a range holds",
        ),
        ({"weight": [2, 4]}, "did you mean 'weights'?"),
        ({"weights": []}, "space.bits.weights is a choice among one item or more"),
    ],
)
def test_bits_that_are_none(bits, rule):
    assert rule in refusal("random", bits)


def test_bits_that_nobody_would_look_at():
    assert "space.bits is the student's; there is none" in refusal("random", BITS, student=None)
    assert "kind: choice compares space.augment alone" in refusal("choice", {"weights": 2})


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
    def make(population=40, objective=("accuracy", "size"), role="student", space=SPACE):
        sizes = StageConfig(epochs=2, population=population)
        search = SearchConfig(kind="tpe", objective=objective)
        return TPESearch(f"{role}-tpe", "tpe", replace(task, role=role), sizes, search, space, journal)

    return make


def accuracy(genome):
    """A score in which more bits are better."""
    return 0.9 - 0.2 / genome.bits["weights"] - 0.1 / genome.bits["activations"]


def played(tpe, score=accuracy):
    """Run the search without Ray; returns the outcomes."""
    journal = tpe._journal
    searcher, outcomes = Suggestions(tpe, (), journal), []
    for index in range(tpe.stage.population):
        member = searcher.suggest(str(index))["member"]
        value = score(Genome.from_json(member["genome"]))
        outcomes.append(Outcome(member["name"], 2, value, None, ""))
        journal.reported(member["name"], 2, {METRIC: value})
        journal.saved(member["name"], 2, journal.folder / "trials" / member["name"])
        journal.ended(member["name"])
    tpe._tell(tpe.stage.population)
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
    tpe = stage(population=8)
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


def records(folder, objective):
    tracker = Kept()
    kept = Records(sweep("tpe", BITS, search={"objective": objective}), folder, tracker, "Search")
    tracker.files.clear()
    return kept, tracker


def test_the_front_is_written_and_returned(stage, task, tmp_path):
    tpe = stage()
    outcomes = played(tpe)
    outcomes[0] = replace(outcomes[0], score=1.0, error="it broke")
    outcomes[1] = replace(outcomes[1], score=math.nan)
    kept, tracker = records(tmp_path, BOTH)
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
    tpe = stage(objective=("accuracy",), population=8)
    outcomes = played(tpe)
    kept, tracker = records(tmp_path, ["accuracy"])
    assert kept.front(tpe, outcomes, task) == ()
    two, _ = records(tmp_path, BOTH)
    assert two.front(tpe, outcomes, replace(task, role="teacher")) == ()
    assert two.front(tpe, [replace(outcome, error="it broke") for outcome in outcomes], task) == ()
    assert tracker.files == [] and not (tmp_path / "report").exists()


def test_fixed_random_genomes_leave_a_front_too(task, journal, tmp_path):
    sizes, search = StageConfig(epochs=2, population=30), SearchConfig(kind="random")
    random = SearchAlgorithm("student-random", "random", task, sizes, search, SPACE, journal)
    outcomes = [Outcome(member.name, 2, accuracy(member.source), None, "") for member in random.members]
    kept, _ = records(tmp_path, BOTH)
    assert len({each.size_in_bits for each in kept.front(random, outcomes, task)}) == 4
