"""Learners that train as one: each is as if it had trained alone, and what cannot be stacked is refused."""

import copy
import math
from dataclasses import replace

import pytest
import torch

from spaces import Entry, Genome, ImageSpec, Phase, Policy, RequestError, Schedule, WorkError
from spaces.augmentations import TrivialAugment, augmentation
from trainables import Bits, Distill, Recipe, Stack, TrainedTeacher, stackable
from trainables.models import build_model

INVERT = Genome(Policy((Entry("Invert", 10, 0),)))
CLOCK = ("images_per_s", "seconds/train", "seconds/augment")
SHAPE = {"classes": 3, "channels": 1, "size": 8}


@pytest.fixture
def make_task(make_task):
    """Tasks whose weights lie in the plain order, as a stack needs, unless they are asked for otherwise."""

    def make(*given, **changes):
        task = make_task(*given, **changes)
        return replace(task, recipe=replace(task.recipe, channels_last=bool(task.recipe.channels_last)))

    return make


@pytest.fixture
def genomes(rich):
    return (Genome(), rich, INVERT)


def some(task, genomes, **options):
    return [task.learner(genome, seed=seed, **options) for seed, genome in enumerate(genomes)]


def assert_near(one, other, tolerance):
    """Nested data are equal, floating numbers within the tolerance."""
    if isinstance(one, torch.Tensor) and one.is_floating_point():
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_near(one[key], other[key], tolerance)
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for left, right in zip(one, other, strict=True):
            assert_near(left, right, tolerance)
    elif isinstance(one, float):
        assert one == pytest.approx(other, rel=tolerance, abs=tolerance, nan_ok=True)
    else:
        assert one == other


def untimed(metrics):
    return {name: value for name, value in metrics.items() if name not in CLOCK}


def assert_trained_alike(alone, together, epochs=2, tolerance=1e-4):
    """Metrics and whole states, after each epoch."""
    stack = Stack(together)
    for _ in range(epochs):
        expected, found = [learner.step() for learner in alone], stack.step()
        assert [each.keys() for each in found] == [each.keys() for each in expected]
        for mine, other, one, two in zip(expected, found, alone, together, strict=True):
            assert_near(untimed(mine), untimed(other), tolerance)
            assert_near(one.state_dict(), two.state_dict(), tolerance)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("model", ["mlp", "resnet8"])
@pytest.mark.parametrize("role", ["teacher", "student"])
def test_each_is_as_if_it_had_trained_alone(make_task, genomes, role, model, optimizer):
    recipe = Recipe(optimizer=optimizer, lr=0.02 if optimizer == "sgd" else 0.001, batch_size=16)
    task = make_task(role, model=model, recipe=recipe)
    # Adam divides by the root of the squared gradients: where these are tiny it makes rounding larger.
    assert_trained_alike(some(task, genomes), some(task, genomes), tolerance=1e-4 if optimizer == "sgd" else 2e-3)


@pytest.mark.parametrize(
    "recipe",
    [
        {"clip": 0.5},
        {"label_smoothing": 0.1, "momentum": 0.0},
        {"warmup": 1.5, "weight_decay": 0.0},
        {"batch_size": 64},
    ],
    ids=lambda recipe: next(iter(recipe)),
)
def test_under_every_recipe(make_task, genomes, recipe):
    task = make_task("student", recipe=Recipe(**{"lr": 0.02, "batch_size": 16} | recipe))
    assert_trained_alike(some(task, genomes), some(task, genomes))


def test_in_few_digits_it_is_the_same_but_for_these(make_task, genomes):
    task = make_task("student", recipe=Recipe(lr=0.02, batch_size=16, precision="bfloat16"))
    assert_trained_alike(some(task, genomes), some(task, genomes), tolerance=0.05)


@pytest.mark.parametrize("loss", [{"kd": 1, "dist": 0.5}, "dkd"])
def test_with_other_losses_on_logits(make_task, genomes, loss):
    task = make_task("student", distill=Distill(loss=loss))
    assert_trained_alike(some(task, genomes), some(task, genomes))


def test_each_with_what_its_genome_chooses_of_the_distillation(make_task, rich):
    chosen = [{"temperature": 2.0, "alpha": 0.3}, {"loss": "dkd"}, {}]
    genomes = [replace(rich, distill=each) for each in chosen]
    task = make_task("student")
    assert_trained_alike(some(task, genomes), some(task, genomes))


def test_without_a_teacher(make_task, genomes):
    task = replace(make_task("student", distill=Distill(alpha=0.0)), teacher=None)
    assert_trained_alike(some(task, genomes), some(task, genomes))


def test_with_distinct_views_and_the_teachers_own_schedule(make_task, genomes):
    weights = build_model("resnet8", seed=77, **SHAPE).state_dict()
    schedule = Schedule((Phase(1, Genome()), Phase(3, INVERT)), "teacher", ImageSpec(8, 1, (64,)))
    teacher = TrainedTeacher("resnet8", weights, schedule)
    task = make_task("student", teacher=teacher, distill=Distill(view="distinct"))
    assert_trained_alike(some(task, genomes), some(task, genomes))


@pytest.mark.parametrize("kind", ["cutmix", "cutmixpick", {"kind": "cutmixpick", "pick_by": "student"}], ids=str)
def test_with_a_second_view(make_task, rich, kind):
    genomes = [replace(genome, augment=augmentation(kind)) for genome in (Genome(), rich)]
    task = make_task("student", recipe=Recipe(lr=0.02, batch_size=16))
    assert_trained_alike(some(task, genomes), some(task, genomes))


def test_what_is_shown_comes_before_the_policy(make_task, genomes):
    task = make_task("student")
    learners = [some(task, genomes, shown=TrivialAugment()) for _ in range(2)]
    assert_trained_alike(*learners)


def test_one_that_replays_a_schedule_and_one_that_is_ahead(make_task, rich):
    task = make_task("student")
    replayed = Schedule((Phase(2, rich), Phase(2, INVERT)), "student", ImageSpec(8, 1, (64,)))

    def learners():
        both = some(task, (replayed, rich))
        both[1].step()
        return both

    alone, together = learners(), learners()
    assert_trained_alike(alone, together, epochs=3)
    assert [learner.epoch for learner in together] == [3, 4]
    assert together[0].agent.history == (Phase(2, rich), Phase(1, INVERT))


def test_a_member_takes_anothers_place(make_task, genomes, through_file, rich):
    task = make_task("student", model="resnet8", recipe=Recipe(lr=0.02, batch_size=16))
    members = {kind: some(task, genomes) for kind in ("alone", "together")}
    stack = Stack(members["together"])
    for _ in range(2):
        expected, found = [learner.step() for learner in members["alone"]], stack.step()
        for learners in members.values():
            learners[0].load_state_dict(through_file(learners[1].state_dict()))
            learners[0].obey(INVERT)
            learners[2].obey(rich)
        for mine, other in zip(expected, found, strict=True):
            assert_near(untimed(mine), untimed(other), 1e-4)
    for one, two in zip(*members.values(), strict=True):
        assert_near(one.state_dict(), two.state_dict(), 1e-4)
        assert_near(one.evaluate(task.validation), two.evaluate(task.validation), 1e-4)


def test_a_learner_goes_on_alone_and_elsewhere(make_task, genomes, through_file, assert_same):
    task = make_task("student", model="resnet8")
    learners = some(task, genomes)
    Stack(learners).step()
    state = learners[1].state_dict()
    momentum = [each["momentum_buffer"] for each in state["optimizer"]["state"].values()]
    for tensor in (*state["model"].values(), *momentum):
        assert tensor.untyped_storage().nbytes() == tensor.nbytes, "a checkpoint holds no other member's weights"
    other = task.learner(genomes[1], seed=9)
    other.load_state_dict(through_file(state))
    assert untimed(learners[1].step()) == untimed(other.step())
    assert_same(learners[1].state_dict(), other.state_dict())


def test_the_teacher_is_asked_once_for_all(make_task, genomes):
    learners = some(make_task("student"), genomes)
    asked = []
    for index, learner in enumerate(learners):
        learner.teacher.register_forward_hook(lambda _, given, answer, who=index: asked.append((who, len(given[0]))))
    stack = Stack(learners)
    learners[0].end_epoch = learners[1].end_epoch = learners[2].end_epoch = dict
    stack.step()
    assert asked == [(0, 48)] * 3


def test_each_has_spent_its_share(make_task, genomes):
    metrics = Stack(some(make_task("student"), genomes)).step()
    spent = [each["seconds/train"] for each in metrics]
    assert all(each["images_per_s"] == pytest.approx(48 / each["seconds/train"]) for each in metrics)
    assert max(spent) < 3 * min(spent)


def test_nothing_else_is_touched(make_task, genomes, assert_same):
    learners = some(make_task("student", model="resnet8"), genomes)
    learners[1].model.eval()
    before = [copy.deepcopy(learner.model.state_dict()) for learner in learners]
    pointers = [parameter.data_ptr() for learner in learners for parameter in learner.model.parameters()]
    stream = torch.get_rng_state()
    stack = Stack(learners)
    assert_same(before, [learner.model.state_dict() for learner in learners])
    assert not learners[1].model.training
    settings = [copy.deepcopy(learner.optimizer.state_dict()["param_groups"]) for learner in learners]
    stack.step()
    assert torch.equal(stream, torch.get_rng_state())
    assert pointers == [parameter.data_ptr() for learner in learners for parameter in learner.model.parameters()]
    after = [copy.deepcopy(learner.optimizer.state_dict()["param_groups"]) for learner in learners]
    for old, new in zip(settings, after, strict=True):
        assert {**old[0], "lr": None} == {**new[0], "lr": None}


def test_one_that_diverges_does_so_alone(make_task, genomes):
    task = make_task("student")
    alone, together = some(task, genomes), some(task, genomes)
    stack = Stack(together)
    for learners in (alone, together):
        with torch.no_grad():
            next(learners[1].model.parameters()).fill_(math.nan)
    with pytest.raises(WorkError, match="learner 1: the loss is not finite in epoch 0"):
        stack.step()
    assert [learner.epoch for learner in together] == [1, 0, 1]
    for index in (0, 2):
        alone[index].step()
        assert_near(alone[index].state_dict(), together[index].state_dict(), 1e-4)


# ---- what is refused -------------------------------------------------------------------------------


def test_what_can_be_stacked(make_task, genomes):
    assert stackable(some(make_task("student"), genomes)) is None
    assert stackable(some(make_task("teacher"), genomes[:1])) is None


def refused(learners, why):
    with pytest.raises(RequestError, match=why) as error:
        Stack(learners)
    assert stackable(learners) in str(error.value)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"model": "resnet8"}, "networks differ"),
        ({"recipe": Recipe(batch_size=12)}, "differ in recipe"),
        ({"teacher": TrainedTeacher("mlp", build_model("mlp", seed=0, **SHAPE).state_dict())}, "teachers differ"),
        ({"teacher": None}, "teachers differ"),
        ({"bits": Bits(2, 32)}, "networks differ"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_of_one_task(make_task, make_data, change, why):
    task = make_task("student")
    other = replace(task, **change)
    refused([task.learner(Genome(), seed=0), other.learner(Genome(), seed=1)], why)


def test_on_the_same_images(make_task, make_data):
    refused([make_task(data=make_data()).learner(Genome(), seed=0) for _ in range(2)], "differ in data")


def test_of_one_role(make_task, make_data):
    data = make_data()
    refused([make_task(role, data=data).learner(Genome(), seed=0) for role in ("teacher", "student")], "differ in role")


def test_learners_and_each_once(make_task):
    refused([], "there are none")
    learner = make_task().learner(Genome(), seed=0)
    refused([learner, learner], "one is there twice")


@pytest.mark.parametrize(
    ("change", "genome", "why"),
    [
        ({"bits": Bits(2, 2)}, Genome(), "few bits"),
        ({"distill": Distill(loss="hint")}, Genome(), "the loss hint looks at features"),
        ({}, Genome(distill={"loss": "crd"}), "the loss crd looks at features"),
        ({}, Genome(augment=augmentation("hard_affine")), "the game of hard_affine"),
        ({"recipe": Recipe(channels_last=True)}, Genome(), "channels-last order"),
        ({"model": "roletune_user_nets:dropping"}, Genome(), "does not vectorise .*random"),
    ],
    ids=["bits", "features", "genome", "game", "order", "dropout"],
)
def test_what_is_each_learners_own(make_task, user_nets, change, genome, why):
    task = make_task("student", **{"model": "resnet8"} | change)
    refused(some(task, (genome, genome)), why)


def test_a_step_that_cannot_be_taken_together_is_refused_before_it_begins(make_task, genomes, assert_same):
    learners = some(make_task("student"), genomes)
    stack = Stack(learners)
    learners[1].obey(Genome(augment=augmentation("cutmix")))
    before = copy.deepcopy([learner.state_dict() for learner in learners])
    with pytest.raises(RequestError, match=r"some genomes have a second view.* step each alone"):
        stack.step()
    assert_same(before, [learner.state_dict() for learner in learners])
    for learner in learners:
        learner.obey(Genome(augment=augmentation("cutmix")))
    assert all(metrics["view_loss"] > 0 for metrics in stack.step())
