"""Training settings: optimizer, learning rate and precision, the same for the search and the final training."""

from __future__ import annotations

import math
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from numbers import Integral
from typing import Any, Literal, get_args, get_origin, get_type_hints

import torch
from torch import nn

from spaces.core.errors import unknown
from spaces.core.validation import check_range
from trainables.training.optimizers import SGD, AdamW

FUSED = ("cpu", "cuda")
"""Device types for which PyTorch has fused optimizers."""


def check_choices(settings: object) -> None:
    """Check every field of the dataclass `settings` that is annotated as a `Literal`.

    Raises:
        RequestError: A value is not one of its field's choices.
    """
    for field, hint in get_type_hints(type(settings)).items():
        value = getattr(settings, field)
        if get_origin(hint) is Literal and value not in get_args(hint):
            raise unknown(field, value, get_args(hint))


@dataclass(frozen=True)
class Recipe:
    """Settings of one training.

    Args:
        optimizer: `sgd` (with Nesterov momentum) or `adam` (AdamW: with decoupled weight decay).
        lr: Highest learning rate, > 0.
        lr_schedule: `cosine`, which decays to 0 over the training (SGDR, Loshchilov & Hutter 2017,
            https://arxiv.org/abs/1608.03983), or `constant`.
        warmup: Epochs over which the learning rate rises linearly from 0, >= 0.
        momentum: Momentum of SGD, in [0, 1).
        weight_decay: Weight decay of all parameters, >= 0.
        batch_size: Images per update, >= 2.
        clip: Largest gradient norm, > 0; None for no clipping.
        label_smoothing: Label smoothing of the cross-entropy with the labels, in [0, 1).
        precision: `float32`, or `bfloat16` for autocast.
        channels_last: Use the channels-last memory format; None to use it for networks with 2-d convolutions that
            accept it. Custom code that receives feature maps must then use `Tensor.reshape`, not `Tensor.view`.

    Raises:
        RequestError: A value is out of its range.

    Example:
        >>> recipe = Recipe(lr=0.1, warmup=2)
        >>> [round(recipe.lr_at(epoch, epochs=10), 3) for epoch in (0, 1, 2, 10)]
        [0.0, 0.049, 0.09, 0.0]
        >>> Recipe(lr=0)
        Traceback (most recent call last):
        ...
        spaces.core.errors.RequestError: lr must be > 0, got 0
    """

    __pydantic_config__ = {"extra": "forbid", "strict": True}  # noqa: RUF012 - pydantic reads it from the class

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
        """Check the ranges."""
        check_choices(self)
        check_range("lr", self.lr, lambda lr: lr > 0, "> 0")
        check_range("warmup", self.warmup, lambda epochs: epochs >= 0, ">= 0")
        check_range("momentum", self.momentum, lambda share: 0 <= share < 1, "in [0, 1)")
        check_range("weight_decay", self.weight_decay, lambda decay: decay >= 0, ">= 0")
        whole = isinstance(self.batch_size, Integral)
        rule = "an integer >= 2, which batch normalization needs"
        check_range("batch_size", self.batch_size, lambda size: whole and size >= 2, rule)
        if self.clip is not None:
            check_range("clip", self.clip, lambda norm: norm > 0, "> 0, or null")
        check_range("label_smoothing", self.label_smoothing, lambda share: 0 <= share < 1, "in [0, 1)")

    def make_optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """Build the optimizer of the trainable parameters of `model`."""
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        # One kernel for all parameters; it ignores strides, see `restore_optimizer`.
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
        """Return the learning rate at a point of the training.

        It depends on the position alone, so a resumed training has no scheduler state to restore.

        Args:
            epoch: Position in [0, epochs], not necessarily an integer.
            epochs: Length of the training.
        """
        scale = min(1.0, epoch / self.warmup) if self.warmup else 1.0
        if self.lr_schedule == "cosine":
            scale *= 0.5 * (1 + math.cos(math.pi * min(epoch / epochs, 1.0)))
        return self.lr * scale


def restore_optimizer(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Load a copy of `state` into `optimizer`, each tensor in the memory format of its parameter.

    The fused optimizers read parameter, gradient and momentum in memory order and ignore strides (torch 2.15), so a
    momentum in another memory format would silently be applied to the wrong weights.
    """
    optimizer.load_state_dict(deepcopy(dict(state)))
    for parameter, kept in optimizer.state.items():
        for name, value in kept.items():
            if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                kept[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
