"""Members of a search by their choices of view, loss and bits: which choices suit a teacher and student pair."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from results.analysis.tables import TextTable, format_percent
from spaces import Genome, ScaledPolicy
from spaces.policy.scaled import AnyPolicy

MEMBERS_IN_TABLE = 10
"""Number of members in the table of the best."""

DISTINCT_NUMBERS = 6
"""A numeric choice with more distinct values than this is grouped into quarters."""


@dataclass(frozen=True)
class MemberChoices:
    """A member of a search with its score and choices.

    Args:
        name: Name of the member.
        score: Validation accuracy, 0 to 1.
        choices: Choices by name, as `describe_choices` returns them.
    """

    name: str
    score: float
    choices: Mapping[str, Any] = field(hash=False)

    def to_json(self) -> dict[str, Any]:
        """Return the member as plain data."""
        return {"name": self.name, "score": self.score, "choices": dict(self.choices)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> MemberChoices:
        """Return the member that `to_json` wrote."""
        return cls(data["name"], data["score"], data["choices"])


def describe_choices(genome: Genome) -> dict[str, Any]:
    """Return a genome's choices beside its policy as one flat dictionary.

    An option of a choice is listed only where that choice was made.

    Example:
        >>> describe_choices(Genome(distill={"loss": "dkd", "temperature": 4.0}, bits={"weights": 2}))
        {'augment': 'identity', 'loss': 'dkd', 'temperature': 4.0, 'bits.weights': 2}
    """
    flat: dict[str, Any] = {"augment": genome.augment.label}
    for name, value in genome.distill.items():
        if name == "loss" and isinstance(value, Mapping):
            flat["loss"] = " + ".join(value)
            for loss, options in value.items():
                named = options if isinstance(options, Mapping) else {"weight": options}
                flat |= {f"{loss}.{option}": _plain(chosen) for option, chosen in named.items()}
        else:
            flat[name] = _plain(value)
    return flat | {f"bits.{name}": value for name, value in genome.bits.items()}


def varying_choices(members: Sequence[MemberChoices]) -> list[str]:
    """Return the names of the choices that differ between members, in the order of their first occurrence."""
    values: dict[str, set[Any]] = {}
    for member in members:
        for name, value in member.choices.items():
            values.setdefault(name, set()).add(value)
    return [name for name, distinct in values.items() if len(distinct) > 1]


def best_members_table(members: Sequence[MemberChoices]) -> TextTable:
    """Return the `MEMBERS_IN_TABLE` best members with the choices that differ between all members."""
    names = varying_choices(members)
    best = sorted(members, key=lambda member: -member.score)[:MEMBERS_IN_TABLE]
    rows = [
        [format_percent(member.score), *(format_value(member.choices.get(name, "–")) for name in names), member.name]
        for member in best
    ]
    return TextTable(["validation, %", *names, "member"], rows, numbers=(0,))


def choice_means_table(members: Sequence[MemberChoices]) -> TextTable:
    """Return the mean and the best validation accuracy of each value of each choice that differs."""
    rows = [
        [name, value, str(len(scores)), format_percent(fmean(scores)), format_percent(max(scores))]
        for name in varying_choices(members)
        for value, scores in group_scores(members, name)
    ]
    return TextTable(["choice", "value", "members", "mean, %", "best, %"], rows, numbers=(2, 3, 4))


def choices_markdown(members: Sequence[MemberChoices]) -> str:
    """Return both tables and how to read them as Markdown."""
    note = (
        "A mean is over members that differ in every other choice, and an adaptive search samples good regions more "
        "often: use the means to see where to look, not as a comparison at equal budgets."
    )
    return "\n".join([best_members_table(members).markdown(), "", choice_means_table(members).markdown(), "", note, ""])


def is_grouped(values: Sequence[Any]) -> bool:
    """Return True if these values of a choice are numbers, and too many to list one by one."""
    return all(isinstance(value, int | float) for value in values) and len(set(values)) > DISTINCT_NUMBERS


def group_scores(members: Sequence[MemberChoices], name: str) -> list[tuple[str, list[float]]]:
    """Return validation accuracies by value of a choice.

    Args:
        members: Members of a search; those without the choice do not count.
        name: Name of the choice.

    Returns:
        Pairs of a value and the scores of its members: by mean score, the highest first; numbers of which there are
        many in four groups, by size.
    """
    chosen = [member for member in members if name in member.choices]
    if is_grouped([member.choices[name] for member in chosen]):
        chosen = sorted(chosen, key=lambda member: member.choices[name])
        size = math.ceil(len(chosen) / 4)
        groups = [chosen[start : start + size] for start in range(0, len(chosen), size)]
        return [
            (
                f"{format_value(group[0].choices[name])} … {format_value(group[-1].choices[name])}",
                [member.score for member in group],
            )
            for group in groups
        ]
    scores: dict[str, list[float]] = {}
    for member in chosen:
        scores.setdefault(format_value(member.choices[name]), []).append(member.score)
    return sorted(scores.items(), key=lambda group: -fmean(group[1]))


def format_value(value: Any) -> str:
    """Return a value as shown in tables and plots: three significant digits of a float, else its text."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | int | float) else str(value)


def describe_amount(policy: AnyPolicy) -> str:
    """Return how many images a scaled policy changes, and by how many operations; empty for PBA's entries.

    Example:
        >>> from spaces import ScaledEntry, ScaledPolicy
        >>> describe_amount(ScaledPolicy(0.8, 2, (ScaledEntry("Rotate", 1, 0.5),)))
        '80 % of the images changed, by up to 2 operations'
    """
    if not isinstance(policy, ScaledPolicy):
        return ""
    if policy.is_identity:
        return "no image changed"
    operations = f"up to {policy.operations} operations" if policy.operations > 1 else "1 operation"
    return f"{100 * policy.amount:.0f} % of the images changed, by {operations}"
