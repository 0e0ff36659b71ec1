"""One role's search: how its members are drawn, what changes them while they train, and how the result is judged."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from results.runlog.lineage import Ancestry, Exploit, ancestry
from search.config.registry import Capabilities, SearchSettings, label
from search.execution.journal import Journal
from search.execution.members import Member, Outcome
from spaces import Genome, Phase, Schedule, Space, WorkError
from spaces.schedule.schedule import ROLES
from trainables.hard.replay import replayable_phases
from trainables.task import Task

if TYPE_CHECKING:
    from ray.tune.schedulers import TrialScheduler
    from ray.tune.search import Searcher

    from results.analysis.effects import RoleEffects
    from search.execution.callbacks import SweepCallback


@dataclass(frozen=True)
class SearchResult:
    """The result of a search.

    Args:
        schedule: Schedule of the best member's ancestors, with its provenance.
        best: Member with the highest final score; ties go to the first.
        exploits: All copies, in the order in which they happened.
        value: Validation accuracy of the best member, in [0, 1].
    """

    schedule: Schedule
    best: Outcome
    exploits: tuple[Exploit, ...]
    value: float


class SearchAlgorithm(Capabilities, ABC):
    """A search of one role, from the draw of its members to its result.

    A subclass says in `draw` which members there are, in `scheduler` what changes or stops them while they train, in
    `searcher` what suggests members as they are needed, and in `result` how the best is selected. Its class attributes
    declare what it can do; see `search.config.registry.Capabilities`. All draws follow from `seed`, so that the
    same sweep file gives the same members.

    Args:
        name: Name of the search; members are called `<name>-00`, `<name>-01`, …
        task: Task that members are trained on.
        search: Settings: the `search` section of the role.
        space: Space of genomes.
        journal: Journal of the sweep, which holds what was done before the sweep was resumed.
        seed: Seed of all draws.
        callback: Callback that is called with every copy and every perturbation.
        start: Genome to start from, where `search.start` names a result or a file; None where it names a rule.

    Example:
        A user's own algorithm, which tries a few fixed genomes; `algorithm: mypackage.search:Halton` runs it.

        >>> class Halton(SearchAlgorithm):
        ...     def draw(self):
        ...         return tuple(self.member(index, self.space.zero()) for index in range(self.search.trials))
        >>> Halton.constant_genomes, Halton.copies_weights
        (True, False)
    """

    def __init__(
        self,
        name: str,
        task: Task,
        search: SearchSettings,
        space: Space,
        journal: Journal,
        *,
        seed: int = 0,
        callback: SweepCallback | None = None,
        start: Genome | None = None,
    ) -> None:
        """Draw the members and read from the journal how far their search is."""
        self.name, self.task, self.search, self.space, self.seed = name, task, search, space, seed
        self.start = start
        self._journal, self._callback = journal, callback
        self.exploits = journal.history.exploits(name)
        self.members = self.draw()

    # What a subclass defines ----------------------------------------------------------------------------------------

    @classmethod
    def check_files(cls, search: SearchSettings, role: str, space: Space) -> None:
        """Check the files that the settings name, before anything is started.

        Raises:
            RequestError: A file is missing, or not as the search needs it.
        """

    @abstractmethod
    def draw(self) -> tuple[Member, ...]:
        """Return the members that the search starts with; the same seed gives the same members."""

    def scheduler(self) -> TrialScheduler | None:
        """Return the Ray scheduler that changes or stops members while they train; None where nothing does."""
        return None

    def searcher(self, others: Sequence[Member]) -> Searcher | None:
        """Return the Ray searcher that suggests members one by one; None where all are drawn at once.

        Args:
            others: Fixed members to run in the gaps: the random control.
        """
        return None

    def result(self, outcomes: Sequence[Outcome], provenance: Mapping[str, Any]) -> SearchResult:
        """Select the best member that was trained to the end.

        Args:
            outcomes: Outcomes of trials; those of other searches are ignored.
            provenance: Provenance of the schedule, which the name and the score of the best member are added to.

        Raises:
            WorkError: No member reached the end with a score.
        """
        names = {member.name for member in self.members}
        own = [outcome for outcome in outcomes if outcome.name in names]
        complete = [each for each in own if not each.error and not each.stopped and not math.isnan(each.score)]
        if not complete:
            raise self._failed(own)
        best = max(complete, key=lambda outcome: outcome.score)
        line = self._ancestry(best.name, best.epochs)
        carried = tuple(Phase(item["epochs"], Genome.from_json(item["genome"])) for item in best.state()["history"])
        if carried != line.phases:
            raise WorkError(
                f"the lineage of {best.name} must match the history in its checkpoint, but does not; please report this"
            )
        origin = {"run": best.name, "value": best.value, "parents": list(line.members[:-1])}
        schedule = self.schedule(line.phases, best, provenance, origin)
        return SearchResult(schedule, best, tuple(self.exploits), best.accuracy)

    def scores(self, outcomes: Sequence[Outcome]) -> dict[str, float]:
        """Return the mean validation accuracy by choice, where the search compares choices; else nothing."""
        return {}

    def effects(self, outcomes: Sequence[Outcome]) -> RoleEffects | None:
        """Return the effects of what was chosen, where the search estimates them; else None."""
        return None

    # What a subclass may use ----------------------------------------------------------------------------------------

    @property
    def pending(self) -> list[Member]:
        """Members that are still to be trained."""
        return [m for m in self.members if not self._journal.progress(m.name).over(self.task.epochs)]

    @property
    def missing(self) -> int:
        """Number of members that are still to be suggested."""
        return 0

    def member(self, index: int, source: Genome, *, seed: int | None = None, cohort: int = 0) -> Member:
        """Return the member of this search that starts with `source`.

        Args:
            index: Index of the member, from 0.
            source: Genome that it starts with.
            seed: Seed of its training; None for one that follows from the search's seed and the index.
            cohort: Number of the group of members that are compared with each other.
        """
        return Member(
            f"{self.name}-{index:02d}",
            index,
            member_seed(self.seed, self.task.role, 0, index) if seed is None else seed,
            source,
            f"{label(self.search.algorithm)} search",
            moved=self.copies_weights or self.stops_early or not self.constant_genomes,
            evolves=not self.constant_genomes,
            cohort=cohort,
        )

    def first_genome(self, index: int) -> Genome:
        """Return the genome that member `index` starts with, as `search.start` says; by default the zero genome."""
        if self.start is not None:
            return self.start
        if self.search.start == "random":
            return self.space.random(self.generator(index))
        return self.space.uniform() if self.search.start == "uniform" else self.space.zero()

    def generator(self, index: int) -> np.random.Generator:
        """Return the random generator that the genome of member `index` is drawn with."""
        return np.random.default_rng([member_seed(self.seed, self.task.role, 0, index), 1])

    def schedule(
        self, phases: Sequence[Phase], best: Outcome, provenance: Mapping[str, Any], origin: Mapping[str, Any]
    ) -> Schedule:
        """Return the schedule of `phases`, with what the best member's augmentors have learned."""
        learns = any(phase.genome.augment.learns for phase in phases)
        replayed = replayable_phases(phases, best.state()["game"], self.task.weights) if learns else tuple(phases)
        return Schedule(replayed, self.task.role, self.task.image, {**provenance, **origin})

    def _failed(self, outcomes: Sequence[Outcome]) -> WorkError:
        why = next((outcome.error for outcome in outcomes if outcome.error), "no member was scored")
        return WorkError(f"every member of {self.name} failed; the first: {why}")

    def _ancestry(self, member: str, epochs: int) -> Ancestry:
        starts = {m.name: m.source for m in self.members if isinstance(m.source, Genome)}
        return ancestry(member, epochs, starts, self.exploits)


def member_seed(seed: int, role: str, *numbers: int) -> int:
    """Return a seed for one purpose; close numbers give unrelated seeds."""
    # NumPy takes [1] and [1, 0] for the same, so no word but the seed may be 0.
    words = [seed, 1 + ROLES.index(role), *(1 + number for number in numbers)]
    return int(np.random.SeedSequence(words).generate_state(1)[0])
