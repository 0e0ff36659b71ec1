"""The bandit: its model against closed forms, what it chooses, and that it beats chance where there is a pattern."""

import math
from statistics import fmean

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from search.algorithms.gaussian_process import LEAST, MOST, REACH, Bound, Posterior, TimeVaryingBandit, fitted
from spaces import Space
from spaces.search_space.encoding import encode

SPACE = Space(operations=("Rotate", "Invert"), copies=1)
INTERVAL = 3


def generator(*seed):
    return np.random.default_rng(seed)


def some(space, *seed):
    return space.random(generator(*seed))


def posterior(seed=0, n=6, d=3, **k):
    draw = generator(seed)
    parameters = {"length": 0.7, "epsilon": 0.1, "noise": 0.2} | k
    return Posterior(draw.uniform(size=(n, d)), draw.integers(0, 4, n).astype(float), draw.normal(size=n), **parameters)


# The model -----------------------------------------------------------------------------------------------------------


def test_the_posterior_of_two_points_is_the_closed_form():
    """Two points in one dimension, two intervals apart: the inverse of a 2 × 2 matrix by hand."""
    model = Posterior(np.array([[0.2], [0.6]]), np.array([1.0, 3.0]), np.array([1.0, -1.0]), 0.5, 0.19, 0.25)
    b = 0.75 * math.exp(-(0.4**2) / 0.5) * 0.81  # (1 − 0.19)^(2 / 2)
    k = [0.75 * math.exp(-(0.1**2) / 0.5) * 0.9**2 * 0.9, 0.75 * math.exp(-(0.3**2) / 0.5) * 0.9]
    determinant = 1 - b * b
    mean = (k[0] * (1 + b) - k[1] * (1 + b)) / determinant
    variance = 0.75 - (k[0] ** 2 - 2 * b * k[0] * k[1] + k[1] ** 2) / determinant
    at = model.at(np.array([[0.3]]), np.array([4.0]))
    assert at[0] == pytest.approx([mean])
    assert at[1] == pytest.approx([math.sqrt(variance)])


def test_the_evidence_is_the_density_of_what_was_observed():
    model = posterior()
    covariance = model.kernel(model.x, model.t) + 0.2 * np.eye(6)
    density = multivariate_normal(np.zeros(6), covariance).logpdf(model.y)
    assert model.evidence - 3 * math.log(2 * math.pi) == pytest.approx(density)


def test_far_away_and_long_ago_nothing_is_known():
    model = posterior()
    for x, t in ((np.full((1, 3), 100.0), np.zeros(1)), (model.x[:1], np.full(1, 1e6))):
        mean, deviation = model.at(x, t)
        assert mean == pytest.approx([0])
        assert deviation == pytest.approx([math.sqrt(0.8)])


@pytest.mark.parametrize("noise", [0.03, 0.6])
def test_fitting_tells_noise_from_signal(noise):
    """On 200 observations of a process, with more or less noise, the parameters that made them are found again."""
    draw = generator(5)
    x, t = draw.uniform(size=(200, 4)), np.repeat(np.arange(10.0), 20)
    made = Posterior(x, t, np.zeros(200), 0.25 * 2, 0.1, noise)
    y = np.linalg.cholesky(made.kernel(x, t) + noise * np.eye(200)) @ draw.normal(size=200)
    assert fitted(x, t, y).noise == noise


@pytest.mark.parametrize("waiting", [0, 1, 4])
def test_the_bound_is_mean_plus_deviation_and_its_slope_is_its_own(waiting):
    model, draw = posterior(), generator(1)
    x, t = draw.uniform(size=(waiting, 3)), np.full(waiting, 4.0)
    bound, place = Bound(model, x, t, 4.0), draw.uniform(size=3)
    value, slope = bound(place)
    mean, deviation = model.at(place[None], np.array([4.0]))
    if not waiting:
        assert value == pytest.approx(mean[0] + math.sqrt(0.2 + math.log(0.4 * 6)) * deviation[0])
    step = 1e-6 * np.eye(3)
    differences = [(bound(place + h)[0] - bound(place - h)[0]) / 2e-6 for h in step]
    np.testing.assert_allclose(slope, differences, rtol=1e-5, atol=1e-8)


def test_where_somebody_is_already_the_bound_is_lower_by_deviation_alone():
    model = posterior()
    place = np.full(3, 0.5)
    free = Bound(model, np.empty((0, 3)), np.empty(0), 4.0)(place)[0]
    taken = Bound(model, place[None], np.array([4.0]), 4.0)(place)[0]
    (mean,), (before,) = model.at(place[None], np.array([4.0]))
    after = math.sqrt(1 / (1 / before**2 + 1 / 0.2))  # one more observation of that very place
    assert taken - mean == pytest.approx((free - mean) * after / before)


# What it chooses -----------------------------------------------------------------------------------------------------


def taught(space=SPACE, count=24, gain=lambda vector: float(vector[0]), interval=INTERVAL):
    bandit = TimeVaryingBandit(space, interval)
    for index in range(count):
        genome = some(space, 7, index)
        bandit.observe(interval * (1 + index // 8), genome, gain(encode(space, genome)))
    return bandit


def test_without_enough_to_learn_from_the_spaces_own_rule_explores():
    known = {
        "nothing": [],
        "few": [(some(SPACE, index), 0.1 * index) for index in range(LEAST - 1)],
        "one genome": [(SPACE.zero(), 0.1 * index) for index in range(20)],
        "no difference": [(some(SPACE, index), 0.1 + index * 1e-16) for index in range(20)],
    }
    for observations in known.values():
        bandit = TimeVaryingBandit(SPACE, INTERVAL)
        for genome, gain in observations:
            bandit.observe(3, genome, gain)
        assert bandit.explore(some(SPACE, 1), generator(2), 3) == SPACE.explore(some(SPACE, 1), generator(2))


def test_what_pays_is_chosen_within_reach_of_what_the_space_proposes():
    """Here the first number pays, and the second costs: one goes up as far as it can be, the other down."""
    bandit = taught(gain=lambda vector: float(vector[0] - vector[1]), count=60)
    for seed in range(10):
        bandit.begin(100 * seed)
        proposed = encode(SPACE, SPACE.explore(some(SPACE, seed), generator(seed)))
        chosen = encode(SPACE, bandit.explore(some(SPACE, seed), generator(seed), 24))
        assert (np.abs(chosen - proposed) <= REACH + 0.5 / 9 + 1e-9).all()
        assert chosen[0] == pytest.approx(min(proposed[0] + REACH, 1))
        assert chosen[1] == pytest.approx(max(proposed[1] - REACH, 0), abs=0.5 / 9)


CONDITIONAL = Space(
    operations=("Rotate",),
    copies=1,
    augment=("identity", "cutmix", "mixup"),
    distill={"loss": ["kd", {"dkd": {"beta": {"low": 0.5, "high": 8.0}}}], "temperature": {"low": 1, "high": 8}},
)


def test_choices_are_the_proposals_and_so_are_the_ranges_that_there_are():
    bandit = taught(CONDITIONAL, gain=lambda vector: float(vector[-1]))
    seen = set()
    for seed in range(30):
        proposed = CONDITIONAL.explore(some(CONDITIONAL, seed), generator(seed))
        chosen = bandit.explore(some(CONDITIONAL, seed), generator(seed), 9)
        assert chosen.augment == proposed.augment
        assert type(chosen.distill["loss"]) is type(proposed.distill["loss"])
        assert chosen.distill["temperature"] >= proposed.distill["temperature"], "it pays"
        seen.add((chosen.augment, str(type(chosen.distill["loss"]))))
    assert len(seen) == 6


def test_a_space_without_numbers_explores_its_choices():
    space = Space(operations=(), augment=("identity", "cutmix"))
    bandit = TimeVaryingBandit(space, INTERVAL)
    for index in range(20):
        bandit.observe(3, some(space, index), 0.1 * index)
    assert bandit.explore(space.zero(), generator(1), 3) == space.explore(space.zero(), generator(1))


def test_of_one_perturbation_no_two_copies_go_to_the_same_place():
    """The same donor and the same draws: only what was chosen before tells them apart, until that is over."""
    bandit = taught()
    first, second = (bandit.explore(some(SPACE, 1), generator(1), 9) for _ in range(2))
    assert first != second
    bandit.begin(9)
    assert bandit.explore(some(SPACE, 1), generator(1), 9) != first, "they are still being trained"
    bandit.begin(12)
    assert bandit.explore(some(SPACE, 1), generator(1), 9) == first


def test_the_same_calls_have_the_same_answers():
    runs = []
    for _ in range(2):
        bandit = taught()
        runs.append([bandit.explore(some(SPACE, seed), generator(seed), 9) for seed in range(5)])
    assert runs[0] == runs[1]


@pytest.mark.parametrize("gain", [math.nan, math.inf, -math.inf])
def test_what_is_not_known_says_nothing(gain):
    bandit = taught()
    bandit.observe(9, some(SPACE, 1), gain)
    assert bandit.explore(some(SPACE, 2), generator(3), 9) == taught().explore(some(SPACE, 2), generator(3), 9)


def test_gains_count_by_their_differences_and_epochs_by_intervals():
    plain = taught().explore(some(SPACE, 2), generator(3), 9)
    scaled = taught(gain=lambda vector: 5 + 0.25 * float(vector[0])).explore(some(SPACE, 2), generator(3), 9)
    longer = taught(interval=6).explore(some(SPACE, 2), generator(3), 18)
    assert plain == scaled == longer


def test_only_the_latest_observations_are_learned_from():
    forgetful = TimeVaryingBandit(SPACE, INTERVAL)
    for index in range(30):
        forgetful.observe(3, some(SPACE, 1, index), 100.0 * index)
    fresh = TimeVaryingBandit(SPACE, INTERVAL)
    for bandit in (forgetful, fresh):
        for index in range(MOST):
            bandit.observe(6, some(SPACE, 2, index), float(index % 7))
    assert forgetful.explore(some(SPACE, 3), generator(3), 6) == fresh.explore(some(SPACE, 3), generator(3), 6)


# Against chance ------------------------------------------------------------------------------------------------------


class Chance:
    """The space's own rule, called as a bandit is."""

    def __init__(self, space, interval):
        self.space = space

    def begin(self, epoch):
        pass

    def observe(self, epoch, genome, gain):
        pass

    def explore(self, genome, draw, epoch):
        return self.space.explore(genome, draw)


def regret(source, seed, space, population=8, generations=12):
    """The mean of what members lose by not being at the optimum, a quadratic's, which drifts as training goes on.

    Gains are seen with noise and become smaller with time; the worst quarter copies one of the best quarter.
    """
    draw = generator(seed, 0)
    width = len(encode(space, space.zero()))
    start, end = draw.uniform(0.1, 0.9, (2, width))
    genomes, scores, losses = [space.zero()] * population, np.zeros(population), []
    bandit = source(space, INTERVAL)
    for generation in range(1, generations + 1):
        optimum = start + 0.3 * (end - start) * generation / generations
        loss = np.array([3 * ((encode(space, genome) - optimum) ** 2).mean() for genome in genomes])
        losses.append(loss.mean())
        gains = 0.9**generation * (1 - loss) + 0.02 * draw.normal(size=population)
        scores = scores + gains
        bandit.begin(INTERVAL * generation)
        for genome, gain in zip(genomes, gains, strict=True):
            bandit.observe(INTERVAL * generation, genome, gain / INTERVAL)
        ranked, quarter = np.argsort(-scores), population // 4
        for target in ranked[-quarter:]:
            donor = ranked[draw.integers(quarter)]
            place = generator(seed, generation, target)
            genomes[target] = bandit.explore(genomes[donor], place, INTERVAL * generation)
            scores[target] = scores[donor]
    return fmean(losses)


@pytest.mark.parametrize("space", [SPACE, Space(operations=("Rotate", "Invert", "Color", "Contrast"))])
def test_it_loses_less_than_the_spaces_own_rule(space):
    ours, chance = ([regret(source, seed, space) for seed in range(12)] for source in (TimeVaryingBandit, Chance))
    assert fmean(ours) < fmean(chance)
    assert sum(a < b for a, b in zip(ours, chance, strict=True)) >= 8
