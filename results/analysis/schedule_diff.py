"""The differences between two schedules, by operation and epoch."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from io import StringIO
from itertools import pairwise
from typing import Any

import numpy as np
from rich.console import Console, ConsoleOptions, RenderResult
from rich.jupyter import JupyterMixin
from rich.table import Table
from rich.text import Text

from results.analysis.choices import describe_amount, describe_choices, format_value
from results.analysis.schedule_table import IDLE, MOST_CHOICES, PLAIN_IDLE, STRIP, printable, ruler
from results.analysis.strength import Array, Strengths
from results.runlog.lineage import count
from spaces import OPERATIONS, Genome, Phase, Schedule

LARGE = 1.0
"""Differences in strength from this value on, of 9, have a capital letter in a strip."""

STYLES = {"a": "dark_orange", "b": "medium_purple1"}
"""Terminal colors closest to those of the plot's two sides."""

PROVENANCE = ("sweep", "run", "metric", "value", "seed", "shuffled", "reader", "file", "table")
"""Fields of the provenance that are compared."""


@dataclass(frozen=True)
class OperationDifference:
    """One operation in both schedules; each pair holds the values of A and B.

    Args:
        op: Name of the operation.
        strength: Mean over the epochs, 0 to 9.
        probability: Mean over the epochs, 0 to 1.
        level: Mean over the times the operation is applied, 0 to 9; None if it never is, or has no level.
        most: Largest difference in strength in any epoch, A minus B; 0 if the entries differ but not in strength.
        epochs: First and last epoch of the first stretch with that difference, from 0.
    """

    op: str
    strength: tuple[float, float]
    probability: tuple[float, float]
    level: tuple[float | None, float | None]
    most: float
    epochs: tuple[int, int]


class ScheduleDiff(JupyterMixin):
    """Two schedules side by side: in a terminal or notebook by rich, as text of 80 columns by `print`, or by `to_json`.

    Attributes:
        schedules: A and B over the same epochs, cut into phases that end together.
        lengths: Number of epochs that each had before.
        rows: Operations that differ in any epoch, the largest mean difference first.
        equal: Operations that are active in either schedule and never differ.
        others: Everything else that differs, by name: the text of A and of B.
        mean: Mean strength of A minus that of B (`Schedule.mean_strength`).
    """

    def __init__(self, a: Schedule, b: Schedule) -> None:
        """Compare `a` and `b`; use `compare_schedules`."""
        self.lengths = (a.epochs, b.epochs)
        epochs = max(self.lengths)
        # A schedule of that length is not stretched, so that no phase boundary is lost.
        self.schedules = _cut(*(each if each.epochs == epochs else each.stretch(epochs) for each in (a, b)))
        self._sides = tuple(Strengths.of(each) for each in self.schedules)
        policies = [tuple(phase.genome.policy for phase in each.phases) for each in self.schedules]
        counted = [[policy.by_operation() for policy in side] for side in policies]
        ops = list(dict.fromkeys(op for side in self._sides for op in side.operations))
        differ = np.array([[one.get(op) != two.get(op) for one, two in zip(*counted, strict=True)] for op in ops])
        self._differ: dict[str, Array] = dict(zip(ops, differ, strict=True))
        rows = [self._row(op) for op in ops if self._differ[op].any()]
        distance = {
            row.op: float(self._sides[0].mean_over_epochs(np.abs(self._phase_difference(row.op)))) for row in rows
        }
        self.rows = tuple(sorted(rows, key=lambda row: -distance[row.op]))
        self.equal = tuple(op for op in ops if not self._differ[op].any())
        self.mean = self.schedules[0].mean_strength() - self.schedules[1].mean_strength()
        self.others = {**_different_origins(a, b), **_different_choices(*self.schedules)}

    @property
    def same(self) -> bool:
        """True if both schedules apply the same augmentation to every image."""
        return not self.rows and not {"image", "augment"} & set(self.others)

    @property
    def sentence(self) -> str:
        """Summary in one line."""
        if self.same:
            return "A and B apply the same augmentation to every image."
        if not self.rows:
            return "A and B have the same operations; their second views or images differ."
        if abs(self.mean) < 0.005:
            first = "A and B are equally strong on average"
        else:
            first = f"{'A' if self.mean > 0 else 'B'} is stronger by {abs(self.mean):.2f} on average"
        used = count(len(self.rows) + len(self.equal), "operation")
        share = f"{len(self.rows)} of {used}" if self.equal else "all operations" if len(self.rows) > 1 else used
        verb = "differs" if len(self.rows) == 1 else "differ"
        most = f", {self.rows[0].op} most" if len(self.rows) > 1 else f": {self.rows[0].op}"
        return f"{first}; {share} {verb}{most}."

    @property
    def epochs(self) -> int:
        """Number of epochs over which the schedules are compared."""
        return max(self.lengths)

    def strengths(self, op: str, columns: int) -> Array:
        """Return an operation's strength in A and B over equal parts of the epochs, (2, columns)."""
        return np.array([side.binned(_of(side, side.strength, op), columns) for side in self._sides])

    def difference(self, op: str, columns: int) -> Array:
        """Return an operation's strength in A minus that in B over equal parts of the epochs, (columns,)."""
        return self._sides[0].binned(self._phase_difference(op), columns)

    def active(self, op: str, columns: int) -> Array:
        """Return whether an operation is active in any epoch of each part, in A and B, (2, columns)."""
        return np.array([side.binned(_of(side, side.probability, op), columns) > 0 for side in self._sides])

    def to_json(self) -> dict[str, Any]:
        """Return the differences as plain data; `difference_over_epochs` has at most `STRIP` parts of the epochs."""
        columns = min(self.epochs, STRIP)
        operations = []
        for row in self.rows:
            over = [round(float(value), 6) for value in self.difference(row.op, columns)]
            pairs = {name: _pair(getattr(row, name)) for name in ("strength", "probability", "level")}
            largest = {"difference": row.most, "first_epoch": row.epochs[0], "last_epoch": row.epochs[1]}
            operations.append({"op": row.op, **pairs, "largest": largest, "difference_over_epochs": over})
        return {
            "same": self.same,
            "sentence": self.sentence,
            "epochs": self.epochs,
            "lengths": _pair(self.lengths),
            "mean_strength": _pair([each.mean_strength() for each in self.schedules]),
            "operations": operations,
            "equal": list(self.equal),
            "others": {name: _pair(values) for name, values in self.others.items()},
        }

    def table(self, width: int = 80, *, ascii_only: bool = False) -> Table:
        """Return one row for each operation that differs, about `width` columns wide."""
        cells_by_row = [_cells(row) for row in self.rows]
        beside = sum(max(map(len, cells)) + 2 for cells in zip(_OVER, _HEADING, *cells_by_row, strict=True))
        columns, each, axis = ruler(self.epochs, width - beside)
        table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0), pad_edge=False)
        for heading in ("\noperation", f"\n{axis}"):
            table.add_column(heading, no_wrap=True)
        for over, heading in zip(_OVER[1:], _HEADING[1:], strict=True):
            table.add_column(f"{over}\n{heading}", justify="right", no_wrap=True)
        for row, cells in zip(self.rows, cells_by_row, strict=True):
            table.add_row(cells[0], self._strip(row.op, columns, each, ascii_only), *cells[1:])
        return table

    def notes(self, *, ascii_only: bool = False) -> list[str]:
        """Return the notes below the table: its legend, and everything else that differs."""
        notes = []
        if self.rows:
            idle = PLAIN_IDLE if ascii_only else IDLE
            notes.append(f"A, B: stronger by {LARGE:g} or more of 9;  a, b: stronger by less;  {idle}: no difference")
            notes.append("~: equal strength, other entries;  at: epochs of the largest difference")
        if self.rows and self.equal:
            notes.append(f"no difference: {', '.join(self.equal)}")
        if self.lengths[0] != self.lengths[1]:
            long, short_ = ("A", "B") if self.lengths[0] > self.lengths[1] else ("B", "A")
            notes.append(
                f"{short_} is stretched from {count(min(self.lengths), 'epoch')} to the {max(self.lengths):,} of {long}"
            )
        return [*notes, *(f"{name}: A {one}; B {two}" for name, (one, two) in self.others.items())]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield summary, table and notes in the width of the console."""
        yield Text(self.sentence)
        notes = self.notes(ascii_only=options.ascii_only)
        if self.rows:
            yield Text("")
            yield self.table(options.max_width, ascii_only=options.ascii_only)
        if notes:
            yield Text("")
        for note in notes:
            yield Text(note)

    def __str__(self) -> str:
        """Return summary, table and notes as text of 80 columns."""
        text = StringIO()
        Console(file=text, width=80, color_system=None, force_jupyter=False, legacy_windows=False).print(self)
        return text.getvalue().rstrip("\n")

    def _row(self, op: str) -> OperationDifference:
        one = self._sides[0]
        strengths = [_of(side, side.strength, op) for side in self._sides]
        difference = self._phase_difference(op)
        most = int(np.where(self._differ[op], np.abs(difference), -1).argmax())
        last = most
        while last + 1 < len(difference) and difference[last + 1] == difference[most] and self._differ[op][last + 1]:
            last += 1
        mean = [float(one.mean_over_epochs(values)) for values in strengths]
        probabilities = [float(one.mean_over_epochs(_of(side, side.probability, op))) for side in self._sides]
        levels = [m / p if p and OPERATIONS[op].uses_level else None for m, p in zip(mean, probabilities, strict=True)]
        return OperationDifference(
            op=op,
            strength=(mean[0], mean[1]),
            probability=(probabilities[0], probabilities[1]),
            level=(levels[0], levels[1]),
            most=float(difference[most]),
            epochs=(one.bounds[most], one.bounds[last + 1] - 1),
        )

    def _phase_difference(self, op: str) -> Array:
        """Return an operation's strength in A minus that in B by phase, (P,).

        It is 0 where both have the same active entries, although a strength is a mean over inactive ones as well.
        """
        one, two = (_of(side, side.strength, op) for side in self._sides)
        return np.where(self._differ[op], one - two, 0.0)

    def _strip(self, op: str, columns: int, each: int, ascii_only: bool) -> Text:
        differ = self._sides[0].binned(self._differ[op].astype(float), columns) > 0
        shown = Text()
        for value, differs in zip(self.difference(op, columns).tolist(), differ.tolist(), strict=True):
            letter = _letter(value) if differs else (PLAIN_IDLE if ascii_only else IDLE)
            shown.append(letter * each, STYLES.get(letter.lower(), ""))
        return shown


def compare_schedules(a: Schedule, b: Schedule) -> ScheduleDiff:
    """Compare two schedules; the shorter one is stretched to the epochs of the other.

    Example:
        >>> from spaces import Entry, ImageSpec, Policy
        >>> rotate, invert = (Genome(Policy((Entry(op, 10, 6),))) for op in ("Rotate", "Invert"))
        >>> image = ImageSpec(8, 1, (0,))
        >>> a = Schedule((Phase(4, rotate),), "teacher", image)
        >>> b = Schedule((Phase(2, rotate), Phase(2, invert)), "student", image)
        >>> print(compare_schedules(a, b).sentence)
        B is stronger by 1.50 on average; all operations differ, Invert most.
    """
    return ScheduleDiff(a, b)


_OVER = ("", "strength", "probability", "level", "largest")
_HEADING = ("operation", "A     B", "A     B", "A    B", "difference at")


def _cells(row: OperationDifference) -> tuple[str, ...]:
    """Return the cells of a row without its strip."""
    level = " ".join("   -" if each is None else f"{each:4.1f}" for each in row.level)
    first, last = row.epochs
    at = f"{first}" if first == last else f"{first}-{last}"
    pairs = (f"{row.strength[0]:.2f}  {row.strength[1]:.2f}", f"{row.probability[0]:.2f}  {row.probability[1]:.2f}")
    return (row.op, *pairs, level, f"{row.most:+.2f} at {at}" if row.most else f"0 at {at}")


def _letter(difference: float) -> str:
    """Return the letter of the stronger side, a capital one for a large difference."""
    if abs(difference) < 1e-9:
        return "~"
    letter = "a" if difference > 0 else "b"
    return letter.upper() if abs(difference) >= LARGE - 1e-9 else letter


def _cut(a: Schedule, b: Schedule) -> tuple[Schedule, Schedule]:
    """Cut both schedules into phases that end together."""
    bounds = sorted({*Strengths.of(a).bounds, *Strengths.of(b).bounds})
    return _cut_at(a, bounds), _cut_at(b, bounds)


def _cut_at(schedule: Schedule, bounds: Sequence[int]) -> Schedule:
    starts = Strengths.of(schedule).bounds
    pieces = ((schedule.phases[bisect_right(starts, start) - 1].genome, end - start) for start, end in pairwise(bounds))
    return replace(schedule, phases=tuple(Phase(epochs, genome) for genome, epochs in pieces))


def _of(side: Strengths, values: Array, op: str) -> Array:
    """Return the row of an operation, (P,); zeros if it is never active."""
    return values[side.operations.index(op)] if op in side.operations else np.zeros(len(side.bounds) - 1)


def _pair(values: Sequence[Any]) -> dict[str, Any]:
    return {"a": values[0], "b": values[1]}


def _different_origins(a: Schedule, b: Schedule) -> dict[str, tuple[str, str]]:
    """Return the differences in role, images and provenance."""
    pairs: dict[str, tuple[Any, Any]] = {"role": (a.role, b.role), "image": (_image(a), _image(b))}
    pairs |= {name: (a.provenance.get(name), b.provenance.get(name)) for name in PROVENANCE}
    return {name: (_text(one), _text(two)) for name, (one, two) in pairs.items() if one != two}


def _image(schedule: Schedule) -> str:
    image = schedule.image
    return f"{image.size} px, {'gray' if image.channels == 1 else 'RGB'}, mean color {','.join(map(str, image.fill))}"


def _text(value: Any) -> str:
    return "none" if value is None else printable(format_value(value))


def _different_choices(a: Schedule, b: Schedule) -> dict[str, tuple[str, str]]:
    """Return the differences in second views, distillation and bits; the phases must end together."""
    every = [[_choices(phase.genome) for phase in each.phases] for each in (a, b)]
    names = dict.fromkeys(name for side in every for choices in side for name in choices)
    differ = [name for name in names if any(x.get(name) != y.get(name) for x, y in zip(*every, strict=True))]
    lengths = [phase.epochs for phase in a.phases]
    one, two = ({name: _summary([each.get(name) for each in side], lengths) for name in differ} for side in every)
    found = {name: (one[name], two[name]) for name in differ}
    views = zip(a.phases, b.phases, strict=True)
    if "augment" not in found and any(x.genome.augment != y.genome.augment for x, y in views):
        found["augment"] = "one setting", "other settings or learned weights of the same augmentation"
    return found


def _choices(genome: Genome) -> dict[str, str]:
    choices = {name: format_value(value) for name, value in describe_choices(genome).items()}
    return choices | ({"amount": amount} if (amount := describe_amount(genome.policy)) else {})


def _summary(values: Sequence[str | None], lengths: Sequence[int]) -> str:
    """Return the values with their number of epochs, in the order of their first occurrence."""
    epochs: Counter[str] = Counter()
    for value, length in zip(values, lengths, strict=True):
        epochs[_text(value)] += length
    if len(epochs) == 1:
        return next(iter(epochs))
    parts = [f"{value} in {count(number, 'epoch')}" for value, number in epochs.items()]
    return ", ".join(
        parts if len(parts) <= MOST_CHOICES else [*parts[:MOST_CHOICES], f"{len(parts) - MOST_CHOICES} more"]
    )
