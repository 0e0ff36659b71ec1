"""Population-based training (PBT): the worst members copy weights and genome of the best, and explore."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from results.runlog.lineage import Exploit
from search.algorithms.base import SearchAlgorithm, member_seed
from search.algorithms.intervals import generation, perturbations
from search.execution.members import TIE_BREAKS, Member

if TYPE_CHECKING:
    from ray.tune.schedulers import TrialScheduler

    from search.algorithms.gaussian_process import RewardHistory


class PBT(SearchAlgorithm):
    """Population-based training (Jaderberg et al. 2017, https://arxiv.org/abs/1711.09846).

    All members start with the genome that `start` names, by default without augmentation. At each perturbation the worst
    `quantile` of them copy the weights and the genome of a random one of the best `quantile`, and explore by the space's
    own rule.
    """

    copies_weights: ClassVar[bool] = True
    constant_genomes: ClassVar[bool] = False
    settings: ClassVar[frozenset[str]] = frozenset(
        {"population", "start", "growth", "synchronous", "tie_break", "quantile"}
    )
    blind: ClassVar[bool] = False
    """True to rank members at random."""

    def draw(self) -> tuple[Member, ...]:
        """Start every member with the genome that `start` names."""
        return tuple(self.member(index, self.first_genome(index)) for index in range(self.search.population))

    def scheduler(self) -> TrialScheduler:
        """Return the scheduler that perturbs the population."""
        from search.algorithms.pbt_scheduler import PBTScheduler

        return PBTScheduler(
            space=self.space,
            size=len(self.pending),
            interval=self.search.interval,
            quantile=self.search.quantile,
            growth=self.search.growth,
            blind=self.blind,
            seed=member_seed(self.seed, self.task.role, 2),
            synchronous=self.search.synchronous,
            tie_break=TIE_BREAKS[self.search.tie_break],
            on_generation=self._perturbed,
            gains=self._rewards(),
        )

    def _rewards(self) -> RewardHistory | None:
        """Return what a bandit learns from that chooses the numbers of copies; None: the space's rule explores."""
        return None

    def _perturbed(self, epoch: int, scores: dict[str, float], copies: list[Exploit]) -> None:
        every = self.search.interval, self.search.growth
        number = generation(epoch, self.search.epochs, *every)
        self._journal.perturbed(self.name, epoch, scores, copies, number)
        self.exploits += copies
        if self._callback is not None:
            count = len(perturbations(self.search.epochs, *every))
            self._callback.generation(number, count, scores, len(copies))


class PBA(PBT):
    """Population-based augmentation (Ho et al. 2019, https://arxiv.org/abs/1905.05393): PBT with the paper's settings.

    16 members, a perturbation every 3 epochs, the bottom quarter copies the top quarter.
    """

    defaults: ClassVar[Mapping[str, Any]] = {"population": 16, "interval": 3, "quantile": 0.25}


class Blind(PBT):
    """PBT that ranks members at random: copies and mutations without selection, the control of what evolution gives.

    Only the best member at the end is selected by its score, as in every search.
    """

    blind: ClassVar[bool] = True
    random_control: ClassVar[bool] = False
