"""An agent: one role's side of the question what each role should see.

Source: role-wise augmentation (Fu et al. 2020, https://arxiv.org/abs/2004.08861): one agent per role.
"""

from __future__ import annotations

from typing import Any

from spaces.core.errors import RequestError
from spaces.schedule.genome import Genome
from spaces.schedule.schedule import Phase, Schedule, merge


class Agent:
    """Says which genome is in force, and keeps the history of what was.

    While searching, a scheduler moves it (`set_genome`); while replaying, a schedule does. The history travels with the
    weights, so a member that copied another one carries the genomes that those weights were really trained under.

    Args:
        mover: a genome to start from (a scheduler will move the agent), or a schedule to replay.
    """

    def __init__(self, source: Genome | Schedule) -> None:
        """Start with an empty history."""
        self._mover = source
        self.history: tuple[Phase, ...] = ()

    @property
    def epoch(self) -> int:
        """How many epochs were trained so far."""
        return sum(phase.epochs for phase in self.history)

    @property
    def genome(self) -> Genome:
        """The genome of the epoch that comes next."""
        return self._mover.at(self.epoch) if isinstance(self._mover, Schedule) else self._mover

    def set_genome(self, genome: Genome) -> None:
        """Use `genome` from now on.

        Raises:
            RequestError: this agent replays a schedule.
        """
        if isinstance(self._mover, Schedule):
            raise RequestError("an agent that replays a schedule obeys no scheduler", value=genome)
        self._mover = genome

    def move(self, source: Genome | Schedule) -> None:
        """Hand the agent to another mover; the history stays."""
        self._mover = source

    def advance(self) -> None:
        """Note that one epoch was trained under the genome in force."""
        self.history = merge((*self.history, Phase(1, self.genome)))

    def state_dict(self) -> list[dict[str, Any]]:
        """The history as plain data."""
        return [{"epochs": phase.epochs, "genome": phase.genome.to_json()} for phase in self.history]

    def load_state_dict(self, state: list[dict[str, Any]]) -> None:
        """Take over a history; who moves the agent stays as it is."""
        self.history = tuple(Phase(item["epochs"], Genome.from_json(item["genome"])) for item in state)
