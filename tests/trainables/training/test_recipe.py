"""The recipe: refused values, learning rates, optimizers, and the effect of every option."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from spaces import Genome, RequestError
from trainables import Distill, Recipe
from trainables.distillation.student import Student
from trainables.training.batch import Batch, EpochMetrics
from trainables.training.learner import Learner, Teacher

NAN, INF = math.nan, math.inf
unhurried = settings(derandomize=True, deadline=None, max_examples=100)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lr": 0.0}, "lr must be > 0, got 0.0"),
        ({"lr": -0.1}, "lr must be > 0, got -0.1"),
        ({"lr": NAN}, "lr must be a finite number, got nan"),
        ({"lr": INF}, "lr must be a finite number, got inf"),
        ({"lr": "0.1"}, "lr must be a finite number, got '0.1'"),
        ({"lr": True}, "lr must be a finite number, got True"),
        ({"warmup": -1}, "warmup must be >= 0, got -1"),
        ({"warmup": INF}, "warmup must be a finite number, got inf"),
        ({"momentum": 1.0}, "momentum must be in [0, 1), got 1.0"),
        ({"momentum": -0.5}, "momentum must be in [0, 1), got -0.5"),
        ({"weight_decay": -1e-4}, "weight_decay must be >= 0, got -0.0001"),
        ({"weight_decay": NAN}, "weight_decay must be a finite number, got nan"),
        ({"batch_size": 1}, "batch_size must be an integer >= 2, which batch normalization needs, got 1"),
        ({"batch_size": 2.5}, "batch_size must be an integer >= 2, which batch normalization needs, got 2.5"),
        ({"batch_size": None}, "batch_size must be a finite number, got None"),
        ({"clip": 0}, "clip must be > 0, or null, got 0"),
        ({"clip": INF}, "clip must be a finite number, got inf"),
        ({"label_smoothing": 1.0}, "label_smoothing must be in [0, 1), got 1.0"),
        ({"label_smoothing": -0.1}, "label_smoothing must be in [0, 1), got -0.1"),
        ({"optimizer": "adamw"}, "unknown optimizer 'adamw'; did you mean 'adam'?"),
        ({"optimizer": ["sgd"]}, "unknown optimizer ['sgd']"),
        ({"lr_schedule": "step"}, "unknown lr_schedule 'step'; known: constant, cosine"),
        ({"precision": "float16"}, "unknown precision 'float16'; did you mean 'bfloat16'?"),
    ],
)
def test_bad_values(values, message):
    with pytest.raises(RequestError) as caught:
        Recipe(**values)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"temperature": 0}, "temperature must be > 0, got 0"),
        ({"temperature": 10**400}, "temperature must be a finite number"),
        ({"temperature": INF}, "temperature must be a finite number, got inf"),
        ({"alpha": 1.1}, "alpha must be in [0, 1], got 1.1"),
        ({"alpha": -0.1}, "alpha must be in [0, 1], got -0.1"),
        ({"alpha": NAN}, "alpha must be a finite number, got nan"),
        ({"loss": "kl"}, "unknown loss 'kl'"),
        ({"teacher_view": "same"}, "unknown teacher_view 'same'; did you mean 'shared'?"),
        ({"init": "teachers"}, "unknown init 'teachers'; did you mean 'teacher'?"),
    ],
)
def test_bad_distillation(values, message):
    with pytest.raises(RequestError) as caught:
        Distill(**values)
    assert message in str(caught.value)


def test_bounds_are_allowed():
    Recipe(warmup=0, momentum=0, weight_decay=0, batch_size=2, clip=1e-9, label_smoothing=0, lr=1)
    Recipe(lr=np.float32(0.1), batch_size=np.int64(8))
    for alpha in (0, 1):
        Distill(alpha=alpha, temperature=1e-3)


points = st.tuples(st.floats(0, 1), st.integers(1, 300))


@given(points, st.floats(1e-4, 10))
@unhurried
def test_cosine(point, lr):
    share, epochs = point
    recipe = Recipe(lr=lr)
    assert recipe.lr_at(share * epochs, epochs) == pytest.approx(lr * math.cos(math.pi * share / 2) ** 2, abs=1e-9 * lr)


def test_cosine_ends():
    recipe = Recipe(lr=0.3)
    assert (recipe.lr_at(0, 10), recipe.lr_at(10, 10)) == (0.3, 0)
    assert recipe.lr_at(5, 10) == pytest.approx(0.15)
    assert recipe.lr_at(12, 10) == 0  # it does not rise again


@given(points, st.floats(0, 400), st.sampled_from(["cosine", "constant"]))
@unhurried
def test_rate_stays_within_its_bounds_and_warm_up_only_lowers_it(point, warmup, kind):
    share, epochs = point
    rate = Recipe(lr=0.7, warmup=warmup, lr_schedule=kind).lr_at(share * epochs, epochs)
    cold = Recipe(lr=0.7, lr_schedule=kind).lr_at(share * epochs, epochs)
    assert 0 <= rate <= cold <= 0.7
    assert share * epochs < warmup or rate == cold


def test_warm_up_is_linear():
    recipe = Recipe(lr=0.4, warmup=4, lr_schedule="constant")
    assert [recipe.lr_at(epoch, 10) for epoch in (0, 1, 3, 4, 7, 10)] == pytest.approx([0, 0.1, 0.3, 0.4, 0.4, 0.4])
    cosine = Recipe(lr=0.4, warmup=4)
    assert cosine.lr_at(2, 10) == pytest.approx(0.5 * 0.4 * 0.5 * (1 + math.cos(math.pi * 0.2)))


def test_optimizers_are_what_they_are_called():
    model = nn.Linear(2, 2)
    sgd = Recipe(lr=0.2, momentum=0.8, weight_decay=0.1).make_optimizer(model)
    assert isinstance(sgd, torch.optim.SGD)
    expected = {"lr": 0.2, "momentum": 0.8, "weight_decay": 0.1, "nesterov": True, "dampening": 0}
    assert expected.items() <= sgd.defaults.items()
    assert not Recipe(momentum=0.0).make_optimizer(model).defaults["nesterov"]
    adam = Recipe(optimizer="adam", lr=0.2, weight_decay=0.1).make_optimizer(model)
    assert isinstance(adam, torch.optim.AdamW) and (adam.defaults["lr"], adam.defaults["weight_decay"]) == (0.2, 0.1)


def test_nesterov_by_hand():
    """buffer ← μ · buffer + g; the step is lr · (g + μ · buffer), here with g = 1 throughout."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    optimizer = Recipe(lr=0.1, momentum=0.5, weight_decay=0.0).make_optimizer(model)
    for expected in (-0.1 * 1.5, -0.1 * (1.5 + 1.75)):
        model.weight.grad = torch.ones(1, 1)
        optimizer.step()
        assert float(model.weight.detach()) == pytest.approx(expected)


def test_adams_weight_decay_is_decoupled():
    model = nn.Linear(1, 1, bias=False)
    nn.init.ones_(model.weight)
    optimizer = Recipe(optimizer="adam", lr=0.1, weight_decay=0.5).make_optimizer(model)
    model.weight.grad = torch.zeros(1, 1)
    optimizer.step()
    assert float(model.weight.detach()) == pytest.approx(1 - 0.1 * 0.5)  # as a part of the gradient it would be 1 − 0.1


def test_frozen_parameters_are_left_out():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[0].requires_grad_(False)
    (group,) = Recipe().make_optimizer(model).param_groups
    assert {id(p) for p in group["params"]} == {id(p) for p in model[1].parameters()}


def gradient_norms(learner):
    """The norm of the gradient at each step of one epoch, as the optimizer gets it."""
    norms, step = [], learner.optimizer.step

    def spy():
        gradients = [p.grad.flatten() for p in learner.model.parameters()]
        norms.append(float(torch.cat(gradients).norm()))
        step()

    learner.optimizer.step = spy
    learner.step()
    return norms


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_clip_bounds_the_gradient(make_task, role):
    free = gradient_norms(make_task(role).learner(Genome(), seed=0))
    assert len(free) == 3 and max(free) > 0.5
    clipped = gradient_norms(make_task(role, recipe=Recipe(batch_size=16, clip=0.05)).learner(Genome(), seed=0))
    assert clipped == pytest.approx([0.05] * 3, rel=1e-3)


def test_label_smoothing_by_hand(make_task):
    """(1 − ε) · CE + ε · the mean over the classes of −log p."""
    images, labels = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 3
    learner = make_task(recipe=Recipe(label_smoothing=0.3)).learner(Genome(), seed=0)
    learner.model.eval()
    parts = learner.losses(images, Batch(images, labels, torch.arange(6)))
    log_p = F.log_softmax(parts["logits"], dim=1)
    expected = 0.7 * -log_p[torch.arange(6), labels].mean() + 0.3 * -log_p.mean()
    torch.testing.assert_close(parts["loss"], expected)


def test_scores_are_not_smoothed(make_task, make_data):
    plain, smooth = (make_task(recipe=Recipe(label_smoothing=e)).learner(Genome(), seed=0) for e in (0.0, 0.5))
    assert plain.evaluate(make_data().test) == smooth.evaluate(make_data().test)


@pytest.mark.parametrize("role", ["teacher", "student"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_bfloat16_trains_close_to_float32(make_task, make_data, role, optimizer):
    learners, dtypes = [], set()
    for precision in ("float32", "bfloat16"):
        recipe = Recipe(optimizer=optimizer, lr=0.01, batch_size=16, precision=precision)
        learners.append(make_task(role, recipe=recipe).learner(Genome(), seed=0))
    hook = learners[1].model[0].register_forward_hook(lambda module, given, output: dtypes.add(output.dtype))
    for _ in range(2):
        exact, rounded = (learner.step() for learner in learners)
        assert rounded["loss"] == pytest.approx(exact["loss"], rel=0.05) and math.isfinite(rounded["loss"])
    exact, rounded = (learner.evaluate(make_data().test) for learner in learners)
    assert rounded["loss"] == pytest.approx(exact["loss"], rel=0.05)
    hook.remove()
    assert dtypes == {torch.bfloat16}
    assert all(value.dtype == torch.float32 for value in learners[1].model.parameters())


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_channels_last_is_the_same_training_in_another_layout(make_task, make_data, role):
    data, losses, strides = make_data(channels=3), [], set()
    for channels_last in (False, True):
        recipe = Recipe(lr=0.01, batch_size=16, channels_last=channels_last)
        learner = make_task(role, data=data, recipe=recipe).learner(Genome(), seed=0)
        learner.model[0].register_forward_hook(lambda module, given, output: strides.add(given[0].stride()))
        losses.append([learner.step()["loss"] for _ in range(2)])
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    assert strides == {(3 * 64, 64, 8, 1), (3 * 64, 1, 3 * 8, 3)}
    assert learner.model[3].weight.is_contiguous(memory_format=torch.channels_last)


class Viewing(nn.Module):
    """A user's network that takes for granted how its maps lie in memory."""

    def __init__(self, classes, channels):
        super().__init__()
        self.body, self.head = nn.Conv2d(channels, 6, 3, padding=1), nn.Linear(6 * 64, classes)

    def forward(self, x):
        maps = self.body(x)
        return self.head(maps.view(len(maps), -1))


@pytest.mark.parametrize(("model", "expected"), [("cnn", True), ("mlp", False), ("roletune_user_nets.viewing", False)])
def test_channels_last_is_chosen_where_a_network_has_convolutions_and_takes_it(
    make_task, make_data, user_nets, monkeypatch, model, expected
):
    monkeypatch.setattr(user_nets, "viewing", Viewing, raising=False)
    task = make_task(model=model, data=make_data(channels=3), recipe=Recipe(lr=0.01, batch_size=16))
    learner = task.learner(Genome(), seed=0)
    weights = [p for p in learner.model.parameters() if p.dim() == 4]
    assert all(p.is_contiguous(memory_format=torch.channels_last) == expected for p in weights)
    seen = learner.normalize(task.data.train.images[:2])
    assert seen.is_contiguous(memory_format=torch.channels_last) == expected
    assert math.isfinite(learner.step()["loss"])


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("role", ["teacher", "student"])
def test_a_state_goes_on_in_another_layout(make_task, make_data, through_file, role, optimizer):
    """A fused optimizer would go through a momentum of another layout in the wrong order."""
    data, losses = make_data(channels=3), []
    for first, second in ((False, False), (False, True), (True, False)):
        recipes = [Recipe(optimizer, lr=0.01, batch_size=16, channels_last=layout) for layout in (first, second)]
        begun, resumed = (make_task(role, data=data, recipe=recipe).learner(Genome(), seed=0) for recipe in recipes)
        begun.step()
        resumed.load_state_dict(through_file(begun.state_dict()))
        losses.append([resumed.step()["loss"] for _ in range(3)])
    assert losses[1] == pytest.approx(losses[0], rel=1e-3) and losses[2] == pytest.approx(losses[0], rel=1e-3)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_the_optimizer_is_fused_where_it_can_be(optimizer):
    model = nn.Linear(2, 2)
    assert Recipe(optimizer).make_optimizer(model).defaults["fused"]
    model.extra = nn.Parameter(torch.zeros(2, dtype=torch.complex64))
    assert not Recipe(optimizer).make_optimizer(model).defaults["fused"]


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_fused_optimizer_moves_as_the_plain_one(optimizer):
    weights = []
    for fused in (True, False):
        model = nn.Linear(3, 2)
        nn.init.ones_(model.weight)
        found = Recipe(optimizer, lr=0.1).make_optimizer(model)
        for group in found.param_groups:
            group["fused"] = fused
        for step in range(4):
            model.weight.grad = torch.tensor([[1.0, -2, 0.5], [3, 0, step]])
            found.step()
        weights.append(model.weight.detach())
    torch.testing.assert_close(*weights)


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_a_step_waits_for_the_device_at_the_end_of_an_epoch_alone(make_task, monkeypatch, role):
    """What fetches a number waits for all that was queued; so none is fetched between two batches."""
    fetched, called = [], []

    def spied(name, call):
        def fetch(tensor, *given):
            fetched.append(name)
            return call(tensor, *given)

        return fetch

    def watched(owner, method):
        whole = getattr(owner, method)

        def only_here(self, *given):
            called.append(method)
            with monkeypatch.context() as patch:
                for name in ("item", "tolist", "__float__", "__int__", "__bool__", "numpy"):
                    patch.setattr(torch.Tensor, name, spied(name, getattr(torch.Tensor, name)))
                return whole(self, *given)

        monkeypatch.setattr(owner, method, only_here)

    watched({"teacher": Teacher, "student": Student}[role], "losses")
    watched(Learner, "_update")
    watched(EpochMetrics, "add")
    learner = make_task(role).learner(Genome(), seed=0)
    learner.step()
    learner.step()
    assert {*called} == {"losses", "_update", "add"} and fetched == []
