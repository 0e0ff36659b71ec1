"""Suggestions: rounds that do not depend on who was faster, conditional genomes, failures, and a whole sweep."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from mlflow.tracking import MlflowClient
from ray.tune.search import Searcher
from support import start_search

from results.runlog.history import History
from results.runlog.members import METRIC
from search import SweepConfig, run
from search.algorithms.optuna_searcher import Suggestions
from search.config.registry import capabilities
from search.config.sections import SearchConfig
from search.execution.journal import Journal
from search.execution.members import Member
from spaces import Genome, RequestError, Schedule, Space
from spaces.augmentations import augmentation
from spaces.search_space.domain import UniformSampler
from trainables import Recipe, Task
from trainables.data import load

SPACE = Space(
    operations=(),
    augment=("identity", "cutmix"),
    distill={
        "loss": [
            "kd",
            {"hint": {"weight": {"low": 1, "high": 100, "log": True}, "projection": ["student", "inverted"]}},
        ],
        "temperature": {"low": 1.0, "high": 8.0},
    },
)


@pytest.fixture(scope="module")
def task():
    data = load("digits", train=60, validation=60)
    return Task("student", "mlp", data, Recipe(batch_size=20), 2, validation=data.validation)


@pytest.fixture
def stage(task, tmp_path):
    """Makes a search with a journal of its own, or with the one in `folder`."""
    journals = []

    def make(trials=24, synchronous=True, seed=0, space=SPACE, folder=None, epochs=2, **settings):
        folder = folder or tmp_path / str(len(journals))
        folder.mkdir(exist_ok=True)
        journals.append(Journal(folder))
        settings |= {"trials": trials, "epochs": epochs, "interval": 1, "synchronous": synchronous}
        task_ = replace(task, epochs=epochs)
        return start_search("student-tpe", "tpe", task_, space, journals[-1], seed=seed, **settings)

    yield make
    for journal in journals:
        journal.__exit__(None, None, None)


def ends(stage, name, score, error="", epoch=None):
    """What the journal hears of a member that is through, was stopped at `epoch`, or failed."""
    journal, last = stage._journal, epoch or stage.task.epochs
    if score is not None:
        journal.reported(name, last, {METRIC: score})
        journal.saved(name, last, journal.folder / "trials" / name)
    journal.ended(name, stopped=last < stage.task.epochs and not error, error=error)


def quality(genome):
    """A score that a search can find its way to: hint, inverted, T near 6."""
    loss = genome.distill["loss"]
    bonus = 0.0 if loss == "kd" else 0.2 if loss["hint"]["projection"] == "student" else 0.4
    return 0.5 + bonus - 0.05 * abs(genome.distill["temperature"] - 6)


def quality_of_policy(genome):
    """A score for genomes without distillation settings: the less, the better."""
    return 1 - Genome.from_json(genome).policy.mean_strength() / 10


def played(stage, slots, order, others=()):
    """Run the search without Ray: `slots` at once, which ends next is for `order` to say; returns the genomes."""
    searcher = Suggestions(stage, others, stage._journal)
    running, count = {}, 0
    while True:
        while len(running) < slots:
            config = searcher.suggest(str(count))
            if config is None or config == Searcher.FINISHED:
                break
            running[str(count)] = config
            count += 1
        if not running:
            break
        ended = order.choice(sorted(running))
        member = running.pop(ended)["member"]
        genome = Genome.from_json(member["genome"])
        score = quality(genome) if "temperature" in genome.distill else quality_of_policy(member["genome"])
        ends(stage, member["name"], score)
    assert searcher.suggest("last") == Searcher.FINISHED
    return [member.source for member in stage.members]


def test_suggestions_do_not_depend_on_which_worker_was_faster(stage):
    runs = [played(stage(), slots, random.Random(seed)) for slots, seed in ((1, 0), (2, 1), (2, 2), (7, 3), (30, 4))]
    assert all(genomes == runs[0] for genomes in runs)
    assert len(runs[0]) == 24 and runs[0] != played(stage(seed=1), 1, random.Random(0))


def test_a_search_finds_what_is_better(stage):
    genomes = played(stage(trials=60), 2, random.Random(0))
    early, late = ([quality(genome) for genome in part] for part in (genomes[:20], genomes[-20:]))
    assert sum(late) / 20 > sum(early) / 20 + 0.05


def test_what_is_free_within_a_choice_is_drawn_only_there(stage):
    genomes = played(stage(), 2, random.Random(0))
    losses = [genome.distill["loss"] for genome in genomes]
    assert "kd" in losses and any(isinstance(loss, dict) for loss in losses)
    for loss in losses:
        if loss != "kd":
            assert 1 <= loss["hint"]["weight"] <= 100 and loss["hint"]["projection"] in ("student", "inverted")
    assert {genome.augment.kind for genome in genomes} == {"identity", "cutmix"}
    assert all(not len(genome.policy) for genome in genomes)


def test_asynchronous_suggestions_come_as_they_are_asked_for(stage):
    free = stage(synchronous=False)
    searcher = Suggestions(free, (), free._journal)
    assert all(searcher.suggest(str(index)) for index in range(24)) and searcher.suggest("24") == Searcher.FINISHED
    waiting = stage()
    bound = Suggestions(waiting, (), waiting._journal)
    given = [bound.suggest(str(index)) for index in range(6)]
    assert [config is not None for config in given] == [True] * 4 + [False] * 2, "a round is of four at least"


def test_the_control_fills_the_gaps_and_is_not_told(stage):
    control = [Member(f"student-random-{i:02d}", i, i, Genome(), "random search") for i in range(3)]
    tpe = stage(trials=8)
    searcher = Suggestions(tpe, control, tpe._journal)
    names = [searcher.suggest(str(index))["member"]["name"] for index in range(7)]
    assert names[4:] == [member.name for member in control] and searcher.suggest("7") is None
    for name in names[4:]:
        ends(tpe, name, 1.0)
    assert searcher.suggest("8") is None, "the round is not over"
    for name in names[:4]:
        ends(tpe, name, 0.5)
    assert searcher.suggest("9")["member"]["name"] == "student-tpe-04"


@pytest.mark.parametrize(("score", "error"), [(None, "RuntimeError"), (math.nan, ""), (0.9, "OSError: disk full")])
def test_what_failed_is_told_as_failed_and_the_search_goes_on(stage, score, error):
    tpe = stage(trials=8)
    searcher = Suggestions(tpe, (), tpe._journal)
    for name in [searcher.suggest(str(index))["member"]["name"] for index in range(4)]:
        ends(tpe, name, score, error)
    assert searcher.suggest("4")["member"]["name"] == "student-tpe-04"
    assert [trial.state.name for trial in tpe._finished.values()] == ["FAIL"] * 4


def test_what_was_stopped_early_is_told_as_pruned_with_what_it_had_reached(stage):
    tpe = stage(trials=8, early_stopping="asha", epochs=6)
    searcher = Suggestions(tpe, (), tpe._journal)
    configs = [searcher.suggest(str(index))["member"] for index in range(4)]
    assert [(c["moved"], c["evolves"], c["cohort"], c["cohort_size"]) for c in configs] == [(True, False, 0, 4)] * 4
    for config in configs[:3]:
        ends(tpe, config["name"], 0.25, epoch=3)
    assert searcher.suggest("4") is None
    ends(tpe, configs[3]["name"], 0.75)
    assert searcher.suggest("5")["member"]["cohort"] == 1
    told = list(tpe._finished.values())
    assert [trial.state.name for trial in told] == ["PRUNED"] * 3 + ["COMPLETE"]
    assert told[0].intermediate_values == {3: 0.25} and told[3].value == 0.75


@pytest.mark.parametrize("synchronous", [True, False])
@pytest.mark.parametrize("left", [1, 4, 6, 15])
def test_a_search_that_is_cut_off_suggests_what_it_would_have_suggested(stage, tmp_path, synchronous, left):
    whole = played(stage(synchronous=synchronous), 1, random.Random(0))
    cut = stage(synchronous=synchronous)
    searcher = Suggestions(cut, (), cut._journal)
    for index in range(left):
        if (config := searcher.suggest(str(index))) and index < left - 1:
            ends(cut, config["member"]["name"], quality(Genome.from_json(config["member"]["genome"])))
    folder = cut._journal.folder
    cut._journal.__exit__(None, None, None)
    again = stage(synchronous=synchronous, folder=folder)
    assert [member.name for member in again.pending] == [f"student-tpe-{left - 1:02d}"]
    assert played(again, 1, random.Random(0)) == whole


# ---- where it starts -------------------------------------------------------------------------------

POLICIES = [Space(("Rotate", "Cutout"), augment=("identity", "cutmix")), Space(("Rotate", "Cutout"), genome="scaled")]


@pytest.mark.parametrize("space", POLICIES)
@pytest.mark.parametrize("start", ["zero", "uniform", "random"])
def test_the_first_suggestion_is_the_start_and_the_study_sees_it(stage, space, start):
    tpe = stage(space=space, start=start)
    genomes = played(tpe, 2, random.Random(0))
    expected = {"zero": space.zero(), "uniform": space.uniform(), "random": tpe.first_genome(0)}[start]
    assert genomes[0] == expected and genomes[1] != expected and len(genomes) == 24
    assert tpe._suggested[0][0] == space.suggested(expected)
    assert tpe._finished[0].params == space.suggested(expected) and tpe._finished[0].state.name == "COMPLETE"
    own = played(stage(space=space), 2, random.Random(0))
    assert own[0] != expected and own[1:4] == genomes[1:4], "its own draws follow"


def test_after_another_search_it_suggests_what_was_found(stage, task):
    space = Space(("Rotate",), genome="scaled", augment=("identity", "cutmix"), distill=SPACE.distill)
    found = space.suggest(UniformSampler(np.random.default_rng(3)))
    settings = SearchConfig(algorithm="tpe", trials=6, epochs=2, interval=1)
    journal = stage()._journal
    tpe = capabilities("tpe")("student-tpe_2", task, settings, space, journal, start=found)
    assert tpe.suggest().source == found and tpe.suggest().source != found


def test_what_the_space_does_not_have_is_drawn(stage):
    space = Space(("Rotate",), copies=1, distill={"temperature": [2.0, 4.0]})
    genome = replace(space.zero(), augment=augmentation("cutmix"), distill={"temperature": 3.0})
    assert space.suggested(genome) == {"policy[0].probability": 0, "policy[0].magnitude": 0}
    with pytest.raises(RequestError, match="operations of the genome must be those of the space"):
        space.suggested(Space(("Invert",), copies=1).zero())


@pytest.mark.parametrize("left", [1, 3, 6])
def test_a_search_with_a_start_that_is_cut_off_suggests_what_it_would_have_suggested(stage, left):
    settings = {"space": POLICIES[1], "start": "uniform", "trials": 12}
    whole = played(stage(**settings), 1, random.Random(0))
    cut = stage(**settings)
    searcher = Suggestions(cut, (), cut._journal)
    for index in range(left):
        config = searcher.suggest(str(index))
        if index < left - 1:
            ends(cut, config["member"]["name"], quality_of_policy(config["member"]["genome"]))
    folder = cut._journal.folder
    cut._journal.__exit__(None, None, None)
    assert played(stage(folder=folder, **settings), 1, random.Random(0)) == whole


# ---- a whole sweep ---------------------------------------------------------------------------------

SWEEP = """
name: chosen
data: {name: digits, train: 60, validation: 60}
space:
  operations: []
  augment: [identity, cutmix]
  distill:
    loss: [kd, {kd: 1, hint: {weight: {low: 1, high: 10}, projection: [student, inverted]}}]
    temperature: {low: 1, high: 8}
teacher: {model: resnet8, recipe: {lr: 0.05, batch_size: 20}, search: null, final: {epochs: 2}}
student: {model: cnn, recipe: {lr: 0.05, batch_size: 20}, search: {algorithm: tpe, trials: 5, epochs: 2}}
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory, _ray, scored_here):
    place = tmp_path_factory.mktemp("tpe")
    (place / "sweep.yaml").write_text(SWEEP)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        config = SweepConfig.load(place / "sweep.yaml", [f"storage={place / 'runs'}"])
        return run(config)


@pytest.mark.slow
def test_the_policy_says_how_its_student_was_distilled(finished):
    schedule = Schedule.load(Path(finished.folder) / "policy.student.json")
    (phase,) = schedule.phases
    assert not len(phase.genome.policy) and set(phase.genome.distill) == {"loss", "temperature"}
    assert schedule.provenance["run"].startswith("student-tpe-")
    teacher, student = finished.roles
    assert set(teacher.test) == {"policy"} and set(student.test) == {"policy", "none", "random"}
    assert finished.failed == {} and student.size_in_bits > 0


@pytest.mark.slow
def test_mlflow_shows_what_each_member_chose(finished):
    client = MlflowClient(finished.tracking_uri)
    experiment = client.get_experiment_by_name("chosen")
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    tried = [run for run in runs if run.data.tags.get("stage") in ("tpe search", "random search")]
    assert len(tried) == 10 and {run.info.status for run in tried} == {"FINISHED"}
    for child in tried:
        params = child.data.params
        assert {"augment", "loss", "temperature"} <= params.keys()
        assert ("hint.projection" in params) == (params["loss"] == "kd + hint")
        assert ("hint_loss" in child.data.metrics) == (params["loss"] == "kd + hint")
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    files = {item.path for item in client.list_artifacts(parent.info.run_id)}
    assert {"choices.student.md", "choices.student.png", "policy.student.json"} <= files
    text = (Path(finished.folder) / "report" / "choices.student.md").read_text()
    assert "| temperature |" in text and "student-tpe-0" in text
    started = History.read(finished.folder).stage("student-tpe").starts()
    assert len(started) == 5
