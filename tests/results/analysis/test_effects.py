"""Effects of an experiment: recovered within their intervals, compared between the roles, kept in a file."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from results.analysis import bayesian_regression
from results.analysis.bayesian_regression import CoefficientPosterior
from results.analysis.contrasts import ContrastMatrix, Factor
from results.analysis.effects import (
    EffectsReport,
    RoleEffects,
    estimate_effects,
    holds_effects,
    role_differences,
    transform_scores,
)
from search.algorithms.design_matrix import Design
from spaces import RequestError

NOISE, SIZE = 0.47, 0.8
"""SD in points of a training's accuracy (methods of the project, measured), and of the effects that there are."""


def experiment(operations=15):
    """Operations with their strengths and three choices."""
    factors = []
    for index in range(operations):
        factors.append(Factor(f"op{index}", "operation", ("off", "on")))
        factors.append(Factor(f"op{index} strength", "level", ("low", "high"), (f"op{index}", 1)))
    choices = [("amount", (0.5, 1.0)), ("operations", (1, 2)), ("augment", ("identity", "cutmix", "mixup"))]
    return factors + [Factor(name, "choice", levels) for name, levels in choices]


def simulate(matrix, generator, noise=NOISE):
    """A third of the coefficients is not zero: the coefficients, and accuracies in [0, 1]."""
    count = matrix.values.shape[1]
    coefficients = np.where(generator.random(count) < 1 / 3, generator.normal(0, SIZE, count), 0.0)
    return coefficients, observe(matrix, coefficients, generator, noise)


def observe(matrix, coefficients, generator, noise=NOISE):
    return (90 + matrix.values @ coefficients + generator.normal(0, noise, len(matrix.values))) / 100


def truth(factors, matrix, coefficients):
    """The true effects in the order of the estimates."""
    found = []
    for factor in factors:
        means = factor.contrasts @ coefficients[matrix.columns(factor)]
        found += [means[1] - means[0]] if len(means) == 2 else list(means)
    return np.array(found)


# ---- estimates -------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("trials", [24, 48])
def test_intervals_hold_the_truth_at_the_stated_rate_and_large_effects_have_their_sign(trials, monkeypatch):
    """100 simulations each; with 24 trials there are fewer scores than coefficients."""
    from sklearn.linear_model import BayesianRidge

    monkeypatch.setattr(bayesian_regression, "DRAWS", 60)
    factors, generator = experiment(), np.random.default_rng(trials)
    design = Design.draw(factors, trials, 0)
    matrix = ContrastMatrix.of(factors, design.trials)
    held, right, plain, large_held = [], [], [], []
    for _ in range(100):
        coefficients, scores = simulate(matrix, generator)
        effects = estimate_effects("teacher", factors, design.trials, list(scores)).effects
        true = truth(factors, matrix, coefficients)
        inside = [effect.low <= value <= effect.high for effect, value in zip(effects, true, strict=True)]
        held += inside
        large = np.abs(true) > 4 * NOISE / math.sqrt(trials)
        right += [(effects[index].probability > 0.5) == (true[index] > 0) for index in np.flatnonzero(large)]
        large_held += list(np.array(inside)[large])
        ridge = BayesianRidge().fit(matrix.values, 100 * scores)
        plain += list(np.abs(ridge.coef_ - coefficients) < 1.96 * np.sqrt(np.diag(ridge.sigma_)))
    assert 0.90 <= np.mean(held) <= 0.99
    assert np.mean(plain) < np.mean(held), "scikit-learn's ridge is overconfident"
    assert np.mean(large_held) > (0.75 if trials == 24 else 0.85), "large effects are shrunk, but little"
    assert np.mean(right) > (0.9 if trials == 24 else 0.98)


def test_with_many_trials_the_estimate_is_the_difference_of_means():
    factor = Factor("Rotate", "operation", ("off", "on"))
    generator = np.random.default_rng(0)
    trials = [{"Rotate": index % 2} for index in range(400)]
    scores = [0.8 + 0.05 * trial["Rotate"] + generator.normal(0, 0.02) for trial in trials]
    found = estimate_effects("teacher", [factor], trials, scores)
    (effect,) = found.effects
    means = [np.mean(scores[start::2]) for start in (0, 1)]
    assert effect.estimate == pytest.approx(100 * (means[1] - means[0]), rel=0.01)
    assert (effect.high - effect.low) / 2 == pytest.approx(1.96 * 2 * found.sigma / 20, rel=0.02)
    assert found.sigma == pytest.approx(2.0, rel=0.1) and effect.probability > 0.999 and effect.z > 3


def test_levels_of_a_choice_are_compared_with_the_mean_of_all():
    factor = Factor("loss", "choice", ("kd", "dkd", "dist"))
    trials = [{"loss": index % 3} for index in range(300)]
    scores = [(0.80, 0.83, 0.92)[trial["loss"]] + 0.001 * (index // 3 % 2) for index, trial in enumerate(trials)]
    effects = estimate_effects("student", [factor], trials, scores).effects
    assert [effect.levels for effect in effects] == [("kd",), ("dkd",), ("dist",)]
    assert [effect.estimate for effect in effects] == pytest.approx([-5, -2, 7], abs=0.05)
    assert effects[2].label == "loss: dist"


def test_contrasts_give_each_pair_of_levels_the_same_prior_variance():
    for count in (2, 3, 5):
        contrasts = Factor("x", "choice", tuple(range(count))).contrasts
        assert np.allclose(contrasts.sum(axis=0), 0)
        variance = contrasts @ contrasts.T
        pairs = [variance[i, i] + variance[j, j] - 2 * variance[i, j] for i in range(count) for j in range(i)]
        assert np.allclose(pairs, 1)


def test_failed_trials_are_left_out():
    factors = experiment(3)
    design = Design.draw(factors, 16, 0)
    _, scores = simulate(ContrastMatrix.of(factors, design.trials), np.random.default_rng(1))
    some = [math.nan if index in (3, 8) else score for index, score in enumerate(scores)]
    there = [index for index, score in enumerate(some) if not math.isnan(score)]
    given = estimate_effects("teacher", factors, design.trials, some)
    alone = estimate_effects("teacher", factors, [design.trials[i] for i in there], [some[i] for i in there])
    assert given == alone and given.trials == 14
    with pytest.raises(RequestError, match="effects must be estimated from at least 3 scores, got 2"):
        estimate_effects("teacher", factors, design.trials, [0.5, 0.6, *[math.nan] * 14])


def test_equal_scores_have_no_effect():
    factors = experiment(3)
    design = Design.draw(factors, 12, 0)
    for effect in estimate_effects("teacher", factors, design.trials, [0.5] * 12).effects:
        assert effect.estimate == pytest.approx(0, abs=1e-3) and effect.low <= 0 <= effect.high


def test_the_posterior_does_not_depend_on_the_unit():
    factors = experiment(3)
    design = Design.draw(factors, 16, 0)
    matrix = ContrastMatrix.of(factors, design.trials)
    _, scores = simulate(matrix, np.random.default_rng(2))
    one, two = (CoefficientPosterior.fit(matrix, scores * unit) for unit in (1.0, 100.0))
    row = np.eye(len(matrix.factors))[0]
    assert [100 * number for number in one.marginal(row)[:3]] == pytest.approx(two.marginal(row)[:3], rel=1e-6)


def test_a_cross_entropy_is_told_from_an_accuracy_by_its_sign():
    assert transform_scores([0.0, 0.9])[0] == "accuracy"
    kind, values = transform_scores([-0.25, math.nan, -1.0])
    assert kind == "cross_entropy" and values[0] == pytest.approx(math.log(4)) and math.isnan(values[1])


# ---- the roles -------------------------------------------------------------------------------------


def roles(generator, moved=0.0, trials=48):
    """Both roles with the same effects, but that the student's first is `moved` points larger."""
    factors = experiment(10)
    designs = [Design.draw(factors, trials, seed) for seed in (0, 1)]
    matrices = [ContrastMatrix.of(factors, design.trials) for design in designs]
    coefficients, teacher = simulate(matrices[0], generator, 0.3)
    coefficients[0] += moved
    student = observe(matrices[1], coefficients, generator, 0.6)
    return [
        estimate_effects(role, factors, design.trials, list(scores))
        for role, design, scores in zip(("teacher", "student"), designs, (teacher, student), strict=True)
    ]


def test_a_difference_between_the_roles_is_found():
    report = EffectsReport({})
    for effects in roles(np.random.default_rng(0), moved=2.5):
        report = report.with_role(effects)
    assert [each.factor for each in report.different] == ["op0"]
    first = report.differences[0]
    assert first.low < 2.5 < first.high and first.p <= first.p_holm < 0.05
    assert "op0 (p = " in report.describe()[-1]
    for each in report.differences:
        assert math.isnan(each.p_holm) == (each.kind != "operation"), "the correction is over operations"


@pytest.mark.slow
def test_roles_with_the_same_effects_are_rarely_told_apart(monkeypatch):
    """A family-wise rate of 5 % in 25 simulations: more than 4 are less likely than 1 %."""
    monkeypatch.setattr(bayesian_regression, "DRAWS", 60)
    generator = np.random.default_rng(5)
    wrong = sum(any(each.significant for each in role_differences(*roles(generator))) for _ in range(25))
    assert wrong <= 4


def test_effects_on_other_scales_are_not_compared():
    teacher, student = roles(np.random.default_rng(0))
    other = RoleEffects("student", "cross_entropy", student.trials, 0.1, student.effects)
    with pytest.raises(RequestError, match="the roles must have effects of one score"):
        role_differences(teacher, other)
    report = EffectsReport({}).with_role(other).with_role(teacher)
    assert list(report.roles) == ["teacher", "student"] and report.differences == ()
    assert report.describe()[-1] == "the roles were scored differently, so their effects are not compared"


def test_a_short_table_has_the_strength_beside_its_operation():
    (effects, _) = roles(np.random.default_rng(0))
    policy = {"op0": "on", "op0 strength": "high", "op1": "on", "op1 strength": "middle", "op2": "off"}
    shown = replace(effects, policy=policy).text_table(strengths=False).rows
    chosen = {row[0]: row[-1] for row in shown}
    assert (chosen["op0"], chosen["op1"], chosen["op2"]) == ("on, high", "on, middle", "off")
    assert not any("strength" in name for name in chosen)


# ---- the file --------------------------------------------------------------------------------------


def test_the_file_is_read_as_it_was_written(tmp_path):
    report = EffectsReport({})
    for effects in roles(np.random.default_rng(0)):
        report = report.with_role(effects)
    path = report.save(tmp_path / "effects.json")
    again = EffectsReport.load(path)
    assert json.dumps(again.to_json()) == json.dumps(report.to_json())
    assert again.roles == report.roles and holds_effects(path)
    assert again.markdown() == report.markdown()
    assert len(report.text_table().rows) == 2 * len(report.roles["teacher"].effects)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "effects must be an object with format: roletune.effects"),
        ("{", "is not JSON"),
        ('{"format": "roletune.effects", "version": 2}', "the version of effects must be 1, got 2; update roletune"),
        ('{"format": "roletune.effects", "version": 1}', "effects must hold every field of every role"),
        (
            '{"format": "roletune.effects", "version": 1, "roles": {"judge": {"score": "loss"}}, "differences": []}',
            "effects must be those of a role and of a score",
        ),
    ],
)
def test_another_file_is_refused(tmp_path, content, message):
    path = tmp_path / "effects.json"
    path.write_text(content)
    with pytest.raises(RequestError, match=message):
        EffectsReport.load(path)


def test_a_file_that_is_missing_is_refused(tmp_path):
    with pytest.raises(RequestError, match="cannot read the file of effects"):
        EffectsReport.load(tmp_path / "effects.json")
    assert not holds_effects(tmp_path / "effects.json")
