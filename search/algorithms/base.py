"""One role's search: a population of members, moved by a scheduler, and the schedule of the best one's ancestors."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from results.runlog.lineage import Ancestry, Exploit, ancestry
from search.algorithms.pbt import TIE_BREAKS, PBTScheduler
from search.algorithms.successive_halving import RungResult, SuccessiveHalvingScheduler
from search.config.schema import COPYING, SearchConfig, StageConfig
from search.execution.callbacks import SweepCallback
from search.execution.journal import Journal
from search.execution.trials import Member, Outcome
from spaces import Genome, Phase, Schedule, Space, WorkError
from spaces.core.io import write_atomic
from spaces.schedule.schedule import ROLES
from trainables.hard.game import replayable_phases
from trainables.task import Task

if TYPE_CHECKING:
    from search.algorithms.pb2 import RewardHistory

Kind = Literal["pbt", "pb2", "random", "asha", "tpe", "tpe+asha", "choice", "grid"]


@dataclass(frozen=True)
class SearchResult:
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


class SearchAlgorithm:
    """One search, as it goes.

    Beside the journal it keeps two files for whoever looks in: `<name>.lineage.jsonl`, one copy a line as it happens,
    and `<name>.population.json`, the members' scores at the last boundary.

    Args:
        name: of the stage; members are called `<name>-00`, `<name>-01`, …
        kind: `pbt`, or `pb2` with a bandit that chooses numbers; `random` for fixed random genomes, `asha` for such
            that are halved; for the others see `search.algorithms.tpe` and `search.algorithms.grid`.
        task: what is trained.
        stage: population, epochs, interval.
        search: seed, quantile, synch.
        space: where genomes may move.
        journal: of the sweep; what an earlier life did of this search stands in it.
        watch: is told of every copy and of every perturbation.
    """

    def __init__(
        self,
        name: str,
        kind: Kind,
        task: Task,
        stage: StageConfig,
        search: SearchConfig,
        space: Space,
        journal: Journal,
        watch: SweepCallback | None = None,
    ) -> None:
        """Draw the members, and take up what was done of their search."""
        self.name, self.kind, self.task, self.stage, self.search, self.space = (
            name,
            kind,
            task,
            stage,
            search,
            space,
        )
        self._journal, self._watch = journal, watch
        self._lineage = journal.folder / f"{name}.lineage.jsonl"
        self._population = journal.folder / f"{name}.population.json"
        self.exploits = journal.copies(name)
        self.members = self._draw()
        if self.exploits:  # the file may lack what the journal has
            write_atomic(self._lineage, "".join(_line(event) for event in self.exploits))

    def scheduler(self) -> PBTScheduler | SuccessiveHalvingScheduler | None:
        """What moves the members, as far as they have come; None where nothing does."""
        if self.kind in COPYING:
            return PBTScheduler(
                space=self.space,
                size=len(self.pending),
                interval=self.stage.interval,
                quantile=self.search.quantile,
                seed=member_seed(self.search.seed, self.task.role, 2),
                synch=self.search.synch,
                tie_break=TIE_BREAKS[self.search.tie_break],
                on_generation=self._perturbed,
                gains=self._gains() if self.kind == "pb2" else None,
            )
        return self._halving() if self.halved else None

    @property
    def halved(self) -> bool:
        """Whether members are compared on rungs, and most of them stopped."""
        return self.kind.endswith("asha")

    def _halving(self) -> SuccessiveHalvingScheduler:
        halving = SuccessiveHalvingScheduler(
            size=len(self.pending) + self.missing,
            interval=self.stage.interval,
            epochs=self.stage.epochs,
            reduction=self.search.reduction,
            synch=self.search.synch,
            tie_break=TIE_BREAKS[self.search.tie_break],
            on_rung=self._parted,
        )
        for event in self._journal.notes("parted"):
            if event["stage"] == self.name:
                for name, (index, *numbers) in event["standings"].items():
                    score, tie = (math.nan if number is None else number for number in numbers)
                    halving.recall(event["epoch"], RungResult(name, index, score, tie), went_on=name in event["kept"])
        return halving

    def _gains(self) -> RewardHistory:
        from search.algorithms.pb2 import RewardHistory, TimeVaryingBandit  # SciPy, which no other search needs

        starts = {member.name: member.source for member in self.members if isinstance(member.source, Genome)}
        gains = RewardHistory(TimeVaryingBandit(self.space, self.stage.interval), starts)
        for event in self._journal.notes("perturbed"):
            if event["stage"] == self.name:
                scores = {name: math.nan if score is None else score for name, score in event["scores"].items()}
                gains.scored(event["epoch"], scores)
                gains.copied(Exploit.from_json(copy) for copy in event["copies"])
        return gains

    @property
    def pending(self) -> list[Member]:
        """The members that are still to be trained."""
        return [m for m in self.members if not self._journal.progress(m.name).over(self.task.epochs)]

    @property
    def missing(self) -> int:
        """How many members are still to be drawn."""
        return 0

    def found(self, outcomes: Sequence[Outcome], provenance: dict[str, Any]) -> SearchResult:
        """Read the result off the members' outcomes; those of other trials are passed over.

        Raises:
            WorkError: no member reached the end with a score.
        """
        names = {member.name for member in self.members}
        ours = [outcome for outcome in outcomes if outcome.name in names]
        whole = [
            outcome for outcome in ours if not outcome.error and not outcome.stopped and not math.isnan(outcome.score)
        ]
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
        self._write()
        return SearchResult(schedule, best, tuple(self.exploits), best.score)

    def _draw(self) -> tuple[Member, ...]:
        return tuple(self._member(index) for index in range(self.stage.population))

    def _member(self, index: int) -> Member:
        seed = member_seed(self.search.seed, self.task.role, 0, index)
        draw = np.random.default_rng([seed, 1])
        evolves = self.kind in COPYING
        start = self.space.zero() if evolves else self.space.random(draw)
        moved = evolves or self.halved
        return Member(
            f"{self.name}-{index:02d}", index, seed, start, f"{self.kind} search", moved=moved, evolves=evolves
        )

    def _ancestry(self, member: str, epochs: int) -> Ancestry:
        starts = {m.name: m.source for m in self.members if isinstance(m.source, Genome)}
        return ancestry(member, epochs, starts, self.exploits)

    def _perturbed(self, epoch: int, scores: dict[str, float], copies: list[Exploit]) -> None:
        self._journal.perturbed(self.name, epoch, scores, copies)
        self.exploits += copies
        if copies:
            with self._lineage.open("a", encoding="utf-8") as file:
                file.write("".join(_line(event) for event in copies))
        self._write()
        if self._watch is not None:
            for event in copies:
                self._watch.exploited(event)
            count = (self.stage.epochs - 1) // self.stage.interval
            self._watch.generation(epoch // self.stage.interval, count, scores)

    def _parted(self, epoch: int, scores: dict[str, float], kept: tuple[str, ...]) -> None:
        index = {member.name: member.index for member in self.members}
        tie = TIE_BREAKS[self.search.tie_break]
        standings = {}
        for name, score in scores.items():
            last = self._journal.progress(name).last
            numbers = (score, last.metrics.get(tie, math.nan) if last else math.nan)
            standings[name] = [index[name], *(None if math.isnan(number) else number for number in numbers)]
        self._journal.note("parted", stage=self.name, epoch=epoch, standings=standings, kept=list(kept))
        self._write()
        if self._watch is not None:
            self._watch.parted(epoch, scores, kept)

    def _write(self) -> None:
        """Keep who stood where when last scored; who copied since has no score of its own, so none."""
        members = []
        for member in self.members:
            progress = self._journal.progress(member.name)
            score = progress.score(self.stage.interval)
            scored = {"epoch": progress.epoch, "score": None if math.isnan(score) else score}
            members.append({"name": member.name, "start": member.source.to_json(), **scored})
        content = {"name": self.name, "role": self.task.role, "kind": self.kind, "image": self.task.image.to_json()}
        write_atomic(self._population, json.dumps({**content, "members": members}) + "\n")


def _line(event: Exploit) -> str:
    return json.dumps(event.to_json()) + "\n"


def replayed(phases: Sequence[Phase], best: Outcome, task: Task) -> tuple[Phase, ...]:
    """The phases of the best member as anybody can replay them, with what its game has learned, if it played one."""
    if not any(phase.genome.augment.learns for phase in phases):
        return tuple(phases)
    return replayable_phases(phases, best.state()["game"], task.weights)


def member_seed(seed: int, role: str, *numbers: int) -> int:
    """A seed of its own for each purpose; near numbers give unrelated seeds."""
    # NumPy takes [1] and [1, 0] for the same, so no word but the seed may be 0.
    words = [seed, 1 + ROLES.index(role), *(1 + number for number in numbers)]
    return int(np.random.SeedSequence(words).generate_state(1)[0])
