"""The benchmark `validation`: quality of a selection by score, in closed form where there is one."""

from __future__ import annotations

import math
from dataclasses import asdict

import numpy as np
import pytest
from scipy import stats

from benchmarks.training.selection import (
    RULES,
    PopulationModel,
    PopulationStatistics,
    apply_rule,
    correlation,
    sample_scores,
    selection_quality,
)

LIKE_DIGITS = PopulationModel(level=1.5, spread=0.1, epoch_noise=0.05, member_correlation=0.7, epoch_correlation=0.85)


def members(*accuracies, pool=1000, apart=True):
    """Members of these accuracies on a pool; who errs where is drawn if `apart`, else the worse err where others do."""
    draw, right = np.random.default_rng(3), np.zeros((len(accuracies), 1, pool), bool)
    for member, accuracy in zip(right, accuracies, strict=True):
        member[0, draw.permutation(pool)[: round(accuracy * pool)] if apart else slice(round(accuracy * pool))] = True
    return right


def test_scores_are_shares_of_the_images_the_same_for_all():
    right = np.repeat(LIKE_DIGITS.sample(3, 2, 400, 0)[:1], 2, axis=0)
    scored = sample_scores(right, 37, draws=50, seed=1)
    assert scored.shape == (50, 2, 2) and np.allclose(scored * 37, np.rint(scored * 37))
    assert np.array_equal(scored[:, 0], scored[:, 1]), "two that answer alike have the same score"
    assert scored[:, 0, 0].mean() == pytest.approx(right[0, 0].mean(), abs=4 * 0.5 / math.sqrt(37 * 50))


@pytest.mark.parametrize("size", [100, 1000])
def test_the_better_of_two_is_picked_as_often_as_the_normal_law_of_their_difference_says(size):
    right = members(0.9, 0.88)
    difference = right[0, 0].astype(float) - right[1, 0]
    expected = stats.norm.cdf(difference.mean() / (difference.std() / math.sqrt(size)))
    found = selection_quality(sample_scores(right, size, draws=4000, seed=0)[..., -1], right[:, -1].mean(axis=1), 0.5)
    assert found.ordered_pairs == pytest.approx(expected, abs=0.03)


def test_members_with_common_errors_are_ordered_better():
    """Where the worse one errs where the other does and elsewhere too, it is never ahead."""
    rates = [
        selection_quality(
            sample_scores(right, 200, draws=500, seed=0)[..., -1], right[:, -1].mean(axis=1), 0.5
        ).ordered_pairs
        for right in (members(0.9, 0.88), members(0.9, 0.88, apart=False))
    ]
    assert rates[0] < 0.85 < 0.97 < rates[1]


def test_rules():
    scored = np.array([[[0.5, 0.9, 0.7]]])
    assert [apply_rule(scored, rule, 3).item() for rule in RULES] == pytest.approx([0.7, 0.7, 0.9])
    assert [apply_rule(scored, rule, 2).item() for rule in RULES] == pytest.approx([0.7, 0.8, 0.9])


def test_a_perfect_score_a_reversed_one_and_none():
    truth = np.array([0.9, 0.8, 0.7, 0.6])
    perfect, reversed_, none = (selection_quality(score[None], truth, 0.25) for score in (truth, -truth, np.zeros(4)))
    assert asdict(perfect) == {"ordered_pairs": 1, "best": 1, "quantile": 1, "regret": 0}
    assert (reversed_.ordered_pairs, reversed_.best, reversed_.quantile) == (0, 0, 0)
    assert reversed_.regret == pytest.approx(0.3) and none.ordered_pairs == 0.5


def test_among_equals_any_choice_is_right():
    found = selection_quality(np.array([[0.1, 0.2, 0.3, 0.4]]), np.full(4, 0.5), 0.25)
    assert math.isnan(found.ordered_pairs) and (found.best, found.quantile, found.regret) == (1, 1, 0)


@pytest.mark.parametrize("rho", [0.0, 0.4, 0.9])
def test_correlation_is_recovered(rho):
    draw = np.random.default_rng(0).standard_normal((2, 400_000))
    other = rho * draw[0] + math.sqrt(1 - rho**2) * draw[1]
    assert correlation(1.3, float(((draw[0] > -1.3) != (other > -1.3)).mean())) == pytest.approx(rho, abs=0.01)


def test_fit_recovers_the_model():
    """The mean over twenty drawn populations of what is fitted to each."""
    fitted = [PopulationStatistics.measure(LIKE_DIGITS.sample(8, 4, 1697, seed)).fit(1697, 4) for seed in range(20)]
    means = {name: np.mean([asdict(one)[name] for one in fitted]) for name in asdict(LIKE_DIGITS)}
    assert means == pytest.approx(asdict(LIKE_DIGITS), rel=0.06)


def test_population_statistics_in_closed_form():
    right = np.zeros((2, 2, 10), bool)
    right[0, 0, :8] = right[0, 1, :6] = True
    right[1, 0, :5] = right[1, 1, 5:] = True
    found = PopulationStatistics.measure(right)
    assert found.accuracy == pytest.approx((0.7 + 0.5) / 2) and found.spread == pytest.approx(0.2 / math.sqrt(2))
    assert found.disagreement == pytest.approx((0.3 + 0.9) / 2) and found.epoch_disagreement == pytest.approx(
        (0.2 + 1.0) / 2
    )
    assert found.epoch_noise == pytest.approx(math.sqrt((2 * 0.1**2 + 0) / 2))
