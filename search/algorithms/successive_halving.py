"""Successive halving: random genomes, most of which are stopped early."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

from results.runlog.events import RungDecided
from search.algorithms.base import SearchAlgorithm
from search.algorithms.rungs import RungResult, budget
from search.config.registry import SearchSettings
from search.execution.members import TIE_BREAKS, Member
from spaces import Space

if TYPE_CHECKING:
    from search.algorithms.successive_halving_scheduler import SuccessiveHalvingScheduler


class EarlyStopping(SearchAlgorithm):
    """A search whose members are compared on rungs, where one in `reduction` goes on and the others are stopped."""

    stops_early: ClassVar[bool] = True

    @classmethod
    def budget(cls, search: SearchSettings, space: Space) -> int:
        """Return the epochs of training over all members, where none fails."""
        return budget(cls.member_count(search, space), search.interval, search.reduction, search.epochs)

    def scheduler(self) -> SuccessiveHalvingScheduler:
        """Return the scheduler that compares members on rungs."""
        from search.algorithms.successive_halving_scheduler import SuccessiveHalvingScheduler

        halving = SuccessiveHalvingScheduler(
            size=len(self.pending) + self.missing,
            interval=self.search.interval,
            epochs=self.search.epochs,
            reduction=self.search.reduction,
            synchronous=self.search.synchronous,
            tie_break=TIE_BREAKS[self.search.tie_break],
            on_rung=self._compared,
        )
        for rung in self._journal.history.rungs(self.name):
            for name, standing in rung.standings.items():
                halving.recall(rung.epoch, RungResult(name, *standing), went_on=name in rung.kept)
        return halving

    def _compared(self, epoch: int, scores: dict[str, float], kept: tuple[str, ...]) -> None:
        index = {member.name: member.index for member in self.members}
        tie = TIE_BREAKS[self.search.tie_break]
        standings = {}
        for name, score in scores.items():
            last = self._journal.progress(name).last
            standings[name] = index[name], score, last.metrics.get(tie, math.nan) if last else math.nan
        self._journal.write(RungDecided(stage=self.name, epoch=epoch, standings=standings, kept=kept))
        if self._callback is not None:
            self._callback.rung(epoch, scores, kept)


class SuccessiveHalving(EarlyStopping):
    """Random genomes under successive halving (Jamieson & Talwalkar 2016, https://arxiv.org/abs/1502.07943).

    With `synchronous: false` each member is compared as it arrives, as in ASHA (Li et al. 2020,
    https://arxiv.org/abs/1810.05934).
    """

    settings: ClassVar[frozenset[str]] = frozenset({"trials", "synchronous", "tie_break", "reduction"})

    def draw(self) -> tuple[Member, ...]:
        """Draw `trials` genomes."""
        return tuple(
            self.member(index, self.space.random(self.generator(index))) for index in range(self.search.trials)
        )
