"""The benchmark `projection`: its images, teachers, arms and statistics."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from benchmarks.methods import projection
from results.analysis.statistics import holm
from spaces.core.seeding import seeded_generator
from trainables.data import TensorImages


def test_image_is_placed_in_its_corner_only():
    pixels = torch.randint(1, 256, (8, 1, 3, 3), generator=seeded_generator(0), dtype=torch.uint8)
    images = TensorImages(pixels, torch.arange(8))
    corners = torch.tensor([0, 1, 2, 3, 3, 2, 1, 0])
    found = projection.place_in_corners(images, corners)
    assert torch.equal(found.labels, images.labels) and found.images.shape == (8, 1, 6, 6)
    for canvas, image, corner in zip(found.images[:, 0], pixels[:, 0], corners.tolist(), strict=True):
        top, left = 3 * (corner // 2), 3 * (corner % 2)
        assert torch.equal(canvas[top : top + 3, left : left + 3], image) and (canvas > 0).sum() == 9
    everywhere, where = projection.place_in_all_corners(images)
    assert torch.equal(everywhere.labels, torch.arange(8).repeat_interleave(4)) and where[:5].tolist() == [
        0,
        1,
        2,
        3,
        0,
    ]
    assert torch.equal(everywhere.images[where == 2], projection.place_in_corners(images, torch.full((8,), 2)).images)


def test_teachers_train_on_more_digits_than_the_student_and_never_on_held_out_ones():
    setting = replace(projection.QUICK, train=40, teacher_train=200)
    data, same, other = projection.build_data(3, setting)
    assert [len(part) for part in (data.train, data.validation, data.test)] == [40, 4 * 300, 4 * 597]
    assert (data.classes, same.classes, other.classes) == (10, 10, 4) and (data.crop, data.flip) == (0, False)
    assert len(same.train) == 800 and torch.equal(same.train.images, other.train.images)
    digits = [
        {bytes(image.numpy()) for image in part.images} for part in (data.train, same.train, data.validation, data.test)
    ]
    assert digits[0] < digits[1] and not digits[1] & digits[2] and not digits[1] & digits[3]
    assert other.train.labels.bincount().tolist() == [200] * 4
    upper = other.train.images[:, :, :8].flatten(1).sum(1) > 0
    assert torch.equal(upper, other.train.labels < 2)


def test_random_teacher_differs_from_its_initial_weights_in_statistics_only():
    data, *_ = projection.build_data(0, projection.QUICK)
    teacher = projection.random_teacher(data, seed=7)
    drawn = projection.build_model(projection.TEACHER, seed=7, classes=10, channels=1, size=16).state_dict()
    changed = {name for name, value in teacher.weights.items() if not torch.equal(value, drawn[name])}
    assert {name.rpartition(".")[2] for name in changed} == {"running_mean", "running_var", "num_batches_tracked"}
    network = teacher.freeze(data).model
    images = projection.Normalize(data, torch.device("cpu"))(data.train.images)
    shown = network[:2](images)  # the first convolution and what normalizes it
    assert shown.mean((0, 2, 3)).abs().max() < 1e-4 and (shown.std((0, 2, 3)) - 1).abs().max() < 1e-2


def test_every_arm_gives_the_labels_the_same_weight():
    assert len(projection.ARMS) == 3 + 3 * (2 + 3 + 3) == len(set(projection.ARMS))
    for arm in projection.ARMS:
        for weight in arm.weights:
            distill = arm.distill(weight)
            (term,) = distill.terms
            assert distill.alpha == projection.ALPHA and term.loss.kind == arm.loss
            assert distill.alpha * term.weight == pytest.approx(weight)
            assert arm.loss not in projection.LOSSES or term.loss.projection == arm.projection
    assert projection.LABELS.distill(0.0).alpha == 0.0 and not projection.LABELS.weights


def test_a_projection_is_compared_over_the_losses_and_corrected_over_the_teachers(required_keys):
    added = {"none": 0.01, "student": 0.02, "inverted": 0.05}
    arms = {arm: added[arm.projection] + (0.03 if arm.teacher == "same" else 0.0) for arm in projection.FEATURES}
    arms |= {projection.LABELS: 0.0, projection.SPECTRAL: -0.01, projection.KD: 0.1}
    wobble = {arm: 0.004 * np.cos(np.arange(5) * (place + 1)) for place, arm in enumerate(arms)}
    seeds = {arm: (0.8 + change + wobble[arm]).tolist() for arm, change in arms.items()}
    rows = [{**arm._asdict(), "accuracy": 0.8, "accuracy_by_seed": by_seed} for arm, by_seed in seeds.items()]
    rows += [{**arm._asdict(), "accuracy": None} for arm in projection.IMPOSSIBLE]
    summary = projection.summarize([*rows, {"teacher": "same", "accuracy": 1.0, "accuracy_by_seed": [1.0] * 5}])
    assert required_keys["projection"] <= set(summary) and summary["seeds"] == 5
    assert summary["spectral_minus_none"] == pytest.approx(-1, abs=0.5)
    assert summary["student_minus_none_same"] == pytest.approx(5, abs=0.5)

    def mean(teacher, projected):
        return np.mean([seeds[projection.Arm(teacher, loss, projected)] for loss in projection.LOSSES], axis=0)

    gains = [100 * (mean(teacher, "inverted") - mean(teacher, "student")) for teacher in projection.TEACHERS]
    found = [summary[f"inverted_minus_student_{teacher}"] for teacher in projection.TEACHERS]
    assert found == pytest.approx([gain.mean() for gain in gains]) and found == pytest.approx([3] * 3, abs=0.5)
    p = [stats.ttest_1samp(gain, 0).pvalue for gain in gains]
    corrected = [summary[f"p_inverted_minus_student_{teacher}"] for teacher in projection.TEACHERS]
    assert corrected == pytest.approx(holm(p))
    alone = stats.ttest_rel(seeds[projection.KD], seeds[projection.LABELS]).pvalue
    assert summary["p_kd_minus_none"] == pytest.approx(alone)
