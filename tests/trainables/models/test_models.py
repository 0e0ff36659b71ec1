"""One contract for every built-in model, and custom factories."""

import copy
import math
import pickle
import runpy
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from spaces.core.errors import RequestError
from trainables.models import MODELS, build_model, check_model, torchvision_models
from trainables.models.mobilenetv2 import InvertedResidual
from trainables.models.resnet import NARROW, WIDE, Block
from trainables.models.resnet50 import Bottleneck
from trainables.models.shufflenetv2 import Unit
from trainables.models.vit import Block as AttentionBlock
from trainables.models.wrn import PreactBlock

SHAPE = {"classes": 5, "channels": 3, "size": 8}
MILLIONS = {
    "resnet8": 0.08,
    "resnet20": 0.28,
    "resnet32": 0.47,
    "resnet56": 0.86,
    "resnet110": 1.74,
    "resnet8x4": 1.23,
    "resnet32x4": 7.43,
    "resnet50": 23.71,
    "wrn_16_1": 0.18,
    "wrn_16_2": 0.70,
    "wrn_40_1": 0.57,
    "wrn_40_2": 2.26,
    "vgg8": 3.97,
    "vgg13": 9.46,
    "mobilenetv2": 0.81,
    "shufflenetv2": 1.36,
}
"""Parameters for CIFAR-100, as CRD (https://arxiv.org/abs/1910.10699) and its code have them."""

RESNETS = {
    **{f"resnet{depth}": (depth, NARROW) for depth in (8, 14, 20, 32, 44, 56, 110)},
    **{f"resnet{depth}x4": (depth, WIDE) for depth in (8, 14, 20, 32)},
}
LARGE = {"resnet110", "resnet14x4", "resnet20x4", "resnet32x4", "resnet50", "wrn_40_2", "vgg8", "vgg13", "vit"}
STEEP = {"resnet50", "mobilenetv2"}
"""A few images of 8 px are maps of 1 px in their last stages, and normalized over nothing but the batch."""

SIZES = [
    (name, channels, size)
    for name in sorted(MODELS)
    for channels, size in ([(1, 4), (3, 28)] if name in LARGE else [(c, s) for c in (1, 3) for s in (4, 8, 28, 32)])
] + [(name, 3, size) for name in ("vgg8", "vit", "mobilenetv2") for size in (16, 64)]


@pytest.fixture(params=sorted(MODELS))
def name(request):
    return request.param


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(("name", "channels", "size"), SIZES)
def test_logits(name, channels, size):
    shape = {"classes": 5, "channels": channels, "size": size}
    check_model(name, **shape)
    with torch.no_grad():
        logits = build_model(name, seed=0, **shape).eval()(torch.rand(3, channels, size, size))
    assert logits.shape == (3, 5) and logits.dtype == torch.float32 and logits.isfinite().all()


def test_one_step_moves_every_parameter_and_lowers_the_loss(name):
    model = build_model(name, seed=0, **SHAPE)
    images, labels = torch.randn(10, 3, 8, 8, generator=torch.Generator().manual_seed(1)), torch.arange(10) % 5
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001 if name in STEEP else 0.01)
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


@pytest.mark.parametrize("name", RESNETS)
def test_residual_networks_have_the_parameters_of_their_form(name):
    depth, (stem, *widths) = RESNETS[name]
    per_stage, expected = (depth - 2) // 3, 27 * stem + 2 * stem + 101 * widths[-1] - widths[-1] + 100
    for inputs, outputs in zip((stem, *widths), widths, strict=False):
        expected += 9 * inputs * outputs + (per_stage - 1) * 9 * outputs**2 + per_stage * 2 * outputs
        expected += 0 if inputs == outputs else inputs * outputs + 2 * outputs  # the shortcut
    assert count(build_model(name, classes=100, channels=3, size=32, seed=0)) == expected


@pytest.mark.parametrize(("name", "millions"), [("resnet20", 0.27), ("resnet110", 1.73)])
def test_parameters_for_ten_classes_are_those_of_he_et_al(name, millions):
    assert round(count(build_model(name, classes=10, channels=3, size=32, seed=0)) / 1e6, 2) == millions


def test_every_model_is_counted():
    assert set(MODELS) == {*MILLIONS, *RESNETS, "mlp", "cnn", "vit"}
    assert count(build_model("vit", classes=100, channels=3, size=32, seed=0)) < 3e6


@pytest.mark.parametrize(
    ("name", "layers"),
    [("resnet8", 7), ("resnet20", 19), ("resnet32x4", 31), ("resnet110", 109), ("resnet50", 17), ("vgg8", 5)],
)
def test_depth_counts_the_3x3_convolutions_and_the_linear_layer(name, layers):
    model = build_model(name, seed=0, **SHAPE)
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    assert len(convolutions) == layers


@pytest.mark.parametrize(("name", "layers"), [("wrn_16_2", 16), ("wrn_40_2", 40), ("resnet50", 49 + 4)])
def test_depth_counts_every_convolution(name, layers):
    model = build_model(name, seed=0, **SHAPE)
    assert len([m for m in model.modules() if isinstance(m, nn.Conv2d)]) == layers


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


def test_a_pre_activated_block_without_residue_hands_on_what_it_got():
    block = PreactBlock(4, 4, stride=1).eval()
    nn.init.zeros_(block.conv2.weight)
    images = torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(0))
    before = images.clone()
    assert torch.equal(block(images), before) and torch.equal(images, before)
    assert PreactBlock(4, 8, stride=2)(images).shape == (2, 8, 3, 3)


def test_a_pre_activated_block_takes_its_shortcut_from_the_activation():
    block = PreactBlock(4, 8, stride=2).eval()
    nn.init.zeros_(block.conv2.weight)
    images = torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(0))
    assert torch.equal(block(images), block.shortcut(block.bn1(images).relu()))


@pytest.mark.parametrize(
    ("block", "narrower", "after"),
    [
        (Bottleneck(8, 2, stride=1), Bottleneck(8, 4, stride=2), torch.relu),
        (InvertedResidual(8, 8, expansion=6, stride=1), InvertedResidual(8, 16, expansion=6, stride=2), torch.clone),
    ],
)
def test_residual_blocks_without_residue(block, narrower, after):
    nn.init.zeros_(block.body[-1].weight)
    images = torch.randn(2, 8, 6, 6, generator=torch.Generator().manual_seed(0))
    assert torch.equal(block(images), after(images))
    assert narrower(images).shape == (2, 16, 3, 3)


def test_a_shuffling_unit_keeps_half_of_its_channels_and_interleaves_them():
    unit = Unit(8).eval()
    images = torch.randn(2, 8, 6, 6, generator=torch.Generator().manual_seed(0))
    out = unit(images)
    assert torch.equal(out[:, 0::2], images[:, :4]) and torch.equal(out[:, 1::2], unit.body(images[:, 4:]))


def test_attention_is_that_of_torch():
    block, reference = AttentionBlock(24, 3), nn.MultiheadAttention(24, 3, batch_first=True)
    weights = {"in_proj_weight": block.qkv.weight, "in_proj_bias": block.qkv.bias}
    weights |= {f"out_proj.{key}": value for key, value in block.proj.named_parameters()}
    reference.load_state_dict(weights)
    tokens = torch.randn(2, 5, 24, generator=torch.Generator().manual_seed(0))
    normed = block.norm1(tokens)
    middle = tokens + reference(normed, normed, normed)[0]
    torch.testing.assert_close(block(tokens), middle + block.mlp(block.norm2(middle)))


def test_a_transformer_knows_where_its_patches_are():
    model = build_model("vit", seed=0, **SHAPE).eval()
    images = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        shifted = model(images.roll(2, dims=3))
        assert not torch.allclose(shifted, model(images), atol=1e-5)
        model.positions.zero_()
        torch.testing.assert_close(model(images.roll(2, dims=3)), model(images))


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (9, "the size of images for vit must be a multiple of its patch, 2 px, got 9; set data.size: 8, or choose"),
        (30, "its patch, 4 px, got 30; set data.size: 32, or choose another model"),
    ],
)
def test_images_that_a_transformer_cannot_cut_are_refused(size, message):
    with pytest.raises(RequestError) as caught:
        check_model("vit", classes=5, channels=3, size=size)
    assert message in str(caught.value)


@pytest.mark.parametrize(("name", "size"), [("mobilenet_v3_small", 32), ("resnet18", 32), ("googlenet", 32)])
def test_networks_of_torchvision(name, size, assert_same):
    shape = {"classes": 5, "channels": 3, "size": size}
    state = torch.get_rng_state()
    check_model(f"torchvision:{name}", **shape)
    model = build_model(f"torchvision:{name}", seed=3, **shape)
    assert torch.equal(torch.get_rng_state(), state)
    assert_same(build_model(f"torchvision:{name}", seed=3, **shape).state_dict(), model.state_dict())
    logits = model.train()(torch.rand(4, 3, size, size))
    assert isinstance(logits, torch.Tensor) and logits.shape == (4, 5)


@pytest.mark.parametrize(
    ("name", "channels", "message"),
    [
        ("resnt18", 3, "unknown torchvision model 'resnt18'; did you mean 'resnet18'?"),
        ("fcn_resnet50", 3, "unknown torchvision model 'fcn_resnet50'; did you mean "),  # it segments
        (
            "resnet18",
            1,
            "images for torchvision:resnet18 must have 3 channels, got 1; choose a model without the prefix",
        ),
        ("vit_b_16", 3, "images for torchvision:vit_b_16 must have 224 px, got 32; set data.size: 224, or choose"),
        (
            "alexnet",
            3,
            "the model torchvision:alexnet must accept images of shape (2, 3, 32, 32); it raised RuntimeError: ",
        ),
    ],
)
def test_networks_of_torchvision_that_do_not_fit(name, channels, message):
    with pytest.raises(RequestError) as caught:
        check_model(f"torchvision:{name}", classes=5, channels=channels, size=32)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_torchvision_is_imported_only_where_it_is_asked_for(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)  # importing it fails from now on
    runpy.run_path(torchvision_models.__file__)
    with pytest.raises(ImportError):
        build_model("torchvision:resnet18", seed=0, **SHAPE)


def test_convolutions_of_groups_start_as_he_et_al_too():
    stage = build_model("shufflenetv2", seed=0, **SHAPE).layer3
    weights = torch.cat([m.weight.detach() for m in stage.modules() if isinstance(m, nn.Conv2d) and m.groups > 1])
    assert float(weights.std()) == pytest.approx(math.sqrt(2 / 9), rel=0.03)


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
        raise RequestError("this network has 10 classes", value=classes)

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
        ("transformer", "unknown model 'transformer'; known: cnn, mlp, mobilenetv2, resnet110, "),
        ("roletune_user_nets:linea", "did you mean 'linear'?"),
        ("roletune_user_net:linear", "there is no module 'roletune_user_net'"),
        ("roletune_user_nets:failing", "the model factory roletune_user_nets:failing raised KeyError: 'no"),
        ("roletune_user_nets:needy", "raised TypeError: "),
        ("roletune_user_nets:choosy", "this network has 10 classes, got 5"),
        ("roletune_user_nets:seen", "a factory must have a signature, got {}; name a function or a class"),
        ("roletune_user_nets:wrong", "the factory roletune_user_nets:wrong must return a torch.nn.Module, got 'str'"),
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
        ("more", "roletune_user_nets:more must return logits of shape (2, 5), got (2, 7)"),
        ("maps", "must return logits of shape (2, 5), got (2, 5, 8, 8)"),
        ("pair", "must return logits of shape (2, 5), got 'tuple'"),
        ("narrow", "must accept images of shape (2, 3, 8, 8); it raised RuntimeError: "),
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
