"""All models by name, and building a model from a name.

A model is a factory: `factory(classes=…, channels=…, size=…)` returns a module, (B, channels, size, size) → logits
(B, classes). `torchvision:NAME` is a model of torchvision. Your own factory, given by dotted name, is called with those
of the three arguments that it accepts.
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


def _any_size(network: Factory, *options: Any, classes: int, channels: int, size: int) -> nn.Module:
    del size  # global pooling accepts any size
    return network(*options, classes=classes, channels=channels)


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
    """Build a model with initial weights drawn from `seed`; the global random state is not touched.

    Args:
        name: Name from `MODELS`, `torchvision:NAME`, or a dotted name of your own factory.
        classes: Number of classes.
        channels: Number of channels of the images.
        size: Side of the images, px.
        seed: Seed of the initial weights.

    Raises:
        RequestError: The model is unknown, or the factory fails, returns no module or does not fit the data.

    Example:
        >>> model = build_model("resnet8", classes=10, channels=1, size=8, seed=0)
        >>> tuple(model(torch.zeros(2, 1, 8, 8)).shape)
        (2, 10)
    """
    shape: dict[str, Any] = {"classes": classes, "channels": channels, "size": size}
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # `torch.manual_seed` would seed every GPU's generator as well
        model = _call_factory(name, shape)
    if not isinstance(model, nn.Module):
        raise RequestError(f"the factory {name} must return a torch.nn.Module", value=type(model).__name__)
    return model


def check_model(name: str, *, classes: int, channels: int, size: int) -> None:
    """Build a model and call it with a batch of two, to refuse a misfit before a sweep starts.

    Args:
        name: Model name, see `build_model`.
        classes: Number of classes.
        channels: Number of channels of the images.
        size: Side of the images, px.

    Raises:
        RequestError: See `build_model`; or the output is not (B, classes).

    Example:
        >>> check_model("mlp", classes=10, channels=1, size=8)
    """
    model = build_model(name, classes=classes, channels=channels, size=size, seed=0).eval()
    images = torch.zeros(2, channels, size, size)
    try:
        with torch.no_grad():
            logits = model(images)
    except Exception as error:
        images_shape = (2, channels, size, size)
        rule = f"the model {name} must accept images of shape {images_shape}; it raised {type(error).__name__}: {error}"
        raise RequestError(rule, hint="choose a model that fits the data, or set data.size") from error
    shape = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
    if shape != (2, classes):
        raise RequestError(f"the model {name} must return logits of shape {(2, classes)}", value=shape)


def _call_factory(name: str, shape: dict[str, Any]) -> Any:
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
