"""Successive rejects: who is rejected, who wins, and a difference that selection does not bias."""

import math

import numpy as np
import pytest

from search.algorithms.rejects import Measured, decide, rounds, trainings

FREE = ("none", "uniform", "trivialaugment", "randaugment")


def playing(true, noise, seed):
    """Scores around true values; a seed has the same noise for all candidates, besides each its own."""
    generator = np.random.default_rng(seed)
    calls = []

    def measure(number, names, seeds):
        calls.append((number, tuple(names), tuple(seeds)))
        shared = generator.normal(0, noise, len(seeds))
        return {
            name: [Measured(true[name] + common + generator.normal(0, noise), true[name]) for common in shared]
            for name in names
        }

    return measure, calls


@pytest.mark.parametrize(
    ("candidates", "seeds", "expected"),
    [
        (2, 3, ((2, 3),)),
        (4, 3, ((4, 2), (2, 3))),
        (5, 3, ((5, 2), (3, 2), (2, 3))),
        (6, 1, ((6, 1), (3, 1), (2, 1))),
        (1, 3, ()),
    ],
)
def test_half_of_the_candidates_is_rejected_until_two_are_left(candidates, seeds, expected):
    assert rounds(candidates, seeds) == expected
    assert trainings(candidates, seeds) == sum(count * each for count, each in expected)


def test_the_difference_is_unbiased_under_the_winners_curse():
    """The candidates are nearly alike, so the one that is chosen is mostly lucky; the last round does not know that."""
    true = {"none": 0.0, "uniform": 1.0, "trivialaugment": 1.1, "randaugment": 0.9, "policy": 1.05, "policy mean": 1.0}
    errors, covered, early = [], [], []
    for seed in range(400):
        measure, _ = playing(true, 0.5, seed)
        found = decide(list(true), FREE, 3, measure)
        pair = {found.winner, found.against}
        challenger = found.winner if found.difference[0] > 0 else found.against
        (other,) = pair - {challenger}
        error = found.difference[0] - (true[challenger] - true[other])
        errors.append(error)
        covered.append(abs(error) <= found.difference[1])
        best = max(found.scores, key=found.scores.get)
        early.append(found.scores[best] - true[best])
    assert abs(np.mean(errors)) < 3 * np.std(errors) / math.sqrt(len(errors))
    assert np.mean(covered) == pytest.approx(0.95, abs=0.035)
    assert np.mean(early) > 0.1, "while the mean of the best over all its seeds is too good"


def test_a_policy_that_is_better_wins_and_names_the_strongest_free_baseline():
    true = {"none": 0.0, "uniform": 1.0, "trivialaugment": 2.0, "randaugment": 1.5, "policy": 4.0}
    for seed in range(30):
        measure, calls = playing(true, 0.1, seed)
        found = decide(list(true), FREE, 3, measure)
        assert (found.winner, found.against) == ("policy", "trivialaugment")
        assert found.difference[0] == pytest.approx(2.0, abs=0.3) and found.accuracy_difference[0] == 2.0
        assert found.trainings == sum(len(names) * len(seeds) for _, names, seeds in calls) == trainings(5, 3)
        used = [seed for _, _, seeds in calls for seed in seeds]
        assert used == list(range(len(used))), "every round has fresh seeds"


def test_where_augmentation_only_harms_no_augmentation_wins():
    true = {"none": 3.0, "uniform": 1.0, "trivialaugment": 0.5, "randaugment": 0.0, "policy": 2.0}
    for seed in range(30):
        measure, _ = playing(true, 0.1, seed)
        found = decide(list(true), FREE, 3, measure)
        assert (found.winner, found.against) == ("none", "policy") and found.difference[0] < 0


def test_the_strongest_free_baseline_is_always_in_the_last_round():
    true = {"uniform": 0.0, "none": -1.0, "a": 5.0, "b": 4.0, "c": 3.0, "d": 2.0}
    measure, calls = playing(true, 0.01, 0)
    found = decide(list(true), ("uniform", "none"), 2, measure)
    assert set(calls[-1][1]) == {"uniform", "a"} and found.winner == "a" and found.against == "uniform"


def test_failures_lose_and_ties_go_to_the_free_baseline():
    def measure(_number, names, seeds):
        return {name: [Measured(math.nan if name == "policy" else 1.0) for _ in seeds] for name in names}

    assert decide(["none", "policy"], FREE, 2, measure).winner == "none"

    def tied(_number, names, seeds):
        return {name: [Measured(1.0, 1.0) for _ in seeds] for name in names}

    assert decide(["none", "policy"], FREE, 2, tied).winner == "none"

    def broken(_number, names, seeds):
        return {name: [Measured(math.nan if name == "none" else 1.0) for _ in seeds] for name in names}

    assert decide(["none", "policy"], FREE, 2, broken).winner == "policy"


def test_a_single_candidate_wins_without_a_training():
    found = decide(["none"], FREE, 3, lambda *_: pytest.fail("nothing to compare"))
    assert (found.winner, found.against, found.trainings) == ("none", "", 0)
