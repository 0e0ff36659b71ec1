"""Projections of one network's features into the other's space, and their reports."""

import pickle
from copy import deepcopy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import mse_loss

from trainables.losses.feature.projector import Projection, decomposition, effective_rank, normalized

widths = st.integers(1, 12)
seeds = st.integers(0, 2**16)
unhurried = settings(derandomize=True, deadline=None, max_examples=60)
KINDS = ("student", "inverted", "ensemble")


def features(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@given(st.integers(1, 20), widths, widths, st.integers(0, 12), seeds)
@unhurried
def test_decomposition_sums_to_the_squared_error(rows, target, source, rank, seed):
    draw = np.random.default_rng(seed)
    rank = min(rank, target, source)
    y, x = draw.standard_normal((rows, target)), draw.standard_normal((rows, source))
    projection = draw.standard_normal((source, rank)) @ draw.standard_normal((rank, target))
    transfer, regularization = decomposition(*map(torch.tensor, (y, x, projection)))
    assert float(transfer + regularization) == pytest.approx(np.square(y - x @ projection).sum())
    right = np.linalg.svd(projection)[2]
    assert float(regularization) == pytest.approx(np.square(y @ right[rank:].T).sum(), abs=1e-8)


def test_the_inverted_projection_regularizes_the_student_where_it_is_wider_than_the_teacher():
    """P (2 × 3) = diag(2, 1): the student's third channel is met by nothing."""
    student, teacher = torch.tensor([[2.0, 1.0, 5.0]]), torch.tensor([[1.0, 3.0]])
    transfer, regularization = decomposition(student, teacher, torch.tensor([[2.0, 0, 0], [0, 1, 0]]))
    assert float(transfer) == pytest.approx(4) and float(regularization) == pytest.approx(25)


def test_effective_rank():
    assert effective_rank(torch.eye(5)) == pytest.approx(5)
    assert effective_rank(torch.ones(4, 7)) == pytest.approx(1, abs=1e-4)
    assert effective_rank(torch.zeros(3, 2)) == 0
    shares = np.array([0.9, 0.1])
    assert effective_rank(torch.tensor([[3.0, 0], [0, 1]])) == pytest.approx(np.exp(-(shares * np.log(shares)).sum()))


def test_normalizations():
    maps = 3 * features(6, 4, 5, 5) + 2
    batch, layer, length = (normalized(maps, kind) for kind in ("batch", "layer", "l2"))
    zeros, ones = torch.zeros(()), torch.ones(())
    torch.testing.assert_close(batch.mean((0, 2, 3)), zeros.expand(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(batch.var((0, 2, 3), correction=0), ones.expand(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(layer.mean(1), zeros.expand(6, 5, 5), atol=1e-5, rtol=0)
    torch.testing.assert_close(layer.var(1, correction=0), ones.expand(6, 5, 5), atol=1e-2, rtol=0)
    torch.testing.assert_close(length.norm(dim=1), ones.expand(6, 5, 5))
    assert normalized(maps, "none") is maps


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("positions", [(), (4, 3)])
def test_shapes_and_gradients(kind, positions):
    projection = Projection(kind, 5, 7, "batch")
    student, teacher = (features(6, width, *positions).requires_grad_() for width in (5, 7))
    both = projection(student, teacher)
    width = 5 if kind == "inverted" else 7
    assert projection.widths == (width, width) and {side.shape for side in both} == {(6, width, *positions)}
    mse_loss(*both).backward()
    assert student.grad.abs().sum() > 0 and teacher.grad is None
    assert all(parameter.grad.abs().sum() > 0 for parameter in projection.parameters())


def test_inverted_is_a_linear_map_of_the_teachers_channels_at_each_position():
    projection = Projection("inverted", 5, 7, "none")
    student, teacher = features(2, 5, 3, 3), features(2, 7, 3, 3)
    kept, projected = projection(student, teacher)
    torch.testing.assert_close(kept, student)
    matrix = projection.linears[0].weight.T
    torch.testing.assert_close(projected[1, :, 2, 0], teacher[1, :, 2, 0] @ matrix)


def test_ensemble_is_the_mean_of_three():
    projection = Projection("ensemble", 5, 7, "none")
    student, teacher = features(4, 5), features(4, 7)
    projected, kept = projection(student, teacher)
    torch.testing.assert_close(projected, sum(linear(student).relu() for linear in projection.linears) / 3)
    torch.testing.assert_close(kept, teacher)
    assert [*projection.report()] == ["rank"]


def test_none_only_normalizes():
    student, teacher = features(4, 5), features(4, 7)
    projection = Projection("none", 5, 7, "l2")
    torch.testing.assert_close(projection(student, teacher)[1], teacher / teacher.norm(dim=1, keepdim=True))
    assert projection.widths == (5, 7) and projection.report() == {} and not [*projection.parameters()]


@pytest.mark.parametrize("kind", ["student", "inverted"])
@pytest.mark.parametrize("widths", [(5, 7), (7, 5)])
def test_report_splits_the_last_batch_mean_squared_error(kind, widths):
    projection = Projection(kind, *widths, "batch")
    projection(*(features(3, width, 2, 2, seed=9) for width in widths))
    both = projection(*(features(6, width, 4, 3) for width in widths))
    said = projection.report()
    assert said["transfer"] + said["regularization"] == pytest.approx(mse_loss(*both).item(), rel=1e-5)
    narrow = both[0].shape[1] == 5
    assert (said["regularization"] < 1e-6) is narrow  # P of full rank reaches all of the narrower space
    assert 1 <= said["rank"] <= 5
    assert [*projection.report()] == ["rank"], "the batch is let go"


@pytest.mark.parametrize("kind", KINDS)
def test_copies(kind):
    projection = Projection(kind, 5, 7, "batch")
    student, teacher = features(4, 5), features(4, 7)
    expected = projection(student, teacher)
    again = Projection(kind, 5, 7, "batch")
    again.load_state_dict(projection.state_dict())
    for copy in (again, deepcopy(projection), pickle.loads(pickle.dumps(projection))):
        for ours, theirs in zip(copy(student, teacher), expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    assert all("linears" in name for name in projection.state_dict())
