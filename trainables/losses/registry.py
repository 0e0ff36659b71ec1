"""All distillation losses by name, and the parsing of weighted sums of them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import cache
from types import MappingProxyType
from typing import Any

from spaces.core.errors import RequestError, RoletuneError, unknown
from spaces.core.importing import check_dotted, import_dotted
from trainables.losses.base import Loss
from trainables.losses.feature.attention import Attention
from trainables.losses.feature.crd import CRD
from trainables.losses.feature.hint import Hint
from trainables.losses.feature.pkt import PKT
from trainables.losses.feature.rkd import RKD
from trainables.losses.feature.similarity import Similarity
from trainables.losses.feature.spectral import Spectral
from trainables.losses.logit.dist import DIST
from trainables.losses.logit.dkd import DKD
from trainables.losses.logit.kd import KD
from trainables.losses.logit.mutual import Mutual

_KINDS: tuple[type[Loss], ...] = (KD, DKD, DIST, Mutual, Hint, Attention, Similarity, PKT, RKD, CRD, Spectral)

LOSSES: Mapping[str, type[Loss]] = MappingProxyType({kind.kind: kind for kind in _KINDS})
"""Name → class of every loss that comes with roletune: on logits, on features, without a teacher."""

RENAMED_LOSSES = {"relational": "rkd"}
RENAMED_OPTIONS = {"normalisation": "normalization"}
"""Old spellings, which policy files of earlier versions may contain and sweep files may not."""


@dataclass(frozen=True)
class WeightedLoss:
    """One loss of a weighted sum.

    Args:
        weight: Weight in the sum, > 0.
        loss: The loss.
        factory: Dotted name of a custom loss; empty for a loss of the registry.
        options: Keyword arguments of the factory, as sorted pairs.
    """

    weight: float
    loss: Loss
    factory: str = ""
    options: tuple[tuple[str, Any], ...] = ()

    @property
    def name(self) -> str:
        """Name of the loss in a sweep file."""
        return self.factory or self.loss.kind

    def to_json(self) -> dict[str, Any]:
        """Return the loss's options as plain data."""
        options = dict(self.options) if self.factory else self.loss.to_json()
        return {name: list(value) if isinstance(value, tuple) else value for name, value in options.items()}


def parse_losses(choice: Any) -> tuple[WeightedLoss, ...]:
    """Parse a weighted sum of losses.

    Args:
        choice: Name from `LOSSES`; or a mapping of such names to a weight, or to a mapping of `weight` (default 1)
            and options. A name with a dot, `package.module:attribute`, is a factory of your own that takes the
            options as keyword arguments and returns a `Loss`.

    Returns:
        The losses in registry order, custom ones last.

    Raises:
        RequestError: A name or an option is unknown, or a value is out of its range.

    Example:
        >>> [(each.name, each.weight) for each in parse_losses({"hint": {"weight": 50}, "kd": 1})]
        [('kd', 1.0), ('hint', 50.0)]
        >>> parse_losses("relational")
        Traceback (most recent call last):
        ...
        spaces.core.errors.RequestError: the loss 'relational' must be named 'rkd'
    """
    content = {choice: 1} if isinstance(choice, str) else choice
    if not isinstance(content, Mapping) or not content or not all(isinstance(name, str) for name in content):
        raise RequestError("loss must be a name or a mapping of names to weights or options", value=choice)
    order = {name: place for place, name in enumerate(LOSSES)}
    names = sorted(content, key=lambda name: (order.get(name, len(order)), name))
    return tuple(_parse_loss(name, content[name]) for name in names)


def describe_losses(losses: tuple[WeightedLoss, ...]) -> Any:
    """Return `losses` as plain data that `parse_losses` reads; equal sums give equal data.

    Example:
        >>> describe_losses(parse_losses({"kd": 1, "rkd": {"weight": 2, "angle": 0}}))
        {'kd': 1.0, 'rkd': {'weight': 2.0, 'angle': 0.0}}
    """
    content: dict[str, Any] = {}
    for each in losses:
        options = each.to_json()
        content[each.name] = {"weight": each.weight, **options} if options else each.weight
    return next(iter(content)) if [*content.values()] == [1.0] else content


def upgrade_losses(choice: Any) -> Any:
    """Return `choice`, in the form of `parse_losses`, with the old spellings of earlier policy files replaced.

    Example:
        >>> upgrade_losses({"relational": 1, "hint": {"normalisation": "l2"}})
        {'rkd': 1, 'hint': {'normalization': 'l2'}}
    """
    if isinstance(choice, str):
        return RENAMED_LOSSES.get(choice, choice)
    if not isinstance(choice, Mapping):
        return choice
    return {RENAMED_LOSSES.get(name, name): _upgrade_options(content) for name, content in choice.items()}


def _upgrade_options(content: Any) -> Any:
    if not isinstance(content, Mapping):
        return content
    return {RENAMED_OPTIONS.get(option, option): value for option, value in content.items()}


def _parse_loss(name: str, content: Any) -> WeightedLoss:
    options = {"weight": content} if not isinstance(content, Mapping) else dict(content)
    weight = options.pop("weight", 1)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight <= sys.float_info.max:
        raise RequestError(f"the weight of {name} must be a finite number > 0", value=weight)
    for option in options:
        if not isinstance(option, str):
            raise RequestError(f"an option name of {name} must be a string", value=option)
    if "." in name or ":" in name:
        return _parse_custom_loss(name, float(weight), options)
    if name in RENAMED_LOSSES:
        raise RequestError(f"the loss {name!r} must be named {RENAMED_LOSSES[name]!r}")
    if name not in LOSSES:
        raise unknown("loss", name, LOSSES)
    known = [field.name for field in fields(LOSSES[name])]
    for option in options:
        if option not in known and RENAMED_OPTIONS.get(option) in known:
            raise RequestError(f"the option {option!r} of {name} must be named {RENAMED_OPTIONS[option]!r}")
        if option not in known:
            raise unknown(f"option of {name}", option, [*known, "weight"])
    return WeightedLoss(float(weight), LOSSES[name](**options))


def _parse_custom_loss(factory: str, weight: float, options: Mapping[str, Any]) -> WeightedLoss:
    check_dotted(factory)
    for name, value in options.items():
        if not isinstance(value, str | int | float | bool | None):
            raise RequestError(f"option {name} of {factory} must be a string, a number, a boolean or null", value=value)
    pairs = tuple(sorted(options.items()))
    return WeightedLoss(weight, _build_custom_loss(factory, pairs), factory, pairs)


@cache
def _build_custom_loss(factory: str, options: tuple[tuple[str, Any], ...]) -> Loss:
    function: Callable[..., Any] = import_dotted(factory)
    try:
        loss = function(**dict(options))
    except RoletuneError:
        raise
    except Exception as error:
        rule = f"the loss factory {factory} raised {type(error).__name__}: {error}"
        raise RequestError(rule, value=dict(options)) from error
    if not isinstance(loss, Loss):
        raise RequestError(f"the factory {factory} must return a trainables.losses.Loss", value=type(loss).__name__)
    return loss
