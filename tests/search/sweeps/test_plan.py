"""What a sweep is going to do: its searches, its trials, its epochs, the images that it scores on, its folder."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

from search.config.schema import SweepConfig
from search.sweeps.data_plan import scored_images
from search.sweeps.folders import new_folder
from search.sweeps.plan import SweepPlan, role_space
from spaces import Genome, ImageSpec, Phase, RequestError, Schedule
from trainables.checkpoints import save_weights
from trainables.data import DataSet, TensorImages
from trainables.models import build_model


def sweep(**sections):
    """A small sweep of digits; sections are merged two levels deep."""
    content = {
        "data": {"name": "digits", "train": 40, "validation": 60},
        "teacher": {"model": "mlp", "search": {"epochs": 10}, "final": {"seeds": 2, "epochs": 7}},
        "student": {"model": "mlp", "search": {"epochs": 20}, "final": {"seeds": 3}},
        "space": {"augment": ["identity", "cutmix", "cutout"]},
    }
    return SweepConfig.from_mapping(merged(content, sections, 3))


def merged(old, new, depth):
    if not (depth and isinstance(old, dict) and isinstance(new, dict)):
        return new
    return old | {key: merged(old.get(key), value, depth - 1) for key, value in new.items()}


def searching(teacher, student, **sections):
    """A sweep with these searches, which are PBT where they are numbers of members."""

    def section(search):
        return {"search": {"algorithm": "pbt", "population": search} if isinstance(search, int) else search}

    return SweepPlan.resolve(sweep(teacher=section(teacher), student=section(student), **sections))


def names(plan, role):
    return [search.name for search in plan.roles[role].searches]


GRID = {"algorithm": "grid", "replicates": 4}
RANDOM = {"algorithm": "random", "trials": 4}


@pytest.mark.parametrize(
    ("teacher", "student", "baselines", "searches"),
    [
        (4, 5, ["none", "random"], (["teacher-pbt", "teacher-random"], ["student-pbt", "student-random"])),
        (4, 5, ["none"], (["teacher-pbt"], ["student-pbt"])),
        (RANDOM, RANDOM, ["none", "random"], (["teacher-random"], ["student-random"])),
        (None, GRID, ["none", "random"], ([], ["student-grid"])),
        (RANDOM, None, ["none", "random"], (["teacher-random"], [])),
    ],
)
def test_the_searches_of_each_role(teacher, student, baselines, searches):
    """A search that is its own control has no other; each role has its own algorithm."""
    plan = searching(teacher, student, baselines=baselines)
    assert (names(plan, "teacher"), names(plan, "student")) == searches


def test_searches_of_one_role_have_different_names():
    """Members are known by the name of their search: with one name, a search would take those of the other."""
    same = {"algorithm": "pbt", "population": 4, "epochs": 10}
    plan = searching([same, same, RANDOM, same, same], None, baselines=["none"])
    assert names(plan, "teacher") == [
        "teacher-pbt", "teacher-pbt_2", "teacher-random", "teacher-pbt_3", "teacher-pbt_4",
    ]  # fmt: skip
    blind = {"algorithm": "blind", "population": 4}
    assert names(searching(blind, None, baselines=["blind"]), "teacher") == ["teacher-blind"], "its own control"


def test_a_grid_has_each_augmentation_as_often_as_it_is_repeated():
    plan = searching(4, GRID)
    assert plan.roles["student"].search.members == 3 * 4
    assert [search.members for search in searching(4, 5).roles["student"].searches] == [5, 5]
    space = {"augment": ["flip", "cutmix"], "distill": {"loss": ["kd", "dkd"]}}
    grid = searching(None, {"algorithm": "grid", "replicates": 2}, space=space)
    assert grid.roles["student"].search.members == 2 * 2 * 2


def test_the_control_of_a_search_that_stops_members_gets_as_many_epochs():
    """27 members at interval 1 and η = 3: 27 × 1 + 9 × 2 + 3 × 6 + 1 × 18 = 81 epochs, so three members of 27."""
    halving = {"algorithm": "successive_halving", "reduction": 3}
    for early in (halving, {"algorithm": "tpe", "early_stopping": "asha", "reduction": 3}):
        search, control = searching(4, {**early, "epochs": 27, "trials": 27, "interval": 1}).roles["student"].searches
        assert (search.epochs, search.members, control.members) == (81, 27, 3)
        assert (control.settings.epochs, control.settings.interval, control.epochs) == (27, 1, 81)
    tiny = searching(4, {**halving, "epochs": 4, "trials": 4, "interval": 1})
    assert tiny.roles["student"].control.members == 2, "two at least, as everywhere"


@pytest.mark.parametrize(
    ("teacher", "student", "baselines", "epochs"),
    [
        # Two searches of 4 members and 10 epochs, three arms of 2 seeds and 7 epochs; of 5 and 20, and 3 and 20. One
        # more teacher of 7 epochs teaches the students of the search.
        (4, 5, ["none", "random"], 2 * 4 * 10 + 3 * 2 * 7 + 7 + 2 * 5 * 20 + 3 * 3 * 20),
        (4, 5, ["none"], 4 * 10 + 2 * 2 * 7 + 7 + 5 * 20 + 2 * 3 * 20),
        (RANDOM, {**RANDOM, "trials": 5}, ["random"], 4 * 10 + 2 * 7 + 7 + 5 * 20 + 3 * 20),
        # The teacher has nothing to choose and nothing to compare with: it is trained in full and that is all.
        (None, GRID, ["none", "random"], 2 * 7 + 7 + 3 * 4 * 20 + 2 * 3 * 20),
        (None, {**GRID, "replicates": 1}, [], 2 * 7 + 7 + 3 * 1 * 20 + 3 * 20),
        # A blind population as large as the search, and its arm.
        (None, 5, ["blind"], 2 * 7 + 7 + 2 * 5 * 20 + 2 * 3 * 20),
    ],
)
def test_the_epochs_of_a_sweep(teacher, student, baselines, epochs):
    assert searching(teacher, student, baselines=baselines).total_epochs == epochs


def test_the_epochs_of_a_replay():
    """One arm for each role that is replayed, whatever the search was."""
    schedules = {role: Schedule((Phase(1, Genome()),), role, ImageSpec(8, 1, (78,))) for role in ("teacher", "student")}
    for plan in (searching(4, 5), searching(None, GRID)):
        student = plan.replaying({"student": schedules["student"]})
        assert student.total_epochs == 3 * 20 and list(student.roles) == ["student"] and student.what == "Replay"
        assert plan.replaying(schedules).total_epochs == 2 * 7 + 3 * 20


def test_a_replay_of_a_policy_for_other_images_is_refused():
    color = Schedule((Phase(1, Genome()),), "student", ImageSpec(8, 3, (1, 2, 3)))
    with pytest.raises(RequestError, match="the student's policy must be for images of 1 channels, got 3"):
        searching(4, 5).replaying({"student": color})


def test_a_teacher_that_is_given_takes_no_epochs(tmp_path):
    weights = build_model("mlp", seed=0, classes=10, channels=1, size=8).state_dict()
    file = str(save_weights(tmp_path / "t.safetensors", weights))
    student = {"search": {**GRID, "replicates": 2}}
    plan = SweepPlan.resolve(sweep(teacher={"weights": file}, student=student, baselines=[]))
    assert plan.total_epochs == 3 * 2 * 20 + 3 * 20 and list(plan.roles) == ["student"]


@pytest.mark.parametrize(
    ("role", "init", "images"), [("teacher", "random", 100), ("teacher", "teacher", 40), ("student", "teacher", 100)]
)
def test_a_teacher_that_students_start_from_has_not_seen_what_they_are_scored_on(role, init, images):
    plan = SweepPlan.resolve(sweep(student={"distill": {"init": init}}))
    assert len(plan.roles[role].final_task(None).data.train) == images


@pytest.mark.parametrize(
    ("sections", "trained"),
    [
        ({}, True),
        ({"student": {"search": None}}, False),
        ({"student": {"distill": {"init": "teacher"}}}, False),
        ({"teacher": {"data": {"name": "digits", "train": 40, "validation": 60}}}, True),
    ],
)
def test_students_are_searched_with_a_teacher_that_has_not_seen_what_they_are_scored_on(sections, trained):
    assert SweepPlan.resolve(sweep(**sections)).roles["teacher"].trains_search_teacher is trained


@pytest.mark.parametrize(
    ("images", "search", "score", "final"),
    [
        (1999, RANDOM, "cross_entropy", "cross_entropy"),
        (2000, RANDOM, "accuracy", "accuracy"),
        (2000, {"algorithm": "pbt"}, "cross_entropy", "accuracy"),
        (2000, {"algorithm": "successive_halving"}, "cross_entropy", "accuracy"),
    ],
)
def test_few_images_and_unfinished_trainings_are_scored_by_cross_entropy(images, search, score, final):
    data = {"name": "mnist5k", "train": 100, "validation": images}
    content = {"data": data, "teacher": {"model": "mlp", "search": search}, "student": None}
    plan = SweepPlan.resolve(SweepConfig.from_mapping(content)).roles["teacher"]
    assert (plan.search.task(plan.task).score, plan.final_score) == (score, final)
    assert plan.provenance["metric"] == {"accuracy": "validation_accuracy"}.get(score, "validation_loss")
    chosen = SweepPlan.resolve(SweepConfig.from_mapping(content | {"validate": {"score": "accuracy"}}))
    assert chosen.roles["teacher"].task.score == "accuracy"


def test_each_search_of_a_list_has_its_own_score():
    data = {"name": "mnist5k", "train": 100, "validation": 2000}
    plan = SweepPlan.resolve(SweepConfig.from_mapping({"data": data, "teacher": {"model": "mlp"}, "student": None}))
    teacher = plan.roles["teacher"]
    assert [stage.score for stage in teacher.stages] == ["accuracy", "cross_entropy"]
    assert teacher.control.score == "cross_entropy", "it runs beside the last"
    assert teacher.provenance["metric"] == "validation_loss"


def test_headroom_is_measured_before_a_list_of_searches():
    def seeds(**sections):
        content = {"data": {"name": "digits"}, "student": None, **sections}
        return SweepPlan.resolve(SweepConfig.from_mapping(content)).roles["teacher"].headroom_seeds

    assert seeds() == 3 and seeds(headroom={"seeds": 0}) == 0
    assert seeds(teacher={"search": {"algorithm": "pbt"}}) == 0


def test_a_policy_says_which_domain_it_is_for():
    data = {"name": "mnist5k", "train": 100, "validation": 100, "validation_from": "mnist5k-shifted"}
    plan = SweepPlan.resolve(SweepConfig.from_mapping({"data": data, "teacher": {"model": "mlp"}, "student": None}))
    origin = plan.roles["teacher"].provenance["data"]
    assert origin == {"name": "mnist5k", "train": 100, "validation": 100, "validation_from": "mnist5k-shifted"}


def test_a_sweep_says_what_it_searches():
    assert searching(4, 5).what == "Search pbt"
    assert searching(4, {"algorithm": "tpe"}).what == "Search pbt and tpe"
    assert searching(None, None).what == "Training"


def test_a_plan_is_frozen():
    plan = searching(4, 5)
    for part in (plan, plan.roles["student"], plan.roles["student"].search):
        with pytest.raises(dataclasses.FrozenInstanceError):
            part.name = "other"


# ---- the user's own algorithm ----------------------------------------------------------------------

CUSTOM = "custom_algorithm:OneOperation"


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """As a user's module in the working folder."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1]))


def test_an_algorithm_of_ones_own_is_resolved_when_the_sweep_starts():
    plan = searching(4, {"algorithm": CUSTOM, "trials": 3, "options": {"probability": 5}})
    search = plan.roles["student"].search
    assert (search.name, search.members, search.epochs) == ("student-OneOperation", 3, 60)
    assert search.algorithm.__name__ == "OneOperation" and search.settings.options == {"probability": 5}
    assert CUSTOM in plan.requirements.imports


@pytest.mark.parametrize(
    ("search", "rule"),
    [
        ({"algorithm": "nowhere:Search"}, "there is no module 'nowhere'"),
        ({"algorithm": "custom_algorithm:OneOperatoin"}, "did you mean 'OneOperation'"),
        ({"algorithm": "custom_algorithm:SearchAlgorithm.draw"}, "algorithm must name a class of search algorithms"),
        ({"algorithm": CUSTOM, "population": 3}, "student.search: population must be left out .*; set trials"),
        ({"algorithm": CUSTOM, "objective": ["accuracy", "size"]}, r"objective must be \[accuracy\]"),
    ],
)
def test_an_algorithm_of_ones_own_that_does_not_fit_is_refused(search, rule):
    with pytest.raises(RequestError, match=rule) as refusal:
        searching(4, search)
    assert "\n" not in str(refusal.value)


# ---- the images ------------------------------------------------------------------------------------


def test_members_are_scored_on_the_same_balanced_images():
    config = sweep(validate={"images": 30})
    data = SweepPlan.resolve(config).data
    one, other = (scored_images(config, data) for _ in range(2))
    assert one.labels.bincount().tolist() == [3] * 10
    assert torch.equal(one.images, other.images)
    held_out = {image.numpy().tobytes() for image in data.validation.images}
    assert all(image.numpy().tobytes() in held_out for image in one.images)
    reseeded = sweep(validate={"images": 30}, data={"seed": 1})
    assert not torch.equal(scored_images(reseeded, data).images, one.images)


@pytest.mark.parametrize("most", [None, 60, 2000, "auto"])
def test_all_are_scored_where_there_are_no_more(most):
    config = sweep(validate={"images": most})
    plan = SweepPlan.resolve(config)
    assert all(role.task.validation is plan.data.validation for role in plan.roles.values())


@pytest.mark.parametrize(
    ("trained", "intervals", "scored"),
    [
        (4000, (3, 3), 2000),  # PBA's reduced CIFAR-10
        (45_000, (3, 3), 5000),  # the whole of it: all that there are
        (8000, (3, 3), 4000),
        (8000, (3, 2), 2666),  # the role that is scored more often counts
        (100, (4, 4), 2000),
        (9, (100, 100), 2000),
    ],
)
def test_as_many_are_scored_as_cost_little(trained, intervals, scored):
    """The labels are all that is looked at, so images may be one pixel."""

    def images(count):
        return TensorImages(torch.zeros(count, 1, 1, 1, dtype=torch.uint8), torch.arange(count) % 3)

    data = DataSet("dots", 3, 1, 1, (0.5,), (0.5,), 0, False, images(trained), images(5000), images(3))
    roles = [{"search": {"epochs": 10, "interval": interval}} for interval in intervals]
    config = sweep(teacher=roles[0], student=roles[1])
    assert config.validate_.images == "auto" and len(scored_images(config, data)) == scored


@pytest.mark.parametrize("images", [0, -1, 2.5, True, "all", [3]])
def test_what_is_no_number_of_images_is_refused_with_what_may_be_said(images):
    with pytest.raises(RequestError, match=r"validate\.images\b.* must be auto, a whole number >= 1, or null for all"):
        sweep(validate={"images": images})


def test_fewer_than_one_of_each_class_are_refused_before_anything_starts():
    with pytest.raises(RequestError, match=r"validate.images must be >= 10, one of each class, got 9"):
        SweepPlan.resolve(sweep(validate={"images": 9}))


def test_the_teachers_weights_are_held_against_its_model(tmp_path):
    weights = build_model("mlp", seed=0, classes=10, channels=1, size=8).state_dict()
    path = save_weights(tmp_path / "t.safetensors", weights)
    assert SweepPlan.resolve(sweep(teacher={"weights": str(path)})).teacher.classes == 10
    with pytest.raises(
        RequestError, match=r"teacher.weights \(.*t.safetensors\) must have the names and shapes of the model"
    ):
        SweepPlan.resolve(sweep(teacher={"weights": str(path), "model": "cnn"}))


def test_bits_are_chosen_for_the_student_alone():
    space = {"bits": {"weights": [2, 32]}, "distill": {"alpha": [0.5, 0.9]}}
    config = sweep(space=space, student={"search": {"algorithm": "random"}})
    teacher, student = (role_space(config.space, role) for role in ("teacher", "student"))
    assert teacher.bits == teacher.distill == {} and student == config.space
    assert teacher.operations == config.space.operations and teacher.zero().bits == {}


@pytest.mark.parametrize("bits", [{"weights": [32, 8]}, {"activations": [32, 4]}, {"weights": 2}])
def test_a_model_that_cannot_have_all_bits_of_the_space_is_refused_before_anything_starts(bits, monkeypatch):
    """Two layers are the first and the last, and these stay full."""
    net = ModuleType("roletune_two_layers")
    net.two = lambda classes, channels, size: nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Linear(8, classes))
    monkeypatch.setitem(sys.modules, net.__name__, net)
    student = {"search": {"algorithm": "random"}}
    two = {**student, "model": "roletune_two_layers:two"}
    with pytest.raises(RequestError, match="a quantized network must have a convolution or linear layer between"):
        SweepPlan.resolve(sweep(space={"bits": bits}, student=two))
    fine = {**student, "model": "resnet8"}
    assert SweepPlan.resolve(sweep(space={"bits": bits}, student=fine)).data.classes == 10
    assert SweepPlan.resolve(sweep(student=two)).data.classes == 10


# ---- the folder ------------------------------------------------------------------------------------


def test_folders_are_numbered(tmp_path):
    storage = tmp_path / "new" / "runs"
    assert [new_folder(storage, "digits").name for _ in range(3)] == ["digits-001", "digits-002", "digits-003"]
    for other in ("digits-screen-007", "digits-0x9", "xdigits-009"):
        (storage / other).mkdir()
    (storage / "digits-041").mkdir()
    assert new_folder(storage, "digits").name == "digits-042"
    assert new_folder(storage, "digits-screen").name == "digits-screen-008"


def test_a_place_that_cannot_be_written_to_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RequestError, match=r"cannot write to .*file.*; choose another --storage"):
        new_folder(tmp_path / "file", "digits")
