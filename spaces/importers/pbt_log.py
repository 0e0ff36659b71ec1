"""The history of one trial in a population: a file with one line per copy, from which its phases follow.

Ray Tune writes it (`ray/tune/schedulers/pbt.py`, `_log_config_on_step`), and wrote it for PBA in 2019: each line is
`[target, clone, target's epoch, clone's epoch, clone's config, new config]`. The target goes on from the clone's
weights, thus at the clone's epoch, with the new config; the target's own epoch counts for nothing from then on. Before
the line is added, the target's file becomes a copy of the clone's. A clone that never copied anybody has no file: then
the lines of the target's former life stay where they are, at the beginning, and are stale.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from spaces.core.errors import RequestError
from spaces.core.io import read_text
from spaces.schedule.genome import Genome
from spaces.schedule.schedule import Phase, merge

LARGEST_FILE = 2**24
"""In bytes. Real files have some ten thousand."""

LONGEST_LINE = 2**18
"""In characters: what Python needs to parse a literal is some 500 times as much. Real lines have some thousand."""

_ALL_TRIALS = "pbt_global.txt"


@dataclass(frozen=True, slots=True)
class _Event:
    """One line of the file; `epoch` is the clone's."""

    line: int
    target: str
    clone: str
    epoch: int
    old: Any
    new: Any


def read_chain(
    source: Path | str, epochs: int, parse: Callable[[str], Any], genome: Callable[[Any], Genome]
) -> tuple[tuple[Phase, ...], dict[str, Any]]:
    """The phases of the trial whose file this is.

    The line before a valid one must have made its clone (the target there is the clone here) no later than the clone
    was copied; the lines before the last break of this rule are stale. The first valid line's old config is in force
    until its clone's epoch, each new config until the next line's, the last one until the end. A phase of no epochs
    was never trained with and is left out (Ray's own replay would give it one epoch); neighbors that are equal
    become one.

    Args:
        source: the file.
        epochs: how many epochs the trial had in all.
        parse: makes a line's text a list.
        genome: the genome in a config.

    Returns:
        the phases, and as provenance the file's name and how many of its lines are valid and stale.

    Raises:
        RequestError: the file is missing, too large, empty or broken, or goes on after `epochs`.
    """
    events = [_event(source, line, text, parse) for line, text in _lines(source)]
    if not events:
        raise RequestError(f"{source} holds no line", hint="a trial that never copied another has no schedule to read")
    breaks = [place for place, (one, two) in enumerate(pairwise(events), 1) if not _follows(two, one)]
    stale = breaks[-1] if breaks else 0
    valid = events[stale:]
    last = valid[-1]
    if last.epoch > epochs:
        rule = f"{source}, line {last.line}: the epoch of the last copy is within the epochs of the schedule"
        raise RequestError(rule, value=last.epoch, hint="give the epochs that the search ran for")
    genomes = [_genome(source, valid[0], valid[0].old, genome)]
    genomes += [_genome(source, event, event.new, genome) for event in valid]
    bounds = pairwise([0, *(event.epoch for event in valid), epochs])
    phases = [Phase(end - start, found) for (start, end), found in zip(bounds, genomes, strict=True) if end > start]
    return merge(phases), {"file": Path(source).name, "lines": len(valid), "stale_lines": stale}


def _follows(event: _Event, before: _Event) -> bool:
    return event.clone == before.target and event.epoch >= before.epoch


def _lines(source: Path | str) -> Iterator[tuple[int, str]]:
    """The lines that are not blank, with their numbers."""
    if Path(source).name == _ALL_TRIALS:
        raise RequestError(f"{source} holds the copies of all trials", hint="give one trial's pbt_policy_….txt")
    for number, text in enumerate(_text(source).split("\n"), 1):
        if len(text) > LONGEST_LINE:
            raise RequestError(
                f"{source}, line {number}: a line has {LONGEST_LINE} characters at most", value=len(text)
            )
        if text.strip():
            yield number, text


def _text(source: Path | str) -> str:
    try:
        size = Path(source).stat().st_size
    except (OSError, ValueError):
        size = 0  # `read_text` says what is wrong
    if size > LARGEST_FILE:
        raise RequestError(f"{source}: a file of copies has {LARGEST_FILE} bytes at most", value=size)
    return read_text(source, "file of copies")


def _event(source: Path | str, line: int, text: str, parse: Callable[[str], Any]) -> _Event:
    with _naming(source, line):
        parts = parse(text)
        if not isinstance(parts, list | tuple) or len(parts) != 6:
            raise RequestError(
                "a line is a list [target, clone, its epoch, its epoch, old config, new one]", value=parts
            )
        target, clone, own, epoch, old, new = parts
        if not isinstance(target, str) or not isinstance(clone, str):
            raise RequestError("target and clone are names in quotes", value=[target, clone])
        if any(isinstance(value, bool) or not isinstance(value, int) or value < 0 for value in (own, epoch)):
            raise RequestError("the epochs of target and clone are whole numbers, 0 or more", value=[own, epoch])
        return _Event(line, target, clone, epoch, old, new)


def _genome(source: Path | str, event: _Event, config: Any, genome: Callable[[Any], Genome]) -> Genome:
    with _naming(source, event.line):
        return genome(config)


@contextmanager
def _naming(source: Path | str, line: int) -> Iterator[None]:
    """Say in which line a fault lies."""
    try:
        yield
    except RequestError as error:
        raise RequestError(f"{source}, line {line}: {error}") from error
