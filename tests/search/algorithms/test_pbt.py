"""The scheduler alone, driven by a simulated controller: no Ray is started, no clock is looked at."""

from __future__ import annotations

import math
import random
from types import SimpleNamespace

import numpy as np
import pytest
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler

from results.runlog.lineage import Exploit, ancestry
from results.runlog.members import METRIC
from search.algorithms.pbt_scheduler import PBTScheduler
from search.execution.members import EPOCH, TIE_BREAKS
from spaces import Genome, Phase, Space
from spaces.schedule.schedule import merge

SPACE = Space(operations=("Rotate", "Invert"), copies=1)


class Checkpoint:
    """What a member's weights remember: the genomes that they were trained with."""

    def __init__(self, epoch, history):
        self.epoch, self.history = epoch, history


class FakeTrial:
    """As much of a `Trial` as the scheduler, ours and Ray's, touches."""

    def __init__(self, index, genome, moved=True):
        member = {"name": f"m{index}", "index": index, "seed": index, "moved": moved, "genome": genome.to_json()}
        self.config = {"member": member}
        self.trial_id, self.status = f"id{index}", Trial.PENDING
        self.placement_group_factory = "one slot"
        manager = SimpleNamespace(checkpoint_config=SimpleNamespace(num_to_keep=4), _latest_checkpoint_result=None)
        self.run_metadata = SimpleNamespace(checkpoint_manager=manager)
        self.epoch, self.history, self.saving = 0, (), False

    experiment_tag = ""

    @property
    def checkpoint(self):
        result = self.run_metadata.checkpoint_manager._latest_checkpoint_result
        return result.checkpoint if result else None

    def is_finished(self):
        return self.status in (Trial.ERROR, Trial.TERMINATED)

    def set_config(self, config):
        self.config = config

    def set_experiment_tag(self, tag):
        self.experiment_tag = tag

    @property
    def genome(self):
        return Genome.from_json(self.config["member"]["genome"])


class Simulation:
    """Members on `slots` workers; which worker reports next is drawn from `order`, so arrival differs at will."""

    def __init__(
        self,
        size=4,
        epochs=6,
        interval=2,
        slots=2,
        seed=0,
        synchronous=True,
        order=0,
        score=None,
        dies=None,
        tie_break="none",
        ratios=None,
    ):
        self.events: list[Exploit] = []
        self.generations = []
        self.population = PBTScheduler(
            space=SPACE,
            size=size,
            interval=interval,
            quantile=0.25,
            seed=seed,
            synchronous=synchronous,
            tie_break=TIE_BREAKS[tie_break],
            on_generation=self.perturbed,
        )
        self.trials = [FakeTrial(index, SPACE.zero()) for index in range(size)]
        self.starts = {f"m{index}": SPACE.zero() for index in range(size)}
        self.slots, self.epochs = slots, epochs
        self.order = random.Random(order)
        self.score = score or (lambda trial: 0.1 * trial.config["member"]["index"] + 0.001 * trial.epoch)
        self.dies = dies or (lambda trial: False)
        self.ratios = ratios or {}
        self.cache = SimpleNamespace(calls=[])
        self.cache.increase_max = lambda key, by: self.cache.calls.append((key, by))
        self.controller = SimpleNamespace(
            search_alg=None,
            get_trials=lambda: self.trials,
            _tune_controller=SimpleNamespace(_actor_cache=self.cache),
        )

    def perturbed(self, epoch, scores, copies):
        self.generations.append((epoch, dict(scores)))
        self.events += copies

    def run(self, most=10_000):
        for trial in self.trials:
            self.population.on_trial_add(self.controller, trial)
        for _ in range(most):
            running = [trial for trial in self.trials if trial.status == Trial.RUNNING]
            while len(running) < self.slots and (chosen := self.population.choose_trial_to_run(self.controller)):
                assert chosen.status in (Trial.PENDING, Trial.PAUSED)
                self.start(chosen)
                running.append(chosen)
            if all(trial.is_finished() for trial in self.trials):
                return self
            assert running, "nobody runs and nobody is chosen: the population hangs"
            self.report(self.order.choice(running))
        raise AssertionError("the population does not end")

    def start(self, trial):
        trial.status = Trial.RUNNING
        trial.epoch = trial.checkpoint.epoch if trial.checkpoint else 0
        trial.history = trial.checkpoint.history if trial.checkpoint else ()

    def report(self, trial):
        if trial.saving:  # the report came before; now its checkpoint is there
            saved = SimpleNamespace(checkpoint=Checkpoint(trial.epoch, trial.history))
            trial.run_metadata.checkpoint_manager._latest_checkpoint_result = saved
            trial.status, trial.saving = Trial.PAUSED, False
            return
        trial.history = merge((*trial.history, Phase(1, trial.genome)))
        trial.epoch += 1
        if self.dies(trial):
            self.population.on_trial_error(self.controller, trial)
            trial.status = Trial.ERROR
            return
        result = {EPOCH: trial.epoch, METRIC: self.score(trial)}
        if (index := trial.config["member"]["index"]) in self.ratios:
            result["t_stddev_ratio"] = self.ratios[index]
        if trial.epoch >= self.epochs:
            self.population.on_trial_complete(self.controller, trial, result)
            trial.status = Trial.TERMINATED
        elif self.population.on_trial_result(self.controller, trial, result) == TrialScheduler.PAUSE:
            trial.saving = True


@pytest.mark.parametrize("synchronous", [True, False])
@pytest.mark.parametrize("size", [2, 4, 9])
@pytest.mark.parametrize("slots", [1, 2, 16])
def test_every_member_reaches_the_end_and_lineage_is_what_its_weights_saw(size, slots, synchronous):
    for order in range(20):  # who reports, and whose checkpoint is there first
        run = Simulation(size=size, slots=slots, synchronous=synchronous, epochs=9, interval=2, order=order).run()
        assert [trial.epoch for trial in run.trials] == [9] * size
        assert run.events or not synchronous
        for trial in run.trials:
            name = trial.config["member"]["name"]
            assert ancestry(name, 9, run.starts, run.events).phases == trial.history


def test_a_quarter_copies_a_quarter_at_every_boundary_but_the_last():
    run = Simulation(size=8, epochs=6, interval=2).run()
    assert [epoch for epoch, _ in run.generations] == [2, 4]
    assert [event.epoch for event in run.events] == [2, 2, 4, 4]
    assert {event.target for event in run.events} == {"m0", "m1"}
    assert {event.donor for event in run.events} <= {"m6", "m7"}
    assert all(event.target_score < event.donor_score for event in run.events)


def test_a_copy_goes_on_with_the_donors_genome_explored_and_stays_who_it_is():
    run = Simulation(size=4, epochs=4, interval=2).run()
    (event,) = run.events
    target = run.trials[0]
    assert (target.config["member"]["name"], target.config["member"]["seed"]) == ("m0", 0)
    assert event.before == SPACE.zero() != event.after == target.genome
    assert run.trials[3].genome == SPACE.zero()


def test_who_arrives_first_does_not_matter():
    runs = [Simulation(slots=slots, order=order, epochs=12).run() for slots in (1, 3) for order in range(4)]
    assert all(run.events == runs[0].events for run in runs)


def test_the_seed_decides():
    assert Simulation(seed=1).run().events == Simulation(seed=1).run().events
    assert Simulation(seed=1).run().events != Simulation(seed=2).run().events


def test_a_member_that_dies_does_not_hold_up_the_others():
    def dies(trial):
        return trial.config["member"]["index"] == 2 and trial.epoch == 3

    run = Simulation(size=4, epochs=8, interval=2, dies=dies).run()
    assert [trial.status for trial in run.trials].count(Trial.TERMINATED) == 3
    assert [epoch for epoch, _ in run.generations] == [2, 4, 6]
    assert not any("m2" in (event.target, event.donor) for event in run.events if event.epoch > 2)


def test_the_last_one_alive_goes_on_alone():
    run = Simulation(size=3, epochs=6, interval=2, dies=lambda t: t.config["member"]["index"] > 0 and t.epoch == 1)
    run.run()
    assert run.trials[0].status == Trial.TERMINATED
    assert run.events == []


def test_nan_and_a_missing_score_rank_last_and_are_never_copied():
    scores = {0: 0.5, 1: math.nan, 2: 0.7, 3: 0.6}
    run = Simulation(size=4, epochs=4, interval=2, score=lambda t: scores[t.config["member"]["index"]]).run()
    assert [(event.target, event.donor) for event in run.events] == [("m1", "m2")]
    assert math.isnan(run.events[0].target_score)


def test_a_member_is_judged_by_the_last_score_of_its_slice():
    """The first is best in between; the second has no score at the boundary itself."""
    given = {"m0": (0.99, 0.1), "m1": (0.8, math.nan), "m2": (0.0, 0.5), "m3": (0.2, 0.3)}
    run = Simulation(epochs=4, score=lambda trial: given[trial.config["member"]["name"]][(trial.epoch - 1) % 2]).run()
    assert run.generations[0] == (2, {"m0": 0.1, "m1": 0.8, "m2": 0.5, "m3": 0.3})
    assert [(event.target, event.donor) for event in run.events] == [("m0", "m1")]


def test_nobody_is_copied_where_nobody_has_a_score():
    run = Simulation(size=4, epochs=4, interval=2, score=lambda trial: math.nan).run()
    assert run.events == []
    assert all(trial.status == Trial.TERMINATED for trial in run.trials)


def test_ties_go_to_the_first_member():
    run = Simulation(size=4, epochs=4, interval=2, score=lambda trial: 0.5).run()
    assert [(event.target, event.donor) for event in run.events] == [("m3", "m0")]


def copies(run):
    return [(event.target, event.donor) for event in run.events]


RATIOS = {0: 1.2, 1: 0.7, 2: 0.9, 3: 1.0}


def test_members_of_equal_score_are_parted_by_t_stddev_where_that_is_asked_for():
    """Lower is better: the first member copies the second; by their indices the last would copy the first."""
    equal = {"epochs": 4, "score": lambda trial: 0.5, "ratios": RATIOS}
    assert copies(Simulation(**equal, tie_break="t_stddev").run()) == [("m0", "m1")]
    assert copies(Simulation(**equal, tie_break="none").run()) == [("m3", "m0")]


def test_the_score_comes_before_the_ratio():
    scores = {0: 0.5, 1: 0.4, 2: 0.6, 3: 0.5}
    run = Simulation(
        epochs=4, score=lambda t: scores[t.config["member"]["index"]], tie_break="t_stddev", ratios=RATIOS
    ).run()
    assert copies(run) == [("m1", "m2")], "though its ratio is the lowest"


@pytest.mark.parametrize(
    ("ratios", "expected"),
    [
        ({1: 1.5, 2: 1.1, 3: 0.9}, ("m0", "m3")),
        ({0: 1.5, 2: 1.1, 3: 1.2}, ("m1", "m2")),
        ({0: 1.5, 1: math.nan, 2: 1.1, 3: 0.9}, ("m1", "m3")),
        ({}, ("m3", "m0")),
        ({0: 0.9, 1: 0.9, 2: 0.9, 3: 0.9}, ("m3", "m0")),
    ],
    ids=["first missing", "second missing", "second nan", "all missing", "all equal"],
)
def test_a_missing_ratio_ranks_last_and_what_is_equal_then_goes_by_index(ratios, expected):
    run = Simulation(epochs=4, score=lambda trial: 0.5, tie_break="t_stddev", ratios=ratios).run()
    assert copies(run) == [expected]


def test_a_member_that_is_retried_keeps_what_was_known_of_it():
    run = Simulation(size=4, epochs=6, interval=2)
    for trial in run.trials:
        run.population.on_trial_add(run.controller, trial)
    victim = run.trials[1]
    run.start(victim)
    run.report(victim)
    run.report(victim)
    state = run.population._trial_state[victim]
    run.population.on_trial_add(run.controller, victim)  # as Ray does after a failure
    assert run.population._trial_state[victim] is state


def test_a_member_that_is_retried_before_its_turn_is_named_again():
    run = Simulation(size=3)
    for trial in run.trials:
        run.population.on_trial_add(run.controller, trial)
    first, second, third = run.trials
    run.start(second)  # as Ray does on its own, with whatever is pending
    run.population.on_trial_error(run.controller, second)
    second.status = Trial.PENDING
    run.population.on_trial_add(run.controller, second)
    for expected in (first, second, third):
        assert run.population.choose_trial_to_run(run.controller) is expected
        run.start(expected)
    assert run.population.choose_trial_to_run(run.controller) is None


def test_actors_are_kept_while_the_population_waits():
    run = Simulation(size=4).run()
    assert run.cache.calls == [("one slot", 4)]


def test_those_that_are_not_moved_run_in_the_gaps_and_keep_their_genomes():
    run = Simulation(size=4, epochs=6, interval=2, slots=3)
    alone = Simulation(size=4, epochs=6, interval=2, slots=3).run()
    fixed = [FakeTrial(index, SPACE.random(np.random.default_rng(index)), moved=False) for index in range(4, 7)]
    genomes = [trial.genome for trial in fixed]
    run.trials += fixed
    run.run()
    assert [trial.epoch for trial in run.trials] == [6] * 7
    assert [trial.genome for trial in fixed] == genomes
    assert run.events == alone.events  # and the population is moved as if it were alone
