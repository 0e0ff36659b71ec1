"""Which choices suit a pair: the members of a search by what each of them had chosen from end to end."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from spaces import Genome
from spaces.core.io import write_atomic

if TYPE_CHECKING:  # a search draws at its end, and should not wait for Matplotlib before
    from matplotlib.axes import Axes

FAINT, POINT, MEAN = "#57606a", "#6baed6", "#cb181d"
SHOWN = 10
WIDEST = 4


@dataclass(frozen=True)
class Chosen:
    """One member and its choices.

    Args:
        name: of the member.
        score: validation accuracy, 0 … 1.
        choices: what it had chosen, as `told` has it.
    """

    name: str
    score: float
    choices: Mapping[str, Any]


def told(genome: Genome) -> dict[str, Any]:
    """What a genome has chosen beside its policy, flat: `augment`, `loss`, `hint.weight`, `bits.weights`, and so on.

    What is free within a choice has an entry where that choice was made alone.
    """
    flat: dict[str, Any] = {"augment": genome.augment.label}
    for name, value in genome.distill.items():
        if name == "loss" and isinstance(value, Mapping):
            flat["loss"] = " + ".join(value)
            for loss, options in value.items():
                each = options if isinstance(options, Mapping) else {"weight": options}
                flat |= {f"{loss}.{option}": _plain(chosen) for option, chosen in each.items()}
        else:
            flat[name] = _plain(value)
    return flat | {f"bits.{name}": value for name, value in genome.bits.items()}


def free(rows: Sequence[Chosen]) -> list[str]:
    """The choices that differ between members, in the order in which they first occur."""
    values: dict[str, set[Any]] = {}
    for row in rows:
        for name, value in row.choices.items():
            values.setdefault(name, set()).add(value)
    return [name for name, seen in values.items() if len(seen) > 1]


def markdown(rows: Sequence[Chosen]) -> str:
    """The best members, and the mean over each choice."""
    names, best = free(rows), sorted(rows, key=lambda row: -row.score)
    lines = [["validation", *names, "member"], ["---:", *["---"] * (len(names) + 1)]]
    lines += [
        [f"{100 * row.score:.2f}", *(short(row.choices.get(name, "–")) for name in names), row.name]
        for row in best[:SHOWN]
    ]
    text = ["| " + " | ".join(line) + " |" for line in lines]
    text += ["", "| choice | value | members | mean | best |", "| --- | --- | ---: | ---: | ---: |"]
    for name in names:
        for value, group in _groups(rows, name):
            mean, top = fmean(group), max(group)
            text.append(f"| {name} | {value} | {len(group)} | {100 * mean:.2f} | {100 * top:.2f} |")
    note = "A mean is over members that differ in everything else, and a search looks most where it found most: "
    return "\n".join([*text, "", note + "read it as where to look, not as a comparison at equal budgets.", ""])


def plot(rows: Sequence[Chosen], path: Path) -> Path:
    """A PNG: for each choice, the members' scores by its values; the best member's is marked."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = free(rows)
    across = min(WIDEST, max(1, len(names)))
    down = math.ceil(max(1, len(names)) / across)
    figure = Figure(figsize=(3.4 * across + 0.6, 2.9 * down + 0.3), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(down, across, sharey=True, squeeze=False)
    best = max(rows, key=lambda row: row.score)
    for axis, name in zip(axes.flat, names, strict=False):
        _panel(axis, name, rows, best)
    for axis in list(axes.flat)[len(names) :]:
        axis.set_visible(False)
    for row in axes:
        row[0].set_ylabel("validation accuracy, %")
    figure.suptitle(f"{len(rows)} members by what they chose; the ring is the best, {best.name}", fontsize=10)
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=120, metadata={"Software": None})
    return write_atomic(path, buffer.getvalue())


def _panel(axis: Axes, name: str, rows: Sequence[Chosen], best: Chosen) -> None:
    """Numbers as they are, names side by side with the mean of each."""
    having = [row for row in rows if name in row.choices]
    values = [row.choices[name] for row in having]
    numbers = all(isinstance(value, int | float) for value in values) and len(set(values)) > 6
    if numbers:
        places = {row.name: float(row.choices[name]) for row in having}
        if min(places.values()) > 0 and max(places.values()) / min(places.values()) > 20:
            axis.set_xscale("log")
    else:
        groups = _groups(rows, name)
        order = [value for value, _ in groups]
        places = {row.name: float(order.index(short(row.choices[name]))) for row in having}
        for place, (_, group) in enumerate(groups):
            mean = 100 * fmean(group)
            axis.plot([place - 0.3, place + 0.3], [mean, mean], color=MEAN, linewidth=2)
        slanted = max(map(len, order)) * len(order) > 30
        axis.set_xticks(range(len(order)), order, rotation=35 if slanted else 0, ha="right" if slanted else "center")
        axis.set_xlim(-0.6, len(order) - 0.4)
    axis.scatter([places[row.name] for row in having], [100 * row.score for row in having], s=16, color=POINT, zorder=3)
    if best.name in places:
        at = [places[best.name]], [100 * best.score]
        axis.scatter(*at, s=70, facecolors="none", edgecolors="black", zorder=4)
    axis.set_title(name, fontsize=10, loc="left")
    axis.grid(axis="y", color="#eeeeee")
    axis.tick_params(labelsize=8, colors=FAINT)
    axis.spines[["top", "right"]].set_visible(False)


def _groups(rows: Sequence[Chosen], name: str) -> list[tuple[str, list[float]]]:
    """Scores by value of a choice, the best mean first; of numbers by size, in four parts where there are many."""
    having = [row for row in rows if name in row.choices]
    values = [row.choices[name] for row in having]
    if all(isinstance(value, int | float) for value in values) and len(set(values)) > 6:
        having = sorted(having, key=lambda row: row.choices[name])
        size = math.ceil(len(having) / 4)
        parts = [having[start : start + size] for start in range(0, len(having), size)]
        return [
            (f"{short(part[0].choices[name])} … {short(part[-1].choices[name])}", [row.score for row in part])
            for part in parts
        ]
    groups: dict[str, list[float]] = {}
    for row in having:
        groups.setdefault(short(row.choices[name]), []).append(row.score)
    return sorted(groups.items(), key=lambda group: -fmean(group[1]))


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | int | float) else str(value)


def short(value: Any) -> str:
    """A value in a table or a picture."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
