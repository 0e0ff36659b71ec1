"""A role's final trainings: with the schedule that was found, and with the baselines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from results.analysis.summary import POLICY
from search.algorithms.base import SearchResult
from search.execution.members import Outcome
from spaces import Schedule
from trainables.quantization import Bits
from trainables.task import Task


@dataclass(frozen=True)
class FinalTraining:
    """The results of a role's final trainings.

    Args:
        task: Task of the trainings.
        found: Result of the role's search; None where nothing was searched.
        schedule: Schedule of the policy.
        outcomes: Outcomes by arm, one a seed.
        bits: Bits of weights and activations by arm.
    """

    task: Task
    found: SearchResult | None
    schedule: Schedule
    outcomes: Mapping[str, Sequence[Outcome]]
    bits: Mapping[str, Bits]

    @property
    def first(self) -> Outcome | None:
        """First training with the policy that did not fail; None where all failed."""
        return next((outcome for outcome in self.outcomes[POLICY] if not outcome.error), None)

    def policy_weights(self) -> dict[str, Tensor] | None:
        """Return the weights of `first`; None where there is none."""
        if self.first is None:
            return None
        weights: dict[str, Tensor] = self.first.state()["model"]
        return weights


def final_name(role: str, arm: str, seed: int | None = None) -> str:
    """Return the name of a final training, or without a seed what the names of an arm's trainings begin with."""
    return f"{role}-full-{arm}-{'' if seed is None else seed}"
