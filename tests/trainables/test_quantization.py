"""Quantized networks: levels and gradients by hand, full-precision layers, export, and size."""

import copy
import math
import pickle

import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call

from spaces import RequestError
from trainables.models import build_model
from trainables.quantization import CHOICES, Bits, exported_state, quantize, size_in_bits

SHAPE = {"classes": 4, "channels": 3, "size": 8}
FEW = CHOICES[:-1]
NAMES = ("mlp", "cnn", "resnet8")
FULL = {"mlp": ("1", "7"), "cnn": ("0", "11"), "resnet8": ("conv1", "fc")}


def built(name, bits=None, seed=0):
    model = build_model(name, seed=seed, **SHAPE)
    return model if bits is None else quantize(model, bits)


def chain(*layers):
    return nn.Sequential(nn.Linear(3, 3), *layers, nn.Linear(3, 3))


def quantized_weight(values, bits):
    """`values` as a quantized layer's weight, and the layer's parameter."""
    values = torch.as_tensor(values, dtype=torch.float32)
    layer = nn.Linear(values.numel(), 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(values[None])
    quantize(chain(layer), Bits(weights=bits))
    return layer.weight[0], layer.parametrizations.weight.original


def quantized_input(values, bits):
    """What a quantized layer is given in place of `values`."""
    layer = nn.Linear(len(values), len(values), bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.eye(len(values)))
    quantize(chain(layer), Bits(activations=bits))
    return layer(values)


def inner(model):
    """The quantized layers by their names."""
    return {name: module for name, module in model.named_modules() if hasattr(module, "parametrizations")}


def train(model, steps=20):
    """The losses of a few steps on one batch."""
    draw = torch.Generator().manual_seed(1)
    images = torch.randn(32, SHAPE["channels"], SHAPE["size"], SHAPE["size"], generator=draw)
    labels = torch.arange(32) % SHAPE["classes"]
    images += labels[:, None, None, None] * 0.5
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    losses = []
    for _ in range(steps):
        loss = F.cross_entropy(model.train()(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


# ---- bits ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["weights", "activations"])
@pytest.mark.parametrize("value", [0, 3, 16, 33, -1, True, 2.0, "2", None, [2]])
def test_other_bits(name, value):
    with pytest.raises(RequestError) as error:
        Bits(**{name: value})
    assert str(error.value) == f"bits.{name} must be one of 1, 2, 4, 8, 32, got {value!r}"


def test_a_genome_chooses_bits_and_nothing_else():
    assert Bits(2, 2).override({}) == Bits(2, 2)
    assert Bits(2, 2).override({"activations": 8}) == Bits(2, 8)
    assert Bits().override({"weights": 1, "activations": 4}) == Bits(1, 4)
    with pytest.raises(RequestError, match=r"unknown setting of bits that a genome chooses 'weight'.*'weights'\?"):
        Bits().override({"weight": 2})
    with pytest.raises(RequestError, match=r"bits.weights must be one of 1, 2, 4, 8, 32, got 3"):
        Bits().override({"weights": 3})


def test_full_bits_change_nothing():
    assert Bits().is_full and Bits(32, 32).is_full
    assert not Bits(8).is_full and not Bits(activations=8).is_full
    model = built("cnn")
    before = copy.deepcopy(model.state_dict())
    assert quantize(model, Bits()) is model
    assert list(before) == list(model.state_dict()) and not inner(model)
    quantize(nn.Linear(2, 2), Bits())


# ---- levels ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bits", "values", "levels"),
    [
        (1, [3.0, -1.0, 0.0, -2.0], [1.5, -1.5, 1.5, -1.5]),
        (1, [0.0, 0.0], [0.0, 0.0]),
        # tanh over its maximum: 1, ½, 0.1, -0.1, -½, -1
        (2, [0.8, 0.4, 0.08, -0.08, -0.4, -0.8], [1, 1 / 3, 1 / 3, -1 / 3, -1 / 3, -1]),
        (4, [0.8, 0.4, 0.08, -0.08, -0.4, -0.8], [1, 7 / 15, 1 / 15, -1 / 15, -7 / 15, -1]),
        (8, [0.8, 0.4, 0.08, -0.08, -0.4, -0.8], [1, 127 / 255, 25 / 255, -25 / 255, -127 / 255, -1]),
        (2, [0.2, 0.0], [1, 1 / 3]),  # ½ · 3 is as near to 1 as to 2, and rounds to the even one
    ],
)
def test_levels_of_weights_by_hand(bits, values, levels):
    values = torch.tensor(values)
    weight, _ = quantized_weight(values if bits == 1 else torch.atanh(values), bits)
    torch.testing.assert_close(weight, torch.tensor(levels, dtype=torch.float32), atol=1e-6, rtol=0)


@pytest.mark.parametrize("scale", [0.01, 1.0, 3.0])
def test_weights_are_bent_by_tanh_before_they_are_leveled(scale):
    weight, _ = quantized_weight([scale, 0.5 * scale], 8)
    share = math.tanh(0.5 * scale) / math.tanh(scale)
    assert weight.tolist() == pytest.approx([1, 2 * round((share / 2 + 0.5) * 255) / 255 - 1], abs=1e-6)


@pytest.mark.parametrize(
    ("bits", "levels"),
    [
        (1, [0, 0, 0, 0, 1, 1, 1]),
        (2, [0, 0, 0, 1 / 3, 2 / 3, 1, 1]),
        (4, [0, 0, 2 / 15, 5 / 15, 9 / 15, 1, 1]),
        (8, [0, 0, 33 / 255, 84 / 255, 153 / 255, 1, 1]),
    ],
)
def test_levels_of_activations_by_hand(bits, levels):
    values = torch.tensor([-2.0, 0.0, 0.13, 0.33, 0.6, 1.0, 7.0])
    assert quantized_input(values, bits).tolist() == pytest.approx(levels, abs=1e-6)


floats = st.floats(-1e3, 1e3, width=32)


@given(st.lists(floats, min_size=1, max_size=600), st.sampled_from(FEW))
@example([1.401298464324817e-45], 2)  # a denormal, whose reciprocal is infinite
@example([1.401298464324817e-45] * 600, 8)
@example([1e-29] * 600, 8)
@example([1.401298464324817e-45], 1)
@settings(deadline=None, max_examples=150)
def test_weights_have_no_more_levels_than_their_bits_allow(values, bits):
    weight, original = quantized_weight(values, bits)
    weight.sum().backward()
    assert weight.isfinite().all() and original.grad.isfinite().all()
    assert len(weight.unique()) <= 2**bits
    assert weight.abs().max() <= max(1.0, original.abs().max() * 1.001)


@given(st.lists(floats, min_size=1, max_size=600), st.sampled_from(FEW))
@settings(deadline=None, max_examples=60)
def test_activations_have_no_more_levels_than_their_bits_allow(values, bits):
    levels = quantized_input(torch.tensor(values), bits)
    assert len(levels.unique()) <= 2**bits
    assert levels.min() >= 0 and levels.max() <= 1
    assert (levels - torch.tensor(values).clamp(0, 1)).abs().max() <= 0.5 / (2**bits - 1) + 1e-6


@pytest.mark.parametrize("bits", FEW)
def test_a_layer_of_zeros_is_finite(bits):
    weight, original = quantized_weight([0.0, 0.0, 0.0], bits)
    (weight * torch.tensor([1.0, -2.0, 3.0])).sum().backward()
    assert weight.isfinite().all() and len(weight.unique()) == 1
    assert original.grad.tolist() == [[1, -2, 3]]


def test_not_a_number_stays_one():
    """What diverges is seen: the clip does not hide it."""
    assert quantized_input(torch.tensor([math.nan, 0.5]), 2)[0].isnan()
    for bits in FEW:
        assert quantized_weight([math.nan, 0.5], bits)[0].isnan().all()


# ---- gradients -------------------------------------------------------------------------------------


def test_the_gradient_passes_a_sign_as_it_is():
    weight, original = quantized_weight([3.0, -1.0, 0.0, -2.0], 1)
    weight.backward(torch.tensor([1.0, 2.0, -3.0, 0.5]))
    assert original.grad[0].tolist() == [1, 2, -3, 0.5]


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_the_gradient_of_weights_by_hand(bits):
    """As if there were no rounding: of tanh wᵢ / max, m = |tanh wⱼ| being the maximum.

    For i ≠ j, gᵢ (1 − tanh² wᵢ) / m; and wⱼ always gives ±1, so what is left of its gradient is the maximum's.
    """
    values, upstream = [0.3, -0.9, 0.5], [1.0, 2.0, -4.0]
    weight, original = quantized_weight(values, bits)
    weight.backward(torch.tensor(upstream))
    bent = [math.tanh(value) for value in values]
    most = -bent[1]
    expected = [g * (1 - t * t) / most for g, t in zip(upstream, bent, strict=True)]
    expected[1] = (upstream[0] * bent[0] + upstream[2] * bent[2]) / most**2 * (1 - bent[1] ** 2)
    assert original.grad[0].tolist() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_the_gradient_of_weights_is_that_of_the_formula_without_rounding(bits):
    values = torch.randn(50, generator=torch.Generator().manual_seed(bits))
    upstream = torch.randn(50, generator=torch.Generator().manual_seed(9))
    weight, original = quantized_weight(values, bits)
    weight.backward(upstream)
    plain = values.clone().requires_grad_()
    (plain.tanh() / plain.tanh().abs().max()).backward(upstream)
    torch.testing.assert_close(original.grad[0], plain.grad)


@pytest.mark.parametrize("bits", FEW)
def test_the_gradient_of_activations_passes_where_nothing_is_clipped(bits):
    values = torch.tensor([-2.0, -0.1, 0.1, 0.5, 0.9, 1.1, 7.0], requires_grad=True)
    upstream = torch.tensor([1.0, 2.0, 3.0, -4.0, 5.0, 6.0, 7.0])
    quantized_input(values, bits).backward(upstream)
    assert values.grad.tolist() == [0, 0, 3, -4, 5, 0, 0]


# ---- which layers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_the_first_and_the_last_layer_stay_full(name):
    model = built(name, Bits(2, 2))
    layers = {key for key, module in model.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)}
    assert set(inner(model)) == layers - set(FULL[name])
    for key in layers:
        module = model.get_submodule(key)
        assert len(module._forward_pre_hooks) == (key not in FULL[name])
        assert (len(module.weight.unique()) <= 4) == (key not in FULL[name])


def test_bits_of_one_kind_leave_the_other_alone():
    weights, activations = built("cnn", Bits(weights=2)), built("cnn", Bits(activations=2))
    assert inner(weights) and not any(module._forward_pre_hooks for module in weights.modules())
    assert not inner(activations) and sum(len(module._forward_pre_hooks) for module in activations.modules()) == 2
    assert activations.state_dict().keys() == built("cnn").state_dict().keys()


@pytest.mark.parametrize(
    ("model", "quantized"),
    [
        (nn.Sequential(*(nn.Conv2d(2, 2, 1) for _ in range(3))), {"1"}),
        (nn.Sequential(*(nn.Conv1d(2, 2, 1) for _ in range(2)), nn.Linear(2, 2)), {"1"}),
        (nn.Sequential(nn.Linear(2, 2), nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 1), nn.Linear(2, 2)), {"0", "2"}),
        (nn.Sequential(nn.Conv2d(2, 2, 1), nn.Linear(2, 2), nn.Conv2d(2, 2, 1)), {"2"}),
        (nn.Sequential(nn.Linear(4, 4), nn.MultiheadAttention(4, 2), nn.Linear(4, 4), nn.Linear(4, 4)), {"2"}),
    ],
)
def test_first_and_last_of_networks_of_any_make(model, quantized):
    assert set(inner(quantize(model, Bits(1)))) == quantized


@pytest.mark.parametrize(
    "model",
    [
        nn.ReLU(),
        nn.Linear(2, 2),
        nn.Sequential(nn.Conv2d(1, 1, 1), nn.Linear(2, 2)),
        nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 2)),
        nn.Sequential(nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 1)),
    ],
)
def test_nothing_to_quantize(model):
    rule = "a convolution or linear layer between its first and its last, got"
    with pytest.raises(RequestError, match=rule):
        quantize(model, Bits(activations=2))


def test_a_network_is_quantized_once():
    model = built("mlp", Bits(2, 2))
    with pytest.raises(
        RequestError, match="the weight of 4 must be a plain parameter; quantize a model once, and first"
    ):
        quantize(model, Bits(2, 2))
    assert len(model[4].parametrizations.weight) == len(model[4]._forward_pre_hooks) == 1


def test_a_layer_that_occurs_twice_is_quantized_once():
    layer = nn.Linear(3, 3)
    model = quantize(chain(layer, nn.ReLU(), layer), Bits(2, 2))
    assert len(layer.parametrizations.weight) == len(layer._forward_pre_hooks) == 1
    plain = chain(twin := nn.Linear(3, 3), nn.ReLU(), twin)
    plain.load_state_dict(exported_state(model))
    assert exported_state(model).keys() == plain.state_dict().keys()
    assert torch.equal(twin.weight, layer.weight)


# ---- in training and out of it ---------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bits", [Bits(1, 1), Bits(1, 32), Bits(2, 2), Bits(4, 4), Bits(8, 8), Bits(32, 2)], ids=str)
def test_networks_of_few_bits_learn(name, bits):
    losses = train(built(name, bits))
    assert all(map(math.isfinite, losses))
    assert sum(losses[-3:]) < 0.5 * sum(losses[:3])


@pytest.mark.parametrize("name", NAMES)
def test_of_eight_bits_it_answers_almost_as_in_full(name):
    """Where the weights of a layer reach from −1 to 1, and its inputs from 0 to 1, eight bits lose little."""
    model, images = built(name).eval(), torch.rand(2, 3, 8, 8)
    few = quantize(copy.deepcopy(model), Bits(8, 32))
    for layer in inner(few):
        module = model.get_submodule(layer)
        with torch.no_grad():
            module.weight.copy_(module.weight.tanh() / module.weight.tanh().abs().max())
    plain, quantized = model(images), few(images)
    assert not torch.equal(plain, quantized)
    assert (plain - quantized).abs().max() < 0.05 * plain.abs().max()


@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_given_by_function_call_too(name):
    model, images = built(name, Bits(2, 2)).eval(), torch.rand(2, 3, 8, 8)
    other = built(name, Bits(2, 2), seed=5).eval()
    given, buffers = dict(other.named_parameters()), dict(other.named_buffers())
    answers = functional_call(model, {**given, **buffers}, (images,))
    assert torch.equal(answers, other(images)) and not torch.equal(answers, model(images))
    gradients = torch.func.grad(lambda own: functional_call(model, {**own, **buffers}, (images,)).sum())(given)
    other(images).sum().backward()
    for key, parameter in other.named_parameters():
        torch.testing.assert_close(gradients[key], parameter.grad, msg=key)


@pytest.mark.parametrize("bits", [Bits(1, 1), Bits(2, 4)], ids=str)
def test_copies_and_states_answer_alike(bits):
    model, images = built("resnet8", bits), torch.rand(2, 3, 8, 8)
    train(model, 2)
    twin, heir = copy.deepcopy(model), built("resnet8", bits, seed=3)
    heir.load_state_dict(model.state_dict())
    answers = model.eval()(images)
    assert torch.equal(twin.eval()(images), answers) and torch.equal(heir.eval()(images), answers)
    train(twin, 1)
    assert torch.equal(model.eval()(images), answers) and not torch.equal(twin.eval()(images), answers)
    assert pickle.loads(pickle.dumps(quantize(built("cnn"), Bits(32, 2))))[3]._forward_pre_hooks


def test_channels_last_is_kept():
    model = built("resnet8", Bits(2, 2)).to(memory_format=torch.channels_last)
    layer = model.layer1[0].conv1
    assert layer.weight.is_contiguous(memory_format=torch.channels_last)
    images = torch.rand(2, 3, 8, 8)
    answers = model.eval()(images.to(memory_format=torch.channels_last))
    torch.testing.assert_close(answers, built("resnet8", Bits(2, 2)).eval()(images), atol=1e-4, rtol=1e-4)
    weight = exported_state(model)["layer1.0.conv1.weight"]
    assert weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("bits", [Bits(1, 1), Bits(2, 2), Bits(8, 8)], ids=str)
def test_bfloat16(bits):
    model, seen = built("cnn", bits), []
    model[3].register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0]))
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(torch.rand(4, 3, 8, 8)).float().square().mean()
        assert model[3].weight.dtype == torch.float32, "the weights' levels are exact"
    loss.backward()
    assert seen[0].dtype == torch.bfloat16 and len(seen[0].unique()) <= 2**bits.activations
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


# ---- export ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("weights", CHOICES)
@pytest.mark.parametrize("activations", [2, 32])
def test_what_is_exported_answers_bit_for_bit(name, weights, activations):
    model, images = built(name, Bits(weights, activations)), torch.rand(5, 3, 8, 8)
    train(model, 3)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state = exported_state(model)
    plain = quantize(built(name, seed=7), Bits(32, activations))
    assert state.keys() == plain.state_dict().keys() == built(name).state_dict().keys()
    for layer in inner(model):
        assert len(state[f"{layer}.weight"].unique()) <= 2**weights
    plain.load_state_dict(state)
    assert torch.equal(plain.eval()(images), model.eval()(images))
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not any(value.requires_grad for value in state.values())


def test_a_parametrization_of_another_kind_is_exported_as_it_is():
    model = built("mlp", Bits(2))
    nn.utils.parametrizations.orthogonal(model[7])
    assert {"4.weight", "7.parametrizations.weight.original"} <= exported_state(model).keys()


# ---- size ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", CHOICES)
def test_size_by_hand(bits):
    model = quantize(
        nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 7), nn.BatchNorm1d(7), nn.Linear(7, 7), nn.Linear(7, 2)),
        Bits(bits, 2),
    )
    quantized = 5 * 7 + 7 * 7
    full = (3 * 5 + 5) + 7 + 4 * 7 + 7 + (7 * 2 + 2)
    scales = 2 * 32 if bits == 1 else 0
    assert size_in_bits(model) == bits * quantized + 32 * full + scales


@pytest.mark.parametrize("name", NAMES)
def test_size_of_a_plain_network(name):
    model = built(name)
    numbers = [*model.parameters(), *(buffer for buffer in model.buffers() if buffer.is_floating_point())]
    assert size_in_bits(model) == size_in_bits(model.bfloat16()) == 32 * sum(tensor.numel() for tensor in numbers)
    assert size_in_bits(built(name, Bits(activations=1))) == size_in_bits(model)


def test_what_is_shared_counts_once():
    layer, other = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
    model = chain(layer, layer, other)
    other.weight = layer.weight
    ends = 2 * 32 * (9 + 3)
    assert size_in_bits(model) == ends + 9 * 32
    assert size_in_bits(quantize(model, Bits(1))) == ends + 9 + 32


def test_what_a_full_layer_shares_counts_in_full():
    model = nn.Sequential(*(nn.Linear(3, 3, bias=False) for _ in range(3)))
    model[1].weight = model[0].weight
    assert size_in_bits(quantize(model, Bits(2))) == 2 * 9 * 32
