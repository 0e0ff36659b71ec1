"""Lineage: who copied whom, when, and the schedule that this makes of the best member's ancestors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spaces import Genome, Phase
from spaces.schedule.schedule import merge

TOLD = 6
"""How many of a winner's ancestors a line of text names."""


@dataclass(frozen=True)
class Exploit:
    """One member took over another's weights, and explored from its genome.

    Args:
        epoch: epochs that the donor's weights had been trained for; the target goes on from there.
        target: the member that was replaced.
        donor: the member that was copied.
        target_score: validation accuracy of the target, NaN if it had none.
        donor_score: of the donor.
        before: the genome that the donor was trained with up to here.
        after: the genome that the target goes on with.
    """

    epoch: int
    target: str
    donor: str
    target_score: float
    donor_score: float
    before: Genome
    after: Genome

    def to_json(self) -> dict[str, Any]:
        """This event as plain data; an absent score is null."""
        scores = {"target_score": _number(self.target_score), "donor_score": _number(self.donor_score)}
        genomes = {"before": self.before.to_json(), "after": self.after.to_json()}
        return {"epoch": self.epoch, "target": self.target, "donor": self.donor, **scores, **genomes}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Exploit:
        """The event that `to_json` wrote."""
        return cls(
            epoch=data["epoch"],
            target=data["target"],
            donor=data["donor"],
            target_score=_score(data["target_score"]),
            donor_score=_score(data["donor_score"]),
            before=Genome.from_json(data["before"]),
            after=Genome.from_json(data["after"]),
        )


@dataclass(frozen=True)
class Ancestry:
    """The way that leads to one member.

    Args:
        phases: the genomes that its weights were trained with, first to last.
        members: whose places those weights were in, first to last; the last is the member itself.
    """

    phases: tuple[Phase, ...]
    members: tuple[str, ...]


def ancestry(member: str, epochs: int, starts: Mapping[str, Genome], exploits: Sequence[Exploit]) -> Ancestry:
    """Follow `member` backwards from `epochs` through whoever it copied.

    Of the events of a member only those before the copy count: what happened to a donor afterwards, or to a target
    before it was replaced, is not part of the line.

    Args:
        member: where to start.
        epochs: how long its weights were trained.
        starts: each member's first genome.
        exploits: all events of the population, in the order in which they happened. Where members are not
            synchronized that is not the order of their epochs: a target may copy a donor that is behind it.
    """
    line = descent(member, epochs, exploits)
    genomes = [starts[step.member] if step.copy is None else step.copy.after for step in line]
    phases = [Phase(step.end - step.start, genome) for step, genome in zip(line, genomes, strict=True) if step.end]
    return Ancestry(merge(phases), tuple(step.member for step in line))


@dataclass(frozen=True)
class Step:
    """A stretch of a line: epochs that its weights were trained in one member's place.

    Args:
        member: the member.
        start: epochs that they had been trained for before, 0 at the root.
        end: and after.
        copy: how they came there; None: they began there.
    """

    member: str
    start: int
    end: int
    copy: Exploit | None = None


def descent(member: str, epochs: int, exploits: Sequence[Exploit]) -> tuple[Step, ...]:
    """The line that leads to `member` as it is after `epochs`, root first; the arguments are those of `ancestry`."""
    line: list[Step] = []
    for event in reversed(exploits):
        # A copy made at the very end changes a genome that no epoch is trained with.
        if event.target == member and event.epoch < epochs:
            line.insert(0, Step(member, event.epoch, epochs, event))
            member, epochs = event.donor, event.epoch
    return (Step(member, 0, epochs), *line)


@dataclass(frozen=True)
class Slice:
    """What a member trained between two perturbations.

    Args:
        member: the member.
        start: epochs that its weights had been trained for before.
        end: and after.
        score: by which it was judged then: validation accuracy, NaN if it had none.
    """

    member: str
    start: int
    end: int
    score: float


@dataclass(frozen=True)
class Family:
    """A population over its generations: who trained how well, who copied whom, and the way to the winner.

    Args:
        name: of the stage.
        members: all of them, in order.
        slices: in the order in which they ended.
        exploits: likewise.
        path: the winner's line, root first; empty: there is no winner.
    """

    name: str
    members: tuple[str, ...]
    slices: tuple[Slice, ...]
    exploits: tuple[Exploit, ...]
    path: tuple[Step, ...] = ()

    @classmethod
    def of(
        cls, name: str, members: Sequence[str], slices: Sequence[Slice], exploits: Sequence[Exploit], winner: str = ""
    ) -> Family:
        """The family, with the line of `winner` as far as it was trained; empty: nobody has won."""
        ends = [each.end for each in slices if each.member == winner]
        path = descent(winner, ends[-1], exploits) if ends else ()
        return cls(name, tuple(members), tuple(slices), tuple(exploits), path)

    @property
    def generations(self) -> int:
        """How many slices a member trained at most."""
        return max(Counter(each.member for each in self.slices).values(), default=0)

    @property
    def winner(self) -> str:
        """The best member; empty: there is none."""
        return self.path[-1].member if self.path else ""

    def __str__(self) -> str:
        """One line, such as may stand for the picture; epochs are counted from 0."""
        sizes = (count(len(self.members), "member"), count(self.generations, "generation"))
        text = f"{self.name}: {', '.join(sizes)}, {count(len(self.exploits), 'copy', 'copies')}"
        if not self.path:
            return text
        *steps, last = self.path
        if not steps:
            return f"{text}; the best, {last.member}, copied nobody"
        told = [f"{step.member.removeprefix(self.name)} (epochs {step.start} to {step.end - 1})" for step in steps]
        if len(told) > TOLD:
            told[TOLD // 2 : -(TOLD // 2)] = [f"{len(told) - 2 * (TOLD // 2)} more"]
        return f"{text}; the best, {last.member}, descends from {', '.join(told)}, and goes on from {last.start}"


def count(number: int, noun: str, nouns: str = "") -> str:
    """`1 copy`, `1,000 copies`; `nouns`: the plural, where it is not made with an s."""
    return f"{number:,} {noun if number == 1 else nouns or noun + 's'}"


def _number(value: float) -> float | None:
    return None if value != value else value


def _score(value: float | None) -> float:
    return float("nan") if value is None else value
