"""Checks of single values that users write: each refuses with the rule and the value."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from numbers import Real
from typing import Any, TypeGuard

from spaces.core.errors import RequestError


def is_integer(value: object) -> TypeGuard[int]:
    """Return True for an `int` that is not a `bool`."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_finite_number(value: object) -> TypeGuard[int | float]:
    """Return True for a finite `int` or `float` that is not a `bool` and fits a float."""
    return isinstance(value, int | float) and _is_finite(value)


def check_integer(name: str, value: object, low: int, high: int | None = None) -> int:
    """Return `value` if it is an integer from `low` to `high`, both included.

    Args:
        name: Name of the setting, which the message begins with.
        value: Value to check.
        low: Smallest allowed value.
        high: Largest allowed value; None for no upper bound.

    Raises:
        RequestError: `value` is not an integer, or out of range.

    Example:
        >>> from spaces.core.validation import check_integer
        >>> check_integer("Phase.epochs", 3, 1)
        3
        >>> check_integer("Phase.epochs", 0, 1)
        Traceback (most recent call last):
            ...
        spaces.core.errors.RequestError: Phase.epochs must be an integer >= 1, got 0
    """
    if not is_integer(value) or value < low or (high is not None and value > high):
        bounds = f">= {low}" if high is None else f"from {low} to {high}"
        raise RequestError(f"{name} must be an integer {bounds}", value=value)
    return value


def check_number(name: str, value: object, low: float = -math.inf, high: float = math.inf) -> float:
    """Return `value` as a float if it is a finite number from `low` to `high`, both included.

    Equal values get one form: 1.0 for 1, and 0.0 for -0.0.

    Args:
        name: Name of the setting, which the message begins with.
        value: Value to check.
        low: Smallest allowed value.
        high: Largest allowed value.

    Raises:
        RequestError: `value` is not a finite number, or out of range.
    """
    if not is_finite_number(value) or not low <= value <= high:
        bounded = math.isfinite(low) and math.isfinite(high)
        form = f"a number from {low:g} to {high:g}" if bounded else "a finite number"
        form += f" >= {low:g}" if not bounded and math.isfinite(low) else ""
        raise RequestError(f"{name} must be {form}", value=value)
    return float(value) + 0.0


def check_range(name: str, value: Any, holds: Callable[[Any], bool], rule: str) -> None:
    """Refuse a value that is not a finite real number, such as a float or a NumPy scalar, for which `holds` is true.

    Args:
        name: Name of the setting, which the message begins with.
        value: Value to check.
        holds: Condition on the value.
        rule: The condition in words, completing "must be".

    Raises:
        RequestError: `value` is not a finite number, or the condition does not hold.

    Example:
        >>> from spaces.core.validation import check_range
        >>> check_range("lr", 0.1, lambda lr: lr > 0, "> 0")
    """
    if not _is_finite(value):
        raise RequestError(f"{name} must be a finite number", value=value)
    if not holds(value):
        raise RequestError(f"{name} must be {rule}", value=value)


def check_flag(name: str, value: object) -> bool:
    """Return `value` if it is True or False.

    Raises:
        RequestError: `value` is anything else.
    """
    if not isinstance(value, bool):
        raise RequestError(f"{name} must be true or false", value=value)
    return value


def check_choice(name: str, value: object, choices: Iterable[object]) -> None:
    """Refuse a value that is not one of `choices`.

    Raises:
        RequestError: `value` is none of them.
    """
    known = list(choices)
    if value not in known:
        raise RequestError(f"{name} must be one of {', '.join(map(str, known))}", value=value)


def _is_finite(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, Real):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond the largest float
        return False
