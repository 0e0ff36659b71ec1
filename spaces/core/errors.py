"""The exceptions of roletune.

RoletuneError
├── RequestError   the request was wrong (exit status 2): rule, value, hint, in one line
└── WorkError      the request was fine and the work failed (exit status 1)
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from spaces.core.redaction import mask

_ABSENT = object()


class RoletuneError(Exception):
    """Anything that roletune itself refuses or fails at. Credentials in it are masked."""

    def __init__(self, text: str) -> None:
        """One line is enough."""
        super().__init__(mask(text))


class RequestError(RoletuneError, ValueError):
    """The request was wrong.

    Args:
        rule: what must hold, as a sentence without a full stop.
        value: the value that broke it.
        hint: what to do about it.
    """

    def __init__(self, rule: str, *, value: object = _ABSENT, hint: str = "") -> None:
        """Join the three parts to one line."""
        text = rule if value is _ABSENT else f"{rule}, got {_short(value)}"
        super().__init__(" ".join((f"{text}; {hint}" if hint else text).split()))


class WorkError(RoletuneError, RuntimeError):
    """The request was fine, and the work failed."""


def unknown(kind: str, name: object, known: Iterable[str]) -> RequestError:
    """The error for a name that is not in `known`: it names the nearest one, or all of them."""
    names = sorted(known)
    lowered = {n.lower(): n for n in names}
    near = difflib.get_close_matches(str(name).lower(), lowered, n=1, cutoff=0.6)
    hint = f"did you mean {lowered[near[0]]!r}?" if near else f"known: {', '.join(names)}"
    return RequestError(f"unknown {kind} {_short(name)}", hint=hint)


def _short(value: object, most: int = 120) -> str:
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of thousands of digits, or lists in lists in lists
        text = f"a value of type {type(value).__name__} too large to show"
    text = mask(text)  # before it is cut: half a password is no address any more
    return text if len(text) <= most else text[: most - 1] + "…"
