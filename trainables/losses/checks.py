"""Validation of the losses' options and of the networks that they are built for."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from spaces.core.errors import RequestError
from spaces.core.validation import check_range
from trainables.losses.base import Loss, NetworkPair


def check_option(loss: Loss, name: str, holds: Callable[[float], bool], rule: str) -> None:
    """Check the option `name` of `loss`, and store it as a float so that equal options compare equal.

    Raises:
        RequestError: The option is not a finite number, or `holds` is false for it.
    """
    value = getattr(loss, name)
    check_range(f"{name} of {loss.kind}", value, holds, rule)
    object.__setattr__(loss, name, float(value) + 0.0)


def check_layer_names(loss: Loss, name: str) -> None:
    """Check the option `name` of `loss`, a layer name or a list of them, and store it as a tuple.

    Raises:
        RequestError: It is neither, or a layer is named twice.
    """
    value: Any = getattr(loss, name)
    names = (value,) if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or not all(isinstance(layer, str) and layer for layer in names):
        raise RequestError(f"{name} of {loss.kind} must be a layer name or a list of layer names", value=value)
    if len(set(names)) < len(names):
        raise RequestError(f"{name} of {loss.kind} must name each layer once", value=value)
    object.__setattr__(loss, name, tuple(names))


def require_teacher(loss: Loss, pair: NetworkPair) -> int:
    """Return the number of the teacher's classes.

    Raises:
        RequestError: There is no teacher.
    """
    if pair.teacher_classes is None:
        raise RequestError(f"the loss {loss.kind} needs a teacher", hint="set teacher, or use `spectral`")
    return pair.teacher_classes


def require_same_classes(loss: Loss, pair: NetworkPair) -> None:
    """Check that teacher and student have the same number of classes.

    Raises:
        RequestError: They do not, or there is no teacher.
    """
    classes = require_teacher(loss, pair)
    if classes != pair.classes:
        rule = f"the loss {loss.kind} compares logits, so the teacher must have {pair.classes} classes"
        raise RequestError(rule, value=classes, hint="use a loss on features, such as hint with projection: inverted")


def without_autocast(tensor: Tensor) -> AbstractContextManager[Any]:
    """Return a context that disables autocast on the device of `tensor`."""
    return torch.autocast(tensor.device.type, enabled=False)
