"""Layer outputs: their shapes, the layers compared by default, and their recording."""

import copy
import gc
import pickle
import weakref

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from spaces.core.errors import RequestError
from trainables.losses.feature.hooks import FeatureRecorder, check_layers, stages, trace
from trainables.models import MODELS, build_model

RESNET = ("layer1", "layer2", "layer3")
WRN = ("layer1", "layer2", "relu")
VGG = ("layer1", "layer2", "layer3", "layer5")
DEFAULTS = {
    "mlp": ("6",),
    "cnn": ("2", "5", "8"),
    **{name: RESNET for name in MODELS if name.startswith("resnet")},
    "resnet50": ("layer1", "layer2", "layer3", "layer4"),
    **{name: WRN for name in MODELS if name.startswith("wrn")},
    "vgg8": VGG,
    "vgg13": VGG,
    "mobilenetv2": ("stages.1", "stages.2", "stages.4", "head"),
    "shufflenetv2": ("stem", "layer1", "layer2", "head"),
    "vit": ("blocks",),
}
"""At 32 px."""


def build(name="resnet8", size=8, channels=3):
    return build_model(name, classes=5, channels=channels, size=size, seed=0)


def draw(size=8, count=2, channels=3):
    return torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(1))


class Net(nn.Module):
    """Made of the modules it is given; `way` says how they are called."""

    def __init__(self, way, **modules):
        super().__init__()
        self.way = way
        for name, module in modules.items():
            setattr(self, name, module)

    def forward(self, x):
        return self.way(self, x)


def test_a_trace_has_every_layer_in_the_order_in_which_they_finish():
    model = nn.Sequential(nn.Flatten(), nn.Sequential(nn.Linear(12, 4), nn.ReLU()), nn.Linear(4, 5))
    expected = {"0": (12,), "1.0": (4,), "1.1": (4,), "1": (4,), "2": (5,)}
    found = trace(model, torch.zeros(3, 3, 2, 2))
    assert found == expected and list(found) == list(expected)


def test_a_trace_of_a_network_of_maps():
    found = trace(build(), draw())
    assert list(found)[:2] == ["conv1", "bn1"] and list(found)[-2:] == ["layer3", "fc"]
    assert found["layer2.0.conv1"] == found["layer2"] == (32, 4, 4) and found["fc"] == (5,)


def test_only_one_floating_tensor_per_image_counts():
    parts = {
        "pair": Net(lambda net, x: (x, x)),
        "whole": Net(lambda net, x: x.long()),
        "mean": Net(lambda net, x: x.mean()),
        "turned": Net(lambda net, x: x.mT),
        "idle": nn.Identity(),
        "good": Net(lambda net, x: x.half()),
    }
    model = Net(lambda net, x: [part(x) for name, part in net.named_children() if name != "idle"], **parts)
    assert trace(model, torch.zeros(3, 2)) == {"good": (2,)}


def test_a_module_called_twice_counts_with_its_last_call():
    parts = {"act": nn.ReLU(), "down": nn.Linear(6, 2)}
    model = Net(lambda net, x: net.act(net.down(net.act(x))), **parts)
    found = trace(model, torch.zeros(3, 6))
    assert found == {"down": (2,), "act": (2,)} and list(found) == ["down", "act"]


class Counting(nn.Module):
    """Changes its buffers in evaluation too, as the observers of a quantization do."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("widest", torch.zeros(0))
        self.register_buffer("none", None)

    def forward(self, x):
        self.calls += 1
        self.widest.resize_(x.shape[1]).copy_(x.abs().amax(0))
        self.calls = self.calls.clone()
        return x


@pytest.mark.parametrize("look", [trace, stages])
def test_the_network_is_left_as_it_was(look, assert_same):
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(12), Counting(), nn.Dropout(0.5), nn.Linear(12, 5))
    model.train()[1].eval()
    state = torch.get_rng_state()
    before, modes = copy.deepcopy(model.state_dict()), [module.training for module in model.modules()]
    held = [value.data_ptr() for value in model.state_dict().values() if value.numel()]
    assert look(model, torch.rand(3, 3, 2, 2, generator=torch.Generator().manual_seed(1)))
    assert_same(model.state_dict(), before)
    assert [module.training for module in model.modules()] == modes
    assert [value.data_ptr() for value in model.state_dict().values() if value.numel()] == held
    assert torch.equal(torch.get_rng_state(), state)
    assert not [module for module in model.modules() if module._forward_hooks]


def test_a_network_that_fails_is_left_as_it_was():
    model = build()
    with pytest.raises(RuntimeError):
        trace(model, draw(channels=1))
    assert all(module.training and not module._forward_hooks for module in model.modules())


def test_no_gradients_and_inference_mode():
    model = Net(lambda net, x: net.body(x), body=nn.Linear(3, 3))
    with torch.inference_mode():
        assert stages(model, torch.zeros(2, 3)) == {}
    model.body.register_forward_hook(lambda module, inputs, output: seen.append(output.requires_grad))
    seen = []
    trace(model, torch.zeros(2, 3))
    assert seen == [False]


@pytest.mark.parametrize("name", sorted(MODELS))
def test_default_layers_of_every_model(name):
    found = stages(build(name, 32), draw(32))
    assert tuple(found) == DEFAULTS[name]
    shapes = trace(build(name, 32), draw(32))
    assert found == {layer: shapes[layer] for layer in found}


@pytest.mark.parametrize(
    ("name", "size", "expected"),
    [
        ("resnet20", 32, {"layer1": (16, 32, 32), "layer2": (32, 16, 16), "layer3": (64, 8, 8)}),
        ("resnet20", 4, {"layer1": (16, 4, 4), "layer2": (32, 2, 2)}),
        ("vgg8", 64, {f"layer{i + 1}": (c, 64 >> i, 64 >> i) for i, c in enumerate((64, 128, 256, 512, 512))}),
        ("vit", 8, {"blocks": (16, 192)}),
        ("vit", 64, {"blocks": (256, 192)}),
        (
            "torchvision:resnet18",
            32,
            {"relu": (64, 16, 16), "layer1": (64, 8, 8), "layer2": (128, 4, 4), "layer3": (256, 2, 2)},
        ),
        (
            "torchvision:mobilenet_v3_small",
            32,
            {"features.0": (16, 16, 16), "features.1": (16, 8, 8), "features.3": (24, 4, 4), "features.8": (48, 2, 2)},
        ),
        (
            "torchvision:vgg11_bn",
            32,
            {
                "features.2": (64, 32, 32),
                "features.6": (128, 16, 16),
                "features.13": (256, 8, 8),
                "features.20": (512, 4, 4),
                "features.27": (512, 2, 2),
            },
        ),
    ],
)
def test_default_layers_and_their_shapes(name, size, expected):
    found = stages(build(name, size), draw(size))
    assert found == expected and list(found) == list(expected)


def test_default_layers_of_a_transformer_of_torchvision():
    from torchvision.models import VisionTransformer

    model = VisionTransformer(16, 8, 2, 2, 24, 48, num_classes=5)
    assert stages(model, draw(16)) == {"encoder": (5, 24)}


def test_tokens_of_several_shapes():
    first, second = nn.TransformerEncoderLayer(6, 2, 12, batch_first=True), nn.Linear(6, 8)
    model = Net(
        lambda net, x: net.head(net.second(net.first(x)).mean(1)), first=first, second=second, head=nn.Linear(8, 5)
    )
    assert stages(model, torch.zeros(3, 7, 6)) == {"first": (7, 6), "second": (7, 8)}


def test_a_network_within_a_module_has_its_own_stages():
    model = Net(lambda net, x: net.body(x), body=build())
    assert list(stages(model, draw())) == ["body.layer1", "body.layer2", "body.layer3"]
    body = build("resnet8", 32)
    body.fc = nn.Identity()
    body.forward = lambda x: body.layer3(body.layer2(body.layer1(body.conv1(x))))
    model = Net(lambda net, x: net.fc(net.body(x).mean((2, 3))), body=body, fc=nn.Linear(64, 5))
    assert list(stages(model, draw(32))) == ["body.layer1", "body.layer2", "body"]


@pytest.mark.parametrize(
    ("modules", "expected"),
    [
        ([nn.Flatten(), nn.Linear(12, 5)], {}),
        ([nn.Flatten(), nn.Linear(12, 4), nn.ReLU(), nn.Linear(4, 5)], {"2": (4,)}),
        ([nn.Flatten(), nn.Linear(12, 4), nn.ReLU(inplace=True), nn.Linear(4, 5)], {"2": (4,)}),
        ([nn.Flatten(), nn.Linear(12, 4), nn.ReLU(), nn.Dropout(0.5), nn.Linear(4, 5)], {"2": (4,)}),
        ([nn.Flatten(), nn.Sequential(nn.Linear(12, 4), nn.ReLU()), nn.Linear(4, 5), nn.Softmax(1)], {"1": (4,)}),
        ([nn.Conv2d(3, 4, 2), nn.ReLU(), nn.Flatten(), nn.Linear(4, 5)], {"2": (4,)}),
        ([nn.Conv2d(3, 5, 2), nn.Flatten()], {}),
    ],
)
def test_default_layers_of_networks_of_vectors(modules, expected):
    images = torch.rand(3, 3, 2, 2, generator=torch.Generator().manual_seed(1))
    assert stages(nn.Sequential(*modules), images) == expected
    assert stages(nn.Sequential(*modules), images.to(memory_format=torch.channels_last)) == expected


def test_checked_layers_come_in_their_own_order():
    assert list(check_layers(build(), draw(), ["layer3", "layer1.0"], "teacher").items()) == [
        ("layer3", (64, 2, 2)),
        ("layer1.0", (16, 8, 8)),
    ]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("layer9", "the student's network has no layer 'layer9'; did you mean 'layer"),
        ("layer2.0.conv9", "did you mean 'layer2.0.conv"),
        ("", "the student's network has no layer ''; known: conv1, bn1, layer1.0.conv1, "),
        ("zzzzz", "the student's network has no layer 'zzzzz'; known: conv1, bn1, "),
        ("idle", "the student's layer 'idle' must return a single tensor with the batch in front; known: conv1, "),
    ],
)
def test_layers_that_there_are_not(name, message):
    model = build()
    model.idle = nn.Identity()
    with pytest.raises(RequestError) as caught:
        check_layers(model, draw(), ["layer1", name], "student")
    assert message in str(caught.value)
    names = list(trace(model, draw()))
    assert "there are" not in message or f"{names[11]} and {len(names) - 12} more" in str(caught.value)


def test_recorded_features_are_what_the_layers_gave():
    model, images = build().eval(), draw()
    features = FeatureRecorder(model, ["layer1", "fc"])
    with features.recording() as kept:
        assert kept == {}
        logits = model(images)
    assert list(kept) == ["layer1", "fc"] and kept["fc"] is logits
    expected = model.layer1(F.relu(model.bn1(model.conv1(images))))
    assert torch.equal(kept["layer1"], expected)
    model(draw(count=3))
    assert len(kept["fc"]) == 2


def test_gradients_flow_through_what_was_recorded():
    model, images = build(), draw(count=4)
    with FeatureRecorder(model, ["layer2"]).recording() as kept:
        model(images)
    (kept["layer2"] ** 2).mean().backward()
    assert model.conv1.weight.grad.abs().sum() > 0 and model.fc.weight.grad is None


def test_the_last_forward_of_a_recording_counts_and_recordings_are_apart():
    model = build().eval()
    features = FeatureRecorder(model, ["fc"])
    with features.recording() as outer:
        model(draw())
        with features.recording() as inner:
            second = model(draw(count=3))
        assert inner["fc"] is second and outer["fc"] is second
        third = model(draw(count=4))
    assert inner["fc"] is second and outer["fc"] is third


def test_of_a_normalization_before_an_activation_in_place_the_activation_is_kept():
    model = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.ReLU(inplace=True), nn.Linear(4, 5))
    images = torch.randn(3, 6, generator=torch.Generator().manual_seed(0))
    with FeatureRecorder(model, ["1"]).recording() as kept:
        model(images)
    assert torch.equal(kept["1"], F.relu(model[1](model[0](images))))
    kept["1"].sum().backward()
    assert model[0].weight.grad is not None


def test_nothing_is_kept_and_no_hook_stays():
    model = build()
    features = FeatureRecorder(model, ["layer1", "layer3"])
    with features.recording() as kept:
        model(draw())
    graph = weakref.ref(kept["layer3"])
    del kept
    gc.collect()
    assert graph() is None
    assert not [module for module in model.modules() if module._forward_hooks]
    with pytest.raises(KeyError), features.recording():
        raise KeyError
    assert not [module for module in model.modules() if module._forward_hooks]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
def test_networks_and_features_can_be_copied(copied):
    model = build().eval()
    features = FeatureRecorder(model, ["layer3"])
    with features.recording():
        model(draw())
    again_model, again = copied((model, features))
    with again.recording() as kept:
        again_model(draw())
    assert kept["layer3"].shape == (2, 64, 2, 2)


def test_features_of_a_layer_that_is_not_there():
    with pytest.raises(AttributeError):
        FeatureRecorder(build(), ["layer9"])
