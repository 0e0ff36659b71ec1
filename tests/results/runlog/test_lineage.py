"""Whose genomes the best member's weights were trained with: backwards by lineage, against members that remember."""

import json
import math
from itertools import count, pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from results.runlog.lineage import Exploit, ancestry
from spaces import Entry, Genome, Phase, Policy

unhurried = settings(deadline=None, max_examples=200)


def genome(number):
    """A genome of its own for each number below 11,000."""
    first, second = divmod(number, 100)
    return Genome(Policy((Entry("Rotate", *divmod(first, 10)), Entry("Invert", *divmod(second, 10)))))


def event(epoch, target, donor, number):
    return Exploit(epoch, target, donor, 0.1, 0.9, genome(0), genome(number))


class Weights:
    """Weights that remember the genome of each of their epochs, and the members whose places they were in."""

    def __init__(self, name, start):
        self.history, self.places, self.genome, self.saved_at = [], [name], start, 0

    def copy(self):
        other = Weights("", self.genome)
        other.history, other.places, other.saved_at = [*self.history], [*self.places], self.saved_at
        return other


class Forward:
    """A population that is trained and perturbed at random, and keeps no books but the events."""

    def __init__(self, random, size):
        self.random, self.fresh = random, count()
        self.starts = {f"m{index}": genome(next(self.fresh)) for index in range(size)}
        self.members = {name: Weights(name, start) for name, start in self.starts.items()}
        self.saved = {}
        self.events = []

    def train(self, name):
        weights = self.members[name]
        weights.history.append(weights.genome)
        line = ancestry(name, len(weights.history), self.starts, self.events)
        assert [phase.genome for phase in line.phases for _ in range(phase.epochs)] == weights.history
        assert list(line.members) == weights.places
        assert all(one.genome != two.genome for one, two in pairwise(line.phases))

    def save(self, name):
        self.members[name].saved_at = len(self.members[name].history)
        self.saved[name] = self.members[name].copy()

    def exploit(self, target, donor):
        """`target` goes on from what `donor` saved last; nobody copies it before it saves again."""
        weights = self.saved[donor].copy()
        weights.places.append(target)
        before = weights.genome
        if self.random.random() < 0.8:  # else exploring happens to change nothing
            weights.genome = genome(next(self.fresh))
        self.members[target] = weights
        del self.saved[target]
        self.events.append(Exploit(len(weights.history), target, donor, 0.1, 0.9, before, weights.genome))


@unhurried
@given(st.randoms(use_true_random=True), st.integers(1, 6), st.integers(1, 4), st.integers(1, 20))
def test_it_is_what_the_weights_remember_when_members_wait_for_each_other(random, size, interval, epochs):
    population = Forward(random, size)
    for epoch in range(1, epochs + 1):
        for name in population.members:
            population.train(name)
        if epoch % interval == 0 and epoch < epochs:
            names = list(population.members)
            for name in names:
                population.save(name)
            random.shuffle(names)
            half = random.randint(0, size // 2)
            for target in names[:half]:
                population.exploit(target, random.choice(names[half:]))


@unhurried
@given(st.randoms(use_true_random=True), st.integers(2, 5), st.integers(1, 3), st.integers(1, 12))
def test_it_is_what_the_weights_remember_when_nobody_waits(random, size, interval, epochs):
    population = Forward(random, size)
    while running := [name for name, weights in population.members.items() if len(weights.history) < epochs]:
        name = random.choice(running)
        population.train(name)
        weights = population.members[name]
        if len(weights.history) - weights.saved_at < interval or len(weights.history) == epochs:
            continue
        population.save(name)
        donors = [other for other in population.saved if other != name]
        if donors and len(population.events) < 30 and random.random() < 0.5:
            population.exploit(name, random.choice(donors))


# The traps, one by one ------------------------------------------------------------------------------------------------

STARTS = {name: genome(900 + index) for index, name in enumerate("ABT")}


def test_a_member_that_never_copied_has_one_genome():
    line = ancestry("A", 7, STARTS, [event(3, "T", "A", 1)])
    assert line.phases == (Phase(7, STARTS["A"]),) and line.members == ("A",)


def test_a_donors_later_events_do_not_count():
    line = ancestry("T", 9, STARTS, [event(3, "T", "A", 1), event(6, "A", "B", 2)])
    assert line.phases == (Phase(3, STARTS["A"]), Phase(6, genome(1))) and line.members == ("A", "T")


def test_a_replaced_targets_own_events_do_not_count():
    line = ancestry("T", 9, STARTS, [event(3, "T", "A", 1), event(6, "T", "B", 2)])
    assert line.phases == (Phase(6, STARTS["B"]), Phase(3, genome(2))) and line.members == ("B", "T")


def test_nor_do_they_when_the_donor_was_behind():
    line = ancestry("T", 9, STARTS, [event(6, "T", "A", 1), event(3, "T", "B", 2)])
    assert line.phases == (Phase(3, STARTS["B"]), Phase(6, genome(2))) and line.members == ("B", "T")


def test_the_way_can_lead_through_a_member_twice():
    line = ancestry("T", 9, STARTS, [event(3, "A", "T", 1), event(6, "T", "A", 2)])
    assert line.phases == (Phase(3, STARTS["T"]), Phase(3, genome(1)), Phase(3, genome(2)))
    assert line.members == ("T", "A", "T")


def test_a_copy_at_the_very_end_is_not_part():
    line = ancestry("T", 6, STARTS, [event(3, "T", "A", 1), event(6, "T", "B", 2)])
    assert line.phases == (Phase(3, STARTS["A"]), Phase(3, genome(1))) and line.members == ("A", "T")


def test_a_copy_that_explored_nowhere_makes_no_phase():
    same = Exploit(3, "T", "A", 0.1, 0.9, STARTS["A"], STARTS["A"])
    line = ancestry("T", 9, STARTS, [same])
    assert line.phases == (Phase(9, STARTS["A"]),) and line.members == ("A", "T")


def test_before_the_first_epoch_there_is_no_phase():
    assert ancestry("A", 0, STARTS, []).phases == ()


# The file -------------------------------------------------------------------------------------------------------------


@unhurried
@given(st.integers(0, 99), st.floats(0, 1), st.floats(0, 1), st.integers(0, 10_999), st.integers(0, 10_999))
def test_an_event_survives_json(epoch, low, high, before, after):
    exploit = Exploit(epoch, "T", "A", low, high, genome(before), genome(after))
    assert Exploit.from_json(json.loads(json.dumps(exploit.to_json(), allow_nan=False))) == exploit


def test_an_absent_score_is_null_in_json_and_nan_here():
    data = Exploit(3, "T", "A", math.nan, 0.5, genome(1), genome(2)).to_json()
    assert data["target_score"] is None and data["donor_score"] == 0.5
    back = Exploit.from_json(json.loads(json.dumps(data, allow_nan=False)))
    assert math.isnan(back.target_score) and back.donor_score == 0.5
    assert (back.epoch, back.target, back.donor, back.before, back.after) == (3, "T", "A", genome(1), genome(2))
