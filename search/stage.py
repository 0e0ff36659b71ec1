"""One role's search: a population of members, moved by a scheduler, and the schedule of the best one's ancestors."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from results.lineage import Ancestry, Exploit, ancestry
from search.config import SearchConfig, StageConfig
from search.population import TIE_BREAKS, Population
from search.trials import Member, Outcome
from spaces import Genome, Phase, Schedule, Space, WorkError
from spaces.files import write_atomic
from spaces.schedule import ROLES
from trainables.game import replayable
from trainables.task import Task

Kind = Literal["pbt", "random", "tpe", "choice"]


@dataclass(frozen=True)
class Found:
    """What a search found.

    Args:
        schedule: of the best member's ancestors, with its provenance.
        best: the member with the highest final score; ties go to the first.
        exploits: all copies, in the order in which they happened.
        value: the validation accuracy that it was found by.
    """

    schedule: Schedule
    best: Outcome
    exploits: tuple[Exploit, ...]
    value: float


class Stage:
    """One search, as it goes.

    It keeps two files in `folder`, so that what was found so far survives the driver: `<name>.lineage.jsonl`, one copy
    a line as it happens, and `<name>.population.json`, the members' scores at the last boundary.

    Args:
        name: of the stage; members are called `<name>-00`, `<name>-01`, …
        kind: `pbt`, or `random` for fixed random genomes at the same budget, or `choice`: see `search.choice`.
        task: what is trained.
        stage: population, epochs, interval.
        search: seed, quantile, synch.
        space: where genomes may move.
        folder: of the two files.
        on_exploit: is told of every copy.
        on_generation: is told of every perturbation: its number, how many there will be, the scores by member.
    """

    def __init__(
        self,
        name: str,
        kind: Kind,
        task: Task,
        stage: StageConfig,
        search: SearchConfig,
        space: Space,
        folder: Path,
        on_exploit: Callable[[Exploit], None] = lambda event: None,
        on_generation: Callable[[int, int, dict[str, float]], None] = lambda number, count, scores: None,
    ) -> None:
        """Draw the members."""
        self.name, self.kind, self.task, self.stage, self.search, self.space = (
            name,
            kind,
            task,
            stage,
            search,
            space,
        )
        self._lineage = folder / f"{name}.lineage.jsonl"
        self._population = folder / f"{name}.population.json"
        self._on_exploit, self._on_generation = on_exploit, on_generation
        self.exploits: list[Exploit] = []
        self._standings: dict[str, tuple[int, float]] = {}
        self._told = 0
        self.members = self._draw()

    def scheduler(self) -> Population | None:
        """What moves the members; None where nothing does."""
        if self.kind != "pbt":
            return None
        return Population(
            space=self.space,
            size=self.stage.population,
            interval=self.stage.interval,
            quantile=self.search.quantile,
            seed=member_seed(self.search.seed, self.task.role, 2),
            synch=self.search.synch,
            tie_break=TIE_BREAKS[self.search.tie_break],
            on_exploit=self._exploited,
            on_generation=self._perturbed,
        )

    def found(self, outcomes: Sequence[Outcome], provenance: dict[str, Any]) -> Found:
        """Read the result off the members' outcomes; those of other trials are passed over.

        Raises:
            WorkError: no member reached the end with a score.
        """
        names = {member.name for member in self.members}
        ours = [outcome for outcome in outcomes if outcome.name in names]
        whole = [outcome for outcome in ours if not outcome.error and not math.isnan(outcome.score)]
        if not whole:
            why = next((outcome.error for outcome in ours if outcome.error), "none was scored")
            raise WorkError(f"every member of {self.name} failed; the first: {why}")
        best = max(whole, key=lambda outcome: outcome.score)
        line = self._ancestry(best.name, best.epochs)
        carried = tuple(Phase(item["epochs"], Genome.from_json(item["genome"])) for item in best.state()["history"])
        if carried != line.phases:
            raise WorkError(f"the lineage of {best.name} and the history in its checkpoint differ; please report this")
        origin = {"run": best.name, "value": best.score, "parents": list(line.members[:-1])}
        phases = replayed(line.phases, best, self.task)
        schedule = Schedule(phases, self.task.role, self.task.image, provenance | origin)
        self._standings = {outcome.name: (outcome.epochs, outcome.score) for outcome in whole}
        self._write()
        return Found(schedule, best, tuple(self.exploits), best.score)

    def _draw(self) -> tuple[Member, ...]:
        return tuple(self._member(index) for index in range(self.stage.population))

    def _member(self, index: int) -> Member:
        seed = member_seed(self.search.seed, self.task.role, 0, index)
        draw = np.random.default_rng([seed, 1])
        start = self.space.zero() if self.kind == "pbt" else self.space.random(draw)
        stage = f"{self.kind} search"
        return Member(f"{self.name}-{index:02d}", index, seed, start, stage, moved=self.kind == "pbt")

    def _ancestry(self, member: str, epochs: int) -> Ancestry:
        starts = {m.name: m.mover for m in self.members if isinstance(m.mover, Genome)}
        return ancestry(member, epochs, starts, self.exploits)

    def _exploited(self, event: Exploit) -> None:
        self.exploits.append(event)
        with self._lineage.open("a", encoding="utf-8") as file:
            file.write(json.dumps(event.to_json()) + "\n")
        self._on_exploit(event)

    def _perturbed(self, epoch: int, scores: dict[str, float]) -> None:
        self._standings |= {name: (epoch, score) for name, score in scores.items()}
        for event in self.exploits[self._told :]:
            self._standings.pop(event.target, None)  # the score was of weights that are gone
        self._told = len(self.exploits)
        self._write()
        count = (self.stage.epochs - 1) // self.stage.interval
        self._on_generation(epoch // self.stage.interval, count, scores)

    def _write(self) -> None:
        """Keep who stood where when last scored; who copied since has no score of its own, so none."""
        members = []
        for member in self.members:
            epoch, score = self._standings.get(member.name, (0, math.nan))
            scored = {"epoch": epoch, "score": None if math.isnan(score) else score}
            members.append({"name": member.name, "start": member.mover.to_json(), **scored})
        content = {"name": self.name, "role": self.task.role, "kind": self.kind, "image": self.task.image.to_json()}
        write_atomic(self._population, json.dumps({**content, "members": members}) + "\n")


def replayed(phases: Sequence[Phase], best: Outcome, task: Task) -> tuple[Phase, ...]:
    """The phases of the best member as anybody can replay them, with what its game has learned, if it played one."""
    if not any(phase.genome.augment.learns for phase in phases):
        return tuple(phases)
    return replayable(phases, best.state()["game"], task.weights)


def member_seed(seed: int, role: str, *numbers: int) -> int:
    """A seed of its own for each purpose; near numbers give unrelated seeds."""
    # NumPy takes [1] and [1, 0] for the same, so no word but the seed may be 0.
    words = [seed, 1 + ROLES.index(role), *(1 + number for number in numbers)]
    return int(np.random.SeedSequence(words).generate_state(1)[0])
