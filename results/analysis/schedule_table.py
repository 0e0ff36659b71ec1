"""A schedule as a table: one row for each operation, with its strength over the epochs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from io import StringIO
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.jupyter import JupyterMixin
from rich.table import Table
from rich.text import Text

from results.analysis.choices import describe_amount, describe_choices, format_value
from results.analysis.strength import STRONGEST, Strengths
from results.analysis.tables import TextTable
from results.runlog.lineage import count
from spaces import OPERATIONS, Schedule

BLOCKS, IDLE = "▁▂▃▄▅▆▇█", "·"
PLAIN_BLOCKS, PLAIN_IDLE = ":-=+*#%@", "."
"""Characters for terminals and files that are not UTF-8."""

STRIP = 28
"""Width of the strip over the epochs in a terminal of 80 columns, and number of parts of the epochs in `to_json`."""

WIDEST_STRIP = 72
MOST_CHOICES = 4
"""Largest number of combinations of choices in the notes."""

_BESIDE_STRIP = 80 - STRIP


@dataclass(frozen=True)
class OperationRow:
    """One operation over the whole schedule.

    Args:
        op: Name of the operation.
        probability: Mean over the epochs, 0 to 1.
        level: Mean over the times the operation is applied, 0 to 9, so that probability times level is the strength;
            None for an operation without a level.
        strength: Mean over the epochs of the expected magnitude, 0 to 9.
        first_epoch: First active epoch, from 0.
    """

    op: str
    probability: float
    level: float | None
    strength: float
    first_epoch: int


class ScheduleTable(JupyterMixin):
    """A schedule as a table: in a terminal or notebook by rich, as text of 80 columns by `print`, as data by `to_json`.

    Attributes:
        schedule: The schedule.
        rows: Operations that are ever active, the strongest first.
        never: Operations that the schedule names and that are never active.
        views: Number of epochs by kind of second view; empty without second views.
        amounts: Number of epochs by amount and operations of scaled policies; empty without such policies.
        distilled: Number of epochs by choice of the distillation; empty without one.
        bits: Number of epochs by choice of the student's bits; empty without one.

    Example:
        >>> from spaces import Entry, Genome, ImageSpec, Phase, Policy
        >>> rotate = Genome(Policy((Entry("Rotate", 5, 8),)))
        >>> table = ScheduleTable(Schedule((Phase(2, Genome()), Phase(2, rotate)), "student", ImageSpec(8, 1, (0,))))
        >>> table.rows[0].op, table.rows[0].strength, table.rows[0].first_epoch
        ('Rotate', 2.0, 2)
    """

    def __init__(self, schedule: Schedule) -> None:
        """Compute the rows."""
        self.schedule = schedule
        self._strengths = Strengths.of(schedule)
        self.rows = _rows(self._strengths)
        self.never = self._strengths.never
        views: Counter[str] = Counter()
        for phase in schedule.phases:
            if phase.genome.has_view:
                views[phase.genome.augment.to_json()["kind"]] += phase.epochs
        self.views: Mapping[str, int] = dict(views)
        amounts: Counter[str] = Counter()
        for phase in schedule.phases:
            if amount := describe_amount(phase.genome.policy):
                amounts[amount] += phase.epochs
        self.amounts: Mapping[str, int] = dict(amounts)
        distilled: Counter[str] = Counter()
        bits: Counter[str] = Counter()
        for phase in schedule.phases:
            if phase.genome.distill:
                chosen = describe_choices(replace(phase.genome, bits={})).items()
                text = ", ".join(f"{name} {format_value(value)}" for name, value in chosen if name != "augment")
                distilled[text] += phase.epochs
            if phase.genome.bits:
                bits[", ".join(f"{name} {value}" for name, value in phase.genome.bits.items())] += phase.epochs
        self.distilled: Mapping[str, int] = dict(distilled)
        self.bits: Mapping[str, int] = dict(bits)

    def to_json(self) -> dict[str, Any]:
        """Return the table and the schedule's provenance as plain data.

        `strength_over_epochs` holds one number for each epoch, or for each of `STRIP` equal parts of more epochs; null
        where the operation is not active.
        """
        columns = min(self.schedule.epochs, STRIP)
        return {
            "role": self.schedule.role,
            "epochs": self.schedule.epochs,
            "phases": len(self.schedule.phases),
            "mean_strength": self.schedule.mean_strength(),
            "image": self.schedule.image.to_json(),
            "operations": [
                {**vars(row), "strength_over_epochs": parts}
                for row, parts in zip(self.rows, self._over_epochs(columns), strict=True)
            ],
            "never": list(self.never),
            "views": dict(self.views),
            "amounts": dict(self.amounts),
            "distilled": dict(self.distilled),
            "bits": dict(self.bits),
            "provenance": dict(self.schedule.provenance),
        }

    def table(self, width: int = 80, *, ascii_only: bool = False) -> Table:
        """Return one row for each operation, about `width` columns wide."""
        columns, each, axis = ruler(self.schedule.epochs, width - _BESIDE_STRIP)
        table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0), pad_edge=False)
        for heading in ("\noperation", f"\n{axis}"):
            table.add_column(heading, no_wrap=True)
        for heading in ("mean\nprobability", "mean\nlevel", "mean\nstrength", "first\nepoch"):
            table.add_column(heading, justify="right", no_wrap=True)
        for row, parts in zip(self.rows, self._over_epochs(columns), strict=True):
            strip = "".join(_block(part, ascii_only) * each for part in parts)
            table.add_row(row.op, Text(strip), *_numbers(row, "-"))
        return table

    def text_table(self) -> TextTable:
        """Return one row for each operation, without the strip over the epochs."""
        headings = ["operation", "mean probability", "mean level", "mean strength", "first epoch"]
        return TextTable(headings, [[row.op, *_numbers(row, "–")] for row in self.rows])

    def notes(self, *, ascii_only: bool = False) -> list[str]:
        """Return the notes below the table: its legend, and those of `schedule_notes`."""
        blocks, idle = (PLAIN_BLOCKS, PLAIN_IDLE) if ascii_only else (BLOCKS, IDLE)
        scale = f"{blocks[0]} to {blocks[-1]}: strength, probability times level, from 0 to 9"
        return [*([f"{scale};  {idle}: not active"] if self.rows else []), *self.schedule_notes()]

    def schedule_notes(self) -> list[str]:
        """Return what the table leaves out: inactive operations, second views, choices, size and provenance."""
        schedule, image = self.schedule, self.schedule.image
        notes = []
        if self.never:
            notes.append(f"never active: {', '.join(self.never)}")
        if self.views:
            kinds = ", ".join(f"{kind} in {count(epochs, 'epoch')}" for kind, epochs in self.views.items())
            notes.append(f"second view: {printable(kinds)}")
        for amount, epochs in list(self.amounts.items())[:MOST_CHOICES]:
            notes.append(f"in {count(epochs, 'epoch')}: {amount}")
        for chosen, epochs in list(self.distilled.items())[:MOST_CHOICES]:
            notes.append(f"distillation in {count(epochs, 'epoch')}: {printable(chosen, 200)}")
        for chosen, epochs in list(self.bits.items())[:MOST_CHOICES]:
            notes.append(f"bits in {count(epochs, 'epoch')}: {printable(chosen)}")
        spans = f"{count(schedule.epochs, 'epoch')} in {count(len(schedule.phases), 'phase')}"
        colors = "gray" if image.channels == 1 else "RGB"
        strength = f"mean strength {schedule.mean_strength():.2f}"
        notes.append(f"{schedule.role}: {spans}, {strength}, {image.size} px {colors}")
        return [*notes, f"provenance: {_describe_provenance(schedule.provenance)}"]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield table and notes in the width of the console."""
        if self.rows:
            yield self.table(options.max_width, ascii_only=options.ascii_only)
        else:
            yield Text("No operation is ever active" + ("." if self.views else ": no image is changed."))
        yield Text("")
        for note in self.notes(ascii_only=options.ascii_only):
            yield Text(note)

    def __str__(self) -> str:
        """Return table and notes as text of 80 columns."""
        text = StringIO()
        Console(file=text, width=80, color_system=None, force_jupyter=False, legacy_windows=False).print(self)
        return text.getvalue().rstrip("\n")

    def _over_epochs(self, columns: int) -> list[list[float | None]]:
        """Return the strength of each row in `columns` equal parts of the epochs; None where it is not active."""
        strength = self._strengths.binned(self._strengths.strength, columns)
        active = self._strengths.binned(self._strengths.probability, columns) > 0
        return [
            [round(float(value), 6) if is_active else None for value, is_active in zip(values, where, strict=True)]
            for values, where in zip(strength, active, strict=True)
        ]


def ruler(epochs: int, width: int) -> tuple[int, int, str]:
    """Lay out a strip over the epochs.

    Args:
        epochs: Number of epochs.
        width: Width available, in characters.

    Returns:
        Number of parts of the epochs, width of each part, and the heading.
    """
    last = str(epochs - 1)
    most = max(8, min(WIDEST_STRIP, width))
    columns = min(epochs, most)
    each = most // columns
    return columns, each, f"epoch 0{last:>{max(columns * each - 7, len(last) + 1)}}" if last != "0" else "epoch 0"


def _rows(strengths: Strengths) -> list[OperationRow]:
    probability, strength = (
        strengths.mean_over_epochs(strengths.probability),
        strengths.mean_over_epochs(strengths.strength),
    )
    columns = zip(strengths.operations, probability.tolist(), strength.tolist(), strengths.first_epochs(), strict=True)
    return [
        OperationRow(op, often, strong / often if OPERATIONS[op].uses_level else None, strong, first)
        for op, often, strong, first in columns
    ]


def _numbers(row: OperationRow, no_level: str) -> list[str]:
    level = no_level if row.level is None else f"{row.level:.1f}"
    return [f"{row.probability:.2f}", level, f"{row.strength:.2f}", str(row.first_epoch)]


def _block(part: float | None, ascii_only: bool) -> str:
    blocks, idle = (PLAIN_BLOCKS, PLAIN_IDLE) if ascii_only else (BLOCKS, IDLE)
    return idle if part is None else blocks[min(int(part / STRONGEST * len(blocks)), len(blocks) - 1)]


def _describe_provenance(provenance: Mapping[str, Any]) -> str:
    """Return sweep, run, value and seed, or the file it was imported from; a policy file may hold any provenance."""
    text = {key: printable(str(value)) for key, value in provenance.items() if isinstance(value, str | int | float)}
    parts = [f"{key} {text[key]}" for key in ("sweep", "run", "reader", "file", "table") if key in text]
    if "value" in text:
        value = provenance["value"]
        shown = f"{value:.4g}" if isinstance(value, float) else text["value"]
        parts.append(f"{text.get('metric', 'value')} {shown}")
    parts += [f"{key} {text[key]}" for key in ("seed", "shuffled") if key in text]
    return ", ".join(parts) or "not stated"


def printable(text: str, most: int = 60) -> str:
    """Return `text` without control characters, which could move a terminal's cursor, and cut to `most` characters."""
    clean = "".join(character if character.isprintable() else "?" for character in text)
    return clean if len(clean) <= most else clean[: most - 3] + "..."
