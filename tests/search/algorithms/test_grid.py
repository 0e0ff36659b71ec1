"""A student for each choice: the members, who wins, and a whole sweep that drops the worst before."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from mlflow.tracking import MlflowClient
from support import start_search

from search import SweepConfig, replay, run
from search.algorithms.base import member_seed
from search.execution.journal import Journal
from search.execution.members import Outcome
from search.sweeps.screening import screen
from spaces import Entry, Genome, Policy, Schedule, Space, WorkError
from spaces.augmentations import CutMix, Cutout, Identity, PolicyAugmentation, augmentation
from trainables import Recipe, Task
from trainables.data import load

EPOCHS = 6
NAMES = ("cutout", "identity", "cutmix")


@pytest.fixture(scope="module")
def task():
    data = load("digits", train=60, validation=60)
    return Task("student", "mlp", data, Recipe(batch_size=20), EPOCHS, validation=data.validation)


@pytest.fixture
def choose(task, tmp_path):
    """Makes the search; nothing of it is run."""

    def make(augment=NAMES, replicates=2, seed=0):
        settings = {"replicates": replicates, "epochs": EPOCHS}
        with Journal(tmp_path) as journal:
            return start_search("student-grid", "grid", task, Space(augment=augment), journal, seed=seed, **settings)

    return make


def outcomes(choice, scores):
    """One for each member, by augmentation and repetition; in place of a score there may be an error."""
    ends = []
    for member in choice.members:
        score = scores[member.source.augment.label].pop(0)
        failed = isinstance(score, str)
        ends.append(Outcome(member.name, EPOCHS, math.nan if failed else score, None, score if failed else ""))
    return ends


# ---- the members -----------------------------------------------------------------------------------


def test_each_augmentation_is_tried_as_often_as_asked_without_a_policy(choose):
    choice = choose(replicates=3)
    assert [member.name for member in choice.members] == [f"student-grid-{index:02d}" for index in range(9)]
    assert [member.index for member in choice.members] == list(range(9))
    genomes = [Genome(Policy(), augment) for augment in (Cutout(), Identity(), CutMix())]
    assert [member.source for member in choice.members] == genomes * 3
    assert {member.stage for member in choice.members} == {"grid search"}
    assert choice.scheduler() is None and not any(member.moved for member in choice.members)


def test_a_repetition_has_the_same_seed_under_every_augmentation(choose):
    seeds = [member.seed for member in choose(replicates=3).members]
    by_repeat = [set(seeds[start : start + 3]) for start in (0, 3, 6)]
    assert [len(repeat) for repeat in by_repeat] == [1, 1, 1] and len(set.union(*by_repeat)) == 3
    assert seeds[0] == member_seed(0, "student", 0, 0)
    assert [member.seed for member in choose(NAMES[:2], replicates=3).members] == seeds[::3][:1] * 2 + [
        *[seeds[3]] * 2,
        *[seeds[6]] * 2,
    ]
    assert not set(seeds) & {member.seed for member in choose(replicates=3, seed=1).members}


# ---- who wins --------------------------------------------------------------------------------------


def test_the_best_mean_wins_and_not_the_best_member(choose):
    choice = choose()
    ends = outcomes(choice, {"cutout": [0.9, 0.2], "identity": [0.6, 0.7], "cutmix": [0.5, 0.6]})
    found = choice.result(ends, {"sweep": "test"})
    assert choice.scores(ends) == pytest.approx({"cutout": 0.55, "identity": 0.65, "cutmix": 0.55})
    assert (found.value, found.best.score, found.best.name) == (pytest.approx(0.65), 0.7, "student-grid-04")
    (phase,) = found.schedule.phases
    assert (phase.epochs, phase.genome) == (EPOCHS, Genome())
    assert (found.schedule.role, found.schedule.image.size, found.exploits) == ("student", 8, ())
    assert found.schedule.provenance == {
        "sweep": "test",
        "run": "student-grid-04",
        "value": found.value,
        "replicates": 2,
        "parents": [],
    }


@pytest.mark.parametrize("nothing", ["RuntimeError: a cable was pulled", math.nan], ids=["failed", "no score"])
def test_what_has_no_score_is_left_out_of_the_mean(choose, nothing):
    choice = choose(replicates=3)
    scores = {"cutout": [0.5, 0.5, 0.5], "identity": [nothing] * 3, "cutmix": [0.4, nothing, 0.7]}
    ends = outcomes(choice, scores)
    found = choice.result(ends, {})
    assert choice.scores(ends) == pytest.approx({"cutout": 0.5, "cutmix": 0.55})
    assert found.value == pytest.approx(0.55) and found.schedule.phases[0].genome.augment == CutMix()
    assert found.schedule.provenance["replicates"] == 2


def test_a_score_of_a_member_that_failed_later_does_not_count(choose):
    choice = choose(replicates=1)
    ends = outcomes(choice, {"cutout": [0.5], "identity": [0.4], "cutmix": [0.3]})
    ends[0] = Outcome(ends[0].name, 2, 0.99, None, "OSError: disk full")
    assert choice.result(ends, {}).value == 0.4


def test_ties_go_to_the_first_of_the_space(choose):
    for names in (NAMES, NAMES[::-1]):
        choice = choose(names, replicates=1)
        found = choice.result(outcomes(choice, {name: [0.5] for name in names}), {})
        assert found.schedule.phases[0].genome.augment.kind == names[0]


def test_the_outcomes_of_others_are_passed_over(choose):
    choice = choose(replicates=1)
    other = Outcome("student-random-00", EPOCHS, 0.99, None, "")
    found = choice.result([other, *outcomes(choice, {"cutout": [0.5], "identity": [0.6], "cutmix": [0.3]})], {})
    assert (found.value, found.best.name) == (0.6, "student-grid-01")


def test_settings_of_one_kind_are_told_apart(choose):
    """Two policies, and two picks over mixup of different strength."""
    policies = [PolicyAugmentation(policy=Policy((Entry(name, 5, 5),))).to_json() for name in ("Rotate", "Invert")]
    picks = [{"kind": "pick", "base": {"kind": "mixup", "alpha": alpha}} for alpha in (1.0, 0.2)]
    for pair in (policies, picks):
        choice = choose(tuple(pair), replicates=1)
        ends = [Outcome(m.name, EPOCHS, score, None, "") for m, score in zip(choice.members, (0.4, 0.6), strict=True)]
        found = choice.result(ends, {})
        assert found.value == 0.6 and found.schedule.phases[0].genome.augment == augmentation(pair[1])
        assert list(choice.scores(ends).values()) == [0.4, 0.6]


def test_where_all_members_fail_the_first_reason_is_given(choose):
    choice = choose(replicates=1)
    with pytest.raises(WorkError, match="every member of student-grid failed; the first: reason a"):
        choice.result(outcomes(choice, {"cutout": ["reason a"], "identity": ["reason b"], "cutmix": ["c"]}), {})
    with pytest.raises(WorkError, match="no member was scored"):
        choice.result(outcomes(choice, {name: [math.nan] for name in NAMES}), {})


def test_a_grid_has_every_combination_in_order(task, tmp_path):
    space = Space(
        operations=(),
        augment=("identity", "cutmix"),
        distill={
            "loss": ["kd", {"hint": {"weight": 10, "projection": ["student", "inverted"]}}],
            "temperature": [2, 4],
        },
        bits={"weights": [2, 8]},
    )
    with Journal(tmp_path) as journal:
        grid = start_search("student-grid", "grid", task, space, journal, replicates=2, epochs=EPOCHS)
    genomes = [member.source for member in grid.members]
    assert len(genomes) == 2 * 2 * 3 * 2 * 2 and genomes[:24] == genomes[24:]
    assert len({str(genome.to_json()) for genome in genomes}) == 24
    first, second = genomes[:2]
    assert (first.augment, first.distill, first.bits) == (Identity(), {"loss": "kd", "temperature": 2}, {"weights": 2})
    assert (second.distill, second.bits) == (first.distill, {"weights": 8}), "the last choice changes fastest"
    ends = [Outcome(m.name, EPOCHS, 0.5 + 0.001 * (m.index % 24), None, "") for m in grid.members]
    found = grid.result(ends, {})
    (phase,) = found.schedule.phases
    assert phase.genome == genomes[23] and found.value == pytest.approx(0.523)
    labels = list(grid.scores(ends))
    assert labels[0] == "augment identity, loss kd, temperature 2, bits.weights 2"
    assert (
        labels[-1] == ("augment cutmix, loss hint, hint.projection inverted, temperature 4, bits.weights 8")
        or "hint.projection inverted" in labels[-1]
    )


# ---- a whole sweep ---------------------------------------------------------------------------------

SWEEP = """
name: chosen
data: {name: digits, train: 60, validation: 60}
space: {augment: [crop_flip, identity, cutmix, flip]}
screen: {drop: 0.5, precision: {images: 30, means: 8}}
baselines: [none]
resources: {cpus_per_trial: 2}  # one trial at a time, since to start a second worker takes longer than to wait
teacher: {model: mlp, recipe: {lr: 0.05, batch_size: 20}, search: null, final: {epochs: 6}}
student: {model: mlp, recipe: {lr: 0.05, batch_size: 20}, search: {algorithm: grid, replicates: 2, epochs: 2}}
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory, _ray, scored_here):
    """One sweep that ran to its end: its configuration, its result, its folder."""
    place = tmp_path_factory.mktemp("choice")
    (place / "sweep.yaml").write_text(SWEEP)
    # One store for all slow tests of screening in this session, since a new one takes seconds.
    store = f"tracking.uri=sqlite:///{tmp_path_factory.getbasetemp() / 'screening.db'}"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        config = SweepConfig.load(place / "sweep.yaml", [store, f"storage={place / 'runs'}"])
        result = run(config)
    return config, result, Path(result.folder)


def runs_of(result):
    """All of MLflow's runs of this sweep: the parent, and the children by name."""
    client = MlflowClient(result.tracking_uri)
    experiment = client.get_experiment_by_name(result.experiment)
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    (parent,) = [run for run in runs if run.data.tags.get("folder") == Path(result.folder).name]
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    return client, parent, {run.data.tags["mlflow.runName"]: run for run in children}


@pytest.mark.slow
def test_mlflow_shows_what_was_dropped_and_why(finished):
    _, result, folder = finished
    client, parent, children = runs_of(result)
    seen = json.loads((folder / "screening.json").read_text())
    ranked = [row["label"] for row in seen["rows"]]
    assert sorted(ranked) == ["crop_flip", "cutmix", "flip", "identity"]
    dropped = [name for name in ("crop_flip", "identity", "cutmix", "flip") if name in ranked[2:]]
    assert seen["dropped"] == dropped and (seen["images"], seen["means"]) == (30, 8)
    assert parent.data.tags["screen.dropped"] == ", ".join(dropped)
    for row in seen["rows"]:
        for figure in ("t_stddev", "ratio", "agreement", "entropy"):
            assert parent.data.metrics[f"screen/{row['label']}/{figure}"] == pytest.approx(row[figure])
    files = {item.path for item in client.list_artifacts(parent.info.run_id)}
    assert {"screening.json", "screening.md", "screening.png", "policy.student.json"} <= files
    assert (folder / "report" / "screening.png").is_file()
    tried = [run.data.params["augment"] for run in children.values() if run.data.tags["stage"] == "grid search"]
    assert sorted(tried) == sorted(2 * ranked[:2])


@pytest.mark.slow
def test_the_teacher_is_trained_once_and_nothing_is_searched_for_it(finished):
    _, result, folder = finished
    _, _, children = runs_of(result)
    teachers = {name for name, run in children.items() if run.data.tags["role"] == "teacher"}
    assert teachers == {"teacher-full-policy-0", "teacher-full-train_only-0"}, "the latter teaches while it is searched"
    plain = Schedule.load(folder / "policy.teacher.json")
    assert [phase.genome for phase in plain.phases] == [Genome()]
    teacher, student = result.roles
    assert set(teacher.test) == {"policy"} and math.isnan(teacher.best_validation)
    assert set(student.test) == {"policy", "none"} and result.failed == {}


@pytest.mark.slow
def test_the_policy_names_the_augmentation_with_the_best_mean(finished):
    _, result, folder = finished
    _, parent, children = runs_of(result)
    by_name = {}
    for child in children.values():
        if child.data.tags["stage"] == "grid search":
            scores = by_name.setdefault(child.data.params["augment"], [])
            scores.append([child.data.metrics[f"final_validation_{name}"] for name in ("accuracy", "loss")])
    means = {name: [sum(column) / 2 for column in zip(*scores, strict=True)] for name, scores in by_name.items()}
    for name, (accuracy, _) in means.items():
        assert parent.data.metrics[f"choice/{name}/validation_accuracy"] == pytest.approx(accuracy)
    schedule = Schedule.load(folder / "policy.student.json")
    (phase,) = schedule.phases
    accuracy, loss = means[phase.genome.augment.label]
    assert phase.epochs == 2 and loss == min(loss for _, loss in means.values())
    assert result.roles[1].best_validation == pytest.approx(accuracy)
    assert schedule.provenance["replicates"] == 2 and schedule.provenance["value"] == pytest.approx(loss)


@pytest.mark.slow
def test_the_policy_is_replayed_as_the_sweep_trained_it(finished):
    config, result, folder = finished
    given = {"weights": str(folder / "models" / "teacher.safetensors")}
    with_teacher = config.model_copy(update={"teacher": config.teacher.model_copy(update=given)})
    again = replay(with_teacher, [Schedule.load(folder / "policy.student.json")])
    assert again.roles[0].test == {"policy": result.roles[1].test["policy"]}
    assert Path(again.folder).name == "chosen-train-001"


@pytest.mark.slow
def test_the_command_ranks_as_the_sweep_does(finished):
    """The same teacher, the same images, the same figures."""
    config, _, folder = finished
    threads = torch.get_num_threads()
    try:
        alone = screen(config).to_json()["rows"]
    finally:
        torch.set_num_threads(threads)
    within = json.loads((folder / "screening.json").read_text())["rows"]
    assert [{**row, "seconds": 0} for row in alone] == [{**row, "seconds": 0} for row in within]
