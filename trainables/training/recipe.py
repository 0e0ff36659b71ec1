"""How a network is trained: optimizer, learning rate, precision. The same for the search and for the full training."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Literal, get_args, get_origin, get_type_hints

import torch
from torch import nn

from spaces import RequestError
from spaces.core.errors import unknown
from trainables.training.optimizers import SGD, AdamW

FUSED = ("cpu", "cuda")
"""Devices with fused optimizers."""


def check_range(name: str, value: Any, holds: Callable[[Any], bool], rule: str) -> None:
    """Refuse `value` unless it is a finite number for which the rule `holds`.

    Raises:
        RequestError: with the rule and the value.
    """
    try:
        finite = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # a whole number that no float can hold
        finite = False
    if not finite:
        raise RequestError(f"{name} must be a finite number", value=value)
    if not holds(value):
        raise RequestError(f"{name} must be {rule}", value=value)


def check_choices(settings: object) -> None:
    """Refuse a name in the dataclass `settings` that its field's `Literal` does not list.

    Raises:
        RequestError: with the name and those that are known.
    """
    for field, hint in get_type_hints(type(settings)).items():
        value = getattr(settings, field)
        if get_origin(hint) is Literal and value not in get_args(hint):
            raise unknown(field, value, get_args(hint))


@dataclass(frozen=True)
class Recipe:
    """The settings of one training.

    Args:
        optimizer: `sgd` (with Nesterov momentum) or `adam` (with decoupled weight decay, so AdamW).
        lr: the learning rate at its highest.
        lr_schedule: `cosine` falls to 0 over the training (Loshchilov & Hutter 2017, https://arxiv.org/abs/1608.03983);
            `constant` stays.
        warmup: epochs over which the rate rises linearly from 0, ≥ 0.
        momentum: of SGD, in [0, 1).
        weight_decay: ≥ 0, on all parameters.
        batch_size: images a step, ≥ 2.
        clip: the largest gradient norm, or None for no clipping.
        label_smoothing: in [0, 1), of the labels' cross-entropy only.
        precision: `float32`, or `bfloat16` for autocast.
        channels_last: keep images and convolution weights in channels-last order; None: of networks with 2-d
            convolutions that take it. Whatever is your own and sees maps in this order (a loss on features) takes
            `Tensor.reshape` for `Tensor.view`.
    """

    __pydantic_config__ = {"extra": "forbid", "strict": True}  # noqa: RUF012 - what a sweep file may not say; plain data

    optimizer: Literal["sgd", "adam"] = "sgd"
    lr: float = 0.1
    lr_schedule: Literal["cosine", "constant"] = "cosine"
    warmup: float = 0.0
    momentum: float = 0.9
    weight_decay: float = 5e-4
    batch_size: int = 128
    clip: float | None = None
    label_smoothing: float = 0.0
    precision: Literal["float32", "bfloat16"] = "float32"
    channels_last: bool | None = None

    def __post_init__(self) -> None:
        """Refuse values that cannot train."""
        check_choices(self)
        check_range("lr", self.lr, lambda lr: lr > 0, "above 0")
        check_range("warmup", self.warmup, lambda epochs: epochs >= 0, "0 or more")
        check_range("momentum", self.momentum, lambda share: 0 <= share < 1, "in [0, 1)")
        check_range("weight_decay", self.weight_decay, lambda decay: decay >= 0, "0 or more")
        whole = isinstance(self.batch_size, Integral)
        rule = "a whole number, 2 or more, for batch normalization"
        check_range("batch_size", self.batch_size, lambda size: whole and size >= 2, rule)
        if self.clip is not None:
            check_range("clip", self.clip, lambda norm: norm > 0, "above 0, or null")
        check_range("label_smoothing", self.label_smoothing, lambda share: 0 <= share < 1, "in [0, 1)")

    def make_optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """An optimizer over the model's trainable parameters."""
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        # One kernel for all parameters. It looks at no strides: see `restore_optimizer`.
        fused = all(parameter.is_floating_point() and parameter.device.type in FUSED for parameter in parameters)
        if self.optimizer == "adam":
            return AdamW(parameters, lr=self.lr, weight_decay=self.weight_decay, fused=fused)
        return SGD(
            parameters,
            lr=self.lr,
            momentum=self.momentum,
            nesterov=self.momentum > 0,
            weight_decay=self.weight_decay,
            fused=fused,
        )

    def lr_at(self, epoch: float, epochs: int) -> float:
        """The learning rate at `epoch`, a point in [0, epochs] that need not be whole.

        It follows from the position alone, so a resumed training has nothing to restore.
        """
        scale = min(1.0, epoch / self.warmup) if self.warmup else 1.0
        if self.lr_schedule == "cosine":
            scale *= 0.5 * (1 + math.cos(math.pi * min(epoch / epochs, 1.0)))
        return self.lr * scale


def restore_optimizer(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Go on from `state`, of which copies are kept, each laid out in memory as its parameter is.

    The fused optimizers go through parameter, gradient and momentum number by number, in whatever order these lie; a
    state that comes from a network of another layout would be taken for another one, without a word (torch 2.15).
    """
    optimizer.load_state_dict(deepcopy(dict(state)))
    for parameter, kept in optimizer.state.items():
        for name, value in kept.items():
            if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                kept[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
