"""Domains: which settings a sweep file frees, and over what, as plain data.

- a list is a choice among its items, which may hold domains themselves: these count only where their item is chosen;
- a mapping with `low` and `high`, perhaps `log`, is a range, both ends included: of whole numbers if both ends are
  written as such, else of floats;
- any other mapping has domains as its values; any other value stands for itself.

Source: the explore rule is PBT's (Jaderberg et al. 2017, https://arxiv.org/abs/1711.09846): times 0.8 or 1.25, or drawn
anew, which is as probable here as in Ray's PBT. That choices are explored the same way is our reading of it.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np

from spaces.core.errors import RequestError

ANEW = 0.2
"""How probable it is that exploring draws a number, or a choice, anew."""

FACTORS = (0.8, 1.25)
"""What a number that is not drawn anew is multiplied by, each as probable as the other."""

DEPTH = 50
"""How deep a domain may be nested."""

_MOST = 2**53

_N = TypeVar("_N", int, float)


class Draw(Protocol):
    """Where values come from. `name` is the place in the domain: the same place always has the same name."""

    def choice(self, name: str, count: int) -> int:
        """An index, 0 … `count` − 1; `count` ≥ 2."""

    def number(self, name: str, low: float, high: float, *, log: bool) -> float:
        """A float from `low` to `high`; `log`: uniform in its logarithm."""

    def whole(self, name: str, low: int, high: int, *, log: bool) -> int:
        """A whole number from `low` to `high`; `log`: about uniform in its logarithm."""


@dataclass(frozen=True)
class Uniform:
    """Every item, and every number of a range, is equally probable, or every logarithm.

    Args:
        generator: of all random numbers.
    """

    generator: np.random.Generator

    def choice(self, name: str, count: int) -> int:
        """An index, each as probable as any other."""
        return int(self.generator.integers(count))

    def number(self, name: str, low: float, high: float, *, log: bool) -> float:
        """A float whose value, or logarithm, is uniform."""
        if not log:
            return _clip(float(self.generator.uniform(low, high)), low, high)
        return _clip(math.exp(self.generator.uniform(math.log(low), math.log(high))), low, high)

    def whole(self, name: str, low: int, high: int, *, log: bool) -> int:
        """A uniform whole number; `log`: a log-uniform float from `low` − ½ to `high` + ½, rounded."""
        if not log:
            return int(self.generator.integers(low, high, endpoint=True))
        return _clip(round(self.number(name, low - 0.5, high + 0.5, log=True)), low, high)


class _First:
    """The first item of each choice, and the low end of each range."""

    def choice(self, name: str, count: int) -> int:
        return 0

    def number(self, name: str, low: float, high: float, *, log: bool) -> float:
        return low

    def whole(self, name: str, low: int, high: int, *, log: bool) -> int:
        return low


@dataclass(frozen=True)
class _Range:
    low: float
    high: float
    log: bool

    def drawn(self, draw: Draw, name: str) -> float:
        if isinstance(self.low, int) and isinstance(self.high, int):
            return draw.whole(name, self.low, self.high, log=self.log)
        return draw.number(name, self.low, self.high, log=self.log)

    def holds(self, value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float) or not self.low <= value <= self.high:
            return False
        return not isinstance(self.low, int) or value == int(value)

    def explored(self, value: float, generator: np.random.Generator) -> float:
        if generator.random() < ANEW:
            return self.drawn(Uniform(generator), "")
        up = generator.random() < 0.5
        moved = value * FACTORS[up]
        if not isinstance(self.low, int):
            return _clip(moved, self.low, self.high)
        moved = round(moved)
        if moved == value:
            moved += 1 if up == (value >= 0) else -1  # away from 0, or towards it; of 0 itself, up or down
        return _clip(moved, self.low, self.high)


def drawn(domain: Any, draw: Draw, name: str = "") -> Any:
    """A value of `domain`, as plain data that shares nothing with it.

    Args:
        domain: that `check` allows, as everywhere below.
        draw: asked for every choice of two items or more and every range, and for nothing else.
        name: of the domain's place. Inside it, `name.key` is a mapping's value and `name[1]` a choice's second item, so
            every question of one draw has a name of its own; a key that is no plain word stands in brackets and quotes.
    """
    if isinstance(domain, list | tuple):
        index = draw.choice(name, len(domain)) if len(domain) > 1 else 0
        return drawn(domain[index], draw, f"{name}[{index}]")
    if found := _range(domain):
        return found.drawn(draw, name)
    if isinstance(domain, Mapping):
        return {key: drawn(inner, draw, _inside(name, key)) for key, inner in domain.items()}
    return domain


def explored(domain: Any, value: Any, generator: np.random.Generator) -> Any:
    """A neighbor of `value` in `domain`.

    A choice is drawn anew with probability 0.2, and all inside it; else the first item that `value` may come from is
    explored. A range is drawn anew with probability 0.2; else the number is multiplied by 0.8 or 1.25 (a whole one
    moves by 1 or more) and clipped to the ends. What `domain` has no place for is drawn anew.
    """
    uniform = Uniform(generator)
    if isinstance(domain, list | tuple):
        if len(domain) == 1:
            return explored(domain[0], value, generator)
        origins = [item for item in domain if belongs(item, value)]
        anew = generator.random() < ANEW or not origins
        return drawn(domain, uniform) if anew else explored(origins[0], value, generator)
    if found := _range(domain):
        return found.explored(value, generator) if found.holds(value) else found.drawn(uniform, "")
    if isinstance(domain, Mapping):
        known = value if isinstance(value, Mapping) else {}
        return {
            key: explored(inner, known[key], generator) if key in known else drawn(inner, uniform)
            for key, inner in domain.items()
        }
    return domain


def belongs(domain: Any, value: Any) -> bool:
    """Whether `value` may be drawn from `domain`; 1 and 1.0 are the same, 1 and true are not."""
    if isinstance(domain, list | tuple):
        return any(belongs(item, value) for item in domain)
    if found := _range(domain):
        return found.holds(value)
    if isinstance(domain, Mapping):
        if not isinstance(value, Mapping) or value.keys() != domain.keys():
            return False
        return all(belongs(inner, value[key]) for key, inner in domain.items())
    return isinstance(value, bool) == isinstance(domain, bool) and bool(value == domain)


def first(domain: Any) -> Any:
    """Where a search starts: the first item of each choice, the low end of each range."""
    return drawn(domain, _First())


def examples(domain: Any) -> list[Any]:
    """Values that show all that `domain` allows: every item of every choice, and both ends of every range.

    Each is shown with all else at its first, so there are about as many as there are items and ends; the first one is
    `first`.
    """
    if isinstance(domain, list | tuple):
        return _distinct(itertools.chain.from_iterable(map(examples, domain)))
    if found := _range(domain):
        return [found.low, found.high]
    if isinstance(domain, Mapping):
        others = [{**first(domain), key: shown} for key, inner in domain.items() for shown in examples(inner)[1:]]
        return [first(domain), *others]
    return [domain]


def constant(domain: Any) -> bool:
    """Whether nothing is free."""
    if isinstance(domain, list | tuple):
        return len(domain) == 1 and constant(domain[0])
    if isinstance(domain, Mapping):
        return not _range(domain) and all(map(constant, domain.values()))
    return True


def variants(domain: Any) -> list[Any] | None:
    """All values of `domain`, each once, in the order of its items; None: it holds a range."""
    if isinstance(domain, list | tuple):
        found = _known(map(variants, domain))
        return None if found is None else _distinct(itertools.chain.from_iterable(found))
    if _range(domain):
        return None
    if isinstance(domain, Mapping):
        found = _known(map(variants, domain.values()))
        if found is None:
            return None
        return [dict(zip(domain, values, strict=True)) for values in itertools.product(*found)]
    return [domain]


def check(domain: Any, name: str) -> None:
    """Refuse what is no domain.

    Args:
        domain: anything.
        name: of its place, which messages begin with.

    Raises:
        RequestError: no plain data, a choice without items or with the same one twice, or a range that is none.
    """
    _check(domain, name, DEPTH)


def _check(domain: Any, name: str, depth: int) -> None:
    if depth == 0:
        raise RequestError(f"a domain is nested at most {DEPTH} deep", hint=f"see {name[:80]}")
    if isinstance(domain, list | tuple):
        if not domain:
            raise RequestError(f"{name} is a choice among one item or more", value=domain)
        for index, item in enumerate(domain):
            _check(item, f"{name}[{index}]", depth - 1)
        if len(_distinct(domain)) < len(domain):
            raise RequestError(f"{name} is a choice among items that differ", value=domain)
    elif isinstance(domain, Mapping):
        for key in domain:
            if not isinstance(key, str):
                raise RequestError(f"the names in {name} are text", value=key)
        if {"low", "high"} & domain.keys():
            _check_range(domain, name)
        else:
            for key, inner in domain.items():
                _check(inner, _inside(name, key), depth - 1)
    elif isinstance(domain, float) and not math.isfinite(domain):
        raise RequestError(f"{name} is finite", value=domain)
    elif domain is not None and not isinstance(domain, str | int | float):
        rule = f"{name} is plain data: text, a number, true, false, null, a list or a mapping"
        raise RequestError(rule, value=type(domain).__name__)


def _check_range(domain: Mapping[str, Any], name: str) -> None:
    if not {"low", "high"} <= domain.keys() <= {"low", "high", "log"}:
        raise RequestError(f"{name} is a range with low and high, perhaps log, and nothing else", value=sorted(domain))
    low, high, log = domain["low"], domain["high"], domain.get("log", False)
    if not _is_number(low) or not _is_number(high):
        raise RequestError(f"low and high of {name} are finite numbers", value=[low, high])
    if not isinstance(log, bool):
        raise RequestError(f"log of {name} is true or false", value=log)
    if not low < high:
        raise RequestError(f"low of {name} is less than high", value=[low, high])
    if log and low <= 0:
        raise RequestError(f"low of {name} is above 0, since log is true", value=low)
    if isinstance(low, int) and isinstance(high, int):
        if max(abs(low), abs(high)) > _MOST:
            raise RequestError(f"low and high of {name} are from −2⁵³ to 2⁵³", value=[low, high])
    elif not math.isfinite(float(high) - float(low)) or not float(low) < float(high):
        raise RequestError(f"low and high of {name} are floats whose difference is one too", value=[low, high])


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number that no float reaches
        return False


def _range(domain: Any) -> _Range | None:
    if not isinstance(domain, Mapping) or not {"low", "high"} <= domain.keys():
        return None
    low, high, log = domain["low"], domain["high"], domain.get("log", False)
    whole = isinstance(low, int) and isinstance(high, int)
    return _Range(low, high, log) if whole else _Range(float(low), float(high), log)


def _inside(name: str, key: str) -> str:
    if not key or set(key) & set('.[]"'):
        return f"{name}[{json.dumps(key)}]"
    return f"{name}.{key}" if name else key


def _clip(value: _N, low: _N, high: _N) -> _N:
    return min(max(value, low), high)


def _known(parts: Any) -> list[list[Any]] | None:
    found = list(parts)
    return None if any(part is None for part in found) else found


def _distinct(values: Any) -> list[Any]:
    """The values that differ, in their order."""
    found: dict[Any, Any] = {}
    for value in values:
        found.setdefault(_key(value), value)
    return list(found.values())


def _key(value: Any) -> Any:
    """Equal for equal plain data, where 1 is 1.0 and not true."""
    if isinstance(value, list | tuple):
        return tuple(map(_key, value))
    if isinstance(value, Mapping):
        return frozenset((name, _key(inner)) for name, inner in value.items())
    return (bool, value) if isinstance(value, bool) else value
