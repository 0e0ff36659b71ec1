"""Intervals between perturbations, constant and growing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.algorithms.intervals import generation, interval_after, perturbations


@pytest.mark.parametrize("epochs", [1, 9, 10, 30])
@pytest.mark.parametrize("interval", [1, 3, 7])
def test_without_growth_every_interval_is_the_first(epochs, interval):
    assert perturbations(epochs, interval, 1.0) == tuple(range(interval, epochs, interval))
    assert all(interval_after(epoch, interval, 1.0) == interval for epoch in range(epochs))
    assert all(generation(epoch, epochs, interval, 1.0) == epoch // interval for epoch in range(1, epochs))


@given(st.integers(1, 300), st.integers(1, 20), st.floats(1, 4))
def test_perturbations_are_those_that_the_scheduler_steps_through(epochs, interval, growth):
    walked, epoch = [], 0
    while (epoch := epoch + interval_after(epoch, interval, growth)) < epochs:
        walked.append(epoch)
    assert perturbations(epochs, interval, growth) == tuple(walked)
    assert all(each % interval == 0 for each in walked), "members are scored at multiples of the interval"
    gaps = [after - before for before, after in zip([0, *walked], walked, strict=False)]
    assert gaps == sorted(gaps)
