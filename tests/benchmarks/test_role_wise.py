"""The benchmark `role_wise`: its statistics, its plot and the size of its student."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from benchmarks.methods import role_wise
from benchmarks.training.step import digits_task
from trainables.quantization import Bits


def role_wise_rows():
    generator, rows = np.random.default_rng(0), []
    for place, arm in enumerate(role_wise.ARMS):
        by_seed = (0.9 + 0.01 * place + 0.001 * generator.random(6)).tolist()
        strength = [0.1 * one for one in range(6 * 15)]
        rows.append({"arm": arm, "accuracy": 0.9, "half_width_95": 0.01, "accuracy_by_seed": by_seed})
        rows[-1] |= {"strength_by_seed": strength} if arm not in (role_wise.NONE, role_wise.TRIVIAL) else {}
    return rows


def test_role_wise_gains_are_points_paired_by_repetition(required_keys):
    rows = role_wise_rows()
    summary, seeds = role_wise.summarize(rows), {row["arm"]: row["accuracy_by_seed"] for row in rows}
    assert len(summary) == 2 * 5 and set(summary) <= required_keys["role_wise"]
    for arm, points in (("none", 3), ("teacher_schedule", 2), ("student_only", 1), ("trivialaugment", -3)):
        assert summary[f"role_wise_minus_{arm}"] == pytest.approx(points, abs=0.1)
        p = stats.ttest_rel(seeds["role_wise"], seeds[arm]).pvalue
        assert summary[f"p_role_wise_minus_{arm}"] == pytest.approx(p)


def test_role_wise_is_drawn_from_its_rows_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(role_wise, "PLOT", tmp_path / "role_wise.png")
    role_wise.plot(json.loads(json.dumps(role_wise_rows())))
    with Image.open(tmp_path / "role_wise.png") as picture:
        assert picture.size[0] > 1000


def test_a_student_of_two_bits_is_smaller():
    task = replace(digits_task("resnet8", 0), bits=Bits(2, 2))
    found = role_wise.model_sizes(task)
    assert 8 < found["full_precision_in_bits"] / found["size_in_bits"] < 16
    assert role_wise.FULL.epochs % role_wise.FULL.interval == 0, "all slices are of one length"
