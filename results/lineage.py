"""Lineage: who copied whom, when, and the schedule that this makes of the best member's ancestors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spaces import Genome, Phase
from spaces.schedule import merge


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
            synchronised that is not the order of their epochs: a target may copy a donor that is behind it.
    """
    phases: list[Phase] = []
    members = [member]
    end = epochs
    for event in reversed(exploits):
        # A copy made at the very end changes a genome that no epoch is trained with.
        if event.target == members[0] and event.epoch < end:
            phases.insert(0, Phase(end - event.epoch, event.after))
            members.insert(0, event.donor)
            end = event.epoch
    if end:
        phases.insert(0, Phase(end, starts[members[0]]))
    return Ancestry(merge(phases), tuple(members))


def _number(value: float) -> float | None:
    return None if value != value else value


def _score(value: float | None) -> float:
    return float("nan") if value is None else value
