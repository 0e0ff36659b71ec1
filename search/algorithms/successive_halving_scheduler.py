"""Ray scheduler of successive halving: of the members that reach a rung, the best share continues, the others stop.

A member that reaches a rung is paused, and so saved, like any other; it is compared in `choose_trial_to_run`, when it
is paused with its checkpoint on disk. Members that lose are stopped through the controller: their last result stands,
and Ray reports them as complete to its search algorithm and callbacks.

Source: successive halving (Jamieson & Talwalkar 2016, https://arxiv.org/abs/1502.07943); the asynchronous mode is
ASHA's (Li et al. 2020, https://arxiv.org/abs/1810.05934) with one difference: a member that is not among the best when
it arrives is stopped, where the paper leaves it paused in case it is among the best later.
"""

from __future__ import annotations

import heapq
import math
from bisect import insort
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from results.runlog.members import score_of
from search.algorithms.rungs import RungResult, rungs
from search.execution.members import EPOCH, is_moved, keep_actors_warm, member_index, member_name, rank


class SuccessiveHalvingScheduler(FIFOScheduler):
    """Successive-halving scheduler of one search.

    Every trial's `config["member"]` holds `index`, `name` and `moved`. Members that are `moved` are compared on rungs;
    the others, such as the random control, run to their end in the gaps.

    The score of a member is its last one within the last `interval` epochs. On each rung, of n members that were ever
    compared there, those that arrive continue if they are among the best ⌈n / `reduction`⌉ of the n. A member without a
    score ranks last, and does not continue where any member has one; ties go by `tie_break`, then by index. A member
    that fails before its rung is decided is not one of the n.

    A member that was trained before the sweep was resumed has `before` in its config: its `epoch` and `metrics`. If it
    waited on a rung, it waits there again. Earlier decisions are restored by `recall`.

    Members may come in cohorts, one after the other: `config["member"]` then has `cohort`, 0, 1, …, and `cohort_size`,
    the number of its trials. With `synchronous`, all live members of a cohort are compared together, when each of them
    waits on the rung and every earlier cohort has left it: the outcome does not depend on which worker was faster.
    Otherwise each member is compared when it arrives.

    Args:
        size: Number of moved members; also the size of a cohort that does not say it.
        interval: Epochs to the first rung, >= 1; each later one is `reduction` times as far.
        reduction: η, one member in so many continues, >= 2.
        epochs: Epochs of a member that is never stopped.
        synchronous: True to compare cohorts, False to compare single members.
        tie_break: Name of a metric, lower is better, that orders members of equal score; empty for the index.
        on_rung: Function that is called with each decision before it is carried out: the rung's epoch, the scores of
            the members that waited, and the names of those that continue.

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
        synchronous: bool = True,
        tie_break: str = "",
        on_rung: Callable[[int, dict[str, float], tuple[str, ...]], None] = lambda epoch, scores, kept: None,
    ) -> None:
        """Set up the rungs."""
        super().__init__()  # type: ignore[no-untyped-call]  # Ray has no types there
        self._size, self._reduction, self._together, self._tie_break = size, reduction, synchronous, tie_break
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
        self._idle: list[tuple[bool, float, int, str]] = []  # heap of names; those started since are still in it
        self._warm = False

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without its listeners: Ray pickles its scheduler beside the trials."""
        return self.__dict__ | {"_on_rung": None}

    def recall(self, rung: int, standing: RungResult, went_on: bool) -> None:
        """Restore a decision that was made before the sweep was resumed; call it before any trial is added.

        Args:
            rung: Epoch of the rung.
            standing: Result of a member there.
            went_on: True where the member continued, False where it was stopped.

        Raises:
            KeyError: There is no such rung.
        """
        self._rungs[rung][standing.name] = standing
        if not went_on:
            self._lost.add(standing.name)

    # What Ray calls -------------------------------------------------------------------------------------------------

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """Add a member; one that waited on a rung before the sweep was resumed waits there again."""
        name, before = member_name(trial), trial.config["member"].get("before")
        if is_moved(trial):
            if name not in self._trials:  # else it is retried
                insort(self._cohorts.setdefault(_cohort(trial), []), trial, key=member_index)
            self._losers += [trial] if name in self._lost else []
            if before and before["epoch"] >= self._next(name):
                self._arrive(trial, score_of(before["metrics"]), before["metrics"])
                trial.set_status(Trial.PAUSED)  # else Ray would start it: it starts whatever is pending
        self._trials[name] = trial
        self._seen.clear()
        self._push(trial)

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        """Drop what was not saved; a member that is retried keeps the decisions made about it."""
        self._arrived.pop(member_name(trial), None)
        self._recent.pop(member_name(trial), None)
        self._seen.clear()

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Train on until the next rung, then pause, which saves."""
        if not is_moved(trial):
            return TrialScheduler.CONTINUE
        name, epoch = member_name(trial), result[EPOCH]
        recent = self._recent.setdefault(name, [])
        recent.append((epoch, score_of(result)))
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
        """Decide what can be decided, then return the member that had the fewest turns."""
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
        """Add a member to those that may be started."""
        name = member_name(trial)
        heapq.heappush(self._idle, (not is_moved(trial), self._next(name), member_index(trial), name))

    # The decision ---------------------------------------------------------------------------------------------------

    def _decide_together(self) -> None:
        """Compare each cohort's members once all live ones wait there and the earlier cohorts are further on."""
        limit = math.inf  # the lowest rung that an earlier cohort has before it
        for number, members in sorted(self._cohorts.items()):
            if len(members) < members[0].config["member"].get("cohort_size", self._size):
                limit = 0  # members still to come have every rung ahead
                continue
            rung, late = self._stand(number)
            if late is None and rung < limit:
                self._decide(self._there(number, rung))
                rung, _ = self._stand(number)
            limit = min(limit, rung)

    def _stand(self, cohort: int) -> tuple[float, Trial | None]:
        """Return the lowest rung ahead of a cohort, and a member that does not wait there yet; None where all wait.

        As long as the same member does not wait, nothing has changed, and the others need not be checked.
        """
        known = self._seen.get(cohort)
        if known is None or (known[1] is not None and (known[1].is_finished() or self._waits(known[1]))):
            rung = self._lowest(trial for trial in self._cohorts[cohort] if not trial.is_finished())
            there = self._there(cohort, rung)  # the last is started last, and so most often arrives last
            known = rung, next((trial for trial in reversed(there) if not self._waits(trial)), None)
            self._seen[cohort] = known
        return known

    def _there(self, cohort: int, rung: float) -> list[Trial]:
        """Return the live members of a cohort whose next rung this is."""
        members = self._cohorts[cohort]
        return [trial for trial in members if not trial.is_finished() and self._next(member_name(trial)) == rung]

    def _decide_singly(self) -> None:
        """Compare each member that waits, in the order of their arrival."""
        for trial in [self._trials[name] for name in self._arrived]:
            if self._waits(trial):
                self._decide([trial])

    def _decide(self, ready: Sequence[Trial]) -> None:
        """Enter the members of `ready` on the rung that they have reached, and decide which of them continue."""
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
        """Return the names of the best ⌈n / η⌉; those without a score only where no member has one."""
        ranked = sorted(standings, key=lambda standing: rank(standing.score, standing.tie, standing.index))
        share = ranked[: math.ceil(len(ranked) / self._reduction)]
        scored = {standing.name for standing in share if not math.isnan(standing.score)}
        return scored or {standing.name for standing in share}

    def _next(self, name: str) -> float:
        """Return the epoch of the first rung that is undecided for a member; infinity where there is none."""
        return next((rung for rung, standings in self._rungs.items() if name not in standings), math.inf)

    def _lowest(self, trials: Iterable[Trial]) -> float:
        """Return the lowest rung ahead of any of `trials`."""
        return min((self._next(member_name(trial)) for trial in trials), default=math.inf)

    def _waits(self, trial: Trial) -> bool:
        """Return True for a member that is paused on its next rung, with its checkpoint on disk."""
        return trial.status == Trial.PAUSED and member_name(trial) in self._arrived


def _cohort(trial: Trial) -> int:
    cohort: int = trial.config["member"].get("cohort", 0)
    return cohort
