"""What two policies do differently: operation by operation, epoch by epoch."""

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

from results.analysis.schedule_choices import choices, origins
from results.analysis.schedule_table import IDLE, PLAIN_IDLE, STRIP, ruler
from results.analysis.strength import Array, Strengths
from results.runlog.lineage import count
from spaces import OPERATIONS, Phase, Policy, Schedule

MUCH = 1.0
"""From this difference in strength on, of 9, a strip has a capital letter."""

STYLES = {"a": "dark_orange", "b": "medium_purple1"}
"""The colors of the picture's two sides, as near as terminals have them."""


@dataclass(frozen=True)
class OperationDifference:
    """One operation under both policies; each pair is of A and of B.

    Args:
        op: its name.
        strength: 0 … 9, averaged over the epochs.
        probability: 0 … 1, likewise.
        level: 0 … 9, averaged over the times that the operation is chosen; None where it never is, or takes no level.
        most: the largest difference in strength of any epoch, A's less B's; 0: its entries differ, but not in strength.
        epochs: the first and the last epoch of the first stretch that has it, counted from 0.
    """

    op: str
    strength: tuple[float, float]
    probability: tuple[float, float]
    level: tuple[float | None, float | None]
    most: float
    epochs: tuple[int, int]


class Difference(JupyterMixin):
    """Two policies side by side: by rich in a terminal or a notebook, by `print` at 80 columns, or by `to_json`.

    Attributes:
        schedules: A and B as they are compared, over the same epochs, with phases that end together.
        lengths: how many epochs each of them had before.
        rows: the operations that differ in any epoch, those that differ most on average first.
        equal: the operations that are in force in either and differ nowhere.
        others: what else differs, by name, as text: A's and B's.
        mean: A's strength less B's, averaged over entries and epochs as `Schedule.mean_strength` does.
    """

    def __init__(self, a: Schedule, b: Schedule) -> None:
        """Do the sums."""
        self.lengths = (a.epochs, b.epochs)
        epochs = max(self.lengths)
        # What is as long as that stays as it is, so that no boundary of it is lost.
        self.schedules = _cut(*(each if each.epochs == epochs else each.stretch(epochs) for each in (a, b)))
        self._sides = tuple(Strengths.of(each) for each in self.schedules)
        policies = [tuple(phase.genome.policy for phase in each.phases) for each in self.schedules]
        counted = [[_entries(policy) for policy in side] for side in policies]
        ops = list(dict.fromkeys(op for side in self._sides for op in side.operations))
        differ = np.array([[one.get(op) != two.get(op) for one, two in zip(*counted, strict=True)] for op in ops])
        self._differ: dict[str, Array] = dict(zip(ops, differ, strict=True))
        rows = [self._row(op) for op in ops if self._differ[op].any()]
        distance = {row.op: float(self._sides[0].over_all(np.abs(self._apart(row.op)))) for row in rows}
        self.rows = tuple(sorted(rows, key=lambda row: -distance[row.op]))
        self.equal = tuple(op for op in ops if not self._differ[op].any())
        self.mean = self.schedules[0].mean_strength() - self.schedules[1].mean_strength()
        self.others = {**origins(a, b), **choices(*self.schedules)}

    @property
    def same(self) -> bool:
        """Whether both do the same to every image."""
        return not self.rows and not {"image", "augment"} & set(self.others)

    @property
    def sentence(self) -> str:
        """The difference in one line."""
        if self.same:
            return "A and B do the same to every image."
        if not self.rows:
            return "A and B hold the same operations; what else they do to images differs."
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
        """Over how many the policies are compared."""
        return max(self.lengths)

    def strengths(self, op: str, columns: int) -> Array:
        """(2, columns): an operation's strength under A and under B, in so many equal parts of the epochs."""
        return np.array([side.binned(_of(side, side.strength, op), columns) for side in self._sides])

    def apart(self, op: str, columns: int) -> Array:
        """(columns,): A's strength less B's, as `strengths` has them."""
        return self._sides[0].binned(self._apart(op), columns)

    def in_force(self, op: str, columns: int) -> Array:
        """(2, columns): whether an operation is in force in any epoch of a part, under A and under B."""
        return np.array([side.binned(_of(side, side.probability, op), columns) > 0 for side in self._sides])

    def to_json(self) -> dict[str, Any]:
        """All of it as plain data; `difference_over_epochs`: A's strength less B's, in at most `STRIP` equal parts."""
        columns = min(self.epochs, STRIP)
        operations = []
        for row in self.rows:
            over = [round(float(value), 6) for value in self.apart(row.op, columns)]
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
        """One row an operation that differs, about `width` columns wide."""
        told = [_told(row) for row in self.rows]
        beside = sum(max(map(len, cells)) + 2 for cells in zip(_OVER, _HEADING, *told, strict=True))
        columns, each, axis = ruler(self.epochs, width - beside)
        table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0), pad_edge=False)
        for heading in ("\noperation", f"\n{axis}"):
            table.add_column(heading, no_wrap=True)
        for over, heading in zip(_OVER[1:], _HEADING[1:], strict=True):
            table.add_column(f"{over}\n{heading}", justify="right", no_wrap=True)
        for row, cells in zip(self.rows, told, strict=True):
            table.add_row(cells[0], self._strip(row.op, columns, each, ascii_only), *cells[1:])
        return table

    def notes(self, *, ascii_only: bool = False) -> list[str]:
        """What stands below the table: how to read it, and what else differs."""
        notes = []
        if self.rows:
            idle = PLAIN_IDLE if ascii_only else IDLE
            notes.append(f"A, B: which is stronger, by {MUCH:g} or more of 9;  a, b: by less;  {idle}: the same")
            notes.append("~: as strong, by other entries;  at: the epochs of the largest difference")
        if self.rows and self.equal:
            notes.append(f"the same throughout: {', '.join(self.equal)}")
        if self.lengths[0] != self.lengths[1]:
            long, short_ = ("A", "B") if self.lengths[0] > self.lengths[1] else ("B", "A")
            notes.append(
                f"{short_}'s {count(min(self.lengths), 'epoch')} are stretched to {long}'s {max(self.lengths):,}"
            )
        return [*notes, *(f"{name}: A {one}; B {two}" for name, (one, two) in self.others.items())]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Sentence, table and notes, as wide as there is room."""
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
        """Sentence, table and notes as text of 80 columns."""
        text = StringIO()
        Console(file=text, width=80, color_system=None, force_jupyter=False, legacy_windows=False).print(self)
        return text.getvalue().rstrip("\n")

    def _row(self, op: str) -> OperationDifference:
        one = self._sides[0]
        strong = [_of(side, side.strength, op) for side in self._sides]
        apart = self._apart(op)
        most = int(np.where(self._differ[op], np.abs(apart), -1).argmax())
        last = most
        while last + 1 < len(apart) and apart[last + 1] == apart[most] and self._differ[op][last + 1]:
            last += 1
        mean = [float(one.over_all(values)) for values in strong]
        often = [float(one.over_all(_of(side, side.probability, op))) for side in self._sides]
        levels = [m / p if p and OPERATIONS[op].uses_level else None for m, p in zip(mean, often, strict=True)]
        return OperationDifference(
            op=op,
            strength=(mean[0], mean[1]),
            probability=(often[0], often[1]),
            level=(levels[0], levels[1]),
            most=float(apart[most]),
            epochs=(one.bounds[most], one.bounds[last + 1] - 1),
        )

    def _apart(self, op: str) -> Array:
        """(P,): A's strength less B's.

        Where both hold the same entries that is 0, though an entry of probability 0 counts in a strength, which is a
        mean over entries.
        """
        one, two = (_of(side, side.strength, op) for side in self._sides)
        return np.where(self._differ[op], one - two, 0.0)

    def _strip(self, op: str, columns: int, each: int, ascii_only: bool) -> Text:
        differ = self._sides[0].binned(self._differ[op].astype(float), columns) > 0
        shown = Text()
        for apart, here in zip(self.apart(op, columns).tolist(), differ.tolist(), strict=True):
            letter = _letter(apart) if here else (PLAIN_IDLE if ascii_only else IDLE)
            shown.append(letter * each, STYLES.get(letter.lower(), ""))
        return shown


def difference(a: Schedule, b: Schedule) -> Difference:
    """What `a` and `b` do differently; where one is shorter, it is stretched to the other's epochs."""
    return Difference(a, b)


_OVER = ("", "strength", "probability", "level", "largest")
_HEADING = ("operation", "A     B", "A     B", "A    B", "difference at")


def _told(row: OperationDifference) -> tuple[str, ...]:
    """The cells of a row but its strip."""
    level = " ".join("   -" if each is None else f"{each:4.1f}" for each in row.level)
    first, last = row.epochs
    at = f"{first}" if first == last else f"{first}-{last}"
    pairs = (f"{row.strength[0]:.2f}  {row.strength[1]:.2f}", f"{row.probability[0]:.2f}  {row.probability[1]:.2f}")
    return (row.op, *pairs, level, f"{row.most:+.2f} at {at}" if row.most else f"0 at {at}")


def _letter(apart: float) -> str:
    """Who is stronger, and whether much."""
    if abs(apart) < 1e-9:
        return "~"
    letter = "a" if apart > 0 else "b"
    return letter.upper() if abs(apart) >= MUCH - 1e-9 else letter


def _cut(a: Schedule, b: Schedule) -> tuple[Schedule, Schedule]:
    """Both with phases that end wherever a phase of either does."""
    bounds = sorted({*Strengths.of(a).bounds, *Strengths.of(b).bounds})
    return _along(a, bounds), _along(b, bounds)


def _along(schedule: Schedule, bounds: Sequence[int]) -> Schedule:
    starts = Strengths.of(schedule).bounds
    pieces = ((schedule.phases[bisect_right(starts, start) - 1].genome, end - start) for start, end in pairwise(bounds))
    return replace(schedule, phases=tuple(Phase(epochs, genome) for genome, epochs in pieces))


def _entries(policy: Policy) -> dict[str, Counter[tuple[int, int]]]:
    """What counts of a policy: by operation the entries that are in force, in no order."""
    found: dict[str, Counter[tuple[int, int]]] = {}
    for entry in policy:
        if entry.probability:
            level = entry.magnitude if OPERATIONS[entry.op].uses_level else 0
            found.setdefault(entry.op, Counter())[entry.probability, level] += 1
    return found


def _of(side: Strengths, values: Array, op: str) -> Array:
    """The row of an operation, (P,); zeros where it is never in force."""
    return values[side.operations.index(op)] if op in side.operations else np.zeros(len(side.bounds) - 1)


def _pair(values: Sequence[Any]) -> dict[str, Any]:
    return {"a": values[0], "b": values[1]}
