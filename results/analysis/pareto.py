"""The Pareto front of a search with two objectives: accuracy, and the size of the exported student."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from results.analysis.choices import Chosen, free, short
from spaces.core.io import write_atomic

if TYPE_CHECKING:  # a search draws at its end, and should not wait for Matplotlib before
    from matplotlib.axes import Axes

FAINT, REST, FRONT = "#57606a", "#afb8c1", "#0072b2"


@dataclass(frozen=True)
class Candidate:
    """One member of the search.

    Args:
        name: of the member.
        accuracy: on the validation images, 0 … 1.
        size_in_bits: of the exported network, above 0.
        told: what it had chosen, as `results.analysis.choices.told` has it.
    """

    name: str
    accuracy: float
    size_in_bits: int
    told: Mapping[str, Any] = field(hash=False)

    @property
    def kilobytes(self) -> float:
        """Its size in kB, of 8,000 bits."""
        return self.size_in_bits / 8000

    def to_json(self) -> dict[str, Any]:
        """Plain data for programs."""
        known = {"name": self.name, "accuracy": self.accuracy, "size_in_bits": self.size_in_bits}
        return {**known, "chosen": dict(self.told)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Candidate:
        """The member that `to_json` wrote."""
        return cls(data["name"], data["accuracy"], data["size_in_bits"], data["chosen"])


def front(candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """Those that no other dominates, the smallest first; of equals all, in the order in which they came.

    One dominates another if it is as accurate and as small, and better in at least one of both.
    """
    found: list[Candidate] = []
    for candidate in sorted(candidates, key=lambda each: (each.size_in_bits, -each.accuracy)):
        if not found or candidate.accuracy > found[-1].accuracy or _point(candidate) == _point(found[-1]):
            found.append(candidate)
    return tuple(found)


def markdown(candidates: Sequence[Candidate]) -> str:
    """The front as a table, and how to read it."""
    best = front(candidates)
    names = free([Chosen(each.name, each.accuracy, each.told) for each in candidates])
    rows = [["size, kB", "validation", *names, "member"], ["---:", "---:", *["---"] * (len(names) + 1)]]
    rows += [
        [_size(each), _percent(each), *(short(each.told.get(name, "–")) for name in names), each.name] for each in best
    ]
    table = ["| " + " | ".join(row) + " |" for row in rows]
    note = (
        f"Of {len(candidates)} members, those that no other beats in size and accuracy together. Each was trained once "
        "and the front takes the luckiest of each size: read it as where to look, not as what a student of that size "
        "reaches on the test images. The most accurate is the one that was trained in full."
    )
    return "\n".join([*table, "", note, ""])


def plot(candidates: Sequence[Candidate], path: Path) -> Path:
    """A PNG: accuracy over size, the front as steps, which are the best accuracy that a size has room for.

    Raises:
        RequestError: the place cannot be written to.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    best = front(candidates)
    figure = Figure(figsize=(7.2, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    rest = [each for each in candidates if each not in best]
    axis.step(*_places(best), where="post", color=FRONT, linewidth=1.5, zorder=2)
    axis.scatter(*_places(best), s=44, color=FRONT, marker="D", zorder=4, label=f"front ({len(best)})")
    if rest:
        label = f"dominated ({len(rest)})"
        axis.scatter(*_places(rest), s=30, color=REST, edgecolors="white", linewidths=0.8, zorder=3, label=label)
    _scale(axis, candidates)
    _label(axis, best)
    axis.set_xlabel("size of the exported student, kB")
    axis.set_ylabel("validation accuracy, %")
    axis.set_title("Members by size and accuracy", loc="left", fontsize=11)
    axis.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, frameon=False, fontsize=9)
    axis.grid(color="#eeeeee", zorder=0)
    axis.tick_params(labelsize=9, colors=FAINT)
    axis.spines[["top", "right"]].set_visible(False)
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=120, metadata={"Software": None})
    return write_atomic(path, buffer.getvalue())


def lines(best: Sequence[Candidate]) -> list[str]:
    """A front, one line a point: `27.6 kB, validation 94.00: weights 2, activations 4 (student-tpe-07 and 1 equal)`."""
    found = []
    for group in _points(best):
        first, more = group[0], f" and {len(group) - 1} equal" if len(group) > 1 else ""
        bits = ", ".join(_bits(group))
        found.append(f"{_size(first)} kB, validation {_percent(first)}: {bits} ({first.name}{more})")
    return found


def _scale(axis: Axes, candidates: Sequence[Candidate]) -> None:
    """A logarithmic axis with a tick at each size that there is, as long as they can be read."""
    from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

    sizes = sorted({each.kilobytes for each in candidates})
    low, high = sizes[0], sizes[-1]
    span = max(high / low, 1.5)
    axis.set_xscale("log")
    axis.set_xlim(low / span**0.08, high * span**0.25)
    ticks = [size for index, size in enumerate(sizes) if not index or size / sizes[index - 1] > span**0.07]
    axis.set_xticks(ticks)
    axis.xaxis.set_major_formatter(FuncFormatter(lambda size, _: f"{size:.3g}"))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_minor_formatter(NullFormatter())


def _label(axis: Axes, best: Sequence[Candidate]) -> None:
    """Each point of the front, once for all that are equal, by its bits; above its step, where no other can be."""
    style: dict[str, Any] = {"textcoords": "offset points", "va": "bottom", "fontsize": 8, "zorder": 5}
    for group in _points(best):
        place = (group[0].kilobytes, 100 * group[0].accuracy)
        axis.annotate("\n".join(_bits(group)), place, (5, 5), **style)
    axis.margins(y=0.15)


def _places(candidates: Sequence[Candidate]) -> tuple[list[float], list[float]]:
    return [each.kilobytes for each in candidates], [100 * each.accuracy for each in candidates]


def _point(candidate: Candidate) -> tuple[int, float]:
    return candidate.size_in_bits, candidate.accuracy


def _points(best: Sequence[Candidate]) -> list[list[Candidate]]:
    """A front by its points: those that are equal in both stand together."""
    groups: dict[tuple[int, float], list[Candidate]] = {}
    for each in best:
        groups.setdefault(_point(each), []).append(each)
    return list(groups.values())


def _bits(group: Sequence[Candidate]) -> list[str]:
    """The bits that these chose, as in `activations 4/32`; the first one's name where it says nothing of them."""
    chosen: dict[str, set[Any]] = {}
    for each in group:
        for name, value in each.told.items():
            if name.startswith("bits."):
                chosen.setdefault(name.removeprefix("bits."), set()).add(value)
    return [f"{name} {'/'.join(map(str, sorted(seen)))}" for name, seen in chosen.items()] or [group[0].name]


def _size(candidate: Candidate) -> str:
    return f"{candidate.kilobytes:.1f}"


def _percent(candidate: Candidate) -> str:
    return f"{100 * candidate.accuracy:.2f}"
