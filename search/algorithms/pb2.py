"""Population-based bandits (PB2): PBT in which a Gaussian process chooses the numbers of every copy."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from search.algorithms.pbt import PBT
from spaces import Genome

if TYPE_CHECKING:
    from search.algorithms.gaussian_process import RewardHistory


class PB2(PBT):
    """Population-based bandits (Parker-Holder et al. 2020, https://arxiv.org/abs/2002.02518).

    Choices, such as that of a loss, explore as in PBT; probabilities, magnitudes and other numbers are chosen by a
    time-varying bandit that learns from all members. See `search.algorithms.gaussian_process`.
    """

    settings: ClassVar[frozenset[str]] = PBT.settings - {"growth"}

    def _rewards(self) -> RewardHistory:
        from search.algorithms.gaussian_process import (  # SciPy, which no other search needs
            RewardHistory,
            TimeVaryingBandit,
        )

        starts = {member.name: member.source for member in self.members if isinstance(member.source, Genome)}
        rewards = RewardHistory(TimeVaryingBandit(self.space, self.search.interval), starts)
        for perturbation in self._journal.history.perturbations(self.name):
            rewards.scored(perturbation.epoch, perturbation.scores)
            rewards.copied(perturbation.copies)
        return rewards
