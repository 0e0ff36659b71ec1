"""A role's full trainings: with the schedule that was found, and with what it is compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from results.analysis.summary import POLICY
from search.algorithms.base import SearchResult
from search.execution.trials import Outcome
from spaces import Schedule
from trainables.quantization import Bits
from trainables.task import Task


@dataclass(frozen=True)
class FinalTraining:
    """What became of a role's full trainings.

    Args:
        task: that they had.
        found: what the role's search found; None: nothing was searched.
        schedule: of the policy.
        outcomes: by arm, one a seed.
        bits: by arm.
    """

    task: Task
    found: SearchResult | None
    schedule: Schedule
    outcomes: Mapping[str, Sequence[Outcome]]
    bits: Mapping[str, Bits]

    @property
    def first(self) -> Outcome | None:
        """The first training with the policy that did not fail."""
        return next((outcome for outcome in self.outcomes[POLICY] if not outcome.error), None)

    def policy_weights(self) -> dict[str, Tensor] | None:
        """The network of `first`, as its learner had it."""
        if self.first is None:
            return None
        weights: dict[str, Tensor] = self.first.state()["model"]
        return weights


def full_name(role: str, arm: str, seed: int) -> str:
    """What a full training is called, everywhere."""
    return f"{role}-full-{arm}-{seed}"
