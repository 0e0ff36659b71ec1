"""Policies and baselines trained alike: what is measured, what is measured again, and what is refused."""

from __future__ import annotations

import gc
import json
from dataclasses import replace
from pathlib import Path

import pytest
import typer
from mlflow.tracking import MlflowClient
from typer.testing import CliRunner

from results.analysis.evaluation import Evaluation
from results.runlog.events import JOURNAL_FILE, TrialReported, TrialTested
from search.algorithms.base import member_seed
from search.cli import app
from search.config.schema import SweepConfig
from search.execution.journal import Journal
from search.sweeps.evaluation import BASELINES, SCALED, USUAL, _baseline, evaluate, named_policies, with_teacher
from search.sweeps.plan import SweepPlan
from spaces import BASELINES as FREE
from spaces import Entry, Genome, ImageSpec, Phase, Policy, RequestError, Schedule
from spaces.augmentations import augmentation
from trainables import Distill, Recipe, Task
from trainables.checkpoints import save_weights
from trainables.models import build_model
from trainables.task import test_score as score

SWEEP = """
name: small
data: {{name: digits, train: 40, validation: 20}}
teacher: {{model: mlp, weights: {weights}}}
student:
  model: mlp
  recipe: {{lr: 0.05, batch_size: 20}}
  final: {{epochs: 2}}
storage: {storage}
"""
STRONG = Genome(Policy((Entry("Invert", 10, 0),)))
POLICY = Schedule((Phase(1, Genome()), Phase(3, STRONG)), "student", ImageSpec(8, 1, (78,)))


class Died(BaseException):
    """Nobody who is told of an exception expects this one."""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a sweep file, and the teacher that it names."""
    folder = tmp_path_factory.mktemp("evaluate")
    teacher = build_model("mlp", seed=1, classes=10, channels=1, size=8)
    save_weights(folder / "models" / "teacher.safetensors", teacher.state_dict())
    text = SWEEP.format(weights=folder / "models" / "teacher.safetensors", storage=folder / "runs")
    (folder / "sweep.yaml").write_text(text)
    return folder


@pytest.fixture(scope="module")
def config(place):
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield SweepConfig.load(place / "sweep.yaml")


@pytest.fixture(scope="module")
def evaluated(config, _ray):
    """One evaluation with one seed, which others go on with."""
    baselines = ("none", "crop_flip", "cutmix", "longer", "shuffled", "mean")
    return evaluate(config, {"mine": POLICY}, baselines=baselines, seeds=1)


def events(home, kind, role="student"):
    lines = (Path(home) / f"evaluation.{role}" / JOURNAL_FILE).read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == kind.kind]


# ---- what is measured ------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_arm_is_the_plain_training_that_its_name_says(config, evaluated):
    plan = SweepPlan.resolve(config)
    data = plan.data
    whole = type(data)(**{**vars(data), "train": data.full})
    task = Task("student", "mlp", whole, config.student.recipe, 2, teacher=plan.teacher)
    shown = {"crop_flip": augmentation("crop_flip")}
    movers = {
        "mine": POLICY.stretch(2),
        "mine/shuffled": POLICY.stretch(2).shuffled(0),
        "mine/mean": POLICY.stretch(2).mean(),
        "cutmix": Genome(augment=augmentation("cutmix")),
    }
    arms = {arm.name: arm for arm in evaluated.arms}
    assert list(arms) == ["mine", "mine/shuffled", "mine/mean", "none", "crop_flip", "cutmix", "longer"]
    assert [arm.kind for arm in evaluated.arms] == ["policy", "control", "control", *["baseline"] * 4]
    for name, arm in arms.items():
        seed, epochs = member_seed(config.seed, "student", 1, 0), 4 if name == "longer" else 2
        own = replace(task, epochs=epochs)  # the learning rate falls over all of them
        learner = own.learner(movers.get(name, Genome()), seed=seed, baseline=shown.get(name))
        for _ in range(epochs):
            learner.step()
        assert arm.accuracy == (score(task, learner.model.state_dict())["accuracy"],), name
        assert arm.seconds[0] > 0


@pytest.mark.slow
def test_what_was_measured_is_not_measured_again(config, evaluated):
    home = evaluated.folder
    before = len(events(home, TrialReported)), len(events(home, TrialTested))
    assert before == (6 * 2 + 4, 7)
    assert evaluate(config, {"mine": POLICY}, baselines=("none", "cutmix"), seeds=1).arms[-1] == evaluated.arms[-2]
    assert (len(events(home, TrialReported)), len(events(home, TrialTested))) == before
    more = evaluate(config, {"mine": POLICY}, baselines=("none", "randaugment"), seeds=2)
    assert [arm.accuracy[0] for arm in more.arms[:2]] == [evaluated.arms[0].accuracy[0], evaluated.arms[3].accuracy[0]]
    assert len(events(home, TrialTested)) == 7 + 2 + 2, "the second seed of two arms, and both of the new one"
    names = [event["trial"] for event in events(home, TrialTested)]
    assert len(set(names)) == len(names), "the test set is opened once for each training"
    longer = config.model_copy(update={"student": config.student.model_copy(update={"recipe": Recipe(lr=0.01)})})
    evaluate(longer, {"mine": POLICY}, baselines=(), seeds=1)
    assert len(events(home, TrialTested)) == 12, "another recipe is another training"
    assert not list(Path(home).rglob("checkpoint_*")), "what was tested is not kept"


@pytest.mark.slow
def test_one_that_died_goes_on(config, marks, tmp_path, monkeypatch):
    whole = evaluate(config, {"mine": POLICY}, baselines=("none",), seeds=2, home=tmp_path / "whole")
    write, left = Journal.write, 6

    def mortal(self, event):
        nonlocal left
        left -= 1
        if left < 0:
            raise Died
        write(self, event)

    monkeypatch.setattr(Journal, "write", mortal)
    with pytest.raises(Died):
        evaluate(config, {"mine": POLICY}, baselines=("none",), seeds=2, home=tmp_path / "cut")
    monkeypatch.setattr(Journal, "write", write)
    gc.collect()  # what was cut off lets go of its workers
    again = evaluate(config, {"mine": POLICY}, baselines=("none",), seeds=2, home=tmp_path / "cut")
    assert [arm.accuracy for arm in again.arms] == [arm.accuracy for arm in whole.arms]
    reports = [(event["trial"], event["epoch"]) for event in events(tmp_path / "cut", TrialReported)]
    assert len(set(reports)) == len(reports) == 2 * 2 * 2


@pytest.mark.slow
def test_what_it_leaves(config, evaluated):
    home = Path(evaluated.folder)
    assert home.name == "small-evaluate" and (home / "report" / "evaluation.student.png").is_file()
    kept = Evaluation.load(home / "evaluation.student.json")
    assert kept.role == "student" and kept.epochs == 2 and kept.settings["data"]["train"] == 60
    client = MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("small").experiment_id])
    (parent,) = [run for run in runs if run.data.tags["stage"] == "evaluation" and "arm" not in run.data.tags]
    assert parent.info.run_name == "small-evaluate-evaluation-student" and parent.info.status == "FINISHED"
    assert parent.data.tags["mlflow.note.content"].startswith("# small-evaluate")
    assert parent.data.metrics["accuracy/mine"] == pytest.approx(kept.policies[0].mean)
    arms = {run.data.tags["arm"]: run for run in runs if "arm" in run.data.tags}
    assert {"mine", "mine/mean", "none", "cutmix"} <= set(arms)
    assert "final_test_accuracy" in arms["none"].data.metrics
    assert {"evaluation.student.json", "evaluation.student.png"} <= {
        artifact.path for artifact in client.list_artifacts(parent.info.run_id)
    }


@pytest.mark.slow
def test_from_a_sweeps_folder_on_the_command_line(config, place, marks):
    POLICY.save(place / "policy.student.json")
    command = ["evaluate", str(place), "--baseline", "none", "--seeds", "2", "--json"]
    free = ["--set", "teacher.weights=null"]  # it is found in the folder
    answer = CliRunner().invoke(app, [*command, *free])
    assert answer.exit_code == 0, answer.output
    data = json.loads(answer.stdout)
    assert [arm["name"] for arm in data["arms"]] == [place.name, "none"] and len(data["comparisons"]) == 1
    assert json.loads((place / "evaluation.student.json").read_text())["arms"] == data["arms"]


# ---- what is refused -------------------------------------------------------------------------------


def test_what_cannot_be_evaluated_is_refused_before_anything_starts(config, tmp_path):
    teachers = Schedule(POLICY.phases, "teacher", POLICY.image)
    color = Schedule(POLICY.phases, "student", ImageSpec(8, 3, (1, 2, 3)))
    alone = config.model_copy(
        update={"teacher": None, "student": config.student.model_copy(update={"distill": Distill(alpha=0)})}
    )
    two_bits = Schedule((Phase(1, Genome(bits={"weights": 2})),), "student", POLICY.image)
    for given, policies, more, said in (
        (config, {}, {}, "policies must not be empty"),
        (config, {"a": POLICY, "b": teachers}, {}, "must be of one role"),
        (config, {"b": teachers}, {}, "a role that the sweep trains: student"),
        (config, {"c": color}, {}, "c must be for images of 1 channels, got 3"),
        (config, {"a": POLICY}, {"seeds": 0}, "seeds must be >= 1, got 0"),
        (config, {"a": POLICY}, {"baselines": ["trivialaugmet"]}, "did you mean 'trivialaugment'"),
        (
            alone,
            {"a": POLICY},
            {"baselines": ["cutmix"]},
            "must have a teacher of the student's own classes, got 'cutm",
        ),
        (config, {"a": POLICY, "b": two_bits}, {}, "must choose the same bits"),
    ):
        with pytest.raises(RequestError, match=said):
            evaluate(given, policies, home=tmp_path / "home", **more)
    assert not (tmp_path / "home").exists()


def test_a_students_policy_needs_a_teacher_that_is_found_beside_it(config, place, tmp_path):
    free = config.model_copy(update={"teacher": config.teacher.model_copy(update={"weights": None})})
    with pytest.raises(RequestError, match=r"must have a trained teacher; --set teacher\.weights=FILE"):
        evaluate(free, {"a": POLICY}, home=tmp_path)
    found = with_teacher(free, [tmp_path, place])
    assert found.teacher.weights == str(place / "models" / "teacher.safetensors") and found.teacher.policy is None
    assert with_teacher(config, []) is config


def test_policies_are_called_by_their_sweep_or_by_their_file(tmp_path):
    for name in ("one/policy.student.json", "two/policy.student.json", "two/best.json", "three/best.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    one, two = tmp_path / "one", tmp_path / "two"
    assert list(named_policies(one, [two / "policy.student.json", two / "best.json"])) == ["one", "two", "best"]
    with pytest.raises(RequestError, match="two are called best"):
        named_policies(None, [two / "best.json", tmp_path / "three" / "best.json"])
    with pytest.raises(RequestError, match="must have a policy for the teacher"):
        named_policies(one, [], "teacher")


def test_free_baselines_are_policies_of_the_whole_training(config):
    plan = SweepPlan.resolve(config)
    task = plan.roles["student"].final_task(plan.teacher)
    for name, policy in SCALED.items():
        arm = _baseline(name, task)
        (phase,) = arm.source(0).phases
        assert (arm.name, arm.kind, arm.shown) == (name, "baseline", None)
        assert phase == Phase(task.epochs, Genome(FREE[policy])) and arm.source(0).role == "student"


def test_the_usual_baselines_are_some_of_all():
    assert set(USUAL) <= set(BASELINES)
    assert typer.main.get_command(app).commands["evaluate"].help.startswith("Is a policy better than TrivialAugment?")
