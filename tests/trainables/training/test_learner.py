"""The behavior shared by teacher and student: epochs, evaluation, and private random streams."""

import copy
import math
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from spaces import Entry, Genome, ImageSpec, Phase, Policy, RequestError, Schedule, WorkError
from trainables import Distill, Recipe
from trainables.data import TensorImages

ROLES = ["teacher", "student"]
PARTS = {"teacher": {"loss"}, "student": {"loss", "task_loss", "kd_loss"}}
INVERT = Genome(Policy((Entry("Invert", 10, 0),)))


@pytest.fixture(params=ROLES)
def role(request):
    return request.param


@pytest.fixture
def spied(make_task, user_nets):
    """A task whose network keeps what it sees."""

    def make(role="teacher", **changes):
        return make_task(role, model="roletune_user_nets:spy", **changes)

    return make


def schedule(*phases, role="teacher"):
    return Schedule(tuple(Phase(*phase) for phase in phases), role, ImageSpec(8, 1, (64,)))


def statistics(model):
    return {name: value.clone() for name, value in model.named_buffers()}


def pixels(learner):
    """What a spy saw, as it was before it was normalized."""
    mean, std = (torch.tensor(value).view(1, -1, 1, 1) for value in (learner.data.mean, learner.data.std))
    return ((torch.cat(learner.model.seen) * std + mean) * 255).round().to(torch.uint8)


def test_a_step_is_an_epoch(make_task, role):
    task = make_task(role, recipe=Recipe(lr=0.2, batch_size=16, warmup=1))
    learner = task.learner(Genome(), seed=0)
    assert learner.epoch == 0 and learner.role == role
    for epoch in (1, 2, 3):
        metrics = learner.step()
        assert learner.epoch == learner.agent.epoch == epoch
        others = {"train_accuracy", "learning_rate", "images_per_s", "seconds/train", "seconds/augment"}
        running = {"t_stddev_ratio"} if role == "student" else set()
        assert metrics.keys() == PARTS[role] | others | running
        assert all(type(value) is float and math.isfinite(value) for value in metrics.values())
        assert 0 <= metrics["train_accuracy"] <= 1
        assert metrics["learning_rate"] == pytest.approx(task.recipe.lr_at(epoch - 0.5 / 3, 4))
        assert 0 <= metrics["seconds/augment"] <= metrics["seconds/train"]


@pytest.mark.parametrize(("train", "batches"), [(48, [16] * 3), (45, [16] * 2), (12, [12])])
def test_batches_of_an_epoch(spied, make_data, train, batches):
    learner = spied(data=make_data(train=train)).learner(Genome(), seed=0)
    learner.step()
    assert [len(images) for images in learner.model.seen] == batches


def test_each_image_once_an_epoch_in_a_new_order(spied, make_data):
    data = make_data(crop=0, flip=False)
    place = {image.numpy().tobytes(): index for index, image in enumerate(data.train.images)}
    learners = [spied(data=data).learner(Genome(), seed=seed) for seed in (0, 0, 1)]
    orders = []
    for learner in learners:
        for _ in range(2):
            learner.step()
            orders.append([place[image.numpy().tobytes()] for image in pixels(learner)])
            learner.model.seen.clear()
    assert all(sorted(order) == list(range(48)) for order in orders)
    first, second, again, after, other, _ = orders
    assert (first, second) == (again, after) and first != second and first != other


def test_metrics_are_means_over_the_epochs_images(make_task, role):
    learner = make_task(role).learner(Genome(), seed=0)
    parts, losses = [], learner.losses

    def spy(images, batch):
        parts.append(losses(images, batch))
        hits = (parts[-1]["logits"].argmax(1) == batch.labels).float().mean()
        parts[-1] |= {"train_accuracy": hits}
        return {name: value for name, value in parts[-1].items() if name != "train_accuracy"}

    learner.losses = spy
    metrics = learner.step()
    for name in PARTS[role] | {"train_accuracy"}:
        assert metrics[name] == pytest.approx(float(torch.stack([p[name] for p in parts]).detach().mean()), rel=1e-5)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("model", ["cnn", "mlp", "resnet8"])
def test_learns_what_can_be_learnt(make_task, model, optimizer):
    recipe = Recipe(optimizer=optimizer, lr=0.1 if optimizer == "sgd" else 0.01, batch_size=16)
    task = make_task(model=model, recipe=recipe, epochs=6)
    learner = task.learner(Genome(), seed=0)
    losses = [learner.step()["loss"] for _ in range(6)]
    assert losses[-1] < 0.5 * losses[0]
    score = learner.evaluate(task.data.test)
    assert score["accuracy"] > 0.9 and score["loss"] < 0.5


@pytest.mark.parametrize("channels", [1, 3])
def test_normalized_images(make_task, make_data, channels):
    mean, std = (0.1, 0.4, 0.7)[:channels], (0.2, 0.3, 0.5)[:channels]
    data = make_data(channels=channels, mean=mean, std=std)
    images = data.test.images
    expected = (images.double() / 255 - torch.tensor(mean).view(1, -1, 1, 1)) / torch.tensor(std).view(1, -1, 1, 1)
    got = make_task(data=data).learner(Genome(), seed=0).normalize(images)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, expected.float(), rtol=1e-5, atol=1e-5)


def test_fill_is_the_mean_color(make_task, make_data):
    learner = make_task(data=make_data(mean=(0.5,))).learner(Genome(), seed=0)
    assert learner.fill == (128,)
    assert make_task(data=make_data(mean=(0.5,))).image == ImageSpec(8, 1, (128,))


@pytest.mark.parametrize("model", ["cnn", "roletune_user_nets:dropping"])
def test_scores_are_taken_in_evaluation_mode(make_task, user_nets, role, model, assert_same):
    """The released code of role-wise augmentation evaluated with batch normalization in training mode."""
    task = make_task(role, model=model)
    learner = task.learner(Genome(), seed=0)
    learner.step()
    before = statistics(learner.model)
    score = learner.evaluate(task.data.test)
    by_hand = copy.deepcopy(learner.model).eval()
    with torch.no_grad():
        logits = by_hand((task.data.test.images / 255 - 0.25) / 0.2)
        in_training_mode = F.cross_entropy(
            by_hand.train()((task.data.test.images / 255 - 0.25) / 0.2), task.data.test.labels
        )
    labels = task.data.test.labels
    assert score["accuracy"] == pytest.approx(float((logits.argmax(1) == labels).float().mean()))
    assert score["loss"] == pytest.approx(float(F.cross_entropy(logits, labels)), rel=1e-4)
    assert score["loss"] != pytest.approx(float(in_training_mode), rel=1e-3)
    assert_same(statistics(learner.model), before)


def test_scores_do_not_depend_on_the_batches(make_task):
    task = make_task()
    learner = task.learner(Genome(), seed=0)
    learner.step()
    for size in (1, 7, 30):
        assert learner.evaluate(task.data.test, batch_size=size) == pytest.approx(learner.evaluate(task.data.test))


def test_modes_of_the_network(spied, role):
    task = spied(role)
    learner = task.learner(Genome(), seed=0)
    for _ in range(2):
        learner.step()
        learner.evaluate(task.data.test)
    assert learner.model.modes == 2 * [*3 * [{True}], {False}]


def test_scores_take_no_augmentation_and_no_graph(spied, rich):
    task = spied()
    learner = task.learner(rich, seed=0)
    learner.evaluate(task.data.test)
    assert torch.equal(learner.model.seen[0], learner.normalize(task.data.test.images))
    assert all(parameter.grad is None for parameter in learner.model.parameters())


@pytest.mark.parametrize("model", ["cnn", "roletune_user_nets:dropping"])
def test_the_seed_decides(make_task, user_nets, rich, role, model, assert_same):
    def weights(seed):
        learner = make_task(role, model=model).learner(rich, seed=seed)
        for _ in range(2):
            learner.step()
        return learner.model.state_dict()

    torch.default_generator.manual_seed(66)
    one = weights(3)
    torch.default_generator.manual_seed(77)
    assert_same(weights(3), one)
    other = weights(4)
    assert not [name for name in one if one[name].is_floating_point() and torch.equal(one[name], other[name])]


def test_seed_of_order_and_augmentation_alone(make_task, rich):
    """Two learners with the same initial weights part ways where only the seed of the draws differs."""
    one, other = (make_task().learner(rich, seed=seed) for seed in (0, 1))
    other.model.load_state_dict(one.model.state_dict())
    assert one.step()["loss"] != other.step()["loss"]


def test_the_global_random_state_is_left_alone(make_task, user_nets, rich, role, no_gpu_seeding):
    task = make_task(role, model="roletune_user_nets:dropping")
    before = torch.get_rng_state(), np.random.get_state(), random.getstate()
    learner = task.learner(rich, seed=0)
    learner.step()
    learner.evaluate(task.data.test)
    learner.load_state_dict(learner.state_dict())
    after = torch.get_rng_state(), np.random.get_state(), random.getstate()
    assert torch.equal(before[0], after[0]) and before[2] == after[2]
    np.testing.assert_equal(before[1], after[1])


def test_the_global_random_state_is_put_back_when_an_epoch_fails(make_task, user_nets):
    learner = make_task(model="roletune_user_nets:dropping").learner(Genome(), seed=0)
    torch.nn.init.constant_(learner.model.head.bias, math.nan)
    before = torch.get_rng_state()
    with pytest.raises(WorkError):
        learner.step()
    assert torch.equal(before, torch.get_rng_state())


def test_dropout_differs_from_epoch_to_epoch(make_task, user_nets, make_data):
    """At a rate of almost 0 epochs differ by order and dropout alone; a full batch's mean does not see the order."""
    recipe = Recipe(lr=1e-12, batch_size=48, weight_decay=0)
    data = make_data(crop=0, flip=False)
    for model, alike in (("mlp", True), ("roletune_user_nets:dropping", False)):
        learner = make_task(data=data, model=model, recipe=recipe).learner(Genome(), seed=0)
        first, second = learner.step()["loss"], learner.step()["loss"]
        assert (first == pytest.approx(second, rel=1e-5)) == alike


def test_seed_and_epoch_decide_what_is_augmented(spied, make_data):
    """Which of 48 black images are inverted, by their place in the batch."""
    data = make_data(crop=0, flip=False)
    data = replace(data, train=TensorImages(torch.zeros_like(data.train.images), data.train.labels))
    patterns = []
    for seed in (0, 0, 1):
        learner = spied(data=data, recipe=Recipe(batch_size=48)).learner(INVERT, seed=seed)
        learner.step()
        learner.step()
        patterns.append(tuple(pixels(learner)[:, 0, 0, 0].view(2, 48).tolist()))
    assert patterns[0] == patterns[1]
    drawn = [pattern for seed in patterns[1:] for pattern in seed]
    assert all(drawn[i] != drawn[j] for i in range(4) for j in range(i))


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_the_rate_moves_with_every_batch(make_task, optimizer):
    recipe = Recipe(optimizer=optimizer, lr=0.01, batch_size=16, warmup=1)
    learner = make_task(recipe=recipe).learner(Genome(), seed=0)
    rates, step = [], learner.optimizer.step

    def spy():
        rates.extend(group["lr"] for group in learner.optimizer.param_groups)
        step()

    learner.optimizer.step = spy
    for _ in range(2):
        learner.step()
    assert rates == pytest.approx([recipe.lr_at((index + 0.5) / 3, 4) for index in range(6)])


class Lending(TensorImages):
    """Images whose batches are no copies, as a user's own set may have them: what is written to a batch stays."""

    def batches(self, size, *, generator=None, drop_last=False):
        return zip(self.images.split(size), self.labels.split(size), strict=True)


@pytest.mark.parametrize("base", [{"crop": 0, "flip": False}, {"crop": 1, "flip": True}])
def test_images_are_never_modified(make_task, make_data, rich, role, base):
    data = make_data(channels=3, **base)
    data = replace(data, train=Lending(data.train.images, data.train.labels))
    before = data.train.images.clone()
    for genome in (rich, Genome()):
        learner = make_task(role, data=data, distill=Distill(teacher_view="distinct")).learner(genome, seed=0)
        learner.step()
        learner.evaluate(data.train)
    assert torch.equal(data.train.images, before)


def test_augmentation_is_what_the_network_sees(spied, make_data):
    """Without crop and flip, each image is seen as it is or, 8 times in 10, inverted."""
    data = make_data(train=480, crop=0, flip=False)
    learner = spied(data=data).learner(INVERT, seed=0)
    learner.step()
    plain, inverted = (
        {image.numpy().tobytes() for image in images} for images in (data.train.images, 255 - data.train.images)
    )
    seen = {image.numpy().tobytes() for image in pixels(learner)}
    assert seen <= plain | inverted and 0.7 < len(seen & inverted) / len(seen) < 0.9


def test_base_augmentation_comes_after_the_genome(spied, make_data):
    """What the crop uncovers on black images has the mean color, which an inversion would turn from 51 into 204."""
    data = make_data(crop=4, flip=False, mean=(0.2,))
    data = replace(data, train=TensorImages(torch.zeros_like(data.train.images), data.train.labels))
    learner = spied(data=data).learner(INVERT, seed=0)
    learner.step()
    assert set(pixels(learner).unique().tolist()) == {0, 51, 255}


def test_history_follows_obedience(make_task, rich, role):
    learner = make_task(role).learner(Genome(), seed=0)
    learner.step()
    learner.step()
    learner.set_genome(rich)
    assert learner.agent.history == (Phase(2, Genome()),)
    learner.step()
    assert learner.agent.history == (Phase(2, Genome()), Phase(1, rich))


def test_obedience_changes_the_training_from_then_on(make_task, rich):
    still, moved = (make_task().learner(Genome(), seed=0) for _ in range(2))
    assert still.step()["loss"] == moved.step()["loss"]
    moved.set_genome(rich)
    assert still.step()["loss"] != moved.step()["loss"]


def test_a_replay_obeys_no_scheduler(make_task, rich):
    learner = make_task().learner(schedule((4, rich)), seed=0)
    with pytest.raises(RequestError, match="obeys no scheduler"):
        learner.set_genome(Genome())


def test_search_and_replay_are_the_same_training(make_task, rich, role, assert_same):
    """What the scheduler commanded and the schedule that is read off it lead to the same weights, bit for bit."""
    searched = make_task(role).learner(Genome(), seed=5)
    searched.step()
    searched.set_genome(rich)
    searched.step()
    searched.step()
    searched.set_genome(INVERT)
    searched.step()
    found = Schedule(searched.agent.history, role, ImageSpec(8, 1, (64,)))
    assert found.phases == (Phase(1, Genome()), Phase(2, rich), Phase(1, INVERT))
    replayed = make_task(role).learner(found, seed=5)
    for _ in range(4):
        replayed.step()
    assert_same(replayed.state_dict(), searched.state_dict())


def test_a_schedule_that_is_too_short_is_refused(make_task, rich):
    learner = make_task().learner(schedule((1, rich)), seed=0)
    learner.step()
    with pytest.raises(RequestError, match=r"covers the epochs 0 to 0, got 1; use schedule\.stretch"):
        learner.step()


@pytest.mark.parametrize(
    ("change", "got"),
    [
        ({"role": "other"}, "role other"),
        ({"version": 2}, "version 2"),
        ({"version": None}, "version None"),
    ],
)
def test_checkpoints_of_other_kinds_are_refused(make_task, role, change, got, assert_same):
    learner, donor = (make_task(role).learner(Genome(), seed=seed) for seed in (0, 1))
    before = copy.deepcopy(learner.state_dict())
    with pytest.raises(RequestError) as caught:
        learner.load_state_dict(donor.state_dict() | change)
    assert f"the checkpoint must be of version 1 and role {role}, got " in str(caught.value)
    assert got in str(caught.value) and "\n" not in str(caught.value)
    assert_same(learner.state_dict(), before)


def test_a_teachers_checkpoint_is_no_students(make_task):
    teacher, student = (make_task(role).learner(Genome(), seed=0) for role in ROLES)
    for one, other in ((teacher, student), (student, teacher)):
        with pytest.raises(RequestError, match=f"version 1 and role {one.role}, .*role {other.role}"):
            one.load_state_dict(other.state_dict())


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_learners_that_share_a_state_train_apart(make_task, optimizer, assert_same):
    """A copy in memory, without a file between: neither learner changes the other's weights or momenta."""
    recipe = Recipe(optimizer=optimizer, lr=0.01, batch_size=16)
    donor, copier, alone = (make_task(recipe=recipe).learner(Genome(), seed=0) for _ in range(3))
    for learner in (donor, alone):
        learner.step()
    copier.load_state_dict(donor.state_dict())
    copier.step()
    for learner in (donor, alone):
        learner.step()
    assert_same(donor.state_dict(), alone.state_dict())


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite(make_task, role, value):
    learner = make_task(role).learner(Genome(), seed=0)
    learner.step()
    torch.nn.init.constant_(learner.model[-1].bias, value)
    with pytest.raises(WorkError) as caught:
        learner.step()
    message = str(caught.value)
    assert "not finite in epoch 1" in message and "\n" not in message
    assert all(f"{part} = nan" in message for part in PARTS[role])
    assert learner.epoch == 1


def test_a_rate_that_is_far_too_high_is_noticed(make_task):
    learner = make_task(model="mlp", recipe=Recipe(lr=1e38, batch_size=16)).learner(Genome(), seed=0)
    with pytest.raises(WorkError, match="try a smaller lr, or set clip"):
        for _ in range(4):
            learner.step()


def test_what_a_network_froze_itself_stays(make_task, user_nets):
    def half_frozen(classes, channels):
        model = user_nets.dropping(classes, channels)
        model.body[0].requires_grad_(False)
        return model

    user_nets.half_frozen = half_frozen
    learner = make_task(model="roletune_user_nets:half_frozen").learner(Genome(), seed=0)
    frozen, free = (weight.detach().clone() for weight in (learner.model.body[0].weight, learner.model.head.weight))
    learner.step()
    assert torch.equal(learner.model.body[0].weight, frozen) and not torch.equal(learner.model.head.weight, free)
