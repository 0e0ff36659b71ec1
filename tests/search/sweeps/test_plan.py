"""What a sweep is going to do: its searches, its trials, its epochs, the images that it scores on, its folder."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
import torch
from torch import nn

from search.config.schema import StageConfig, SweepConfig
from search.sweeps.plan import (
    checked_data,
    full_images,
    members,
    new_folder,
    planned_epochs,
    role_space,
    scored_images,
    searches,
    spent,
)
from spaces import RequestError
from trainables.checkpoints import save_weights
from trainables.data import DataSet, TensorImages
from trainables.models import build_model


def sweep(**sections):
    """A small sweep of digits; sections are merged one level deep."""
    content = {
        "data": {"name": "digits", "train": 40, "validation": 60},
        "teacher": {"model": "mlp", "stage": {"epochs": 10, "population": 4}, "full": {"seeds": 2, "epochs": 7}},
        "student": {"model": "mlp", "stage": {"epochs": 20, "population": 5}, "full": {"seeds": 3}},
        "space": {"augment": ["identity", "cutmix", "cutout"]},
    }
    for name, section in sections.items():
        merge = isinstance(section, dict) and isinstance(content.get(name), dict)
        content[name] = content[name] | section if merge else section
    return SweepConfig.from_mapping(content)


@pytest.mark.parametrize(
    ("kind", "baselines", "teacher", "student"),
    [
        ("pbt", ["none", "random"], ["pbt", "random"], ["pbt", "random"]),
        ("pbt", ["none"], ["pbt"], ["pbt"]),
        ("random", ["none", "random"], ["random"], ["random"]),
        ("choice", ["none", "random"], [], ["choice"]),
    ],
)
def test_the_searches_of_each_role(kind, baselines, teacher, student):
    """A search that is its own control has no other; augmentations are chosen for the student alone."""
    config = sweep(search={"kind": kind}, baselines=baselines)
    assert (searches(config, "teacher"), searches(config, "student")) == (teacher, student)


def test_a_choice_has_each_augmentation_as_often_as_it_is_repeated():
    config = sweep(search={"kind": "choice", "repeats": 4})
    five = StageConfig(population=5)
    assert members(config, "choice", five) == 3 * 4
    assert members(config, "pbt", five) == members(config, "random", five) == 5
    grid = sweep(
        search={"kind": "grid", "repeats": 2}, space={"augment": ["flip", "cutmix"], "distill": {"loss": ["kd", "dkd"]}}
    )
    assert members(grid, "grid", five) == 2 * 2 * 2


def test_the_control_of_a_search_that_stops_members_gets_as_many_epochs():
    """27 members at interval 1 and η = 3: 27 × 1 + 9 × 2 + 3 × 6 + 1 × 18 = 81 epochs, so three members of 27."""
    config = sweep(search={"kind": "asha", "reduction": 3})
    stage = StageConfig(epochs=27, population=27, interval=1)
    assert spent(config, "asha", stage) == 81 and members(config, "random", stage) == 3
    assert members(config, "asha", stage) == 27
    tiny = StageConfig(epochs=4, population=4, interval=1)
    assert members(config, "random", tiny) == 2, "two at least, as everywhere"


@pytest.mark.parametrize(
    ("search", "baselines", "epochs"),
    [
        # Two searches of 4 members and 10 epochs, three arms of 2 seeds and 7 epochs; of 5 and 20, and 3 and 20.
        ({"kind": "pbt"}, ["none", "random"], 2 * 4 * 10 + 3 * 2 * 7 + 2 * 5 * 20 + 3 * 3 * 20),
        ({"kind": "pbt"}, ["none"], 4 * 10 + 2 * 2 * 7 + 5 * 20 + 2 * 3 * 20),
        ({"kind": "random"}, ["random"], 4 * 10 + 2 * 7 + 5 * 20 + 3 * 20),
        # The teacher has nothing to choose and nothing to compare with: it is trained in full and that is all.
        ({"kind": "choice", "repeats": 4}, ["none", "random"], 2 * 7 + 3 * 4 * 20 + 2 * 3 * 20),
        ({"kind": "choice", "repeats": 1}, [], 2 * 7 + 3 * 1 * 20 + 3 * 20),
    ],
)
def test_the_epochs_of_a_sweep(search, baselines, epochs):
    assert planned_epochs(sweep(search=search, baselines=baselines)) == epochs


def test_the_epochs_of_a_replay():
    """One arm for each role that is replayed, whatever the search was."""
    for kind in ("pbt", "choice"):
        config = sweep(search={"kind": kind})
        assert planned_epochs(config, ["student"]) == 3 * 20
        assert planned_epochs(config, ["teacher", "student"]) == 2 * 7 + 3 * 20


def test_a_teacher_that_is_given_takes_no_epochs():
    config = sweep(search={"kind": "choice", "repeats": 2}, teacher={"weights": "t.safetensors"}, baselines=[])
    assert planned_epochs(config) == 3 * 2 * 20 + 3 * 20


@pytest.mark.parametrize(
    ("role", "init", "images"), [("teacher", "random", 100), ("teacher", "teacher", 40), ("student", "teacher", 100)]
)
def test_a_teacher_that_students_start_from_has_not_seen_what_they_are_scored_on(role, init, images):
    config = sweep(student={"distill": {"init": init}})
    assert len(full_images(config, role, checked_data(config))) == images


# ---- the images ------------------------------------------------------------------------------------


def test_members_are_scored_on_the_same_balanced_images():
    config = sweep(validate={"images": 30})
    data = checked_data(config)
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
    data = checked_data(config)
    assert scored_images(config, data) is data.validation


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
    stages = [{"stage": {"epochs": 10, "interval": interval}} for interval in intervals]
    config = sweep(teacher=stages[0], student=stages[1])
    assert config.validate_.images == "auto" and len(scored_images(config, data)) == scored


@pytest.mark.parametrize("images", [0, -1, 2.5, True, "all", [3]])
def test_what_is_no_number_of_images_is_refused_with_what_may_be_said(images):
    with pytest.raises(RequestError, match=r"validate\.images\b.* is auto, a whole number from 1, or null for all"):
        sweep(validate={"images": images})


def test_fewer_than_one_of_each_class_are_refused_before_anything_starts():
    with pytest.raises(RequestError, match=r"validate.images is at least 10, one of each class, got 9"):
        checked_data(sweep(validate={"images": 9}))


def test_the_teachers_weights_are_held_against_its_model(tmp_path):
    weights = build_model("mlp", seed=0, classes=10, channels=1, size=8).state_dict()
    path = save_weights(tmp_path / "t.safetensors", weights)
    assert checked_data(sweep(teacher={"weights": str(path)})).classes == 10
    with pytest.raises(RequestError, match=r"teacher.weights \(.*t.safetensors\) must have the names and shapes of the model"):
        checked_data(sweep(teacher={"weights": str(path), "model": "cnn"}))


def test_bits_are_chosen_for_the_student_alone():
    config = sweep(space={"bits": {"weights": [2, 32]}, "distill": {"alpha": [0.5, 0.9]}}, search={"kind": "random"})
    teacher, student = (role_space(config.space, role) for role in ("teacher", "student"))
    assert teacher.bits == teacher.distill == {} and student == config.space
    assert teacher.operations == config.space.operations and teacher.zero().bits == {}


@pytest.mark.parametrize("bits", [{"weights": [32, 8]}, {"activations": [32, 4]}, {"weights": 2}])
def test_a_model_that_cannot_have_all_bits_of_the_space_is_refused_before_anything_starts(bits, monkeypatch):
    """Two layers are the first and the last, and these stay full."""
    net = ModuleType("roletune_two_layers")
    net.two = lambda classes, channels, size: nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Linear(8, classes))
    monkeypatch.setitem(sys.modules, net.__name__, net)
    search = {"kind": "random"}
    with pytest.raises(RequestError, match="a network of few bits has a convolution or linear layer between"):
        checked_data(sweep(space={"bits": bits}, search=search, student={"model": "roletune_two_layers:two"}))
    assert checked_data(sweep(space={"bits": bits}, search=search)).classes == 10
    assert checked_data(sweep(search=search, student={"model": "roletune_two_layers:two"})).classes == 10


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
