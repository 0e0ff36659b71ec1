"""The base class of events: how they are written as lines of JSON, and read again."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from sys import intern
from typing import Any, ClassVar, Self, TypeVar

from spaces.core.errors import RequestError

E = TypeVar("E", bound="type[Event]")

JOURNAL_FILE = "journal.jsonl"
"""Name of the journal in a sweep's folder."""

_KEY = "event"
_BEFORE = "started"  # the kind of the first line in journals of roletune 0.1
_KINDS: dict[str, type[Event]] = {}


def register(kind: E) -> E:
    """Make a kind of event known to `parse_event`; used as a decorator."""
    _KINDS[kind.kind] = kind
    return kind


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened in a sweep.

    Args:
        at: Time in ms since 1970; set by the journal when it writes the event.
    """

    kind: ClassVar[str]
    durable: ClassVar[bool] = False
    """True if the event must be on disk (fsync) before the sweep acts on it."""

    at: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return the event as plain data; NaN becomes null."""
        values = {each.name: _encoder(each)(getattr(self, each.name)) for each in _fields(type(self))}
        return {_KEY: self.kind, **values}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Return the event that `to_json` wrote; keys of later versions are ignored."""
        given = {each.name: _decoder(each)(data[each.name]) for each in _fields(cls) if each.name in data}
        return cls(**{"at": data["at"], **given})


def parse_event(line: bytes | str) -> Event:
    """Return the event in a journal's line; a kind that a later version defines gives a plain `Event`.

    Raises:
        ValueError, TypeError, KeyError: If the line is damaged.

    Example:
        >>> from results.runlog.events import parse_event
        >>> parse_event('{"event": "trial_retried", "at": 5, "trial": "student-pbt-00"}')
        TrialRetried(at=5, trial='student-pbt-00')
    """
    data = json.loads(line)
    kind = _KINDS.get(data[_KEY])
    return Event(at=int(data["at"])) if kind is None else kind.from_json(data)


def read_events(path: Path) -> Iterator[tuple[int, Event]]:
    """Yield each complete line of a journal as (offset of its end in bytes, event).

    A last line that is still being written, or was cut off by a crash, is left out.

    Raises:
        RequestError: If the journal cannot be read, a line is damaged, or an earlier version wrote it.
    """
    offset = 0
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    return
                offset += len(line)
                yield offset, _checked(path, number, line)
    except OSError as error:
        raise RequestError(f"the journal {path} must be readable", value=error.strerror or str(error)) from error


def _checked(path: Path, number: int, line: bytes) -> Event:
    try:
        if number == 1 and json.loads(line).get(_KEY) == _BEFORE:
            raise RequestError(f"{path} was written by an earlier version of roletune; start a new sweep")
        return parse_event(line)
    except RequestError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RequestError(f"line {number} of {path} is damaged: {error!r}") from error


# How fields are written -----------------------------------------------------------------------------------------------


def _number(value: float) -> float | str | None:
    """JSON has neither NaN nor infinity: null, and the value as text."""
    if math.isfinite(value):
        return value
    return None if math.isnan(value) else str(value)


def _float(value: float | str | None) -> float:
    return math.nan if value is None else float(value)


def _encode_numbers(values: Mapping[str, float]) -> dict[str, float | str | None]:
    return {name: _number(value) for name, value in values.items()}


def _decode_numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return {intern(name): _float(value) for name, value in values.items()}


def encode_standings(standings: Mapping[str, tuple[int, float, float]]) -> dict[str, list[Any]]:
    """Return standings as plain data."""
    return {name: [index, _number(score), _number(tie)] for name, (index, score, tie) in standings.items()}


def decode_standings(standings: Mapping[str, Sequence[Any]]) -> dict[str, tuple[int, float, float]]:
    """Return the standings that `encode_standings` wrote."""
    return {name: (index, _float(score), _float(tie)) for name, (index, score, tie) in standings.items()}


def codec(encode: Callable[[Any], Any], decode: Callable[[Any], Any]) -> Any:
    """Return a field that is written and read by these functions."""
    return field(metadata={"encode": encode, "decode": decode})


def numbers() -> Any:
    """Return a field of numbers by name, which may be NaN or infinite."""
    return codec(_encode_numbers, _decode_numbers)


def number() -> Any:
    """Return a field of a number, which may be NaN or infinite."""
    return codec(_number, _float)


def _encoder(each: Field[Any]) -> Callable[[Any], Any]:
    found: Callable[[Any], Any] = each.metadata.get("encode", _same)
    return found


def _decoder(each: Field[Any]) -> Callable[[Any], Any]:
    found: Callable[[Any], Any] = each.metadata.get("decode", _same)
    return found


def _same(value: Any) -> Any:
    return value


def _fields(kind: type[Event]) -> tuple[Field[Any], ...]:
    if kind not in _FIELDS:
        _FIELDS[kind] = fields(kind)
    return _FIELDS[kind]


_FIELDS: dict[type[Event], tuple[Field[Any], ...]] = {}
