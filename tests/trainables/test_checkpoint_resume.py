"""An interrupted training and an uninterrupted one agree bit for bit on the CPU."""

from dataclasses import replace

import pytest
import torch

from spaces import Entry, Genome, ImageSpec, Phase, Policy, Schedule
from spaces.augmentations import augmentation
from trainables import Distill, Recipe

EPOCHS = 4
LATER = Genome(Policy((Entry("Solarize", 9, 5), Entry("ShearY", 6, 7))))
TIMED = ("seconds/", "images_per_s")
RECIPES = {
    "sgd": Recipe(lr=0.05, batch_size=16, warmup=1.5, clip=1.0),
    "adam": Recipe(optimizer="adam", lr=0.01, batch_size=16, label_smoothing=0.1),
}


def source(kind, role, rich):
    """A genome that a scheduler changes before the third epoch, or a schedule that says the same."""
    if kind == "obedient":
        return rich
    return Schedule((Phase(2, rich), Phase(2, LATER)), role, ImageSpec(8, 1, (64,)))


def train(learner, start, stop, kind):
    """The epochs from `start` to before `stop`: what they measured, times apart."""
    measured = []
    for epoch in range(start, stop):
        if kind == "obedient" and epoch == 2:
            learner.set_genome(LATER)
        metrics = learner.step()
        measured.append({name: value for name, value in metrics.items() if not name.startswith(TIMED)})
    return measured


@pytest.mark.parametrize("role", ["teacher", "student"])
@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("model", ["cnn", "roletune_user_nets:dropping"])
@pytest.mark.parametrize("kind", ["obedient", "replaying"])
@pytest.mark.parametrize("saved", [1, 3])
def test_resumed_is_uninterrupted(
    make_task, user_nets, rich, through_file, assert_same, role, recipe, model, kind, saved
):
    task = make_task(role, model=model, recipe=RECIPES[recipe], epochs=EPOCHS)
    torch.default_generator.manual_seed(0)
    whole = task.learner(source(kind, role, rich), seed=11)
    expected = train(whole, 0, EPOCHS, kind)

    first = task.learner(source(kind, role, rich), seed=11)
    measured = train(first, 0, saved, kind)
    state = through_file(first.state_dict())
    torch.default_generator.manual_seed(saved)
    second = task.learner(source(kind, role, rich), seed=12)  # another's seed: the one in the state counts
    second.load_state_dict(state)
    assert second.epoch == saved and second.agent.history == first.agent.history
    if kind == "obedient" and saved > 2:
        second.set_genome(LATER)  # who moves the agent is not in the state
    measured += train(second, saved, EPOCHS, kind)

    assert_same(second.state_dict(), whole.state_dict())
    assert second.agent.history == whole.agent.history == (Phase(2, rich), Phase(2, LATER))
    assert measured == expected


@pytest.mark.parametrize(
    "changes",
    [
        {"distill": Distill(teacher_view="distinct")},
        {"distill": Distill(init="teacher"), "model": "resnet8"},
        {"recipe": Recipe(batch_size=16, channels_last=True)},
        {"recipe": Recipe(batch_size=16, precision="bfloat16")},
        {"recipe": Recipe(batch_size=64)},
        {"augment": "cutmixpick"},
        {"augment": {"kind": "cutmixpick", "pick_by": "student"}, "model": "resnet8"},
        {"augment": "trivialaugment"},
    ],
    ids=["distinct", "init", "channels-last", "bfloat16", "one batch", "pick", "pick by student", "trivialaugment"],
)
def test_resumed_students_of_other_kinds(make_task, rich, through_file, assert_same, changes):
    rich = replace(rich, augment=augmentation(changes.get("augment", "identity")))
    task = make_task("student", **{key: value for key, value in changes.items() if key != "augment"})
    task = replace(task, teacher=replace(task.teacher, schedule=source("replaying", "teacher", rich)))
    whole, first, second = (task.learner(rich, seed=seed) for seed in (3, 3, 4))
    train(whole, 0, 3, "replaying")
    train(first, 0, 1, "replaying")
    second.load_state_dict(through_file(first.state_dict()))
    train(second, 1, 3, "replaying")
    assert_same(second.state_dict(), whole.state_dict())


def test_scoring_between_the_epochs_changes_nothing(make_task, user_nets, rich, assert_same):
    task = make_task("student", model="roletune_user_nets:dropping")
    scored, plain = (task.learner(rich, seed=3) for _ in range(2))
    for _ in range(2):
        scored.step()
        scored.evaluate(task.data.validation)
        plain.step()
    assert_same(scored.state_dict(), plain.state_dict())


def test_a_state_that_was_not_loaded_leads_elsewhere(make_task, rich):
    """What the tests above compare does depend on what is restored."""
    task = make_task()
    whole, first, second = (task.learner(rich, seed=3) for _ in range(3))
    train(whole, 0, 2, "replaying")
    train(first, 0, 1, "replaying")
    state = first.state_dict()
    state["optimizer"]["state"] = {}
    second.load_state_dict(state)
    train(second, 1, 2, "replaying")
    assert not torch.equal(whole.model.state_dict()["0.weight"], second.model.state_dict()["0.weight"])


def test_the_state_holds_plain_data_only(make_task, rich):
    learner = make_task("student").learner(rich, seed=3)
    learner.step()
    state = learner.state_dict()
    assert state.keys() == {"version", "role", "seed", "history", "model", "optimizer", "t_stddev", "distill", "game"}
    assert (state["version"], state["role"], state["seed"]) == (1, "student", 3)
    assert state["history"] == [{"epochs": 1, "genome": rich.to_json()}]


def test_a_donors_state_carries_its_history_and_leaves_the_genome(make_task, rich):
    donor, copier = (make_task().learner(genome, seed=seed) for genome, seed in ((rich, 1), (LATER, 2)))
    donor.step()
    copier.load_state_dict(donor.state_dict())
    assert copier.agent.genome == LATER and copier.agent.history == (Phase(1, rich),)
    copier.step()
    assert copier.agent.history == (Phase(1, rich), Phase(1, LATER))
