"""Teachers of another task, random ones and none, and a student of few bits: what a sweep makes of them."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from mlflow.tracking import MlflowClient

from search import SweepConfig, run
from search.config.sections import SearchConfig
from search.sweeps.plan import SweepPlan
from spaces import RequestError, Schedule
from trainables import Bits
from trainables import data as datasets
from trainables.checkpoints import load_weights, save_weights
from trainables.data import TensorImages, load
from trainables.models import build_model
from trainables.quantization import quantize

HINT = {"hint": {"weight": 1, "projection": "inverted", "pool": True}}


def parity(train, validation, seed):
    """Digits, even or odd; a data set as a user's own factory gives it."""
    data = load("digits", train=train, validation=validation, seed=seed)
    parts = {part: getattr(data, part) for part in ("train", "validation", "test")}
    two = {part: TensorImages(images.images, images.labels % 2) for part, images in parts.items()}
    return replace(data, name="parity", classes=2, mean=(0.4,), std=(0.3,), **two)


@pytest.fixture(scope="module", autouse=True)
def importable():
    """As a user's module in the working folder; workers find it where the tests of this room lie."""
    sys.path.append(str(Path(__file__).parent))
    yield
    sys.path.remove(str(Path(__file__).parent))


PARITY = {"name": "test_teachers:parity", "train": 100, "validation": 60}


def sweep(teacher, distill=HINT, bits=None, **sections):
    recipe = {"lr": 0.05, "batch_size": 20}
    search = {"algorithm": "pbt", "population": 3, "epochs": 2, "interval": 1}
    student = {"model": "resnet8", "recipe": recipe, "search": search, "distill": {"loss": distill, "alpha": 0.5}}
    content = {
        "name": "teachers",
        "data": {"name": "digits", "train": 60, "validation": 60},
        "space": {"operations": ["Rotate"]},
        "teacher": teacher and {"model": "resnet20", "recipe": recipe, "search": search, **teacher},
        "student": student | ({"bits": bits} if bits else {}),
    }
    return SweepConfig.from_mapping(content | sections)


# ---- before anything starts ------------------------------------------------------------------------


def test_a_teacher_of_another_task_has_its_own_images_and_classes():
    config = sweep({"data": PARITY})
    plan = SweepPlan.resolve(config)
    own = plan.roles["teacher"].task.data
    assert (plan.data.classes, own.classes, len(own.train)) == (10, 2, 100)
    assert plan.roles["student"].task.data is plan.data and plan.teacher is None
    same = SweepPlan.resolve(sweep({}))
    assert same.roles["teacher"].task.data is same.data


def test_each_data_set_is_loaded_once(monkeypatch):
    """Whatever the sweep looks at: the plan is all that those below it have."""
    loads, original = [], datasets.load

    def counting(name, *args, **options):
        loads.append(name)
        return original(name, *args, **options)

    monkeypatch.setattr(datasets, "load", counting)
    plan = SweepPlan.resolve(sweep({"data": PARITY}, screen={"drop": 0.5}))
    plan.check_screening()
    for role in plan.roles.values():
        role.final_task(plan.teacher)
    plan.replaying({})
    assert sorted(loads) == ["digits", PARITY["name"]]


def test_a_random_teacher_is_built_from_the_sweeps_seed():
    config = sweep({"pretrained": False, "classes": 7})
    one, again, other = (
        SweepPlan.resolve(c).teacher.weights["conv1.weight"]
        for c in (config, config, sweep({"pretrained": False}, seed=1))
    )
    assert torch.equal(one, again) and not torch.equal(one, other)
    plan = SweepPlan.resolve(config)
    assert plan.teacher.freeze(plan.data)(torch.zeros(2, 1, 8, 8)).shape == (2, 7)


def test_weights_of_other_classes_are_a_teachers_own(tmp_path):
    file = tmp_path / "teacher.safetensors"
    save_weights(file, build_model("resnet20", seed=0, classes=100, channels=1, size=8).state_dict())
    config = sweep({"weights": str(file), "classes": 100})
    assert SweepPlan.resolve(config).teacher.classes == 100
    with pytest.raises(
        RequestError,
        match=r"teacher.weights .* must have the names and shapes of the model: fc.bias is \(100,\), not \(10,\)",
    ):
        SweepPlan.resolve(sweep({"weights": str(file)}))


@pytest.mark.parametrize(
    ("config", "rule"),
    [
        (
            lambda: sweep({"data": PARITY}, "kd"),
            "the loss kd compares logits, so the teacher must have 10 classes, got 2",
        ),
        (lambda: sweep({"data": PARITY}, space={"distill": {"loss": [HINT, "dist"]}}), "dist compares logits"),
        (lambda: sweep({"data": PARITY}, space={"augment": ["identity", "cutmix"]}), "a second view .* got 2"),
        (lambda: sweep({"data": {"name": "mnist"}}), "mnist"),
        (lambda: sweep(None, "kd"), "kd needs a teacher"),
        (lambda: sweep({}, {"hint": {"weight": 1, "student": "layer9"}}), "no layer 'layer9'; did you mean 'layer"),
        (
            lambda: sweep({}, {"hint": {"weight": 1, "teacher": "x"}}),
            "teacher's network has no layer 'x'; known: conv1, ",
        ),
        (lambda: sweep({"model": "resnet8x4"}, "hint"), "64.*256"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_starts(config, rule):
    with pytest.raises(RequestError, match=rule) as refusal:
        SweepPlan.resolve(config())
    assert "\n" not in str(refusal.value)


def test_nothing_is_searched_where_nothing_is_free():
    config = sweep({}, space={"operations": [], "augment": ["identity", "cutmix"]}, distill="kd")
    roles = SweepPlan.resolve(config).roles
    assert [each.name for each in roles["teacher"].searches] == []
    assert [each.name for each in roles["student"].searches] == ["student-pbt", "student-random"]


# ---- whole sweeps ----------------------------------------------------------------------------------


def ran(config, place):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        result = run(config)
        return replace(result, folder=str(place / result.folder)), place


@pytest.fixture(scope="module")
def across(tmp_path_factory, _ray, scored_here):
    """A student of two bits, from a teacher of another task, in a population that moves the loss's weight."""
    free = {"loss": {"hint": {"weight": {"low": 1.0, "high": 9.0}, "projection": ["inverted", "student"]}}}
    bits = {"weights": 2, "activations": 2}
    config = sweep({"data": PARITY}, bits=bits, space={"operations": ["Rotate"], "distill": free}, baselines=["none"])
    return ran(config, tmp_path_factory.mktemp("across"))[0]


@pytest.mark.slow
def test_the_teacher_learns_its_own_task_and_the_student_its_own(across):
    teacher, student = across.roles
    folder = Path(across.folder)
    assert teacher.test["policy"][0] > 0.6, "of two classes"
    assert load_weights(folder / "models" / "teacher.safetensors")["fc.bias"].shape == (2,)
    assert load_weights(folder / "models" / "student.safetensors")["fc.bias"].shape == (10,)
    assert across.failed == {} and student.exploits > 0


@pytest.mark.slow
def test_the_exported_student_is_at_its_levels_and_scores_as_reported(across):
    folder = Path(across.folder)
    weights = load_weights(folder / "models" / "student.safetensors")
    assert all(len(weights[f"layer{n}.0.conv2.weight"].unique()) <= 4 for n in (1, 2, 3))
    network = quantize(build_model("resnet8", seed=0, classes=10, channels=1, size=8), Bits(32, 2))
    network.load_state_dict(weights)
    data = load("digits", train=60, validation=60)
    images = (data.test.images.float() / 255 - data.mean[0]) / data.std[0]
    with torch.no_grad():
        right = (network.eval()(images).argmax(1) == data.test.labels).float().mean()
    student = across.roles[1]
    assert float(right) == pytest.approx(student.test["policy"][0], abs=2 / len(data.test))
    assert 0 < student.size_in_bits < 0.2 * 32 * sum(p.numel() for p in network.parameters())


@pytest.mark.slow
def test_the_policy_carries_the_distillation_and_mlflow_its_curves(across):
    schedule = Schedule.load(Path(across.folder) / "policy.student.json")
    assert all(1 <= phase.genome.distill["loss"]["hint"]["weight"] <= 9 for phase in schedule.phases)
    client = MlflowClient(across.tracking_uri)
    (parent,) = client.search_runs(
        [client.get_experiment_by_name("teachers").experiment_id], filter_string="tags.stage = 'sweep'"
    )
    assert parent.data.metrics["final_student_size_in_bits"] == across.roles[1].size_in_bits
    (member,) = client.search_runs(
        [client.get_experiment_by_name("teachers").experiment_id], filter_string="tags.member = 'student-pbt-00'"
    )
    assert {"hint_loss", "distill/hint/rank", "final_hint_loss"} <= member.data.metrics.keys()


@pytest.mark.slow
def test_a_student_without_a_teacher(tmp_path, _ray, scored_here):
    config = sweep(None, {"spectral": {"weight": 1, "k": 4}}, baselines=[])
    search = SearchConfig(algorithm="random", trials=3, epochs=2, interval=1)
    config = config.model_copy(update={"student": config.student.model_copy(update={"search": search})})
    result, _ = ran(config, tmp_path)
    (student,) = result.roles
    assert student.role == "student" and result.failed == {} and student.test["policy"][0] > 0.1
