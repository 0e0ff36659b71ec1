"""A genome on a batch: what is drawn against PBA's own loop, and what is applied against one image at a time."""

import copy
import itertools
import pickle
import random
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from spaces import OPERATIONS, Entry, Genome, Parameters, RequestError, Space, Transform, apply, sample
from spaces.transform import COUNTS, NONE, seeded

NAMES = list(OPERATIONS)
FILLS = {1: (119,), 3: (125, 122, 113)}
EXACT_COUNTS = {0: Fraction(1, 5), 1: Fraction(3, 10), 2: Fraction(1, 2)}

every_channels = pytest.mark.parametrize("channels", [1, 3])


def genome_of(*probabilities):
    """One entry per probability, told apart by operation and magnitude."""
    return Genome(tuple(Entry(NAMES[i], p, i % 10) for i, p in enumerate(probabilities)))


def random_genome(seed, **changes):
    genome = Space().random(np.random.default_rng(seed))
    return Genome(tuple(Entry(e.op, changes.get("probability", e.probability), e.magnitude) for e in genome.policy))


def pictures(batch, channels, height=13, width=11):
    generator = torch.Generator().manual_seed(channels)
    return torch.randint(0, 256, (batch, channels, height, width), dtype=torch.uint8, generator=generator)


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
            found = [entry for entry in order if hits[entry]] + [NONE, NONE]
            for count, share in EXACT_COUNTS.items():
                first, second = (found[place] if place < count else NONE for place in (0, 1))
                chance[first, second] += weight * share
    assert sum(chance.values()) == 1
    return chance


@pytest.mark.parametrize(
    "probabilities", [(10, 3, 5, 1), (2, 0, 9, 4), (10, 10, 10), (1, 1, 1, 1), (5,), (10,), (7, 7)], ids=str
)
def test_first_and_second_follow_the_exact_chances(probabilities):
    batch = 100_000
    observed = pairs(sample(genome_of(*probabilities), batch, seeded(sum(probabilities))))
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
    return (*found, NONE, NONE)[:2]


@pytest.mark.parametrize("seed", range(3))
def test_thirty_entries_are_drawn_as_pbas_loop_draws_them(seed):
    genome, reference = random_genome(seed), random.Random(seed)
    theirs = Counter(pbas_loop(genome, reference) for _ in range(8_000))
    ours = pairs(sample(genome, 40_000, seeded(seed)))
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
    genome = Genome((Entry("Invert", probability, 0),) * entries)
    applied = (sample(genome, batch, seeded(entries, probability)).operations != NONE).sum(dim=1)
    hits = stats.binom(entries, probability / 10)
    at_least_1, at_least_2 = 0.8 * hits.sf(0), 0.5 * hits.sf(1)
    expected = batch * np.array([1 - at_least_1, at_least_1 - at_least_2, at_least_2])
    observed = np.bincount(applied, minlength=3)
    assert not observed[expected == 0].any()
    if (expected > 0).sum() > 1:
        assert stats.chisquare(observed[expected > 0], expected[expected > 0]).pvalue > 1e-3


def test_certain_entries_leave_pbas_counts():
    applied = (sample(random_genome(0, probability=10), 100_000, seeded(1)).operations != NONE).sum(dim=1)
    share = np.bincount(applied) / 100_000
    assert share == pytest.approx(COUNTS, abs=0.006)
    assert pytest.approx((0.2, 0.3, 0.5)) == COUNTS


def test_the_zero_genome_is_the_identity():
    parameters = sample(Space().zero(), 500, seeded(0))
    assert (parameters.operations == NONE).all()
    images = pictures(500, 3)
    assert torch.equal(apply(images, parameters, FILLS[3]), images)


def test_the_second_place_is_never_filled_before_the_first():
    operations = sample(random_genome(1, probability=1), 5000, seeded(2)).operations
    assert not ((operations[:, 0] == NONE) & (operations[:, 1] != NONE)).any()


def test_an_entry_is_applied_once_at_most():
    """Two different entries may name the same operation; one entry may not stand twice."""
    operations = sample(genome_of(10, 10, 10), 5000, seeded(3)).operations
    assert not ((operations[:, 0] == operations[:, 1]) & (operations[:, 0] != NONE)).any()
    twice = sample(Genome((Entry("Invert", 10, 0),) * 2), 5000, seeded(3)).operations
    assert (twice == NAMES.index("Invert")).all(dim=1).any()


def test_levels_come_with_their_entry():
    parameters = sample(genome_of(*[7] * 15), 5000, seeded(4))
    expected = torch.where(parameters.operations == NONE, 0, parameters.operations % 10)
    assert torch.equal(parameters.levels, expected)


def test_both_entries_of_one_operation_keep_their_levels():
    genome = Genome((Entry("Rotate", 10, 2), Entry("Rotate", 10, 7)))
    parameters = sample(genome, 5000, seeded(4))
    both = parameters.levels[(parameters.operations != NONE).all(dim=1)]
    assert {tuple(row) for row in both.tolist()} == {(2, 7), (7, 2)}


def test_signs_are_fair_and_positions_uniform():
    parameters = sample(random_genome(2), 20_000, seeded(5))
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
    parameters = sample(genome, batch, seeded(0))
    assert len(parameters) == batch
    assert parameters.operations.shape == parameters.levels.shape == parameters.signs.shape == (batch, 2)
    assert parameters.positions.shape == (batch, 2, 2)
    assert parameters.operations.dtype == parameters.levels.dtype == parameters.signs.dtype == torch.int64
    assert parameters.positions.dtype == torch.float32


def test_no_images_no_parameters():
    with pytest.raises(RequestError, match=r"^a batch holds at least one image, but got 0$"):
        sample(random_genome(0), 0, seeded(0))


# ---- randomness ------------------------------------------------------------------------------------


def equal(one, other):
    return all(
        torch.equal(getattr(one, name), getattr(other, name)) for name in ("operations", "levels", "signs", "positions")
    )


def test_the_generator_decides():
    genome = random_genome(3)
    generator = seeded(6)
    first = sample(genome, 64, generator)
    assert equal(first, sample(genome, 64, seeded(6)))
    assert not equal(first, sample(genome, 64, generator)), "a generator that was used goes on"
    assert not equal(first, sample(genome, 64, seeded(7)))


@pytest.mark.parametrize("batch", [1, 5, 64])
def test_the_genome_never_alters_how_many_numbers_are_drawn(batch):
    genomes = [*map(random_genome, range(5)), Space().zero(), random_genome(0, probability=10)]
    generators = [seeded(8) for _ in genomes]
    drawn = [sample(genome, batch, generator) for genome, generator in zip(genomes, generators, strict=True)]
    states = [generator.get_state() for generator in generators]
    assert all(torch.equal(state, states[0]) for state in states)
    assert all(torch.equal(parameters.signs, drawn[0].signs) for parameters in drawn)
    assert all(torch.equal(parameters.positions, drawn[0].positions) for parameters in drawn)


def test_two_genomes_see_the_same_draws():
    genome = random_genome(4)
    other = Genome(tuple(Entry(e.op, e.probability, (e.magnitude + 1) % 10) for e in genome.policy))
    one, changed = sample(genome, 2000, seeded(9)), sample(other, 2000, seeded(9))
    assert torch.equal(one.operations, changed.operations)
    applied = one.operations != NONE
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
    first = [torch.rand(2, generator=seeded(*seed)).tolist() for seed in seeds]
    assert len({tuple(numbers) for numbers in first}) == len(seeds)
    assert stats.kstest([numbers[0] for numbers in first], "uniform").pvalue > 1e-3
    by_seed = np.array(first[:400])[:, 0].reshape(20, 20)
    for neighbours in ((by_seed[1:], by_seed[:-1]), (by_seed[:, 1:], by_seed[:, :-1])):
        assert stats.pearsonr(*(part.flatten() for part in neighbours)).pvalue > 1e-3


# ---- applying --------------------------------------------------------------------------------------


def one_by_one(images, parameters, fill):
    """Every image on its own, through the operations in order."""
    colour = torch.tensor(fill, dtype=torch.uint8)
    results = []
    for row in range(len(images)):
        image = images[row : row + 1]
        for place in range(2):
            index = parameters.operations[row, place].item()
            if index != NONE:
                image = OPERATIONS[NAMES[index]](
                    image,
                    parameters.levels[row, place].reshape(1),
                    parameters.signs[row, place].reshape(1),
                    parameters.positions[row, place].reshape(1, 2),
                    colour,
                )
        results.append(image)
    return torch.cat(results)


@every_channels
@pytest.mark.parametrize("seed", range(3))
def test_a_batch_equals_each_image_alone_in_order(channels, seed):
    images = pictures(160, channels)
    parameters = sample(random_genome(seed, probability=10), 160, seeded(seed))
    assert set(parameters.operations.flatten().tolist()) == {NONE, *range(15)}
    assert torch.equal(apply(images, parameters, FILLS[channels]), one_by_one(images, parameters, FILLS[channels]))


@every_channels
def test_a_batch_of_one_equals_the_image_among_many(channels):
    images = pictures(60, channels)
    parameters = sample(random_genome(5, probability=10), 60, seeded(5))
    together = apply(images, parameters, FILLS[channels])
    for row in range(60):
        here = slice(row, row + 1)
        alone = Parameters(
            parameters.operations[here], parameters.levels[here], parameters.signs[here], parameters.positions[here]
        )
        assert torch.equal(apply(images[here], alone, FILLS[channels]), together[here])


def parameters_of(*rows, level=0):
    """Parameters that apply these names, with no say in signs and positions."""
    operations = torch.tensor([[NAMES.index(name) if name else NONE for name in row] for row in rows])
    ones = torch.ones_like(operations)
    return Parameters(operations, ones * level, ones, torch.full((*operations.shape, 2), 0.5))


def test_column_0_is_applied_first():
    """Posterize at level 9 keeps the highest bit; 100 → 0 → 255 or 100 → 155 → 128."""
    images = torch.full((3, 1, 2, 2), 100, dtype=torch.uint8)
    parameters = parameters_of(("Posterize", "Invert"), ("Invert", "Posterize"), (None, None), level=9)
    assert apply(images, parameters, (0,))[:, 0, 0, 0].tolist() == [255, 128, 100]


def test_either_place_alone():
    images = pictures(4, 3)
    result = apply(
        images, parameters_of(("Invert", None), (None, "Invert"), ("Invert", "Invert"), (None, None)), (0, 0, 0)
    )
    assert torch.equal(result, torch.stack([255 - images[0], 255 - images[1], images[2], images[3]]))


def test_uncovered_pixels_take_the_colour():
    images = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    result = apply(images, parameters_of(("Cutout", None), level=4), (7, 8, 9))
    assert result[0, :, 16, 16].tolist() == [7, 8, 9]
    assert (result[0].sum(dim=0) > 0).sum() == 64


@every_channels
def test_the_input_is_untouched_and_parameters_replay(channels):
    images = pictures(80, channels)
    before = images.clone()
    parameters = sample(random_genome(6, probability=10), 80, seeded(6))
    parameters_before = copy.deepcopy(parameters)
    first = apply(images, parameters, FILLS[channels])
    assert torch.equal(images, before)
    assert equal(parameters, parameters_before)
    assert (first.dtype, first.shape) == (torch.uint8, images.shape)
    assert torch.equal(apply(images, parameters, FILLS[channels]), first)
    first.zero_()
    assert torch.equal(images, before), "the result is a tensor of its own"


def test_nothing_to_apply_returns_the_images():
    images = pictures(3, 1)
    assert apply(images, parameters_of((None, None), (None, None), (None, None)), (0,)) is images


WRONG = [
    (torch.zeros(2, 3, 8, 8), "images must be uint8, but got 'torch.float32'"),
    (torch.zeros(2, 3, 8, 8, dtype=torch.int64), "images must be uint8, but got 'torch.int64'"),
    (torch.zeros(3, 8, 8, dtype=torch.uint8), r"shape \(B, C, H, W\), but got \(3, 8, 8\)"),
    (torch.tensor(3, dtype=torch.uint8), r"shape \(B, C, H, W\), but got \(\)"),
    (torch.zeros(2, 4, 8, 8, dtype=torch.uint8), r"1 \(grey\) or 3 \(RGB\) channels"),
    (torch.zeros(0, 3, 8, 8, dtype=torch.uint8), "at least one image"),
]


@pytest.mark.parametrize(("images", "rule"), WRONG)
def test_images_that_apply_refuses(images, rule):
    with pytest.raises(RequestError, match=rule):
        apply(images, parameters_of(("Invert", None), (None, None)), (0, 0, 0))


@pytest.mark.parametrize("images", [1, 3, 50])
def test_parameters_for_another_number_of_images_are_refused(images):
    with pytest.raises(RequestError, match=f"^parameters for {images} images are needed, but got 2$"):
        apply(pictures(images, 3), parameters_of(("Invert", None), (None, None)), FILLS[3])


# ---- the module ------------------------------------------------------------------------------------


@every_channels
def test_the_module_draws_and_applies(channels):
    images, genome = pictures(96, channels), random_genome(7)
    transform = Transform(genome, fill=FILLS[channels], seed=(3, 1))
    generator = seeded(3, 1)
    for _ in range(3):
        assert torch.equal(transform(images), apply(images, sample(genome, 96, generator), FILLS[channels]))


def test_the_seed_decides():
    images, genome = pictures(64, 3), random_genome(8)
    one, same, other = (Transform(genome, fill=FILLS[3], seed=seed) for seed in ((1, 2), (1, 2), (2, 1)))
    first = one(images)
    assert torch.equal(same(images), first)
    assert not torch.equal(other(images), first)
    assert not torch.equal(one(images), first), "the next batch is drawn anew"


def test_global_randomness_is_neither_used_nor_touched():
    images, genome = pictures(64, 3), random_genome(8)
    results = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
        results.append(Transform(genome, fill=FILLS[3], seed=(4,))(images))
        after = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
        assert torch.equal(before[0], after[0])
        assert before[1:] == after[1:]
    assert torch.equal(*results)


@every_channels
def test_the_module_in_a_sequence(channels):
    class ToFloat(nn.Module):
        def forward(self, images):
            return images.float() / 255

    images = pictures(32, channels)
    transform = Transform(random_genome(9), fill=FILLS[channels], seed=(5,))
    model = nn.Sequential(copy.deepcopy(transform), ToFloat(), nn.Conv2d(channels, 2, 3)).eval()
    with torch.no_grad():
        assert torch.equal(model(images), model[2](transform(images).float() / 255))
    assert [name for name, _ in model.named_parameters()] == ["2.weight", "2.bias"], "nothing to train, nothing to save"
    assert set(model.state_dict()) == {"2.weight", "2.bias"}


@every_channels
def test_the_zero_genome_returns_the_images_and_still_checks_them(channels):
    transform = Transform(Space().zero(), fill=FILLS[channels])
    images = pictures(4, channels)
    assert transform(images) is images


@pytest.mark.parametrize("genome", [Space().zero(), random_genome(0), Genome()], ids=["zero", "random", "empty"])
@pytest.mark.parametrize(("images", "rule"), WRONG)
def test_images_that_the_module_refuses(genome, images, rule):
    transform = Transform(genome, fill=FILLS[3])
    before = transform.generator.get_state()
    with pytest.raises(RequestError, match=rule):
        transform(images)
    assert torch.equal(transform.generator.get_state(), before), "what is refused draws nothing"


@pytest.mark.parametrize("twin", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_a_copy_goes_on_where_the_module_is(twin):
    images = pictures(64, 3)
    transform = Transform(random_genome(1), fill=FILLS[3], seed=(6,))
    transform(images)
    other = twin(transform)
    assert torch.equal(other(images), transform(images))


def test_print_shows_what_is_in_force():
    genome = Genome((Entry("Rotate", 5, 4), Entry("Invert", 0, 9), Entry("Color", 10, 9)))
    assert repr(Transform(genome, fill=(0,))) == "Transform(Rotate 2.0, Color 9.0)"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@every_channels
def test_the_same_bytes_on_a_gpu(channels):
    images, genome = pictures(256, channels), random_genome(2)
    ours, theirs = (Transform(genome, fill=FILLS[channels], seed=(7,)) for _ in range(2))
    on_device = ours(images.cuda())
    assert on_device.is_cuda
    assert torch.equal(on_device.cpu(), theirs(images))
