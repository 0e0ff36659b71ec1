"""All losses by name, and how a sweep file names several with their weights and options."""

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
from trainables.losses.feature.crd import Crd
from trainables.losses.feature.hint import Hint
from trainables.losses.feature.pkt import Pkt
from trainables.losses.feature.rkd import RKD
from trainables.losses.feature.similarity import Similarity
from trainables.losses.feature.spectral import Spectral
from trainables.losses.logit.dist import Dist
from trainables.losses.logit.dkd import Dkd
from trainables.losses.logit.kd import Kd
from trainables.losses.logit.mutual import Mutual

_KINDS: tuple[type[Loss], ...] = (
    Kd,
    Dkd,
    Dist,
    Mutual,
    Hint,
    Attention,
    Similarity,
    Pkt,
    RKD,
    Crd,
    Spectral,
)

LOSSES: Mapping[str, type[Loss]] = MappingProxyType({kind.kind: kind for kind in _KINDS})
"""All by name: on logits, on features, without a teacher."""


@dataclass(frozen=True)
class Term:
    """A loss in a sum.

    Args:
        weight: > 0.
        loss: what is weighed.
        factory: the dotted name of a loss of the user's own; empty: it is of the catalog.
        options: of the factory, as pairs.
    """

    weight: float
    loss: Loss
    factory: str = ""
    options: tuple[tuple[str, Any], ...] = ()

    @property
    def name(self) -> str:
        """What a sweep file calls the loss."""
        return self.factory or self.loss.kind

    def to_json(self) -> dict[str, Any]:
        """The loss's options as plain data."""
        options = dict(self.options) if self.factory else self.loss.to_json()
        return {name: list(value) if isinstance(value, tuple) else value for name, value in options.items()}


def terms(choice: Any) -> tuple[Term, ...]:
    """The sum of losses that `choice` names, in the order of the catalog.

    Args:
        choice: a name of `LOSSES`; or a mapping of such names to a weight, or to a mapping of `weight` (1 unless given)
            and options. A name with a dot, `package.module:attribute`, is a factory of your own: `factory(**options)`
            gives a `Loss`.

    Raises:
        RequestError: an unknown name or option, or a value out of its range.
    """
    content = {choice: 1} if isinstance(choice, str) else choice
    if not isinstance(content, Mapping) or not content or not all(isinstance(name, str) for name in content):
        raise RequestError("a loss is a name, or a mapping from names to weights or options", value=choice)
    order = {name: place for place, name in enumerate(LOSSES)}
    return tuple(_term(name, content[name]) for name in sorted(content, key=lambda name: (order.get(name, 99), name)))


def described(sum_of_losses: tuple[Term, ...]) -> Any:
    """What `terms` gives these back from, as plain data: equal for equal sums."""
    content: dict[str, Any] = {}
    for term in sum_of_losses:
        options = term.to_json()
        content[term.name] = {"weight": term.weight, **options} if options else term.weight
    return next(iter(content)) if [*content.values()] == [1.0] else content


def _term(name: str, content: Any) -> Term:
    options = {"weight": content} if not isinstance(content, Mapping) else dict(content)
    weight = options.pop("weight", 1)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight <= sys.float_info.max:
        raise RequestError(f"the weight of {name} is a finite number above 0", value=weight)
    for option in options:
        if not isinstance(option, str):
            raise RequestError(f"an option of {name} has a name", value=option)
    if "." in name or ":" in name:
        return _own(name, float(weight), options)
    if name not in LOSSES:
        raise unknown("loss", name, LOSSES)
    known = [field.name for field in fields(LOSSES[name])]
    for option in options:
        if option not in known:
            raise unknown(f"option of {name}", option, [*known, "weight"])
    return Term(float(weight), LOSSES[name](**options))


def _own(factory: str, weight: float, options: Mapping[str, Any]) -> Term:
    check_dotted(factory)
    for name, value in options.items():
        if not isinstance(value, str | int | float | bool | None):
            raise RequestError(f"{factory}'s option {name} is a plain value", value=value)
    pairs = tuple(sorted(options.items()))
    return Term(weight, _made(factory, pairs), factory, pairs)


@cache
def _made(factory: str, options: tuple[tuple[str, Any], ...]) -> Loss:
    found: Callable[..., Any] = import_dotted(factory)
    try:
        made = found(**dict(options))
    except RoletuneError:
        raise
    except Exception as error:
        rule = f"the loss factory {factory} raised {type(error).__name__}: {error}"
        raise RequestError(rule, value=dict(options)) from error
    if not isinstance(made, Loss):
        raise RequestError(f"the factory {factory} gives a trainables.losses.Loss", value=type(made).__name__)
    return made
