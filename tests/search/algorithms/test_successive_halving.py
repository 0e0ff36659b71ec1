"""The scheduler alone, driven by a simulated controller: no Ray is started, no clock is looked at."""

from __future__ import annotations

import math
import pickle
import random
from types import SimpleNamespace

import pytest
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler

from results.runlog.members import METRIC
from search.algorithms.rungs import RungResult, rungs
from search.algorithms.successive_halving_scheduler import SuccessiveHalvingScheduler
from search.execution.members import EPOCH
from spaces import RequestError


class FakeTrial:
    """As much of a `Trial` as the scheduler touches."""

    def __init__(self, index, moved=True, **cohort):
        self.config = {"member": {"name": f"m{index}", "index": index, "moved": moved, **cohort}}
        self.trial_id, self.status = f"id{index}", Trial.PENDING
        self.placement_group_factory = "one slot"
        self.epoch, self.saved, self.saving, self.trained = 0, 0, False, 0

    @property
    def name(self):
        return self.config["member"]["name"]

    @property
    def index(self):
        return self.config["member"]["index"]

    def set_status(self, status):
        self.status = status

    def is_finished(self):
        return self.status in (Trial.ERROR, Trial.TERMINATED)


class Simulation:
    """Members on `slots` workers; which worker reports next is drawn from `order`, so arrival differs at will.

    Like Ray it adds trials while few are pending, starts pending ones even where the scheduler names none, and retries
    those that `fails` says once. `score(trial)` is at the trial's epoch.
    """

    def __init__(
        self, trials, score, *, epochs=27, interval=1, reduction=3, slots=4, order=0, dies=None, fails=None, **k
    ):
        self.coming, self.trials = [FakeTrial(t) if isinstance(t, int) else t for t in trials], []
        self.all = list(self.coming)
        self.decisions = []
        self.halving = SuccessiveHalvingScheduler(
            size=k.pop("size", len(self.coming)),
            interval=interval,
            epochs=epochs,
            reduction=reduction,
            on_rung=lambda epoch, scores, kept: self.decisions.append((epoch, scores, kept)),
            **k,
        )
        self.score, self.epochs, self.slots, self.order = score, epochs, slots, random.Random(order)
        self.dies, self.fails = dies or (lambda trial: False), set(fails or ())
        self.stopped = []
        self.cache = SimpleNamespace(calls=[])
        self.cache.increase_max = lambda key, by: self.cache.calls.append((key, by))
        self.controller = SimpleNamespace(
            get_trials=lambda: self.trials,
            stop_trial=self.stop,
            _tune_controller=SimpleNamespace(_actor_cache=self.cache),
        )

    def added(self):
        """With all trials in it at once."""
        self.trials, self.coming = self.coming, []
        for trial in self.trials:
            self.halving.on_trial_add(self.controller, trial)
        return self

    def run(self):
        for _ in range(20_000):
            while self.coming and sum(trial.status == Trial.PENDING for trial in self.trials) < 2:
                self.trials.append(self.coming.pop(0))
                self.halving.on_trial_add(self.controller, self.trials[-1])
            chosen = self.halving.choose_trial_to_run(self.controller)
            running = [trial for trial in self.trials if trial.status == Trial.RUNNING]
            if len(running) < self.slots:
                chosen = chosen or next((trial for trial in self.trials if trial.status == Trial.PENDING), None)
                if chosen:
                    assert chosen.status in (Trial.PENDING, Trial.PAUSED)
                    chosen.status, chosen.epoch = Trial.RUNNING, chosen.saved
                    continue
            if not self.coming and all(trial.is_finished() for trial in self.trials):
                return self
            assert running or self.coming, "nobody runs and nobody is chosen: the stage hangs"
            if running:
                self.report(self.order.choice(running))
        raise AssertionError("the stage does not end")

    def report(self, trial):
        if trial.saving:  # the report came before; now its checkpoint is there, unless the save fails
            trial.saving = False
            if self.failed(trial, "save"):
                return
            trial.saved, trial.status = trial.epoch, Trial.PAUSED
            return
        if self.failed(trial, "step"):
            return
        trial.epoch += 1
        trial.trained += 1
        if self.dies(trial):
            self.halving.on_trial_error(self.controller, trial)
            trial.status = Trial.ERROR
            return
        result = {EPOCH: trial.epoch, **self.metrics(trial)}
        if trial.epoch >= self.epochs:
            self.halving.on_trial_complete(self.controller, trial, result)
            trial.status = Trial.TERMINATED
        elif self.halving.on_trial_result(self.controller, trial, result) == TrialScheduler.PAUSE:
            trial.saving = True

    def failed(self, trial, what):
        """Fail as `fails` says, once, and be retried from the last checkpoint."""
        if (trial.index, what, trial.epoch) not in self.fails:
            return False
        self.fails.discard((trial.index, what, trial.epoch))
        self.halving.on_trial_error(self.controller, trial)
        trial.status = Trial.PENDING
        self.trials.remove(trial)
        self.trials.append(trial)
        self.halving.on_trial_add(self.controller, trial)
        return True

    def metrics(self, trial):
        score = self.score(trial)
        return score if isinstance(score, dict) else {METRIC: score}

    def stop(self, trial):
        assert trial.status in (Trial.PENDING, Trial.PAUSED)
        self.halving.on_trial_remove(self.controller, trial)
        trial.status = Trial.TERMINATED
        self.stopped.append(trial.name)

    @property
    def kept(self):
        """By rung, the members that went on, over all decisions."""
        kept = {}
        for epoch, _, names in self.decisions:
            kept.setdefault(epoch, set()).update(names)
        return kept

    @property
    def ended(self):
        return {trial.name: trial.epoch for trial in self.all}


def by_index(trial):
    return float(trial.index)


def names(*indices):
    return {f"m{index}" for index in indices}


def test_rungs_are_powers_of_the_reduction_times_the_interval_below_the_end():
    assert rungs(1, 3, 27) == (1, 3, 9)
    assert rungs(2, 2, 17) == (2, 4, 8, 16)
    assert rungs(3, 3, 3) == ()


@pytest.mark.parametrize(("interval", "reduction"), [(0, 3), (1, 1), (1, 0)])
def test_rungs_that_lead_nowhere_are_refused(interval, reduction):
    with pytest.raises(RequestError, match="must be >="):
        SuccessiveHalvingScheduler(size=4, interval=interval, epochs=9, reduction=reduction)


@pytest.mark.parametrize(
    ("count", "epochs", "kept"),
    [
        (9, 9, {1: {6, 7, 8}, 3: {8}}),
        (27, 27, {1: set(range(18, 27)), 3: {24, 25, 26}, 9: {26}}),
        (10, 9, {1: {6, 7, 8, 9}, 3: {8, 9}}),
    ],
)
def test_the_best_third_goes_on_at_every_rung(count, epochs, kept):
    run = Simulation(range(count), by_index, epochs=epochs).run()
    assert run.kept == {rung: names(*indices) for rung, indices in kept.items()}
    assert [epoch for epoch, _, _ in run.decisions] == list(kept)
    assert set(run.stopped) == names(*range(count)) - run.kept[max(kept)]
    assert run.decisions[0][1] == {f"m{index}": float(index) for index in range(count)}


@pytest.mark.parametrize(("count", "reduction", "epochs"), [(9, 3, 9), (27, 3, 27), (16, 2, 20), (7, 4, 30)])
def test_the_budget_is_what_the_paper_says(count, reduction, epochs):
    """Each rung's members are trained from the rung before; the last ones to the end."""
    run = Simulation(range(count), by_index, epochs=epochs, reduction=reduction).run()
    expected, before, left = 0, 0, count
    for rung in (*rungs(1, reduction, epochs), epochs):
        expected, before, left = expected + left * (rung - before), rung, math.ceil(left / reduction)
    assert sum(trial.trained for trial in run.all) == expected
    assert max(run.ended.values()) == epochs


@pytest.mark.parametrize("slots", [1, 2, 16])
def test_who_arrives_first_does_not_matter(slots):
    def score(trial):  # at each epoch another order
        return random.Random(f"{trial.index} {trial.epoch}").random()

    first = Simulation(range(9), score, epochs=9).run()
    for order in range(20):
        run = Simulation(range(9), score, epochs=9, slots=slots, order=order).run()
        assert run.decisions == first.decisions
        assert run.ended == first.ended


def test_nan_and_a_missing_score_rank_last_and_do_not_go_on_where_anybody_has_one():
    scores = {0: math.nan, 1: 0.2, 3: math.nan}
    run = Simulation(
        range(4), lambda trial: {METRIC: scores[trial.index]} if trial.index != 2 else {}, epochs=3, reduction=2
    ).run()
    assert run.kept == {1: names(1), 2: names(1)}


def test_where_nobody_has_a_score_the_first_go_on():
    run = Simulation(range(6), lambda trial: math.nan, epochs=3).run()
    assert run.kept == {1: names(0, 1)}


def test_members_of_equal_score_are_parted_by_the_tie_break_then_by_index():
    ratios = {0: 0.9, 1: 0.7, 2: 0.7, 3: math.nan, 4: 0.8}

    def score(trial):
        return {METRIC: 0.5, "t_stddev_ratio": ratios[trial.index]}

    tied = {"epochs": 2, "reduction": 2}
    assert Simulation(range(5), score, **tied).run().kept == {1: names(0, 1, 2)}
    assert Simulation(range(5), score, **tied, tie_break="t_stddev_ratio").run().kept == {1: names(1, 2, 4)}


def test_the_score_comes_before_the_tie_break():
    def score(trial):
        return {METRIC: trial.index / 10, "t_stddev_ratio": float(trial.index)}

    assert Simulation(range(3), score, epochs=2, tie_break="t_stddev_ratio").run().kept == {1: names(2)}


@pytest.mark.parametrize("order", range(5))
@pytest.mark.parametrize("synchronous", [True, False])
def test_a_member_that_dies_holds_up_nobody_and_is_not_counted(synchronous, order):
    """Of 5 that are left 2 go on; of 6 members it would be as many, of 7 one more."""
    run = Simulation(
        range(7),
        by_index,
        interval=2,
        epochs=6,
        order=order,
        synchronous=synchronous,
        dies=lambda trial: trial.index > 4 and trial.epoch == 2,
    ).run()
    assert [trial.status for trial in run.all].count(Trial.ERROR) == 2
    assert all("m5" not in scores and "m6" not in scores for _, scores, _ in run.decisions)
    if synchronous:
        assert run.kept == {2: names(3, 4)}


def test_the_decision_is_made_when_the_last_one_to_be_waited_for_dies():
    run = Simulation(range(3), by_index, interval=2, epochs=6, slots=3, dies=lambda t: t.index == 2 and t.epoch == 1)
    assert run.run().kept == {2: names(1)}


def test_a_member_that_was_compared_and_dies_later_leaves_its_score():
    """The second cohort's best one is better than all but the one that died."""
    trials = [FakeTrial(index, cohort=index // 3, cohort_size=3) for index in range(6)]
    scores = [1, 2, 9, 3, 4, 5]
    run = Simulation(
        trials, lambda trial: scores[trial.index], epochs=4, slots=1, dies=lambda t: t.index == 2 and t.epoch == 2
    ).run()
    assert run.decisions[1][2] == ("m5",), "2 of 6 stay, and m2 is one of these 6"
    assert run.decisions[0][2] == ("m2",)


@pytest.mark.parametrize("fail", [(0, "step", 0), (8, "step", 2), (8, "save", 1), (7, "save", 3), (0, "save", 1)])
def test_a_member_that_is_retried_keeps_its_place(fail):
    plain = Simulation(range(9), by_index, epochs=9).run()
    for order in range(5):
        run = Simulation(range(9), by_index, epochs=9, order=order, fails=[fail]).run()
        assert not run.fails, "it did fail"
        assert run.decisions == plain.decisions


def test_of_a_try_that_was_not_saved_nothing_counts():
    """The first is best in epochs that are lost; trained again, it is worst."""

    for fail in ((0, "step", 2), (0, "save", 3)):

        def score(trial, lost=fail[2]):
            return 9.0 if trial.index == 0 and trial.trained <= lost else by_index(trial)

        run = Simulation(range(3), score, interval=3, epochs=6, fails=[fail]).run()
        assert run.decisions == [(3, {"m0": 0.0, "m1": 1.0, "m2": 2.0}, ("m2",))]


def test_a_member_whose_save_failed_is_chosen_again():
    run = Simulation([0], by_index).added()
    (trial,) = run.trials
    run.halving.on_trial_result(run.controller, trial, {EPOCH: 1, METRIC: 1.0})
    assert run.halving.choose_trial_to_run(run.controller) is None
    run.halving.on_trial_error(run.controller, trial)
    run.halving.on_trial_add(run.controller, trial)
    assert run.halving.choose_trial_to_run(run.controller) is trial


def test_a_member_that_is_retried_before_its_turn_is_chosen_again():
    run = Simulation([0, 1, 2], by_index).added()
    first, second, third = run.trials
    second.status = Trial.RUNNING  # as Ray does on its own, with whatever is pending
    run.halving.on_trial_error(run.controller, second)
    second.status = Trial.PENDING
    run.halving.on_trial_add(run.controller, second)
    for expected in (first, second, third):
        assert run.halving.choose_trial_to_run(run.controller) is expected
        expected.status = Trial.RUNNING
    assert run.halving.choose_trial_to_run(run.controller) is None


def cohorts(sizes):
    places = [(number, size) for number, size in enumerate(sizes) for _ in range(size)]
    return [FakeTrial(index, cohort=number, cohort_size=size) for index, (number, size) in enumerate(places)]


def test_later_cohorts_are_compared_with_the_earlier_ones():
    """Of 3, one stays; of 6, two, if they are of the second three; of 9, three."""
    scores = [5, 6, 7, 1, 8, 9, 2, 3, 4]
    run = Simulation(cohorts([3, 3, 3]), lambda trial: scores[trial.index], epochs=3, slots=2).run()
    assert [kept for _, _, kept in run.decisions] == [("m2",), ("m4", "m5"), ()]


@pytest.mark.parametrize("slots", [1, 3, 16])
def test_with_cohorts_in_flight_who_arrives_first_does_not_matter(slots):
    def score(trial):
        return random.Random(f"{trial.index} {trial.epoch}").random()

    def dies(trial):
        return (trial.index, trial.epoch) in ((1, 1), (5, 2))

    settings = {"epochs": 20, "reduction": 2, "dies": dies}
    first = Simulation(cohorts([4, 4, 2]), score, **settings).run()
    for order in range(20):
        run = Simulation(cohorts([4, 4, 2]), score, slots=slots, order=order, **settings).run()
        assert sorted(run.decisions, key=str) == sorted(first.decisions, key=str)
        assert run.ended == first.ended


def test_nobody_of_a_cohort_goes_on_before_all_of_it_are_there():
    run = Simulation([0, 1, 2], by_index, epochs=3, slots=3, size=4)
    with pytest.raises(AssertionError, match="hangs"):
        run.run()
    run.coming.append(FakeTrial(3))
    assert run.run().kept == {1: names(2, 3)}


def test_nobody_of_a_later_cohort_goes_on_before_all_of_the_earlier_ones_have():
    """A member of the first cohort comes last, and is better than all others."""
    members = cohorts([3, 3])
    late = members.pop(2)
    scores = [2, 3, 9, 1, 4, 5]
    run = Simulation(members, lambda trial: scores[trial.index], epochs=2, slots=6)
    with pytest.raises(AssertionError, match="hangs"):
        run.run()
    assert run.decisions == []
    run.coming.append(late)
    assert [kept for _, _, kept in run.run().decisions] == [("m2",), ("m5",)]


def test_asynchronously_each_stays_that_is_among_the_best_so_far():
    """One slot: they arrive one by one, and one that stays waits until the others have had as many turns."""
    scores = [5, 4, 6, 3, 7, 5.5, 1, 8, 6.5]
    run = Simulation(range(9), lambda trial: scores[trial.index], epochs=3, slots=1, synchronous=False).run()
    expected, seen = [], []
    for index, score in enumerate(scores):
        seen.append(score)
        stays = score in sorted(seen, reverse=True)[: math.ceil(len(seen) / 3)]
        expected.append((1, {f"m{index}": score}, (f"m{index}",) if stays else ()))
    assert run.decisions == expected
    assert {name for name, epoch in run.ended.items() if epoch == 3} == names(0, 2, 4, 7, 8)


@pytest.mark.parametrize("slots", [1, 2, 16])
@pytest.mark.parametrize("order", range(10))
def test_asynchronously_the_best_one_reaches_the_end_whatever_the_order(slots, order):
    run = Simulation(range(27), by_index, slots=slots, order=order, synchronous=False).run()
    assert run.ended["m26"] == 27
    for rung, (count, at_least) in {1: (27, 9), 3: (len(run.kept[1]), 3)}.items():
        assert sum(epoch == rung for epoch, _, _ in run.decisions) == count
        assert len(run.kept[rung]) >= at_least, "early ones stay more easily"


def test_asynchronously_two_that_wait_are_compared_in_the_order_of_their_arrival():
    run = Simulation([0, 1], by_index, synchronous=False).added()
    low, high = run.trials
    for trial in (high, low):
        run.halving.on_trial_result(run.controller, trial, {EPOCH: 1, METRIC: by_index(trial)})
        trial.status = Trial.PAUSED
    run.halving.choose_trial_to_run(run.controller)
    assert run.stopped == ["m0"]


def test_those_that_go_on_have_turns_by_how_few_they_had():
    run = Simulation(range(9), by_index, epochs=9)
    for trial in run.all[:2]:
        run.halving.recall(1, RungResult(trial.name, trial.index, 1.0), went_on=True)
    run.added()
    assert run.halving.choose_trial_to_run(run.controller).name == "m2"


def test_those_that_are_not_moved_run_in_the_gaps_to_their_end():
    others = [FakeTrial(index, moved=False) for index in (9, 10)]
    run = Simulation([*range(9), *others], by_index, epochs=9, size=9).run()
    alone = Simulation(range(9), by_index, epochs=9).run()
    assert [trial.epoch for trial in others] == [9, 9]
    assert run.decisions == alone.decisions


def test_actors_are_kept_while_members_wait():
    assert Simulation(range(9), by_index, epochs=9).run().cache.calls == [("one slot", 9)]


@pytest.mark.parametrize("order", range(10))
@pytest.mark.parametrize("reports", [3, 11, 16, 23, 30])
def test_an_interrupted_run_that_recalls_ends_as_one_that_was_not(reports, order):
    """Whatever was decided, and who waited for what, is known again; trials go on from their checkpoints."""

    def score(trial):
        return random.Random(f"{trial.index} {trial.epoch}").random()

    whole = Simulation(range(9), score, epochs=9).run()
    run = Simulation(range(9), score, epochs=9, order=order)
    report, left = run.report, [reports]

    def interrupted(trial):
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        report(trial)

    run.report = interrupted
    with pytest.raises(KeyboardInterrupt):
        run.run()

    again = Simulation(range(9), score, epochs=9, order=order + 1)
    for rung, scores, kept in run.decisions:
        for name, value in scores.items():
            again.halving.recall(rung, RungResult(name, int(name[1:]), value), went_on=name in kept)
    for trial, old in zip(again.all, run.all, strict=True):
        if old.saved:
            trial.saved = trial.epoch = old.saved
            trial.config["member"]["before"] = {"epoch": old.saved, "metrics": {METRIC: score(trial)}}
    again.run()
    assert run.decisions + again.decisions == whole.decisions
    assert again.ended == whole.ended


def test_a_member_is_judged_by_its_last_score_of_the_last_interval():
    """At epoch 9 that is 7 to 9: the first was best before, the second has no score at the rung itself, but at 8."""
    scores = {0: {3: 0.8, 5: 0.9}, 1: {2: 0.7, 8: 0.6, 9: math.nan}, 2: {}, 3: {3: math.nan}}
    run = Simulation(range(4), lambda trial: scores[trial.index].get(trial.epoch, 0.1), interval=3, epochs=12).run()
    assert run.decisions == [
        (3, {"m0": 0.8, "m1": 0.1, "m2": 0.1, "m3": 0.1}, ("m0", "m1")),
        (9, {"m0": 0.1, "m1": 0.6}, ("m1",)),
    ]


def test_it_is_pickled_without_its_listener():
    run = Simulation(range(9), by_index, epochs=9).run()
    copy = pickle.loads(pickle.dumps(run.halving))
    assert {rung: list(there) for rung, there in copy._rungs.items()} == {1: list(run.ended), 3: ["m6", "m7", "m8"]}
    assert copy._on_rung is None
