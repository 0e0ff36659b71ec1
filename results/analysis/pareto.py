"""The Pareto front of a search for accuracy and size: members that no other member beats in both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from results.analysis.choices import MemberChoices, format_value, varying_choices
from results.analysis.tables import TextTable, format_percent

BITS_PER_KILOBYTE = 8000


@dataclass(frozen=True)
class Candidate:
    """A member of a search, with its accuracy and size.

    Args:
        name: Name of the member.
        accuracy: Validation accuracy, 0 to 1.
        size_in_bits: Size of the exported network, above 0.
        choices: Choices by name, as `results.analysis.choices.describe_choices` returns them.
    """

    name: str
    accuracy: float
    size_in_bits: int
    choices: Mapping[str, Any] = field(hash=False)

    @property
    def kilobytes(self) -> float:
        """Size in kB (8,000 bits)."""
        return self.size_in_bits / BITS_PER_KILOBYTE

    def to_json(self) -> dict[str, Any]:
        """Return the member as plain data."""
        known = {"name": self.name, "accuracy": self.accuracy, "size_in_bits": self.size_in_bits}
        return {**known, "chosen": dict(self.choices)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Candidate:
        """Return the member that `to_json` wrote."""
        return cls(data["name"], data["accuracy"], data["size_in_bits"], data["chosen"])


def pareto_front(candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """Return the candidates that no other dominates, the smallest first.

    One dominates another if it is at least as accurate and as small, and better in at least one of the two. Of equal
    candidates all are kept, in their order.

    Example:
        >>> found = [Candidate("a", 0.90, 8000, {}), Candidate("b", 0.85, 9000, {}), Candidate("c", 0.95, 16000, {})]
        >>> [candidate.name for candidate in pareto_front(found)]
        ['a', 'c']
    """
    front: list[Candidate] = []
    for candidate in sorted(candidates, key=lambda each: (each.size_in_bits, -each.accuracy)):
        if not front or candidate.accuracy > front[-1].accuracy or _point(candidate) == _point(front[-1]):
            front.append(candidate)
    return tuple(front)


def pareto_table(candidates: Sequence[Candidate]) -> TextTable:
    """Return the front, with the choices that differ between all candidates."""
    names = varying_choices([MemberChoices(each.name, each.accuracy, each.choices) for each in candidates])
    rows = [
        [
            _size(each),
            format_percent(each.accuracy),
            *(format_value(each.choices.get(name, "–")) for name in names),
            each.name,
        ]
        for each in pareto_front(candidates)
    ]
    return TextTable(["size, kB", "validation, %", *names, "member"], rows, numbers=(0, 1))


def pareto_markdown(candidates: Sequence[Candidate]) -> str:
    """Return the table of the front and how to read it as Markdown."""
    note = (
        f"The members of {len(candidates)} that no other beats in both size and accuracy. Each was trained once, so "
        "the front favors lucky seeds: use it to see where to look, not as the test accuracy of a student of that "
        "size. The most accurate member goes into the final training."
    )
    return "\n".join([pareto_table(candidates).markdown(), "", note, ""])


def describe_front(front: Sequence[Candidate]) -> list[str]:
    """Return one line for each point of a front.

    Example:
        >>> describe_front([Candidate("student-tpe-07", 0.94, 220_800, {"bits.weights": 2})])
        ['27.6 kB, validation accuracy 94.00 %: weights 2 (student-tpe-07)']
    """
    lines = []
    for group in group_by_point(front):
        first, more = group[0], f" and {len(group) - 1} equal" if len(group) > 1 else ""
        bits = ", ".join(describe_bits(group))
        accuracy = format_percent(first.accuracy)
        lines.append(f"{_size(first)} kB, validation accuracy {accuracy} %: {bits} ({first.name}{more})")
    return lines


def group_by_point(front: Sequence[Candidate]) -> list[list[Candidate]]:
    """Return the candidates of a front in groups of equal size and accuracy."""
    groups: dict[tuple[int, float], list[Candidate]] = {}
    for each in front:
        groups.setdefault(_point(each), []).append(each)
    return list(groups.values())


def describe_bits(group: Sequence[Candidate]) -> list[str]:
    """Return the bits of a group, such as `activations 4/32`; the first name if no bits were chosen."""
    values: dict[str, set[Any]] = {}
    for each in group:
        for name, value in each.choices.items():
            if name.startswith("bits."):
                values.setdefault(name.removeprefix("bits."), set()).add(value)
    return [f"{name} {'/'.join(map(str, sorted(found)))}" for name, found in values.items()] or [group[0].name]


def _point(candidate: Candidate) -> tuple[int, float]:
    return candidate.size_in_bits, candidate.accuracy


def _size(candidate: Candidate) -> str:
    return f"{candidate.kilobytes:.1f}"
