"""The benchmark `role_wise`: its statistics, its plot, the size of its student and the pooled effects."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats

from benchmarks.common.direct_search import Screening
from benchmarks.common.domains import halved, in_domain
from benchmarks.methods import role_wise
from results.analysis.statistics import holm
from search.algorithms.design_matrix import Design
from search.algorithms.factors import genome_of, space_factors
from spaces import Space


def role_wise_rows():
    generator = np.random.default_rng(0)
    accuracies = {arm: (0.9 + 0.01 * n + 0.001 * generator.random(6)).tolist() for n, arm in enumerate(role_wise.ARMS)}
    return [
        {"arm": arm, "accuracy": float(np.mean(values)), "half_width_95": 0.01, "accuracy_by_repetition": values}
        for arm, values in accuracies.items()
    ]


def test_role_wise_gains_are_points_paired_by_repetition(required_keys):
    rows = role_wise_rows()
    summary, by_arm = role_wise.summarize(rows), {row["arm"]: row["accuracy_by_repetition"] for row in rows}
    assert set(summary) | {"size_in_bits", "full_precision_in_bits"} >= required_keys["role_wise"]
    places = {arm: n for n, arm in enumerate(role_wise.ARMS)}
    p = holm([stats.ttest_rel(by_arm["role_wise"], by_arm[other]).pvalue for other in role_wise.OPPONENTS])
    for other, corrected in zip(role_wise.OPPONENTS, p, strict=True):
        points = places["role_wise"] - places[other]
        assert summary[f"role_wise_minus_{other}"] == pytest.approx(points, abs=0.1)
        assert summary[f"p_role_wise_minus_{other}"] == pytest.approx(corrected)


def test_role_wise_is_drawn_from_its_rows_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(role_wise, "PLOT", tmp_path / "role_wise.png")
    role_wise.plot(json.loads(json.dumps(role_wise_rows())))
    with Image.open(tmp_path / "role_wise.png") as picture:
        assert picture.size[0] > 1000


def test_a_student_of_two_bits_is_smaller():
    found = role_wise.model_sizes()
    assert 8 < found["full_precision_in_bits"] / found["size_in_bits"] < 16


def test_a_shared_policy_has_what_helps_both_roles():
    space = Space(("Rotate", "Invert", "Cutout", "Solarize"), genome="scaled")
    levels = tuple(Design.draw(space_factors(space), 24, 0).trials)
    generator = np.random.default_rng(0)

    def screening(role, gains):
        policies = [genome_of(space, each).policy.by_operation() for each in levels]
        losses = [math.exp(0.01 * generator.normal() - sum(gains.get(op, 0) for op in ops)) for ops in policies]
        return Screening(role, space, levels, tuple(-loss for loss in losses))

    teacher = screening("teacher", {"Rotate": 0.3, "Cutout": -0.6, "Invert": -0.3, "Solarize": -0.3})
    student = screening("student", {"Rotate": 0.3, "Cutout": 0.3, "Invert": -0.3, "Solarize": -0.3})
    assert set(student.genome().policy.by_operation()) == {"Rotate", "Cutout"}
    assert set(student.pooled(teacher).genome().policy.by_operation()) == {"Rotate"}
    assert student.pooled(teacher).scores == pytest.approx(teacher.pooled(student).scores)


def test_halved_images_are_means_of_four_pixels():
    data = in_domain("mnist5k", "data", train=20, validation=20, test=20, seed=0)
    small = halved(data)
    assert small.size == 14
    four = data.test.images[:, :, :2, :2].double().mean((1, 2, 3)).round()
    assert torch.equal(small.test.images[:, 0, 0, 0].double(), four)
    assert torch.equal(small.test.labels, data.test.labels)
