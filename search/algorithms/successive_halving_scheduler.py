"""Successive halving on Ray Tune: of the members that reach a rung, the best share goes on, the others end there.

A member that reaches a rung is paused, and so saved, like any other; what becomes of it is decided in
`choose_trial_to_run`, when it stands still with its checkpoint on disk. Those that lose are stopped through the
controller: their last result stands, and Ray tells its search algorithm and callbacks that they are complete.

Source: successive halving (Jamieson & Talwalkar 2016, https://arxiv.org/abs/1502.07943); the asynchronous mode is
ASHA's (Li et al. 2020, https://arxiv.org/abs/1810.05934), but for this: who is not among the best when it arrives ends,
where the paper would leave it paused, to go on should it be among the best later.
"""

from __future__ import annotations

import heapq
import math
from bisect import insort
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from results.runlog.members import METRIC
from search.algorithms.rungs import RungResult, rungs
from search.execution.members import EPOCH, is_moved, keep_actors_warm, member_index, member_name, rank


class SuccessiveHalvingScheduler(FIFOScheduler):
    """The scheduler of one stage.

    Every trial's `config["member"]` holds `index`, `name` and `moved`. Those that are `moved` are halved; the others,
    such as the random control, run to their end in the gaps.

    A member is judged by its last score, of the last `interval` epochs. On each rung, of n members that were ever
    compared there, those that arrive stay if they are among the best ⌈n / `reduction`⌉ of the n. No score counts as the
    worst, and does not go on where anybody has one; ties go by `tie_break`, then by index. A member that fails before
    its rung is decided is not one of the n.

    A member that an earlier life of the sweep has trained comes with what the journal knows of it, as `before`: its
    `epoch` and `metrics`. One that waited on a rung waits there again. What was decided, `recall` is told.

    Members may come in cohorts, one after the other: `config["member"]` then has its `cohort`, 0, 1, …, and
    `cohort_size`, how many trials of it there will be. Where `synch` holds, all live members of a cohort are compared
    together, when each of them waits on the rung and every cohort before has left it: the outcome does not depend on
    which worker was faster. Otherwise each member is compared when it arrives.

    Args:
        size: members that are halved; also the size of a cohort that does not say it.
        interval: epochs to the first rung; each later one is `reduction` times as far.
        reduction: η, one in so many goes on; 2 or more.
        epochs: of a member that is never stopped.
        synch: compare cohorts, not single members.
        tie_break: name of a metric that is better when lower, and parts members of equal score; empty: the index does.
        on_rung: is told of each decision before it is carried out: the rung's epoch, the scores of those that waited,
            and the names of those that go on.

    Raises:
        RequestError: `interval` is below 1, or `reduction` below 2.
    """

    _supports_buffered_results = False

    def __init__(
        self,
        *,
        size: int,
        interval: int,
        epochs: int,
        reduction: int = 3,
        synch: bool = True,
        tie_break: str = "",
        on_rung: Callable[[int, dict[str, float], tuple[str, ...]], None] = lambda epoch, scores, kept: None,
    ) -> None:
        """Nobody has arrived anywhere."""
        super().__init__()  # type: ignore[no-untyped-call]  # Ray has no types there
        self._size, self._reduction, self._together, self._tie_break = size, reduction, synch, tie_break
        self._on_rung = on_rung
        self._rungs: dict[int, dict[str, RungResult]] = {rung: {} for rung in rungs(interval, reduction, epochs)}
        self._window = interval
        self._recent: dict[str, list[tuple[int, float]]] = {}
        self._arrived: dict[str, RungResult] = {}
        self._lost: set[str] = set()
        self._trials: dict[str, Trial] = {}
        self._cohorts: dict[int, list[Trial]] = {}  # by index
        self._seen: dict[int, tuple[float, Trial | None]] = {}
        self._losers: list[Trial] = []
        self._idle: list[
            tuple[bool, float, int, str]
        ] = []  # a heap of names; who has been started since is still in it
        self._warm = False

    def __getstate__(self) -> dict[str, Any]:
        """Ray pickles its scheduler beside the trials; whoever listens stays out of it."""
        return self.__dict__ | {"_on_rung": None}

    def recall(self, rung: int, standing: RungResult, went_on: bool) -> None:
        """Know again, before any trial is added, what an earlier life of the sweep has decided.

        Args:
            rung: its epoch.
            standing: a member's there.
            went_on: or else it lost.

        Raises:
            KeyError: there is no such rung.
        """
        self._rungs[rung][standing.name] = standing
        if not went_on:
            self._lost.add(standing.name)

    # What Ray calls -------------------------------------------------------------------------------------------------

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """Let a member of an earlier life wait where it waited."""
        name, before = member_name(trial), trial.config["member"].get("before")
        if is_moved(trial):
            if name not in self._trials:  # else it is retried
                insort(self._cohorts.setdefault(_cohort(trial), []), trial, key=member_index)
            self._losers += [trial] if name in self._lost else []
            if before and before["epoch"] >= self._next(name):
                self._arrive(trial, before["metrics"].get(METRIC, math.nan), before["metrics"])
                trial.set_status(Trial.PAUSED)  # else Ray would start it: it starts whatever is pending
        self._trials[name] = trial
        self._seen.clear()
        self._push(trial)

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        """Forget what was not saved; a member that is retried keeps the decisions made about it."""
        self._arrived.pop(member_name(trial), None)
        self._recent.pop(member_name(trial), None)
        self._seen.clear()

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Train on until the next rung, then pause, which saves."""
        if not is_moved(trial):
            return TrialScheduler.CONTINUE
        name, epoch = member_name(trial), result[EPOCH]
        recent = self._recent.setdefault(name, [])
        recent.append((epoch, float(result.get(METRIC, math.nan))))
        if epoch < self._next(name):
            return TrialScheduler.CONTINUE
        scored = (score for at, score in reversed(recent) if at > epoch - self._window and not math.isnan(score))
        score = next(scored, math.nan)
        self._arrive(trial, score, result)
        return TrialScheduler.PAUSE

    def _arrive(self, trial: Trial, score: float, metrics: Mapping[str, Any]) -> None:
        name, tie = member_name(trial), float(metrics.get(self._tie_break, math.nan))
        self._arrived[name] = RungResult(name, member_index(trial), score, tie)
        self._recent.pop(name, None)

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """Decide what can be decided, then name the member that had the fewest turns."""
        if self._trials and not self._warm:
            self._warm = True
            keep_actors_warm(tune_controller, next(iter(self._trials.values())), self._size)
        if self._arrived:
            (self._decide_together if self._together else self._decide_singly)()
        for trial in self._losers:
            if not trial.is_finished():
                tune_controller.stop_trial(trial)
        self._losers = [trial for trial in self._losers if not trial.is_finished()]
        while self._idle:
            _, rung, _, name = self._idle[0]
            trial = self._trials[name]
            idle = trial.status in (Trial.PENDING, Trial.PAUSED) and name not in self._arrived
            if idle and rung == self._next(name):
                return trial
            heapq.heappop(self._idle)
        return None

    def _push(self, trial: Trial) -> None:
        """It is to be started, if it does not wait."""
        name = member_name(trial)
        heapq.heappush(self._idle, (not is_moved(trial), self._next(name), member_index(trial), name))

    # The decision ---------------------------------------------------------------------------------------------------

    def _decide_together(self) -> None:
        """Compare each cohort's members once all that live are there, and the cohorts before it are further on."""
        limit = math.inf  # the lowest rung that an earlier cohort has before it
        for number, members in sorted(self._cohorts.items()):
            if len(members) < members[0].config["member"].get("cohort_size", self._size):
                limit = 0  # whoever is still to come has every rung before it
                continue
            rung, late = self._stand(number)
            if late is None and rung < limit:
                self._decide(self._there(number, rung))
                rung, _ = self._stand(number)
            limit = min(limit, rung)

    def _stand(self, cohort: int) -> tuple[float, Trial | None]:
        """The lowest rung that a cohort has before it, and who keeps it there; None: all who are there wait.

        As long as the same member does not wait, nothing has changed, so nobody else is looked at.
        """
        known = self._seen.get(cohort)
        if known is None or (known[1] is not None and (known[1].is_finished() or self._waits(known[1]))):
            rung = self._lowest(trial for trial in self._cohorts[cohort] if not trial.is_finished())
            there = self._there(cohort, rung)  # the last is started last, and so most often arrives last
            known = rung, next((trial for trial in reversed(there) if not self._waits(trial)), None)
            self._seen[cohort] = known
        return known

    def _there(self, cohort: int, rung: float) -> list[Trial]:
        """Those of a cohort who live and have this rung before them."""
        members = self._cohorts[cohort]
        return [trial for trial in members if not trial.is_finished() and self._next(member_name(trial)) == rung]

    def _decide_singly(self) -> None:
        """Compare each member that waits, in the order of their arrival."""
        for trial in [self._trials[name] for name in self._arrived]:
            if self._waits(trial):
                self._decide([trial])

    def _decide(self, ready: Sequence[Trial]) -> None:
        """Enter those of `ready` on the rung that they have reached, and part them."""
        names = [member_name(trial) for trial in ready]
        rung = int(self._next(names[0]))
        standings = self._rungs[rung]
        standings |= {name: self._arrived.pop(name) for name in names}
        best = self._best(standings.values())
        kept = tuple(name for name in names if name in best)
        self._lost |= set(names) - best
        self._seen.clear()
        for trial, name in zip(ready, names, strict=True):
            if name in best:
                self._push(trial)
            else:
                self._losers.append(trial)
        self._on_rung(rung, {name: standings[name].score for name in names}, kept)

    def _best(self, standings: Iterable[RungResult]) -> set[str]:
        """The names of the best ⌈n / η⌉, those without a score only where nobody has one."""
        ranked = sorted(standings, key=lambda standing: rank(standing.score, standing.tie, standing.index))
        share = ranked[: math.ceil(len(ranked) / self._reduction)]
        scored = {standing.name for standing in share if not math.isnan(standing.score)}
        return scored or {standing.name for standing in share}

    def _next(self, name: str) -> float:
        """The epoch of the first rung where nothing is decided about a member; infinite: there is none."""
        return next((rung for rung, standings in self._rungs.items() if name not in standings), math.inf)

    def _lowest(self, trials: Iterable[Trial]) -> float:
        """The lowest rung that one of `trials` has before it."""
        return min((self._next(member_name(trial)) for trial in trials), default=math.inf)

    def _waits(self, trial: Trial) -> bool:
        """Whether it stands still on its next rung, with its checkpoint on disk."""
        return trial.status == Trial.PAUSED and member_name(trial) in self._arrived


def _cohort(trial: Trial) -> int:
    cohort: int = trial.config["member"].get("cohort", 0)
    return cohort
