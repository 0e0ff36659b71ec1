"""The exceptions of roletune.

RoletuneError
├── RequestError   invalid request (exit status 2): rule, value and hint on one line
└── WorkError      valid request whose work failed (exit status 1)
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from spaces.core.redaction import mask

_ABSENT = object()


class RoletuneError(Exception):
    """Base class of all errors that roletune raises itself.

    Credentials in the message are masked.

    Args:
        text: Message, one line.

    Example:
        >>> from spaces import RoletuneError, WorkError
        >>> issubclass(WorkError, RoletuneError)
        True
    """

    def __init__(self, text: str) -> None:
        super().__init__(mask(text))


class RequestError(RoletuneError, ValueError):
    """Invalid request: a bad setting, file or argument.

    Args:
        rule: Rule that must hold, as a sentence without a full stop.
        value: Value that breaks the rule; left out of the message when not given.
        hint: Advice on how to correct the request.

    Example:
        >>> from spaces import RequestError
        >>> print(RequestError("Phase.epochs must be >= 1", value=0, hint="drop the phase"))
        Phase.epochs must be >= 1, got 0; drop the phase
    """

    def __init__(self, rule: str, *, value: object = _ABSENT, hint: str = "") -> None:
        text = rule if value is _ABSENT else f"{rule}, got {_short(value)}"
        super().__init__(" ".join((f"{text}; {hint}" if hint else text).split()))


class WorkError(RoletuneError, RuntimeError):
    """Failure of work that a valid request started.

    Example:
        >>> from spaces import WorkError
        >>> print(WorkError("all 8 trials failed"))
        all 8 trials failed
    """


def unknown(kind: str, name: object, known: Iterable[str]) -> RequestError:
    """Return the error for a name that is not in `known`; its hint is the nearest name, or all of them.

    Args:
        kind: Noun for what is named, such as `operation`.
        name: Unknown name.
        known: All valid names.

    Example:
        >>> from spaces.core.errors import unknown
        >>> print(unknown("operation", "rotat", ["Rotate", "Invert"]))
        unknown operation 'rotat'; did you mean 'Rotate'?
    """
    names = sorted(known)
    lowered = {n.lower(): n for n in names}
    near = difflib.get_close_matches(str(name).lower(), lowered, n=1, cutoff=0.6)
    hint = f"did you mean {lowered[near[0]]!r}?" if near else f"known: {', '.join(names)}"
    return RequestError(f"unknown {kind} {_short(name)}", hint=hint)


def _short(value: object, most: int = 120) -> str:
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits, or deeply nested lists
        text = f"a value of type {type(value).__name__} too large to show"
    text = mask(text)  # before truncation: the pattern does not match half an address
    return text if len(text) <= most else text[: most - 1] + "…"
