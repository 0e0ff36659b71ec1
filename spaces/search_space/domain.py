"""Domains of searchable settings, as plain data of a sweep file.

- A list is a choice among its items. Items may hold domains, which are active only if the item is chosen.
- A mapping with `low`, `high` and optionally `log` is a range, both ends included: of integers if both ends are
  integers, else of floats.
- Any other mapping has domains as values; any other value is a constant.

Source: the explore rule is that of PBT (Jaderberg et al. 2017, https://arxiv.org/abs/1711.09846): multiplication by 0.8
or 1.25, or resampling with the probability of Ray's PBT. Choices are explored the same way, which is our reading.
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
from spaces.core.validation import is_finite_number

RESAMPLE_PROBABILITY = 0.2
"""Probability that exploring resamples a number or a choice."""

FACTORS = (0.8, 1.25)
"""Factors for a number that is not resampled, with equal probabilities."""

MAX_DEPTH = 50
"""Largest nesting depth of a domain."""

_MAX_INTEGER = 2**53

_N = TypeVar("_N", int, float)


class Sampler(Protocol):
    """Source of values for a domain. `name` is the path in the domain, the same for the same place."""

    def choice(self, name: str, count: int) -> int:
        """Return an index from 0 to `count` - 1; `count` is at least 2."""

    def number(self, name: str, low: float, high: float, *, log: bool) -> float:
        """Return a float from `low` to `high`, on a logarithmic scale if `log`."""

    def integer(self, name: str, low: int, high: int, *, log: bool) -> int:
        """Return an integer from `low` to `high`, on a logarithmic scale if `log`."""


@dataclass(frozen=True)
class UniformSampler:
    """Sampler that is uniform over items and ranges, or log-uniform where a range says so.

    Args:
        generator: Source of all random numbers.
    """

    generator: np.random.Generator

    def choice(self, name: str, count: int) -> int:
        """Return a uniform index."""
        return int(self.generator.integers(count))

    def number(self, name: str, low: float, high: float, *, log: bool) -> float:
        """Return a uniform or log-uniform float."""
        if not log:
            return _clip(float(self.generator.uniform(low, high)), low, high)
        return _clip(math.exp(self.generator.uniform(math.log(low), math.log(high))), low, high)

    def integer(self, name: str, low: int, high: int, *, log: bool) -> int:
        """Return a uniform integer; with `log` a log-uniform float from `low` - 0.5 to `high` + 0.5, rounded."""
        if not log:
            return int(self.generator.integers(low, high, endpoint=True))
        return _clip(round(self.number(name, low - 0.5, high + 0.5, log=True)), low, high)


class _InitialSampler:
    """Sampler of the first item of each choice and the low end of each range."""

    def choice(self, name: str, count: int) -> int:
        return 0

    def number(self, name: str, low: float, high: float, *, log: bool) -> float:
        return low

    def integer(self, name: str, low: int, high: int, *, log: bool) -> int:
        return low


@dataclass(frozen=True)
class _Range:
    low: float
    high: float
    log: bool

    def draw(self, sampler: Sampler, name: str) -> float:
        if isinstance(self.low, int) and isinstance(self.high, int):
            return sampler.integer(name, self.low, self.high, log=self.log)
        return sampler.number(name, self.low, self.high, log=self.log)

    def contains(self, value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float) or not self.low <= value <= self.high:
            return False
        return not isinstance(self.low, int) or value == int(value)

    def explore(self, value: float, generator: np.random.Generator) -> float:
        if generator.random() < RESAMPLE_PROBABILITY:
            return self.draw(UniformSampler(generator), "")
        up = generator.random() < 0.5
        moved = value * FACTORS[up]
        if not isinstance(self.low, int):
            return _clip(moved, self.low, self.high)
        moved = round(moved)
        if moved == value:
            moved += 1 if up == (value >= 0) else -1  # away from 0 or toward it; 0 itself moves up or down
        return _clip(moved, self.low, self.high)


def draw(domain: Any, sampler: Sampler, name: str = "") -> Any:
    """Draw a value of a domain, as plain data that shares no objects with it.

    Args:
        domain: Valid domain, see `check_domain`.
        sampler: Source of the value, called for each range and each choice of at least two items.
        name: Path of the domain. Below it, `name.key` is a value of a mapping and `name[1]` the second item of a
            choice, so that each call of the sampler has a unique name; keys with special characters are quoted.

    Example:
        >>> import numpy as np
        >>> from spaces.search_space.domain import UniformSampler, contains, draw
        >>> domain = {"loss": ["kd", "dkd"], "temperature": {"low": 1.0, "high": 8.0, "log": True}}
        >>> contains(domain, draw(domain, UniformSampler(np.random.default_rng(0))))
        True
    """
    if isinstance(domain, list | tuple):
        index = sampler.choice(name, len(domain)) if len(domain) > 1 else 0
        return draw(domain[index], sampler, f"{name}[{index}]")
    if found := _range(domain):
        return found.draw(sampler, name)
    if isinstance(domain, Mapping):
        return {key: draw(inner, sampler, value_path(name, key)) for key, inner in domain.items()}
    return domain


def drawn_values(domain: Any, value: Any, name: str = "") -> dict[str, float]:
    """Return what a sampler must give, by name, for `draw` to return `value`; nothing where `value` cannot be drawn.

    Args:
        domain: Valid domain.
        value: Value of the domain.
        name: Path of the domain, as for `draw`.

    Example:
        >>> from spaces.search_space.domain import drawn_values
        >>> drawn_values({"loss": ["kd", "dkd"], "alpha": {"low": 0.5, "high": 1.0}}, {"loss": "dkd", "alpha": 0.9})
        {'loss': 1, 'alpha': 0.9}
    """
    if not contains(domain, value):
        return {}
    if isinstance(domain, list | tuple):
        index = next(number for number, item in enumerate(domain) if contains(item, value))
        own = {name: index} if len(domain) > 1 else {}
        return {**own, **drawn_values(domain[index], value, f"{name}[{index}]")}
    if _range(domain):
        return {name: value}
    if isinstance(domain, Mapping):
        inner = [drawn_values(domain[key], value[key], value_path(name, key)) for key in domain]
        return {key: each for part in inner for key, each in part.items()}
    return {}


def explore(domain: Any, value: Any, generator: np.random.Generator) -> Any:
    """Return a neighbor of `value` in `domain`.

    A choice and all inside it is resampled with probability 0.2; else the first item that contains `value` is explored.
    A number is resampled with probability 0.2; else it is multiplied by 0.8 or 1.25 (an integer moves by at least 1)
    and clipped. Values outside the domain are resampled.

    Args:
        domain: Valid domain.
        value: Value to start from.
        generator: Source of all random numbers.

    Example:
        >>> import numpy as np
        >>> from spaces.search_space.domain import explore
        >>> explore({"low": 0.0, "high": 10.0}, 5.0, np.random.default_rng(1))
        4.0
    """
    uniform = UniformSampler(generator)
    if isinstance(domain, list | tuple):
        if len(domain) == 1:
            return explore(domain[0], value, generator)
        origins = [item for item in domain if contains(item, value)]
        resample = generator.random() < RESAMPLE_PROBABILITY or not origins
        return draw(domain, uniform) if resample else explore(origins[0], value, generator)
    if found := _range(domain):
        return found.explore(value, generator) if found.contains(value) else found.draw(uniform, "")
    if isinstance(domain, Mapping):
        known = value if isinstance(value, Mapping) else {}
        return {
            key: explore(inner, known[key], generator) if key in known else draw(inner, uniform)
            for key, inner in domain.items()
        }
    return domain


def contains(domain: Any, value: Any) -> bool:
    """Return True if `value` may be drawn from `domain`; 1 equals 1.0 but not true.

    Example:
        >>> from spaces.search_space.domain import contains
        >>> contains({"low": 1, "high": 3}, 2), contains(["a", "b"], "c")
        (True, False)
    """
    if isinstance(domain, list | tuple):
        return any(contains(item, value) for item in domain)
    if found := _range(domain):
        return found.contains(value)
    if isinstance(domain, Mapping):
        if not isinstance(value, Mapping) or value.keys() != domain.keys():
            return False
        return all(contains(inner, value[key]) for key, inner in domain.items())
    return isinstance(value, bool) == isinstance(domain, bool) and bool(value == domain)


def initial(domain: Any) -> Any:
    """Return the initial value of a search: the first item of each choice, the low end of each range.

    Example:
        >>> from spaces.search_space.domain import initial
        >>> initial({"loss": ["kd", "dkd"], "alpha": {"low": 0.5, "high": 1.0}})
        {'loss': 'kd', 'alpha': 0.5}
    """
    return draw(domain, _InitialSampler())


def example_values(domain: Any) -> list[Any]:
    """Return values that cover a domain: each item of each choice, and both ends of each range.

    All else is at its initial value, so their number is about that of the items and ends. The first is `initial`.

    Example:
        >>> from spaces.search_space.domain import example_values
        >>> example_values({"loss": ["kd", "dkd"], "alpha": {"low": 0.5, "high": 1.0}})
        [{'loss': 'kd', 'alpha': 0.5}, {'loss': 'dkd', 'alpha': 0.5}, {'loss': 'kd', 'alpha': 1.0}]
    """
    if isinstance(domain, list | tuple):
        return _distinct(itertools.chain.from_iterable(map(example_values, domain)))
    if found := _range(domain):
        return [found.low, found.high]
    if isinstance(domain, Mapping):
        others = [
            {**initial(domain), key: shown} for key, inner in domain.items() for shown in example_values(inner)[1:]
        ]
        return [initial(domain), *others]
    return [domain]


def is_constant(domain: Any) -> bool:
    """Return True if the domain has a single value.

    Example:
        >>> from spaces.search_space.domain import is_constant
        >>> is_constant({"loss": ["kd"]}), is_constant({"loss": ["kd", "dkd"]})
        (True, False)
    """
    if isinstance(domain, list | tuple):
        return len(domain) == 1 and is_constant(domain[0])
    if isinstance(domain, Mapping):
        return not _range(domain) and all(map(is_constant, domain.values()))
    return True


def enumerate_values(domain: Any) -> list[Any] | None:
    """Return all values of a domain, each once, in order; None if it has a range.

    Example:
        >>> from spaces.search_space.domain import enumerate_values
        >>> enumerate_values({"weights": [2, 4], "activations": [32]})
        [{'weights': 2, 'activations': 32}, {'weights': 4, 'activations': 32}]
    """
    if isinstance(domain, list | tuple):
        found = _known(map(enumerate_values, domain))
        return None if found is None else _distinct(itertools.chain.from_iterable(found))
    if _range(domain):
        return None
    if isinstance(domain, Mapping):
        found = _known(map(enumerate_values, domain.values()))
        if found is None:
            return None
        return [dict(zip(domain, values, strict=True)) for values in itertools.product(*found)]
    return [domain]


def check_domain(domain: Any, name: str) -> None:
    """Refuse an invalid domain.

    Args:
        domain: Object to check.
        name: Name of the setting in messages.

    Raises:
        RequestError: The object is not plain data, a choice is empty or has an item twice, or a range is invalid.

    Example:
        >>> from spaces.search_space.domain import check_domain
        >>> check_domain({"low": 2, "high": 1}, "temperature")
        Traceback (most recent call last):
            ...
        spaces.core.errors.RequestError: low of temperature must be less than high, got [2, 1]
    """
    _check(domain, name, MAX_DEPTH)


def _check(domain: Any, name: str, depth: int) -> None:
    if depth == 0:
        raise RequestError(f"a domain must be nested at most {MAX_DEPTH} deep", hint=f"see {name[:80]}")
    if isinstance(domain, list | tuple):
        if not domain:
            raise RequestError(f"{name} must be a choice of at least one item", value=domain)
        for index, item in enumerate(domain):
            _check(item, f"{name}[{index}]", depth - 1)
        if len(_distinct(domain)) < len(domain):
            raise RequestError(f"{name} must be a choice of different items", value=domain)
    elif isinstance(domain, Mapping):
        for key in domain:
            if not isinstance(key, str):
                raise RequestError(f"the keys of {name} must be strings", value=key)
        if {"low", "high"} & domain.keys():
            _check_range(domain, name)
        else:
            for key, inner in domain.items():
                _check(inner, value_path(name, key), depth - 1)
    elif isinstance(domain, float) and not math.isfinite(domain):
        raise RequestError(f"{name} must be finite", value=domain)
    elif domain is not None and not isinstance(domain, str | int | float):
        rule = f"{name} must be plain data: a string, a number, true, false, null, a list or a mapping"
        raise RequestError(rule, value=type(domain).__name__)


def _check_range(domain: Mapping[str, Any], name: str) -> None:
    if not {"low", "high"} <= domain.keys() <= {"low", "high", "log"}:
        raise RequestError(
            f"{name} must be a range with low, high, optional log, and no other keys", value=sorted(domain)
        )
    low, high, log = domain["low"], domain["high"], domain.get("log", False)
    if not is_finite_number(low) or not is_finite_number(high):
        raise RequestError(f"low and high of {name} must be finite numbers", value=[low, high])
    if not isinstance(log, bool):
        raise RequestError(f"log of {name} must be true or false", value=log)
    if not low < high:
        raise RequestError(f"low of {name} must be less than high", value=[low, high])
    if log and low <= 0:
        raise RequestError(f"low of {name} must be > 0 for log", value=low)
    if isinstance(low, int) and isinstance(high, int):
        if max(abs(low), abs(high)) > _MAX_INTEGER:
            raise RequestError(f"low and high of {name} must be from -2⁵³ to 2⁵³", value=[low, high])
    elif not math.isfinite(float(high) - float(low)) or not float(low) < float(high):
        raise RequestError(f"low and high of {name} must differ by a finite float", value=[low, high])


def _range(domain: Any) -> _Range | None:
    if not isinstance(domain, Mapping) or not {"low", "high"} <= domain.keys():
        return None
    low, high, log = domain["low"], domain["high"], domain.get("log", False)
    integers = isinstance(low, int) and isinstance(high, int)
    return _Range(low, high, log) if integers else _Range(float(low), float(high), log)


def value_path(name: str, key: str) -> str:
    """Return the path of a value of the mapping at path `name`.

    Example:
        >>> from spaces.search_space.domain import value_path
        >>> value_path("distill", "loss"), value_path("distill", "my.losses:Own")
        ('distill.loss', 'distill["my.losses:Own"]')
    """
    if not key or set(key) & set('.[]"'):
        return f"{name}[{json.dumps(key)}]"
    return f"{name}.{key}" if name else key


def _clip(value: _N, low: _N, high: _N) -> _N:
    return min(max(value, low), high)


def _known(parts: Any) -> list[list[Any]] | None:
    found = list(parts)
    return None if any(part is None for part in found) else found


def _distinct(values: Any) -> list[Any]:
    """Return the different values in order."""
    found: dict[Any, Any] = {}
    for value in values:
        found.setdefault(_key(value), value)
    return list(found.values())


def _key(value: Any) -> Any:
    """Return a hashable key, equal for equal plain data; 1 equals 1.0 but not true."""
    if isinstance(value, list | tuple):
        return tuple(map(_key, value))
    if isinstance(value, Mapping):
        return frozenset((name, _key(inner)) for name, inner in value.items())
    return (bool, value) if isinstance(value, bool) else value
