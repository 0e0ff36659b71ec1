"""What two schedules do differently besides their operations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from results.analysis.choices import short, told
from results.analysis.schedule_table import SHOWN, printable
from results.runlog.lineage import count
from spaces import Genome, Schedule

ORIGIN = ("sweep", "run", "metric", "value", "seed", "shuffled", "reader", "file", "table")
"""What is compared of where they come from."""


def origins(a: Schedule, b: Schedule) -> dict[str, tuple[str, str]]:
    """What differs of roles, images and origins."""
    pairs: dict[str, tuple[Any, Any]] = {"role": (a.role, b.role), "image": (_image(a), _image(b))}
    pairs |= {name: (a.provenance.get(name), b.provenance.get(name)) for name in ORIGIN}
    return {name: (_text(one), _text(two)) for name, (one, two) in pairs.items() if one != two}


def _image(schedule: Schedule) -> str:
    image = schedule.image
    return f"{image.size} px, {'gray' if image.channels == 1 else 'RGB'}, mean color {','.join(map(str, image.fill))}"


def _text(value: Any) -> str:
    return "none" if value is None else printable(short(value))


def choices(a: Schedule, b: Schedule) -> dict[str, tuple[str, str]]:
    """What differs in any epoch of second views, distillation and bits; the phases end together."""
    every = [[_choices(phase.genome) for phase in each.phases] for each in (a, b)]
    names = dict.fromkeys(name for side in every for choices in side for name in choices)
    differ = [name for name in names if any(x.get(name) != y.get(name) for x, y in zip(*every, strict=True))]
    lengths = [phase.epochs for phase in a.phases]
    one, two = ({name: _summary([each.get(name) for each in side], lengths) for name in differ} for side in every)
    found = {name: (one[name], two[name]) for name in differ}
    views = zip(a.phases, b.phases, strict=True)
    if "augment" not in found and any(x.genome.augment != y.genome.augment for x, y in views):
        found["augment"] = "by the same name", "with other settings, or with something else learned"
    return found


def _choices(genome: Genome) -> dict[str, str]:
    return {name: short(value) for name, value in told(genome).items()}


def _summary(values: Sequence[str | None], lengths: Sequence[int]) -> str:
    """The values with their epochs, in the order in which they come."""
    epochs: Counter[str] = Counter()
    for value, length in zip(values, lengths, strict=True):
        epochs[_text(value)] += length
    if len(epochs) == 1:
        return next(iter(epochs))
    parts = [f"{value} in {count(number, 'epoch')}" for value, number in epochs.items()]
    return ", ".join(parts if len(parts) <= SHOWN else [*parts[:SHOWN], f"{len(parts) - SHOWN} more"])
