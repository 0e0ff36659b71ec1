"""Agents: the current genome of one role, and its history.

Source: role-wise augmentation (Fu et al. 2020, https://arxiv.org/abs/2004.08861), with one agent per role.
"""

from __future__ import annotations

from typing import Any

from spaces.core.errors import RequestError
from spaces.schedule.genome import Genome
from spaces.schedule.schedule import Phase, Schedule, merge


class Agent:
    """Current genome of one role, with the history of the epochs trained so far.

    During a search a scheduler sets the genome (`set_genome`); during a replay a schedule does. The history is saved
    with the weights, so a trial that copied another one has the genomes that its weights were trained with.

    Args:
        source: Initial genome, or schedule to replay.

    Example:
        >>> from spaces import Genome
        >>> from spaces.schedule.agent import Agent
        >>> agent = Agent(Genome())
        >>> agent.advance()
        >>> agent.advance()
        >>> agent.epoch, len(agent.history)
        (2, 1)
    """

    def __init__(self, source: Genome | Schedule) -> None:
        self._source = source
        self.history: tuple[Phase, ...] = ()

    @property
    def epoch(self) -> int:
        """Number of epochs trained so far."""
        return sum(phase.epochs for phase in self.history)

    @property
    def genome(self) -> Genome:
        """Genome of the next epoch."""
        return self._source.at(self.epoch) if isinstance(self._source, Schedule) else self._source

    def set_genome(self, genome: Genome) -> None:
        """Set the genome of the following epochs.

        Raises:
            RequestError: The agent replays a schedule.
        """
        if isinstance(self._source, Schedule):
            raise RequestError("the genome of an agent that replays a schedule must not be set", value=genome)
        self._source = genome

    def set_source(self, source: Genome | Schedule) -> None:
        """Replace the genome or the schedule; the history is kept."""
        self._source = source

    def advance(self) -> None:
        """Append one epoch with the current genome to the history."""
        self.history = merge((*self.history, Phase(1, self.genome)))

    def state_dict(self) -> list[dict[str, Any]]:
        """Return the history as JSON data."""
        return [{"epochs": phase.epochs, "genome": phase.genome.to_json()} for phase in self.history]

    def load_state_dict(self, state: list[dict[str, Any]]) -> None:
        """Load a history; the genome or the schedule is kept."""
        self.history = tuple(Phase(item["epochs"], Genome.from_json(item["genome"])) for item in state)
