"""Designs of screening experiments: balanced, the same for the same seed, and with small correlations."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from results.analysis.contrasts import ContrastMatrix, Factor
from search.algorithms.design_matrix import MIN_TRIALS, Design, separation_warning
from spaces import RequestError


def operation(name):
    strength = Factor(f"{name} strength", "level", ("low", "high"), within=(name, 1))
    return [Factor(name, "operation", ("off", "on")), strength]


def choice(name, count):
    """A choice whose last item has a range and a choice inside."""
    inside = [
        Factor(f"{name} range", "setting", (0, 1), within=(name, count - 1)),
        Factor(f"{name} choice", "choice", ("x", "y", "z"), within=(name, count - 1)),
    ]
    return [Factor(name, "choice", tuple("abcde"[:count])), *inside]


factor_lists = st.builds(
    lambda operations, choices: [
        *(factor for index in range(operations) for factor in operation(f"o{index}")),
        *(factor for index, count in enumerate(choices) for factor in choice(f"c{index}", count)),
    ],
    st.integers(1, 6),
    st.lists(st.integers(2, 5), max_size=2),
)


@settings(max_examples=40, deadline=None)
@given(factor_lists, st.integers(MIN_TRIALS, 30), st.integers(0, 9))
def test_every_level_comes_equally_often_where_its_factor_is(factors, trials, seed):
    design = Design.draw(factors, trials, seed)
    assert len(design.trials) == trials
    for factor in factors:
        there = [trial for trial in design.trials if factor.active(trial)]
        assert all((factor.name in trial) == factor.active(trial) for trial in design.trials)
        counts = Counter(trial[factor.name] for trial in there)
        assert set(counts) <= set(range(len(factor.levels)))
        numbers = [counts[level] for level in range(len(factor.levels))]
        assert max(numbers) - min(numbers) <= 1


def test_the_same_seed_gives_the_same_design():
    factors = [factor for name in "abcdef" for factor in operation(name)]
    assert Design.draw(factors, 12, 3) == Design.draw(factors, 12, 3)
    assert Design.draw(factors, 12, 3).trials != Design.draw(factors, 12, 4).trials


def test_eleven_factors_in_twelve_trials_are_orthogonal():
    """As in a Plackett-Burman design."""
    factors = [Factor(str(index), "operation", ("off", "on")) for index in range(11)]
    values = ContrastMatrix.of(factors, Design.draw(factors, 12, 0).trials).values
    assert np.allclose(values.T @ values, 3 * np.eye(11))


def test_swaps_make_correlations_small():
    factors = [factor for index in range(15) for factor in operation(str(index))]
    factors += [Factor("loss", "choice", ("kd", "dkd", "dist")), Factor("amount", "setting", (0.5, 1.0))]
    design = Design.draw(factors, 24, 0)
    generator = np.random.default_rng(0)
    random = [generator.permutation([0, 1] * 12) for _ in range(16)]
    drawn = [abs(np.corrcoef(one, two)[0, 1]) for one, two in combinations(random, 2)]
    found = np.abs(ContrastMatrix.of(design.factors, design.trials).correlations())
    assert design.largest_correlation < 0.36 < max(drawn)
    assert np.sqrt((found**2).mean()) < 0.15


def test_too_few_trials_are_refused_or_warned_of():
    factors = [Factor(str(index), "operation", ("off", "on")) for index in range(8)]
    with pytest.raises(RequestError, match="a screening experiment must have at least 4 trials, got 3"):
        Design.draw(factors, 3, 0)
    with pytest.raises(RequestError, match="must have at least one factor; free something in space"):
        Design.draw([], 8, 0)
    assert separation_warning(factors, 9) == ""
    assert separation_warning(factors, 8).startswith("8 trials cannot tell 8 effects apart")
    strengths = [factor for name in "abc" for factor in operation(name)]
    assert separation_warning(strengths, 4) == "", "only what all trials have must be told apart"


def test_a_factor_needs_two_levels():
    with pytest.raises(RequestError, match="the factor loss must have two levels or more"):
        Factor("loss", "choice", ("kd",))
