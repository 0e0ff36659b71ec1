"""A genome's numbers: bounds, lengths, and that what is written is read again."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spaces import Entry, Genome, Policy, RequestError, Space
from spaces.search_space.domain import contains
from spaces.search_space.encoding import INACTIVE, active_mask, decode, encode

DISTILL = {
    "loss": [
        "kd",
        {"kd": 1, "hint": {"weight": {"low": 1, "high": 100, "log": True}, "projection": ["student", "inverted"]}},
        {"dkd": {"beta": {"low": 0.5, "high": 8.0}, "warm": {"low": -3, "high": 4}}},
    ],
    "temperature": {"low": 1, "high": 8},
    "alpha": {"low": 0.01, "high": 1.0, "log": True},
}
SPACE = Space(
    operations=("Rotate", "Invert"), copies=2, augment=("identity", "cutmix"), distill=DISTILL, bits={"weights": [1, 2]}
)
LENGTH = 2 * 2 * 2 + 5
seeds = st.integers(0, 2**32)
vectors = st.lists(st.floats(0, 1), min_size=LENGTH, max_size=LENGTH)
quick = settings(deadline=None, max_examples=200)


def some(seed):
    return SPACE.random(np.random.default_rng(seed))


@quick
@given(seeds)
def test_every_genome_has_as_many_numbers_from_0_to_1(seed):
    vector = encode(SPACE, some(seed))
    assert vector.shape == (LENGTH,)
    assert (vector >= 0).all()
    assert (vector <= 1).all()


@quick
@given(seeds)
def test_a_genome_with_its_own_numbers_is_itself(seed):
    genome = some(seed)
    again = decode(SPACE, genome, encode(SPACE, genome))
    assert (again.policy, again.augment, again.bits) == (genome.policy, genome.augment, genome.bits)
    assert (active_mask(SPACE, again) == active_mask(SPACE, genome)).all()
    np.testing.assert_allclose(encode(SPACE, again), encode(SPACE, genome), atol=1e-12)


@quick
@given(seeds, vectors)
def test_what_is_written_is_of_the_space_and_is_read_again(seed, vector):
    genome = some(seed)
    written = decode(SPACE, genome, vector)
    assert contains(SPACE.distill, written.distill)
    assert (written.augment, written.bits) == (genome.augment, genome.bits)
    there = active_mask(SPACE, genome)
    assert (active_mask(SPACE, written) == there).all()
    read = encode(SPACE, written)
    assert (np.abs(read - vector)[there] <= 0.1).all(), "half a step: 1 / 14 of 8 whole numbers, 0.09 from 1 to 1.5"
    assert (read[~there] == INACTIVE).all()
    np.testing.assert_allclose(encode(SPACE, decode(SPACE, genome, read)), read, atol=1e-12)


def genome(loss, temperature=1, alpha=0.1):
    entries = [Entry("Rotate", 10, 0), Entry("Invert", 0, 9), Entry("Rotate", 5, 3), Entry("Invert", 1, 6)]
    return Genome(
        Policy(tuple(entries)), distill={"loss": loss, "temperature": temperature, "alpha": alpha}, bits={"weights": 1}
    )


POLICY = [1, 0, 0, 1, 0.5, 1 / 3, 0.1, 2 / 3]


def test_numbers_are_shares_of_their_range_or_of_its_logarithm():
    hint = genome({"kd": 1, "hint": {"weight": 10, "projection": "student"}}, temperature=8)
    np.testing.assert_allclose(encode(SPACE, hint), [*POLICY, 0.5, INACTIVE, INACTIVE, 1, 0.5])
    dkd = genome({"dkd": {"beta": 2.375, "warm": 4}})
    np.testing.assert_allclose(encode(SPACE, dkd), [*POLICY, INACTIVE, 0.25, 1, 0, 0.5])


def test_the_ranges_of_the_branch_that_is_not_chosen_are_absent():
    assert active_mask(SPACE, genome("kd")).tolist() == [True] * 8 + [False] * 3 + [True] * 2
    assert encode(SPACE, genome("kd"))[8:11].tolist() == [INACTIVE] * 3
    ends = decode(SPACE, genome("kd"), np.ones(LENGTH))
    assert ends.distill == {"loss": "kd", "temperature": 8, "alpha": 1.0}


def test_what_is_out_of_bounds_is_clipped_to_the_ends():
    dkd = genome({"dkd": {"beta": 1.0, "warm": 0}})
    low, high = (decode(SPACE, dkd, np.full(LENGTH, end)) for end in (-1.0, 2.0))
    assert low.distill["loss"] == {"dkd": {"beta": 0.5, "warm": -3}}
    assert high.distill["loss"] == {"dkd": {"beta": 8.0, "warm": 4}}
    assert [end.distill["temperature"] for end in (low, high)] == [1, 8]
    assert [end.distill["alpha"] for end in (low, high)] == pytest.approx([0.01, 1.0])
    assert {(entry.probability, entry.magnitude) for entry in high.policy} == {(10, 9)}


def test_a_genome_survives_json_with_the_same_numbers():
    for seed in range(20):
        again = Genome.from_json(some(seed).to_json())
        assert (encode(SPACE, again) == encode(SPACE, some(seed))).all()


def test_a_space_without_numbers_has_none():
    space = Space(operations=(), augment=("identity", "cutmix"), distill={"loss": ["kd", "dkd"]})
    assert encode(space, space.zero()).shape == active_mask(space, space.zero()).shape == (0,)
    assert decode(space, space.zero(), []) == space.zero()


@pytest.mark.parametrize("read", [encode, active_mask, lambda space, genome: decode(space, genome, np.zeros(LENGTH))])
def test_a_genome_of_another_space_is_refused(read):
    with pytest.raises(RequestError, match="must be those of the space"):
        read(SPACE, Genome())
    with pytest.raises(RequestError, match=r"allowed by space\.distill"):
        read(SPACE, genome("no such loss"))
