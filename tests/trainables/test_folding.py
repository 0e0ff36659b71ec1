"""Folded networks answer as before, and nothing but their convolutions' own outputs tells."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations

from spaces import Genome
from trainables import Distill, FrozenTeacher
from trainables.losses.feature.hooks import Features, stages, trace
from trainables.models import MODELS, build_model
from trainables.training.folding import fold, unfold

FOLDED = {"mlp": 0, "wrn_16_1": 6, "wrn_16_2": 6, "wrn_40_1": 18, "wrn_40_2": 18}
"""How many, where it is not all: what follows a linear layer, a sum, or another module's convolution stays."""


def images(count=4, channels=3, size=16):
    return torch.randn(count, channels, size, size, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def lived(model):
    """Normalizations as training leaves them: no number is that of the start."""
    draw = torch.Generator().manual_seed(2)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            for tensor, low, high in (
                (module.running_mean, -0.5, 0.5),
                (module.running_var, 0.5, 2),
                (module.weight, 0.5, 1.5),
                (module.bias, -0.5, 0.5),
            ):
                if tensor is not None:
                    tensor.uniform_(low, high, generator=draw)
    return model.eval().requires_grad_(False)


@pytest.fixture
def net():
    return lived(build_model("resnet8", seed=0, classes=5, channels=3, size=16))


def norms(model):
    return sum(type(module) in (nn.BatchNorm1d, nn.BatchNorm2d) for module in model.modules())


def close(one, other):
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4 * float(other.abs().max()))


@pytest.mark.parametrize("name", sorted(MODELS))
def test_every_model_answers_as_before(name, assert_same):
    plain = lived(build_model(name, seed=0, classes=5, channels=3, size=16))
    state, every = copy.deepcopy(plain.state_dict()), norms(plain)
    folded = fold(copy.deepcopy(plain))
    close(folded(images()), plain(images()))
    assert every - norms(folded) == FOLDED.get(name, every), "whatever can be folded is"
    assert_same(folded.state_dict(), state)
    assert_same(unfold(folded)(images()), plain(images()))
    assert norms(folded) == every and not list(folded.buffers())[len(list(plain.buffers())) :]


@pytest.mark.parametrize("name", ["resnet20", "wrn_16_2", "vgg8", "mobilenetv2", "vit", "mlp"])
def test_layers_give_and_are_chosen_as_before(name):
    plain = lived(build_model(name, seed=0, classes=5, channels=3, size=16))
    folded = fold(copy.deepcopy(plain))
    assert stages(folded, images()) == stages(plain, images()) and trace(folded, images()) == trace(plain, images())
    layers = [layer for layer, module in plain.named_modules() if layer and not isinstance(module, nn.Conv2d)]
    layers = [layer for layer in layers if layer in trace(plain, images())]
    outputs = []
    for model in (plain, folded):
        with torch.no_grad(), Features(model, layers).recording() as kept:
            model(images())
        outputs.append(kept)
    for layer in layers:
        close(outputs[1][layer], outputs[0][layer])


def test_a_convolution_that_is_shown_gives_its_own_output(net):
    expected = {}
    with Features(net, ["layer2.0.conv1"]).recording() as kept:
        answers = net(images())
        expected |= kept
    teacher = FrozenTeacher(copy.deepcopy(net))
    teacher.show(["layer2.0.conv1", "layer2", "layer2.0.bn2"])
    with Features(teacher.model, ["layer2.0.conv1"]).recording() as kept:
        close(teacher(images()), answers)
    assert torch.allclose(kept["layer2.0.conv1"], expected["layer2.0.conv1"], atol=1e-5)
    assert norms(teacher.model) == 1, "all others stay folded"


def test_a_loss_on_a_convolution_sees_what_it_is_named_for(make_task):
    options = {"teacher": ["layer2.0.conv1"], "student": ["layer2"]}
    task = make_task("student", model="resnet8", distill=Distill(loss={"hint": options}))
    learner = task.learner(Genome(), seed=0)
    learner.step()
    plain = build_model("resnet8", seed=0, classes=3, channels=1, size=8)
    plain.load_state_dict(task.teacher.weights)
    given = images(2, 1, 8)
    seen = []
    for model in (learner.teacher.model, plain.eval()):
        with torch.no_grad(), Features(model, ["layer2.0.conv1"]).recording() as kept:
            model(given)
        seen.append(kept["layer2.0.conv1"])
    torch.testing.assert_close(*seen, rtol=1e-4, atol=1e-4)
    assert norms(learner.teacher.model) == 1


@pytest.mark.parametrize("move", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_are_folded_and_apart(net, move):
    expected = net(images())
    folded = fold(net)
    again = move(folded)
    close(again(images()), expected)
    unfold(folded)
    assert not norms(again) and norms(folded) == 9
    with torch.no_grad():
        for parameter in folded.parameters():
            parameter.zero_()
    close(again(images()), expected)


def test_it_follows_a_state_that_is_loaded(net):
    other = lived(build_model("resnet8", seed=5, classes=5, channels=3, size=16))
    whole = nn.ModuleDict({"teacher": FrozenTeacher(net)})

    def from_above(state):
        whole.load_state_dict({f"teacher.model.{name}": value for name, value in state.items()})

    for load in (net.load_state_dict, from_above):
        load(other.state_dict())
        close(net(images()), other(images()))
        load({name: value / 2 for name, value in other.state_dict().items()})
        assert not torch.allclose(net(images()), other(images()))


def test_it_follows_into_another_layout_and_type(net):
    expected = net(images())
    folded = fold(net).to(memory_format=torch.channels_last)
    assert folded.conv1.folded_weight.is_contiguous(memory_format=torch.channels_last)
    close(folded(images().to(memory_format=torch.channels_last)), expected)
    close(folded.double()(images().double()).float(), expected)


def test_a_peer_learns_with_its_normalizations(net):
    teacher = FrozenTeacher(net)
    peer = teacher.peer()
    assert norms(peer) == 9 and peer.training and not norms(teacher.model)
    mean = peer.bn1.running_mean.clone()
    peer(images()).sum().backward()
    assert not torch.equal(peer.bn1.running_mean, mean) and peer.conv1.weight.grad is not None
    assert peer.bn1.weight.grad is not None


def test_gradients_reach_the_images(net):
    gradients = []
    for model in (copy.deepcopy(net), FrozenTeacher(net).through):
        given = images().requires_grad_()
        model(given).square().sum().backward()
        gradients.append(given.grad)
    close(gradients[1], gradients[0])


# ---- what is left alone ----------------------------------------------------------------------------


class Pair(nn.Module):
    """A convolution and a normalization; subclasses say how they are used."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)


class Plain(Pair):
    def forward(self, x):
        return self.bn(self.conv(x))


class Both(Pair):
    def forward(self, x):
        own = self.conv(x)
        return self.bn(own) + own


class Twice(Pair):
    def forward(self, x):
        return self.bn(self.conv(self.conv(x)))


class Shared(Pair):
    def forward(self, x):
        return self.bn(self.conv(x)) + self.bn(x)


class Between(Pair):
    def forward(self, x):
        return self.bn(F.relu(self.conv(x)))


class Weighing(Pair):
    def forward(self, x):
        return self.bn(self.conv(x)) + self.conv.weight.sum()


class Wrapped(Pair):
    """The output of `body` is the convolution's."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(self.conv)

    def forward(self, x):
        return self.bn(self.body(x))


class Deciding(Pair):
    """No trace can know which way."""

    def forward(self, x):
        return self.bn(self.conv(x)) if x.sum() > 0 else self.conv(x)


class Keeping(Pair):
    """Keeps what it is shown, and draws."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, x):
        self.seen.append(x)
        return self.bn(self.conv(x)) + 0 * torch.rand(1)


def without_statistics():
    model = Plain()
    model.bn = nn.BatchNorm2d(3, track_running_stats=False)
    return model


def hooked():
    model = Plain()
    model.conv.register_forward_hook(lambda module, given, output: output + 1)
    return model


def normed_weight():
    model = Plain()
    parametrizations.weight_norm(model.conv)
    return model


LEFT = [Both, Twice, Shared, Between, Weighing, Wrapped, Deciding, without_statistics, hooked, normed_weight]


@pytest.mark.parametrize("make", LEFT)
def test_what_is_no_pair_is_left_alone(make):
    model = make().eval()
    if model.bn.track_running_stats:
        lived(model)
    expected = model(images())
    assert torch.equal(fold(model)(images()), expected) and norms(model) == 1


def test_a_network_is_not_called_to_be_folded():
    model, stream = lived(Keeping()), torch.get_rng_state()
    assert not norms(fold(model)) and model.seen == []
    assert torch.equal(torch.get_rng_state(), stream), "the global random state is left alone"


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_pairs_of_other_kinds(affine, bias):
    plain = lived(nn.Sequential(nn.Conv1d(3, 4, 3, 2, bias=bias), nn.BatchNorm1d(4, affine=affine), nn.ReLU()))
    given = images()[:, :, 0]
    expected = plain(given)
    assert not norms(fold(plain))
    close(plain(given), expected)
    grouped = nn.Conv2d(4, 8, 3, padding=1, groups=2, padding_mode="reflect", bias=bias)
    model = lived(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), grouped, nn.BatchNorm2d(8, affine=affine)))
    expected = model(images())
    assert not norms(fold(model))
    close(model(images()), expected)


def test_by_hand():
    """(2 · 3 + 1 − 5) / √(3 + 1) · 7 + 9."""
    model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1, eps=1.0)).eval().requires_grad_(False)
    values = {"0.weight": 2, "0.bias": 1, "1.running_mean": 5, "1.running_var": 3, "1.weight": 7, "1.bias": 9}
    state = model.state_dict()
    model.load_state_dict(state | {name: torch.full_like(state[name], value) for name, value in values.items()})
    (answer,) = fold(model)(torch.full((1, 1, 1, 1), 3.0)).flatten().tolist()
    assert answer == pytest.approx(2 / 2 * 7 + 9)
