"""The training-step benchmark: its arms, its naive loop and its timers."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from benchmarks.training.naive_loop import PilDataset, distillation_loss, naive_epochs
from benchmarks.training.step import build_student, digits_task, shaped_task, strong_genome
from benchmarks.training.step_parts import PARTS, attach_timer, time_parts
from spaces import OPERATIONS
from trainables.losses import kd_loss


def test_the_naive_loop_has_the_same_loss():
    logits, answers = torch.randn(2, 16, 10, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(16) % 10
    expected = 0.1 * F.cross_entropy(logits, labels) + 0.9 * kd_loss(logits, answers, 4.0)
    torch.testing.assert_close(distillation_loss(4.0, 0.9)(logits, answers, labels), expected)


def test_the_naive_loop_trains_on_pictures_of_the_same_images():
    task = shaped_task("resnet8", "resnet8", 8, 4, seed=0)
    loss, accuracy = naive_epochs(task, 0, torch.device("cpu"))(0)
    assert 0 < loss < 20 and 0 <= accuracy <= 1
    for data in (task.data, digits_task("mlp", 0).data):
        pictures = PilDataset(replace(data, crop=0, flip=False))
        images, labels = next(iter(data.train.batches(4)))
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (data.mean, data.std))
        for index in range(4):
            seen, label = pictures[index]
            torch.testing.assert_close(seen, (images[index] / 255 - mean) / std)
            assert label == labels[index]


def test_timers_leave_the_training_as_it_is_and_account_for_all_of_it():
    task = shaped_task("resnet8", "resnet8", 8, 4, seed=0)
    plain, timed = (build_student(task, "policy", 0, "cpu") for _ in range(2))
    timer = attach_timer(timed)
    timer.train_epoch(timed)
    plain.step()
    for one, other in zip(plain.model.parameters(), timed.model.parameters(), strict=True):
        assert torch.equal(one, other)
    assert tuple(timer.seconds) == PARTS and min(timer.seconds.values()) > 0
    assert min(time_parts(build_student(task, "plain", 0, "cpu"), 1).values()) > 0


@pytest.mark.parametrize(
    ("arm", "channels_last"),
    [("plain", True), ("contiguous", False)],
)
def test_the_variants_are_what_they_are_called(arm, channels_last):
    student = build_student(shaped_task("resnet8", "resnet8", 8, 4, seed=0), arm, 0, "cpu")
    assert student.model.conv1.weight.is_contiguous(memory_format=torch.channels_last) == channels_last


def test_the_policy_is_a_full_and_strong_one():
    policy = strong_genome(0).policy
    assert len(policy) == 30 and {entry.op for entry in policy} == set(OPERATIONS)
    assert all(entry.probability >= 5 and entry.magnitude >= 5 for entry in policy)
    assert strong_genome(0) == strong_genome(0) != strong_genome(1)


def test_the_digits_case_is_the_demos_student():
    task = digits_task("mlp", 0)
    assert (task.role, task.model, task.teacher.model) == ("student", "mlp", "resnet8")
    assert (len(task.data.train), task.recipe.batch_size, task.distill.alpha) == (100, 20, 0.9)
