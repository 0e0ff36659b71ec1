"""Lineage: which trial copied which, and the schedule of the best trial's ancestors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spaces import Genome, Phase
from spaces.schedule.schedule import merge

MAX_ANCESTORS = 6
"""Number of a winner's ancestors that a line of text names."""


@dataclass(frozen=True)
class Exploit:
    """A copy: one trial took over another's weights, and explored from its genome.

    Args:
        epoch: Epochs of training in the donor's weights; the target goes on from there.
        target: Name of the trial that was replaced.
        donor: Name of the trial that was copied.
        target_score: Validation accuracy of the target, NaN if it had none.
        donor_score: Validation accuracy of the donor, NaN if it had none.
        before: Genome that the donor was trained with up to here.
        after: Genome that the target goes on with.
    """

    epoch: int
    target: str
    donor: str
    target_score: float
    donor_score: float
    before: Genome
    after: Genome

    def to_json(self) -> dict[str, Any]:
        """Return the copy as plain data; an absent score is null."""
        scores = {"target_score": _number(self.target_score), "donor_score": _number(self.donor_score)}
        genomes = {"before": self.before.to_json(), "after": self.after.to_json()}
        return {"epoch": self.epoch, "target": self.target, "donor": self.donor, **scores, **genomes}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Exploit:
        """Return the copy that `to_json` wrote."""
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
    """The ancestors of one trial.

    Args:
        phases: Genomes that its weights were trained with, first to last.
        members: Trials that those weights belonged to, first to last; the last is the trial itself.
    """

    phases: tuple[Phase, ...]
    members: tuple[str, ...]


def ancestry(member: str, epochs: int, starts: Mapping[str, Genome], exploits: Sequence[Exploit]) -> Ancestry:
    """Follow a trial backwards through the trials that it copied.

    Of a trial's copies only those before it was copied itself count: what happened to a donor afterwards, or to a
    target before it was replaced, is not part of the line.

    Args:
        member: Name of the trial.
        epochs: Epochs of training in its weights.
        starts: First genome of each trial.
        exploits: All copies of the population, in the order in which they happened. In an asynchronous population
            that is not the order of their epochs: a target may copy a donor that is behind it.

    Example:
        >>> from spaces import Genome
        >>> copy = Exploit(3, "b", "a", 0.1, 0.9, Genome(), Genome())
        >>> ancestry("b", 6, {"a": Genome(), "b": Genome()}, [copy]).members
        ('a', 'b')
    """
    line = descent(member, epochs, exploits)
    genomes = [starts[step.member] if step.copy is None else step.copy.after for step in line]
    phases = [Phase(step.end - step.start, genome) for step, genome in zip(line, genomes, strict=True) if step.end]
    return Ancestry(merge(phases), tuple(step.member for step in line))


@dataclass(frozen=True)
class Step:
    """A part of a line of ancestors: epochs that its weights were trained as one trial.

    Args:
        member: Name of the trial.
        start: Epochs of training before, 0 at the root.
        end: Epochs of training after.
        copy: Copy that it began with; None if the weights began there.
    """

    member: str
    start: int
    end: int
    copy: Exploit | None = None


def descent(member: str, epochs: int, exploits: Sequence[Exploit]) -> tuple[Step, ...]:
    """Return the ancestors of `member` as it is after `epochs`, root first; the arguments are those of `ancestry`."""
    line: list[Step] = []
    for event in reversed(exploits):
        # A copy made at the very end changes a genome that no epoch is trained with.
        if event.target == member and event.epoch < epochs:
            line.insert(0, Step(member, event.epoch, epochs, event))
            member, epochs = event.donor, event.epoch
    return (Step(member, 0, epochs), *line)


@dataclass(frozen=True)
class Slice:
    """The epochs that a trial trained between two perturbations.

    Args:
        member: Name of the trial.
        start: Epochs of training before.
        end: Epochs of training after.
        score: Validation accuracy that it was judged by, NaN if it had none.
    """

    member: str
    start: int
    end: int
    score: float


@dataclass(frozen=True)
class Lineage:
    """A population over its generations: scores, copies, and the ancestors of the winner.

    Args:
        name: Name of the search.
        members: Names of the trials, in order.
        slices: Slices in the order in which they ended.
        exploits: Copies in the order in which they happened.
        path: Ancestors of the winner, root first; empty if there is no winner.
    """

    name: str
    members: tuple[str, ...]
    slices: tuple[Slice, ...]
    exploits: tuple[Exploit, ...]
    path: tuple[Step, ...] = ()

    @classmethod
    def of(
        cls, name: str, members: Sequence[str], slices: Sequence[Slice], exploits: Sequence[Exploit], winner: str = ""
    ) -> Lineage:
        """Return the lineage with the ancestors of `winner`, as far as it was trained; empty if there is no winner."""
        ends = [each.end for each in slices if each.member == winner]
        path = descent(winner, ends[-1], exploits) if ends else ()
        return cls(name, tuple(members), tuple(slices), tuple(exploits), path)

    @property
    def generations(self) -> int:
        """Largest number of slices that a trial trained."""
        return max(Counter(each.member for each in self.slices).values(), default=0)

    @property
    def winner(self) -> str:
        """Name of the best trial; empty if there is none."""
        return self.path[-1].member if self.path else ""

    def __str__(self) -> str:
        """Return one line that describes the picture; epochs are counted from 0."""
        sizes = (count(len(self.members), "member"), count(self.generations, "generation"))
        text = f"{self.name}: {', '.join(sizes)}, {count(len(self.exploits), 'copy', 'copies')}"
        if not self.path:
            return text
        *steps, last = self.path
        if not steps:
            return f"{text}; the best, {last.member}, copied nobody"
        names = [f"{step.member.removeprefix(self.name)} (epochs {step.start} to {step.end - 1})" for step in steps]
        if len(names) > MAX_ANCESTORS:
            names[MAX_ANCESTORS // 2 : -(MAX_ANCESTORS // 2)] = [f"{len(names) - 2 * (MAX_ANCESTORS // 2)} more"]
        return f"{text}; the best, {last.member}, descends from {', '.join(names)}, and goes on from {last.start}"


def count(number: int, noun: str, nouns: str = "") -> str:
    """Return a number with its noun; `nouns` is the plural, where it is not made with an s.

    Example:
        >>> count(1, "copy", "copies"), count(1000, "copy", "copies")
        ('1 copy', '1,000 copies')
    """
    return f"{number:,} {noun if number == 1 else nouns or noun + 's'}"


def _number(value: float) -> float | None:
    return None if value != value else value


def _score(value: float | None) -> float:
    return float("nan") if value is None else value
