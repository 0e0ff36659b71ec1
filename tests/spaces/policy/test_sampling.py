"""What is drawn for a batch, against PBA's own loop and exact chances."""

import itertools
import os
import pickle
import random
import subprocess
import sys
from collections import Counter
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from support import NAMES, equal, genome_of, random_genome

import spaces
from spaces import Entry, Genome, Policy, RequestError, Space, sample
from spaces.core.seeding import seeded_generator
from spaces.policy.sampling import COUNT_PROBABILITIES, NO_OPERATION, ParameterStream

EXACT_COUNTS = {0: Fraction(1, 5), 1: Fraction(3, 10), 2: Fraction(1, 2)}


def pairs(parameters):
    """How often each (first, second) stands in the batch, by index into `OPERATIONS`."""
    return Counter(map(tuple, parameters.operations.tolist()))


# ---- what is drawn: PBA's loop ---------------------------------------------------------------------


def exact_pairs(probabilities):
    """P(first, second): every count, order and outcome, added up."""
    chance = Counter()
    entries = range(len(probabilities))
    orders = list(itertools.permutations(entries))
    for order in orders:
        for hits in itertools.product([False, True], repeat=len(probabilities)):
            weight = Fraction(1, len(orders))
            for entry in entries:
                weight *= Fraction(probabilities[entry], 10) if hits[entry] else 1 - Fraction(probabilities[entry], 10)
            found = [entry for entry in order if hits[entry]] + [NO_OPERATION, NO_OPERATION]
            for count, share in EXACT_COUNTS.items():
                first, second = (found[place] if place < count else NO_OPERATION for place in (0, 1))
                chance[first, second] += weight * share
    assert sum(chance.values()) == 1
    return chance


@pytest.mark.parametrize(
    "probabilities", [(10, 3, 5, 1), (2, 0, 9, 4), (10, 10, 10), (1, 1, 1, 1), (5,), (10,), (7, 7)], ids=str
)
def test_first_and_second_follow_the_exact_chances(probabilities):
    batch = 100_000
    observed = pairs(sample(genome_of(*probabilities).policy, batch, seeded_generator(sum(probabilities))))
    expected = {pair: chance for pair, chance in exact_pairs(probabilities).items() if chance}
    assert set(observed) <= set(expected), "only what is possible"
    counts = [observed[pair] for pair in expected]
    assert stats.chisquare(counts, [float(chance) * batch for chance in expected.values()]).pvalue > 1e-3


def pbas_loop(genome, generator):
    """`apply_policy` of https://github.com/arcelien/pba, without the images."""
    count = generator.choices([0, 1, 2], weights=[0.2, 0.3, 0.5])[0]
    found = []
    policy = list(genome.policy)
    generator.shuffle(policy)
    for entry in policy if count else ():
        if generator.random() < entry.probability / 10:
            found.append(NAMES.index(entry.op))
            count -= 1
        if count == 0:
            break
    return (*found, NO_OPERATION, NO_OPERATION)[:2]


@pytest.mark.parametrize("seed", range(3))
def test_thirty_entries_are_drawn_as_pbas_loop_draws_them(seed):
    genome, reference = random_genome(seed), random.Random(seed)
    theirs = Counter(pbas_loop(genome, reference) for _ in range(8_000))
    ours = pairs(sample(genome.policy, 40_000, seeded_generator(seed)))
    table, rest = [], [0, 0]
    for pair in set(theirs) | set(ours):
        cell = [theirs[pair], ours[pair]]
        if theirs[pair] >= 8:
            table.append(cell)
        else:
            rest = [a + b for a, b in zip(rest, cell, strict=True)]
    assert len(table) > 100
    assert stats.chi2_contingency([*table, rest]).pvalue > 1e-3


@pytest.mark.parametrize(("entries", "probability"), [(30, 10), (30, 1), (30, 3), (1, 10), (1, 4), (3, 0), (0, 0)])
def test_how_many_operations_an_image_gets(entries, probability):
    """With n entries of probability p: the smaller of PBA's count and a binomial number of hits."""
    batch = 60_000
    genome = Genome(Policy((Entry("Invert", probability, 0),) * entries))
    applied = (sample(genome.policy, batch, seeded_generator(entries, probability)).operations != NO_OPERATION).sum(
        dim=1
    )
    hits = stats.binom(entries, probability / 10)
    at_least_1, at_least_2 = 0.8 * hits.sf(0), 0.5 * hits.sf(1)
    expected = batch * np.array([1 - at_least_1, at_least_1 - at_least_2, at_least_2])
    observed = np.bincount(applied, minlength=3)
    assert not observed[expected == 0].any()
    if (expected > 0).sum() > 1:
        assert stats.chisquare(observed[expected > 0], expected[expected > 0]).pvalue > 1e-3


def test_certain_entries_leave_pbas_counts():
    applied = (
        sample(random_genome(0, probability=10).policy, 100_000, seeded_generator(1)).operations != NO_OPERATION
    ).sum(dim=1)
    share = np.bincount(applied) / 100_000
    assert share == pytest.approx(COUNT_PROBABILITIES, abs=0.006)
    assert pytest.approx((0.2, 0.3, 0.5)) == COUNT_PROBABILITIES


def test_the_zero_policy_never_does_anything():
    parameters = sample(Space().zero().policy, 500, seeded_generator(0))
    assert (parameters.operations == NO_OPERATION).all()


def test_the_second_place_is_never_filled_before_the_first():
    operations = sample(random_genome(1, probability=1).policy, 5000, seeded_generator(2)).operations
    assert not ((operations[:, 0] == NO_OPERATION) & (operations[:, 1] != NO_OPERATION)).any()


def test_an_entry_is_applied_once_at_most():
    """Two different entries may name the same operation; one entry may not stand twice."""
    operations = sample(genome_of(10, 10, 10).policy, 5000, seeded_generator(3)).operations
    assert not ((operations[:, 0] == operations[:, 1]) & (operations[:, 0] != NO_OPERATION)).any()
    twice = sample(Genome(Policy((Entry("Invert", 10, 0),) * 2)).policy, 5000, seeded_generator(3)).operations
    assert (twice == NAMES.index("Invert")).all(dim=1).any()


def test_levels_come_with_their_entry():
    parameters = sample(genome_of(*[7] * 15).policy, 5000, seeded_generator(4))
    expected = torch.where(parameters.operations == NO_OPERATION, 0, parameters.operations % 10)
    assert torch.equal(parameters.levels, expected)


def test_both_entries_of_one_operation_keep_their_levels():
    genome = Genome(Policy((Entry("Rotate", 10, 2), Entry("Rotate", 10, 7))))
    parameters = sample(genome.policy, 5000, seeded_generator(4))
    both = parameters.levels[(parameters.operations != NO_OPERATION).all(dim=1)]
    assert {tuple(row) for row in both.tolist()} == {(2, 7), (7, 2)}


def test_signs_are_fair_and_positions_uniform():
    parameters = sample(random_genome(2).policy, 20_000, seeded_generator(5))
    up = (parameters.signs == 1).sum().item()
    assert ((parameters.signs == 1) | (parameters.signs == -1)).all()
    assert stats.binomtest(up, 40_000).pvalue > 1e-3
    positions = parameters.positions.flatten(1)
    assert ((positions >= 0) & (positions < 1)).all()
    for column in positions.T.numpy():
        assert stats.kstest(column, "uniform").pvalue > 1e-3


@pytest.mark.parametrize("genome", [random_genome(0), Space().zero(), Genome()], ids=["random", "zero", "empty"])
@pytest.mark.parametrize("batch", [1, 2, 7])
def test_the_parameters_shapes_and_dtypes(genome, batch):
    parameters = sample(genome.policy, batch, seeded_generator(0))
    assert len(parameters) == batch
    assert parameters.operations.shape == parameters.levels.shape == parameters.signs.shape == (batch, 2)
    assert parameters.positions.shape == (batch, 2, 2)
    assert parameters.operations.dtype == parameters.levels.dtype == parameters.signs.dtype == torch.int64
    assert parameters.positions.dtype == torch.float32


def test_no_images_no_parameters():
    with pytest.raises(RequestError, match=r"^a batch must hold at least one image, got 0$"):
        sample(random_genome(0).policy, 0, seeded_generator(0))


# ---- randomness ------------------------------------------------------------------------------------


def test_the_generator_decides():
    genome = random_genome(3)
    generator = seeded_generator(6)
    first = sample(genome.policy, 64, generator)
    assert equal(first, sample(genome.policy, 64, seeded_generator(6)))
    assert not equal(first, sample(genome.policy, 64, generator)), "a generator that was used goes on"
    assert not equal(first, sample(genome.policy, 64, seeded_generator(7)))


@pytest.mark.parametrize("batch", [1, 5, 64])
def test_the_genome_never_alters_how_many_numbers_are_drawn(batch):
    genomes = [*map(random_genome, range(5)), Space().zero(), random_genome(0, probability=10)]
    generators = [seeded_generator(8) for _ in genomes]
    drawn = [sample(genome.policy, batch, generator) for genome, generator in zip(genomes, generators, strict=True)]
    states = [generator.get_state() for generator in generators]
    assert all(torch.equal(state, states[0]) for state in states)
    assert all(torch.equal(parameters.signs, drawn[0].signs) for parameters in drawn)
    assert all(torch.equal(parameters.positions, drawn[0].positions) for parameters in drawn)


def test_two_genomes_see_the_same_draws():
    genome = random_genome(4)
    other = Genome(Policy(tuple(Entry(e.op, e.probability, (e.magnitude + 1) % 10) for e in genome.policy)))
    one, changed = sample(genome.policy, 2000, seeded_generator(9)), sample(other.policy, 2000, seeded_generator(9))
    assert torch.equal(one.operations, changed.operations)
    applied = one.operations != NO_OPERATION
    assert torch.equal(changed.levels[applied], (one.levels[applied] + 1) % 10)


def test_generators_of_near_seeds_are_unrelated():
    seeds = [
        *itertools.product(range(20), range(20)),
        *((n,) for n in range(400)),
        (),
        (0, 0, 0),
        (-1,),
        (2**63, 1),
    ]
    first = [torch.rand(2, generator=seeded_generator(*seed)).tolist() for seed in seeds]
    assert len({tuple(numbers) for numbers in first}) == len(seeds)
    assert stats.kstest([numbers[0] for numbers in first], "uniform").pvalue > 1e-3
    by_seed = np.array(first[:400])[:, 0].reshape(20, 20)
    for neighbors in ((by_seed[1:], by_seed[:-1]), (by_seed[:, 1:], by_seed[:, :-1])):
        assert stats.pearsonr(*(part.flatten() for part in neighbors)).pvalue > 1e-3


# ---- in blocks -------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 20, 1000, 1024, 3000])
def test_draws_are_slices_of_blocks(batch):
    policy, generator = random_genome(5).policy, seeded_generator(10)
    draws, size = ParameterStream(policy, seeded_generator(10)), max(ParameterStream.BLOCK, batch)
    for _ in range(3):
        block = sample(policy, size, generator)
        for start in range(0, size - batch + 1, batch):
            assert equal(draws.take(batch), block[start : start + batch])


def test_a_policy_hashes_anew_in_another_process():
    """Names hash otherwise there; a hash that traveled would part equal policies."""
    policy = random_genome(5).policy
    hash(policy)
    program = "import pickle, sys; policy = pickle.load(sys.stdin.buffer); print(hash(policy) == hash(policy.entries))"
    environment = {**os.environ, "PYTHONHASHSEED": "77"}
    root = Path(spaces.__file__).parent.parent
    given = {"input": pickle.dumps(policy), "cwd": root, "env": environment, "capture_output": True, "check": True}
    assert subprocess.run([sys.executable, "-c", program], **given).stdout == b"True\n"
