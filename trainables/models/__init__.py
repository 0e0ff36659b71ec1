"""The networks that a sweep can name.

A model is a factory: `factory(classes=…, channels=…, size=…)` gives a module (B, channels, size, size) → logits
(B, classes). `torchvision:NAME` is a network of torchvision. A user's own factory, named with a dot, takes whichever of
the three it has arguments for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from spaces.core.errors import RequestError, RoletuneError, unknown
from spaces.core.importing import accepted_options, import_dotted
from trainables.models.cnn import cnn
from trainables.models.mlp import mlp
from trainables.models.mobilenetv2 import MobileNetV2
from trainables.models.resnet import NARROW, WIDE, ResNet
from trainables.models.resnet50 import ResNet50
from trainables.models.shufflenetv2 import ShuffleNetV2
from trainables.models.torchvision_models import PREFIX, torchvision_model
from trainables.models.vgg import VGG
from trainables.models.vit import vit
from trainables.models.wrn import WideResNet

Factory = Callable[..., nn.Module]


def _any_size(network: Factory, *form: Any, classes: int, channels: int, size: int) -> nn.Module:
    del size  # global pooling takes any
    return network(*form, classes=classes, channels=channels)


MODELS: Mapping[str, Factory] = MappingProxyType(
    {
        "mlp": mlp,
        "cnn": cnn,
        **{f"resnet{depth}": partial(_any_size, ResNet, depth, NARROW) for depth in (8, 14, 20, 32, 44, 56, 110)},
        **{f"resnet{depth}x4": partial(_any_size, ResNet, depth, WIDE) for depth in (8, 14, 20, 32)},
        "resnet50": partial(_any_size, ResNet50),
        **{
            f"wrn_{depth}_{widen}": partial(_any_size, WideResNet, depth, widen)
            for depth in (16, 40)
            for widen in (1, 2)
        },
        "vgg8": partial(VGG, (1, 1, 1, 1, 1)),
        "vgg13": partial(VGG, (2, 2, 2, 2, 2)),
        "mobilenetv2": partial(_any_size, MobileNetV2, 0.5),
        "shufflenetv2": partial(_any_size, ShuffleNetV2),
        "vit": vit,
    }
)
"""Name → factory of every model that comes with roletune."""


def build_model(name: str, *, classes: int, channels: int, size: int, seed: int) -> nn.Module:
    """Build the model `name`, its initial weights drawn from `seed` without touching the global random state.

    Raises:
        RequestError: no such model; the user's factory fails, gives no module, or gives one that does not fit the data.
    """
    shape: dict[str, Any] = {"classes": classes, "channels": channels, "size": size}
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # `torch.manual_seed` would seed every GPU's generator as well
        model = _make(name, shape)
    if not isinstance(model, nn.Module):
        raise RequestError(f"the factory {name} gives a torch.nn.Module", value=type(model).__name__)
    return model


def check_model(name: str, *, classes: int, channels: int, size: int) -> None:
    """Build the model `name` once and pass it a batch of two, so that a misfit is refused before a sweep starts.

    Raises:
        RequestError: as `build_model`, or the output is not (B, classes).
    """
    model = build_model(name, classes=classes, channels=channels, size=size, seed=0).eval()
    images = torch.zeros(2, channels, size, size)
    try:
        with torch.no_grad():
            logits = model(images)
    except Exception as error:
        rule = f"the model {name} takes images {(2, channels, size, size)}; it raised {type(error).__name__}: {error}"
        raise RequestError(rule, hint="choose a model that fits the data, or set data.size") from error
    shape = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
    if shape != (2, classes):
        raise RequestError(f"the model {name} gives logits of shape {(2, classes)}", value=shape)


def _make(name: str, shape: dict[str, Any]) -> Any:
    if name in MODELS:
        return MODELS[name](**shape)
    if name.startswith(PREFIX):
        return torchvision_model(name.removeprefix(PREFIX), **shape)
    if not {".", ":"} & set(name):
        raise unknown("model", name, MODELS)
    factory = import_dotted(name)
    options = accepted_options(factory, shape)
    try:
        return factory(**options)
    except RoletuneError:
        raise
    except Exception as error:
        raise RequestError(f"the model factory {name} raised {type(error).__name__}: {error}") from error
