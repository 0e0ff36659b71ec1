"""A schedule as a table: one row an operation, with a strip over the epochs."""

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

from results.analysis.choices import short, told
from results.analysis.strength import STRONGEST, Strengths
from results.runlog.lineage import count
from spaces import OPERATIONS, Schedule

BLOCKS, IDLE = "▁▂▃▄▅▆▇█", "·"
PLAIN_BLOCKS, PLAIN_IDLE = ":-=+*#%@", "."
"""For terminals and files that are not UTF-8."""

STRIP = 28
"""Columns of the strip over the epochs at 80 columns, and how many parts `to_json` divides the epochs into."""

WIDEST_STRIP = 72
SHOWN = 4
"""How many choices of the distillation are told at most."""

_BESIDE_STRIP = 80 - STRIP


@dataclass(frozen=True)
class OperationRow:
    """One operation over the whole schedule.

    Args:
        op: its name.
        probability: 0 … 1, averaged over the epochs.
        level: 0 … 9, averaged over the times that the operation is chosen, so that probability × level is the
            strength; None where the operation takes no level.
        strength: the expected magnitude, 0 … 9, averaged over the epochs.
        first_epoch: from which it is in force, counted from 0.
    """

    op: str
    probability: float
    level: float | None
    strength: float
    first_epoch: int


class Overview(JupyterMixin):
    """A schedule as a table: by rich in a terminal or a notebook, by `print` at 80 columns, for programs by `to_json`.

    Attributes:
        schedule: what is shown.
        rows: the operations that are ever in force, the strongest first.
        never: the operations that the schedule names and that are never in force.
        views: how many epochs each kind of second view is made in; empty where there is none.
        distilled: how many epochs each choice of the distillation is in force; empty where none was made.
        bits: how many epochs each choice of the student's bits is in force; empty where none was made.
    """

    def __init__(self, schedule: Schedule) -> None:
        """Do the sums."""
        self.schedule = schedule
        self._strengths = Strengths.of(schedule)
        self.rows = _rows(self._strengths)
        self.never = self._strengths.never
        views: Counter[str] = Counter()
        for phase in schedule.phases:
            if phase.genome.has_view:
                views[phase.genome.augment.to_json()["kind"]] += phase.epochs
        self.views: Mapping[str, int] = dict(views)
        distilled: Counter[str] = Counter()
        bits: Counter[str] = Counter()
        for phase in schedule.phases:
            if phase.genome.distill:
                chosen = told(replace(phase.genome, bits={})).items()
                text = ", ".join(f"{name} {short(value)}" for name, value in chosen if name != "augment")
                distilled[text] += phase.epochs
            if phase.genome.bits:
                bits[", ".join(f"{name} {value}" for name, value in phase.genome.bits.items())] += phase.epochs
        self.distilled: Mapping[str, int] = dict(distilled)
        self.bits: Mapping[str, int] = dict(bits)

    def to_json(self) -> dict[str, Any]:
        """The table's numbers and the schedule's origin as plain data.

        `strength_over_epochs` holds one number an epoch, or for each of `STRIP` equal parts where there are more
        epochs; null where the operation is not in force.
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
            "distilled": dict(self.distilled),
            "bits": dict(self.bits),
            "provenance": dict(self.schedule.provenance),
        }

    def table(self, width: int = 80, *, ascii_only: bool = False) -> Table:
        """One row an operation, about `width` columns wide."""
        columns, each, axis = ruler(self.schedule.epochs, width - _BESIDE_STRIP)
        table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0), pad_edge=False)
        for heading in ("\noperation", f"\n{axis}"):
            table.add_column(heading, no_wrap=True)
        for heading in ("mean\nprobability", "mean\nlevel", "mean\nstrength", "first\nepoch"):
            table.add_column(heading, justify="right", no_wrap=True)
        for row, parts in zip(self.rows, self._over_epochs(columns), strict=True):
            strip = "".join(_block(part, ascii_only) * each for part in parts)
            level = "-" if row.level is None else f"{row.level:.1f}"
            numbers = (f"{row.probability:.2f}", level, f"{row.strength:.2f}", str(row.first_epoch))
            table.add_row(row.op, Text(strip), *numbers)
        return table

    def notes(self, *, ascii_only: bool = False) -> list[str]:
        """What stands below the table: how to read it, what is missing from it, and where the schedule comes from."""
        blocks, idle = (PLAIN_BLOCKS, PLAIN_IDLE) if ascii_only else (BLOCKS, IDLE)
        schedule, image = self.schedule, self.schedule.image
        notes = []
        if self.rows:
            scale = f"{blocks[0]} to {blocks[-1]}: strength, probability times level, from 0 to 9"
            notes.append(f"{scale};  {idle}: not in force")
        if self.never:
            notes.append(f"never in force: {', '.join(self.never)}")
        if self.views:
            kinds = ", ".join(f"{kind} in {count(epochs, 'epoch')}" for kind, epochs in self.views.items())
            notes.append(f"second view: {printable(kinds)}")
        for chosen, epochs in list(self.distilled.items())[:SHOWN]:
            notes.append(f"distilled in {count(epochs, 'epoch')}: {printable(chosen, 200)}")
        for chosen, epochs in list(self.bits.items())[:SHOWN]:
            notes.append(f"bits in {count(epochs, 'epoch')}: {printable(chosen)}")
        spans = f"{count(schedule.epochs, 'epoch')} in {count(len(schedule.phases), 'phase')}"
        colors = "gray" if image.channels == 1 else "RGB"
        strength = f"mean strength {schedule.mean_strength():.2f}"
        notes.append(f"{schedule.role}: {spans}, {strength}, {image.size} px {colors}")
        return [*notes, f"origin: {_origin(schedule.provenance)}"]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Table and notes, as wide as there is room."""
        if self.rows:
            yield self.table(options.max_width, ascii_only=options.ascii_only)
        else:
            yield Text("No operation is ever in force" + ("." if self.views else ": no image is changed."))
        yield Text("")
        for note in self.notes(ascii_only=options.ascii_only):
            yield Text(note)

    def __str__(self) -> str:
        """Table and notes as text of 80 columns."""
        text = StringIO()
        Console(file=text, width=80, color_system=None, force_jupyter=False, legacy_windows=False).print(self)
        return text.getvalue().rstrip("\n")

    def _over_epochs(self, columns: int) -> list[list[float | None]]:
        """The strength of each row in `columns` parts of the epochs; None where it is not in force at all."""
        strength = self._strengths.binned(self._strengths.strength, columns)
        in_force = self._strengths.binned(self._strengths.probability, columns) > 0
        return [
            [round(float(value), 6) if here else None for value, here in zip(values, where, strict=True)]
            for values, where in zip(strength, in_force, strict=True)
        ]


def ruler(epochs: int, width: int) -> tuple[int, int, str]:
    """Into how many parts a strip about `width` wide divides the epochs, how wide each part is, and its heading."""
    last = str(epochs - 1)
    most = max(8, min(WIDEST_STRIP, width))
    columns = min(epochs, most)
    each = most // columns
    return columns, each, f"epoch 0{last:>{max(columns * each - 7, len(last) + 1)}}" if last != "0" else "epoch 0"


def _rows(strengths: Strengths) -> list[OperationRow]:
    probability, strength = strengths.over_all(strengths.probability), strengths.over_all(strengths.strength)
    columns = zip(strengths.operations, probability.tolist(), strength.tolist(), strengths.first_epochs(), strict=True)
    return [
        OperationRow(op, often, strong / often if OPERATIONS[op].uses_level else None, strong, first)
        for op, often, strong, first in columns
    ]


def _block(part: float | None, ascii_only: bool) -> str:
    blocks, idle = (PLAIN_BLOCKS, PLAIN_IDLE) if ascii_only else (BLOCKS, IDLE)
    return idle if part is None else blocks[min(int(part / STRONGEST * len(blocks)), len(blocks) - 1)]


def _origin(provenance: Mapping[str, Any]) -> str:
    """Sweep, run, value and seed, or what it was read from; the file is free to say anything there."""
    said = {key: printable(str(value)) for key, value in provenance.items() if isinstance(value, str | int | float)}
    parts = [f"{key} {said[key]}" for key in ("sweep", "run", "reader", "file", "table") if key in said]
    if "value" in said:
        value = provenance["value"]
        shown = f"{value:.4g}" if isinstance(value, float) else said["value"]
        parts.append(f"{said.get('metric', 'value')} {shown}")
    parts += [f"{key} {said[key]}" for key in ("seed", "shuffled") if key in said]
    return ", ".join(parts) or "not stated"


def printable(text: str, most: int = 60) -> str:
    """Without what would move a terminal's cursor or change its colors."""
    clean = "".join(character if character.isprintable() else "?" for character in text)
    return clean if len(clean) <= most else clean[: most - 3] + "..."
