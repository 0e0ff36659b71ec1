"""What the losses of the catalog refuse, and how they read their options."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from spaces.core.errors import RequestError
from trainables.losses.base import Loss, Pair
from trainables.training.recipe import check_range


def number(loss: Loss, name: str, holds: Callable[[float], bool], rule: str) -> None:
    """Hold the option `name` of `loss` to `rule`, and keep it as a float: of equal values there is one form.

    Raises:
        RequestError: it is no finite number, or `holds` it not.
    """
    value = getattr(loss, name)
    check_range(f"{loss.kind}'s {name}", value, holds, rule)
    object.__setattr__(loss, name, float(value) + 0.0)


def whole(loss: Loss, name: str) -> None:
    """Hold the option `name` of `loss` to a whole number, 1 or more.

    Raises:
        RequestError: it is none.
    """
    value = getattr(loss, name)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise RequestError(f"{loss.kind}'s {name} is a whole number, 1 or more", value=value)


def layer_names(loss: Loss, name: str) -> None:
    """Keep the option `name` of `loss`, a layer's name or a list of them, as a tuple.

    Raises:
        RequestError: it is neither, or names a layer twice.
    """
    value: Any = getattr(loss, name)
    named = (value,) if isinstance(value, str) else value
    if not isinstance(named, list | tuple) or not all(isinstance(layer, str) and layer for layer in named):
        raise RequestError(f"{loss.kind}'s {name} is a layer's name, or a list of them", value=value)
    if len(set(named)) < len(named):
        raise RequestError(f"{loss.kind}'s {name} names every layer once", value=value)
    object.__setattr__(loss, name, tuple(named))


def need_teacher(loss: Loss, pair: Pair) -> int:
    """The teacher's classes.

    Raises:
        RequestError: there is no teacher.
    """
    if pair.teacher_classes is None:
        raise RequestError(f"{loss.kind} needs a teacher", hint="name one, or take `spectral`, which needs none")
    return pair.teacher_classes


def need_classes(loss: Loss, pair: Pair) -> None:
    """Both networks answer with the same classes.

    Raises:
        RequestError: they do not, or there is no teacher.
    """
    classes = need_teacher(loss, pair)
    if classes != pair.classes:
        rule = f"{loss.kind} compares logits over the {pair.classes} classes of the data"
        hint = "take a loss on features, such as hint with projection: inverted"
        raise RequestError(rule, value=f"a teacher of {classes}", hint=hint)


def without_autocast(where: Tensor) -> AbstractContextManager[Any]:
    """A context in which nothing on the device of `where` is cast down."""
    return torch.autocast(where.device.type, enabled=False)
