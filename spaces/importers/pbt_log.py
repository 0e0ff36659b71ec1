"""PBT log of one trial: a file with one line per copy, which determines the phases of its schedule.

Ray Tune writes it (`ray/tune/schedulers/pbt.py`, `_log_config_on_step`), and did so for PBA in 2019. Each line is
`[target, clone, target's epoch, clone's epoch, clone's config, new config]`: the target continues from the weights of
the clone, thus at the clone's epoch, with the new config. Before the line is appended, the target's file is replaced by
a copy of the clone's. A clone that never copied another trial has no file: then the old lines of the target stay at the
beginning of its file, and are stale.
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
from spaces.core.validation import is_integer
from spaces.schedule.genome import Genome
from spaces.schedule.schedule import Phase, merge

MAX_FILE_BYTES = 2**24
"""Largest file in bytes; real files have about ten thousand."""

MAX_LINE_CHARACTERS = 2**18
"""Longest line in characters, since parsing a literal takes about 500 times its size; real lines have about 1,000."""

_ALL_TRIALS = "pbt_global.txt"


@dataclass(frozen=True, slots=True)
class _Event:
    """Line of the file; `epoch` is that of the clone."""

    line: int
    target: str
    clone: str
    epoch: int
    old: Any
    new: Any


def read_copies(
    source: Path | str, epochs: int, parse: Callable[[str], Any], genome: Callable[[Any], Genome]
) -> tuple[tuple[Phase, ...], dict[str, Any]]:
    """Return the phases of the trial of a PBT log.

    A line is valid if the target of the line before it is its clone, at an epoch no later; lines before the last
    violation are stale. The old config of the first valid line is used until its clone's epoch, each new config until
    the epoch of the next line, and the last one until the end. Phases of no epochs are dropped (Ray's replay would give
    them one epoch), and equal neighbors are merged.

    Args:
        source: Path of the file.
        epochs: Number of epochs of the trial.
        parse: Function from the text of a line to a list.
        genome: Function from a config to its genome.

    Returns:
        The phases, and the provenance: name of the file, numbers of valid and stale lines.

    Raises:
        RequestError: The file is missing, too large, empty or invalid, or has an epoch after `epochs`.
    """
    events = [_event(source, line, text, parse) for line, text in _lines(source)]
    if not events:
        raise RequestError(f"{source} must have at least one line", hint="a trial that never copied another has no log")
    breaks = [index for index, (one, two) in enumerate(pairwise(events), 1) if not _follows(two, one)]
    stale = breaks[-1] if breaks else 0
    valid = events[stale:]
    last = valid[-1]
    if last.epoch > epochs:
        rule = f"{source}, line {last.line}: the epoch of the last copy must be <= {epochs}, the epochs of the schedule"
        raise RequestError(rule, value=last.epoch, hint="pass the number of epochs of the search")
    genomes = [_genome(source, valid[0], valid[0].old, genome)]
    genomes += [_genome(source, event, event.new, genome) for event in valid]
    bounds = pairwise([0, *(event.epoch for event in valid), epochs])
    phases = [Phase(end - start, found) for (start, end), found in zip(bounds, genomes, strict=True) if end > start]
    return merge(phases), {"file": Path(source).name, "lines": len(valid), "stale_lines": stale}


def _follows(event: _Event, before: _Event) -> bool:
    return event.clone == before.target and event.epoch >= before.epoch


def _lines(source: Path | str) -> Iterator[tuple[int, str]]:
    """Yield the numbers and texts of the lines that are not blank."""
    if Path(source).name == _ALL_TRIALS:
        raise RequestError(
            f"{source} must be the log of one trial, not of all", hint="pass pbt_policy_….txt of one trial"
        )
    for number, text in enumerate(_text(source).split("\n"), 1):
        if len(text) > MAX_LINE_CHARACTERS:
            raise RequestError(
                f"{source}, line {number}: a line must have at most {MAX_LINE_CHARACTERS} characters", value=len(text)
            )
        if text.strip():
            yield number, text


def _text(source: Path | str) -> str:
    try:
        size = Path(source).stat().st_size
    except (OSError, ValueError):
        size = 0  # `read_text` raises the error
    if size > MAX_FILE_BYTES:
        raise RequestError(f"{source}: a PBT log must have at most {MAX_FILE_BYTES} bytes", value=size)
    return read_text(source, "PBT log")


def _event(source: Path | str, line: int, text: str, parse: Callable[[str], Any]) -> _Event:
    with _locate_errors(source, line):
        parts = parse(text)
        if not isinstance(parts, list | tuple) or len(parts) != 6:
            raise RequestError(
                "a line must be a list [target, clone, target epoch, clone epoch, old config, new config]", value=parts
            )
        target, clone, target_epoch, epoch, old, new = parts
        if not isinstance(target, str) or not isinstance(clone, str):
            raise RequestError("target and clone must be strings", value=[target, clone])
        if any(not is_integer(value) or value < 0 for value in (target_epoch, epoch)):
            raise RequestError("the epochs of target and clone must be integers >= 0", value=[target_epoch, epoch])
        return _Event(line, target, clone, epoch, old, new)


def _genome(source: Path | str, event: _Event, config: Any, genome: Callable[[Any], Genome]) -> Genome:
    with _locate_errors(source, event.line):
        return genome(config)


@contextmanager
def _locate_errors(source: Path | str, line: int) -> Iterator[None]:
    """Add file and line to errors."""
    try:
        yield
    except RequestError as error:
        raise RequestError(f"{source}, line {line}: {error}") from error
