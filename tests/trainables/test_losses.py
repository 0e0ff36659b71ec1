"""The distillation loss against closed forms in float64."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax, softmax

from trainables.losses import kd_loss

shapes = st.tuples(st.integers(1, 6), st.integers(2, 12))
temperatures = st.floats(0.5, 30)
seeds = st.integers(0, 2**32 - 1)
unhurried = settings(derandomize=True, deadline=None, max_examples=60)


def logits(shape, seed, spread=3.0):
    """Student's and teacher's, (B, C) float32 each."""
    random = np.random.default_rng(seed)
    return (torch.tensor(spread * random.standard_normal(shape), dtype=torch.float32) for _ in range(2))


def closed_form(student, teacher, temperature):
    """T² · mean over the batch of Σ p · (log p − log q), in float64."""
    s, t = (x.double().numpy() / temperature for x in (student, teacher))
    divergence = (softmax(t, axis=1) * (log_softmax(t, axis=1) - log_softmax(s, axis=1))).sum(axis=1)
    return temperature**2 * divergence.mean()


@given(shapes, temperatures, seeds)
@unhurried
def test_closed_form(shape, temperature, seed):
    student, teacher = logits(shape, seed)
    loss = kd_loss(student, teacher, temperature)
    assert loss.shape == () and loss.dtype == torch.float32
    # The terms cancel down from T² · 2⁻²⁴ or so, which float32 cannot see below.
    expected = closed_form(student, teacher, temperature)
    assert float(loss) == pytest.approx(expected, rel=1e-4, abs=1e-6 * temperature**2)


def test_two_classes_by_hand():
    """p = (3/4, 1/4), q = (1/2, 1/2): KL = ln 2 − (2 ln 2 − ¾ ln 3)."""
    student, teacher = torch.zeros(1, 2), torch.tensor([[3.0, 1.0]]).log()
    assert float(kd_loss(student, teacher, 1.0)) == pytest.approx(0.75 * np.log(3) - np.log(2), rel=1e-5)
    assert float(kd_loss(student, 2 * teacher, 2.0)) == pytest.approx(4 * (0.75 * np.log(3) - np.log(2)), rel=1e-5)


@given(shapes, temperatures, seeds)
@unhurried
def test_gradient_is_t_over_b_times_the_difference_of_the_softmaxes(shape, temperature, seed):
    student, teacher = logits(shape, seed)
    student.requires_grad_()
    teacher.requires_grad_()
    kd_loss(student, teacher, temperature).backward()
    s, t = (x.detach().double().numpy() / temperature for x in (student, teacher))
    expected = temperature / shape[0] * (softmax(s, axis=1) - softmax(t, axis=1))
    np.testing.assert_allclose(student.grad.numpy(), expected, rtol=1e-3, atol=1e-5)
    assert teacher.grad is None


@given(shapes, seeds)
@unhurried
def test_gradient_does_not_depend_on_a_high_temperature(shape, seed):
    """For T → ∞ it is the difference of the centred logits over B · C; without T² it would fall to 1/16 in between."""
    student, teacher = logits(shape, seed)
    student.requires_grad_()
    norms = []
    for temperature in (50.0, 200.0):
        (gradient,) = torch.autograd.grad(kd_loss(student, teacher, temperature), student)
        norms.append(float(gradient.norm()))
    difference = (student - teacher).detach()
    limit = float((difference - difference.mean(1, keepdim=True)).norm()) / (shape[0] * shape[1])
    assert norms[1] == pytest.approx(limit, rel=0.1, abs=1e-3) and norms[0] == pytest.approx(
        norms[1], rel=0.2, abs=1e-3
    )


@given(shapes, temperatures, seeds)
@unhurried
def test_nothing_to_learn_from_equal_answers(shape, temperature, seed):
    student, teacher = logits(shape, seed)
    student.requires_grad_()
    same = kd_loss(student, student.detach().clone(), temperature)
    same.backward()
    assert float(same.detach()) == pytest.approx(0, abs=1e-6 * temperature**2)
    assert float(student.grad.abs().max()) <= 1e-6 * temperature
    assert float(kd_loss(student.detach(), teacher, temperature)) > -1e-6 * temperature**2


@given(shapes, temperatures, seeds, st.floats(-20, 20))
@unhurried
def test_a_constant_added_to_the_logits_of_an_image_changes_nothing(shape, temperature, seed, shift):
    student, teacher = logits(shape, seed)
    expected = kd_loss(student, teacher, temperature)
    shifted = kd_loss(student + shift, teacher - 2 * shift, temperature)
    torch.testing.assert_close(shifted, expected, rtol=1e-3, atol=1e-5 * temperature**2)


def test_mean_over_the_batch():
    student, teacher = logits((3, 5), seed=0)
    each = torch.stack([kd_loss(s[None], t[None], 4.0) for s, t in zip(student, teacher, strict=True)])
    torch.testing.assert_close(kd_loss(student, teacher, 4.0), each.mean())


def test_direction_is_from_the_teacher_to_the_student():
    student, teacher = logits((4, 5), seed=1)
    assert float(kd_loss(student, teacher, 1.0)) != pytest.approx(float(kd_loss(teacher, student, 1.0)), rel=0.05)


def test_half_precision_logits_are_summed_in_float32():
    student, teacher = (x.bfloat16() for x in logits((4, 100), seed=2))
    loss = kd_loss(student, teacher, 4.0)
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(closed_form(student.float(), teacher.float(), 4.0), rel=1e-4)


def test_confident_answers_stay_finite():
    student, teacher = torch.tensor([[200.0, -200.0]]), torch.tensor([[-200.0, 200.0]])
    assert float(kd_loss(student, teacher, 1.0)) == pytest.approx(400)
