"""Every built-in model against one contract, and factories of a user's own."""

import copy
import math
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from spaces.errors import RequestError
from trainables.models import MODELS, build_model, check_model
from trainables.models.resnet import Block

SHAPE = {"classes": 5, "channels": 3, "size": 8}
MILLIONS = {
    "resnet8": 0.08,
    "resnet20": 0.28,
    "resnet32": 0.47,
    "resnet56": 0.86,
    "resnet8x4": 1.23,
    "resnet32x4": 7.43,
}
"""Parameters for CIFAR-100, as CRD (https://arxiv.org/abs/1910.10699) and its code have them."""


@pytest.fixture(params=sorted(MODELS))
def name(request):
    return request.param


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("size", [4, 8, 28, 32])
@pytest.mark.parametrize("channels", [1, 3])
def test_logits(name, channels, size):
    shape = {"classes": 5, "channels": channels, "size": size}
    check_model(name, **shape)
    with torch.no_grad():
        logits = build_model(name, seed=0, **shape).eval()(torch.rand(3, channels, size, size))
    assert logits.shape == (3, 5) and logits.dtype == torch.float32 and logits.isfinite().all()


def test_one_step_moves_every_parameter_and_lowers_the_loss(name):
    model = build_model(name, seed=0, **SHAPE)
    images, labels = torch.randn(10, 3, 8, 8, generator=torch.Generator().manual_seed(1)), torch.arange(10) % 5
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    before = copy.deepcopy(model.state_dict())
    loss = F.cross_entropy(model(images), labels)
    loss.backward()
    optimizer.step()
    assert F.cross_entropy(model(images), labels) < loss
    assert not [key for key, _ in model.named_parameters() if torch.equal(before[key], model.state_dict()[key])]


def test_each_image_is_answered_alone_in_evaluation_mode(name):
    model = build_model(name, seed=0, **SHAPE).eval()
    images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        alone = torch.cat([model(image[None]) for image in images])
        torch.testing.assert_close(model(images), alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_answer_alike_and_are_apart(name, copied):
    model = build_model(name, seed=0, **SHAPE).eval()
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        before = model(images)
        again = copied(model)
        assert torch.equal(again(images), before)
        for parameter in again.parameters():
            parameter.zero_()
        assert torch.equal(model(images), before)


def test_initial_weights_follow_from_the_seed_alone(name, assert_same, no_gpu_seeding):
    torch.default_generator.manual_seed(123)
    one = build_model(name, seed=4, **SHAPE).state_dict()
    torch.default_generator.manual_seed(321)
    state = torch.get_rng_state()
    assert_same(build_model(name, seed=4, **SHAPE).state_dict(), one)
    other = build_model(name, seed=5, **SHAPE).state_dict()
    check_model(name, **SHAPE)
    assert torch.equal(torch.get_rng_state(), state)
    drawn = [key for key, value in one.items() if value.is_floating_point() and value.std() > 0]
    assert drawn and not [key for key in drawn if torch.equal(one[key], other[key])]


@pytest.mark.parametrize("name", MILLIONS)
def test_published_parameter_counts(name):
    model = build_model(name, classes=100, channels=3, size=32, seed=0)
    assert round(count(model) / 1e6, 2) == MILLIONS[name]
    assert count(build_model(name, classes=100, channels=3, size=8, seed=0)) == count(model)


def test_every_resnet_is_counted():
    assert set(MILLIONS) == {name for name in MODELS if name.startswith("resnet")}


@pytest.mark.parametrize(("name", "layers"), [("resnet8", 7), ("resnet20", 19), ("resnet32x4", 31)])
def test_depth_counts_the_3x3_convolutions_and_the_linear_layer(name, layers):
    model = build_model(name, seed=0, **SHAPE)
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    assert len(convolutions) == layers


def test_residual_convolutions_start_as_he_et_al():
    model = build_model("resnet32x4", seed=0, **SHAPE)
    weight = model.layer3[0].conv1.weight  # 256 × 128 × 3 × 3 draws; the outputs count
    assert float(weight.detach().std()) == pytest.approx(math.sqrt(2 / (256 * 9)), rel=0.01)


def test_a_block_without_residue_is_its_shortcut():
    block = Block(4, 4, stride=1).eval()
    nn.init.zeros_(block.conv2.weight)
    images = torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(0))
    assert torch.equal(block(images), images.relu())
    assert Block(4, 8, stride=2)(images).shape == (2, 8, 3, 3)


@pytest.fixture
def factories(user_nets):
    """A user's factories; `seen` is what they were called with."""
    nets, seen = user_nets, {}
    nets.seen = seen

    def linear(classes, channels, size):
        return nn.Sequential(nn.Flatten(), nn.Linear(channels * size * size, classes))

    def few(classes):
        seen.update(classes=classes)
        return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LazyLinear(classes))

    def every(**shape):
        seen.update(shape)
        return linear(**shape)

    def optional(*, size, classes=7, width=3):
        seen.update(size=size, classes=classes, width=width)
        return linear(classes, 3, size)

    def failing(classes):
        raise KeyError("no\nweights")

    def choosy(classes):
        raise RequestError("this network has 10 classes", got=classes)

    nets.linear, nets.few, nets.every, nets.optional = linear, few, every, optional
    nets.failing, nets.choosy = failing, choosy
    nets.needy = lambda path: nn.Identity()
    nets.wrong = lambda: "resnet8"
    nets.more = lambda size: nn.Sequential(nn.Flatten(), nn.Linear(3 * size * size, 7))
    nets.maps = lambda classes: nn.Conv2d(3, classes, 1)
    nets.pair = lambda: Pair()
    nets.narrow = lambda classes: nn.Sequential(nn.Conv2d(3, 4, 9), nn.Flatten(), nn.LazyLinear(classes))
    return nets


class Pair(nn.Module):
    def forward(self, x):
        return x, x


@pytest.mark.parametrize("form", ["roletune_user_nets:linear", "roletune_user_nets.linear"])
def test_both_forms_of_a_factory(factories, form, assert_same):
    torch.default_generator.manual_seed(9)
    one = build_model(form, seed=1, **SHAPE)
    assert one[1].weight.shape == (5, 192)
    assert_same(build_model(form, seed=1, **SHAPE).state_dict(), one.state_dict())
    check_model(form, **SHAPE)


@pytest.mark.parametrize(
    ("factory", "taken"),
    [
        ("few", {"classes": 5}),
        ("every", SHAPE),
        ("optional", {"size": 8, "classes": 5, "width": 3}),
    ],
)
def test_a_factory_is_called_with_what_it_takes(factories, factory, taken):
    assert isinstance(build_model(f"roletune_user_nets:{factory}", seed=0, **SHAPE), nn.Module)
    assert factories.seen == taken


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnt20", "unknown model 'resnt20'; did you mean 'resnet20'?"),
        ("RESNET8x4", "unknown model 'RESNET8x4'; did you mean 'resnet8x4'?"),
        ("transformer", "unknown model 'transformer'; known: cnn, mlp, resnet20, "),
        ("roletune_user_nets:linea", "did you mean 'linear'?"),
        ("roletune_user_net:linear", "there is no module 'roletune_user_net'"),
        ("roletune_user_nets:failing", "the model factory roletune_user_nets:failing raised KeyError: 'no"),
        ("roletune_user_nets:needy", "raised TypeError: "),
        ("roletune_user_nets:choosy", "this network has 10 classes, but got 5"),
        ("roletune_user_nets:seen", "a factory says which arguments it takes, but got {}; name a function or a class"),
        ("roletune_user_nets:wrong", "the factory roletune_user_nets:wrong gives a torch.nn.Module, but got 'str'"),
    ],
)
@pytest.mark.parametrize("build", [lambda name: build_model(name, seed=0, **SHAPE), lambda n: check_model(n, **SHAPE)])
def test_names_and_factories_at_fault(factories, name, message, build):
    with pytest.raises(RequestError) as caught:
        build(name)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_request_refused_by_a_factory_is_passed_on_as_it_is(factories):
    with pytest.raises(RequestError) as caught:
        build_model("roletune_user_nets:choosy", seed=0, **SHAPE)
    assert str(caught.value).startswith("this network")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("more", "roletune_user_nets:more gives logits of shape (2, 5), but got (2, 7)"),
        ("maps", "gives logits of shape (2, 5), but got (2, 5, 8, 8)"),
        ("pair", "gives logits of shape (2, 5), but got 'tuple'"),
        ("narrow", "takes images (2, 3, 8, 8); it raised RuntimeError: "),
    ],
)
def test_models_that_do_not_fit_the_data(factories, name, message):
    with pytest.raises(RequestError) as caught:
        check_model(f"roletune_user_nets:{name}", **SHAPE)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_images_too_small_for_a_model_are_refused_and_larger_ones_are_not(factories):
    with pytest.raises(RequestError, match=r"choose a model that fits the data, or set data\.size$"):
        check_model("roletune_user_nets:narrow", classes=5, channels=3, size=8)
    check_model("roletune_user_nets:narrow", classes=5, channels=3, size=9)
