"""Scaled policies: their draws against closed forms, strength 0 as the identity, and their place in files."""

import json
import pickle
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spaces import (
    BASELINES,
    OPERATIONS,
    Entry,
    Genome,
    ImageSpec,
    ImageTransform,
    Phase,
    Policy,
    RequestError,
    ScaledEntry,
    ScaledPolicy,
    Schedule,
    Space,
    apply,
    sample,
)
from spaces.engine import dense
from spaces.policy.sampling import NO_OPERATION, level
from spaces.schedule.serialization import validate_policy
from spaces.search_space.encoding import decode, encode

NAMES = list(OPERATIONS)
ENHANCEMENTS = ("Brightness", "Color", "Contrast", "Sharpness")


def equal_weights(strength, amount=1.0, operations=2, ops=NAMES):
    return ScaledPolicy(amount, operations, tuple(ScaledEntry(op, 1, strength) for op in ops))


def photographs(count=64, channels=3, side=20):
    return torch.randint(0, 256, (count, channels, side, side), generator=torch.Generator().manual_seed(1)).to(
        torch.uint8
    )


def scaled_policies(ops=tuple(NAMES)):
    number = st.floats(0, 1).map(lambda value: round(value, 4))
    entries = st.lists(st.tuples(st.sampled_from(ops), number, number), unique_by=lambda entry: entry[0], max_size=15)
    return st.builds(
        lambda amount, count, items: ScaledPolicy(amount, count, tuple(ScaledEntry(*item) for item in items)),
        number,
        st.integers(1, 3),
        entries,
    )


# ---- draws -----------------------------------------------------------------------------------------------------------


def test_operations_are_drawn_by_weight_for_the_share_of_images_that_amount_says():
    policy = ScaledPolicy(0.7, 1, (ScaledEntry("Rotate", 1, 1), ScaledEntry("Cutout", 0.25, 1)))
    count = 40_000
    drawn = sample(policy, count, torch.Generator().manual_seed(0)).operations
    shares = policy.shares()
    assert shares == pytest.approx({"Rotate": 0.56, "Cutout": 0.14})
    for op, share in shares.items():
        # Of 18 half-steps of strength, one rounds to step 0, which is no operation.
        expected = share * 17 / 18
        found = (drawn == NAMES.index(op)).float().mean().item()
        assert found == pytest.approx(expected, abs=4 * (expected * (1 - expected) / count) ** 0.5)


def test_the_share_of_each_operation_is_that_of_a_draw_without_replacement():
    weights = {"Rotate": 1.0, "ShearX": 0.5, "Solarize": 0.2, "Invert": 0.0, "Cutout": 0.05}
    for operations in (1, 2, 3):
        policy = ScaledPolicy(1, operations, tuple(ScaledEntry(op, weight, 1) for op, weight in weights.items()))
        shares = policy.shares()
        assert sum(shares.values()) == pytest.approx(operations)
        generator = np.random.default_rng(operations)
        possible = [op for op in weights if weights[op]]
        chances = np.array([weights[op] for op in possible]) / sum(weights.values())
        counted = Counter(
            op for _ in range(4000) for op in generator.choice(possible, operations, replace=False, p=chances)
        )
        for op in weights:
            assert shares[op] == pytest.approx(counted[op] / 4000, abs=0.035)


@settings(deadline=None, max_examples=40)
@given(scaled_policies())
def test_an_image_never_gets_an_operation_twice_nor_one_without_weight(policy):
    drawn = sample(policy, 200, torch.Generator().manual_seed(0))
    drawn.check(200)
    allowed = {NAMES.index(entry.op) for entry in policy if entry.active}
    for row in drawn.operations.tolist():
        found = [op for op in row if op != NO_OPERATION]
        assert len(set(found)) == len(found) <= policy.operations
        assert set(found) <= allowed
    if policy.is_identity:
        assert (drawn.operations == NO_OPERATION).all()


def test_strengths_are_uniform_up_to_the_largest_in_both_directions():
    drawn = sample(ScaledPolicy(1, 1, (ScaledEntry("Rotate", 1, 0.5),)), 36_000, torch.Generator().manual_seed(0))
    applied = drawn.operations[:, 0] != NO_OPERATION
    counts = torch.bincount(drawn.levels[applied, 0], minlength=10).tolist()
    # 4.5 steps: step 0 and no operation for the first half step, then one each.
    assert (~applied).float().mean().item() == pytest.approx(1 / 9, abs=0.01)
    assert counts[5:] == [0] * 5
    for count in counts[1:5]:
        assert count / 36_000 == pytest.approx(2 / 9, abs=0.01)
    assert drawn.signs[applied].float().mean().item() == pytest.approx(0, abs=0.03)


def test_an_operation_without_a_level_is_applied_with_its_strength_as_probability():
    drawn = sample(ScaledPolicy(1, 1, (ScaledEntry("Invert", 1, 0.3),)), 20_000, torch.Generator().manual_seed(0))
    assert (drawn.operations >= 0).float().mean().item() == pytest.approx(0.3, abs=0.015)


# ---- strength 0 is the identity; levels of PBA give its bytes --------------------------------------------------------


@pytest.mark.parametrize("op", NAMES)
@pytest.mark.parametrize("channels", [1, 3])
def test_strength_0_is_the_identity_for_every_operation(op, channels):
    policy = ScaledPolicy(1, 1, (ScaledEntry(op, 1, 0),))
    assert policy.is_identity
    images = photographs(channels=channels)
    drawn = sample(policy, len(images), torch.Generator().manual_seed(0))
    assert torch.equal(apply(images, drawn, (0,) * channels), images)


@pytest.mark.parametrize("op", NAMES)
def test_a_weaker_step_is_never_further_from_the_image_than_the_strongest(op):
    images = photographs(16)
    for sign in (-1, 1):
        distances = [distance(op, sign, step, images) for step in range(10)]
        assert distances[0] == 0
        assert max(distances[:4]) <= distances[9] + 1e-6


def distance(op, sign, step, images):
    found = level(op, sign, step)
    if found < 0:
        return 0.0
    batch = len(images)
    signs, positions = torch.full((batch,), sign), torch.full((batch, 2), 0.5)
    changed = OPERATIONS[op](images, torch.full((batch,), found), signs, positions, torch.zeros(3, dtype=torch.uint8))
    return (changed.float() - images.float()).abs().mean().item()


@pytest.mark.parametrize("op", [op for op in NAMES if op not in ENHANCEMENTS and op != "Posterize"])
def test_the_steps_of_an_operation_that_starts_at_level_0_are_pbas_levels(op):
    top = [level(op, sign, step) for sign in (-1, 1) for step in range(1, 10)]
    assert top == [*range(1, 10)] * 2 if OPERATIONS[op].uses_level else [0] * 18


@pytest.mark.parametrize("op", ENHANCEMENTS)
def test_an_enhancement_leaves_level_5_in_both_directions(op):
    down, up = ([level(op, sign, step) for step in range(10)] for sign in (-1, 1))
    assert (down[0], up[0], down[9], up[9]) == (-1, -1, 0, 9)
    assert all(found < 5 for found in down[1:]) and all(found == -1 or found > 5 for found in up)
    assert down[1:] == sorted(down[1:], reverse=True) and up == sorted(up)


def test_posterize_keeps_one_bit_less_and_less():
    images = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    kept = []
    for step in range(10):
        found = level("Posterize", 1, step)
        if found < 0:
            kept.append(256)
            continue
        one = torch.tensor([1])
        changed = OPERATIONS["Posterize"](
            images, torch.tensor([found]), one, torch.zeros(1, 2), torch.zeros(1, dtype=torch.uint8)
        )
        kept.append(len(changed.unique()))
    assert kept == [256, 128, 64, 64, 32, 16, 8, 8, 4, 2]


@settings(deadline=None, max_examples=30)
@given(scaled_policies(), st.integers(0, 100), st.sampled_from([1, 3]))
def test_both_backends_give_the_same_bytes(policy, seed, channels):
    images = photographs(24, channels, 13)
    drawn = sample(policy, len(images), torch.Generator().manual_seed(seed))
    fill = (7,) * channels
    assert torch.equal(apply(images, drawn, fill), dense.apply(images, drawn, torch.tensor(fill, dtype=torch.uint8)))


def test_levels_of_pba_give_the_bytes_of_pba():
    images = photographs(32)
    drawn = sample(equal_weights(1.0), len(images), torch.Generator().manual_seed(3))
    changed = apply(images, drawn, (1, 2, 3))
    expected = images.clone()
    for row in range(len(images)):
        one = images[row : row + 1]
        for place in range(2):
            index = drawn.operations[row, place].item()
            if index == NO_OPERATION:
                continue
            one = OPERATIONS[NAMES[index]](
                one,
                drawn.levels[row, place].view(1),
                drawn.signs[row, place].view(1),
                drawn.positions[row, place].view(1, 2),
                torch.tensor([1, 2, 3], dtype=torch.uint8),
            )
        expected[row] = one[0]
    assert torch.equal(changed, expected)


# ---- numbers ---------------------------------------------------------------------------------------------------------


def test_the_mean_over_epochs_weights_strengths_by_how_often_they_are_drawn():
    one = ScaledPolicy(0.2, 1, (ScaledEntry("Rotate", 1, 0.2), ScaledEntry("Cutout", 1, 0.6)))
    two = ScaledPolicy(0.6, 3, (ScaledEntry("Rotate", 1, 1), ScaledEntry("Cutout", 0, 0)))
    mean = ScaledPolicy.mean([(1, one), (1, two)])
    assert (mean.amount, mean.operations) == (0.4, 2)  # (0.2 · 1 + 0.6 · 3) / 0.8 = 2.5, rounded to even
    rotate, cutout = mean
    assert (rotate.weight, cutout.weight) == (1, pytest.approx(0.1 / 0.7, abs=1e-6))
    assert rotate.strength == pytest.approx((0.1 * 0.2 + 0.6 * 1) / 0.7, abs=1e-6)
    assert cutout.strength == 0.6


@settings(deadline=None, max_examples=30)
@given(scaled_policies(), st.integers(1, 9))
def test_the_mean_of_a_policy_with_itself_has_the_same_effect(policy, epochs):
    mean = ScaledPolicy.mean([(epochs, policy), (1, policy)])
    if policy.is_identity:
        assert mean.is_identity
    else:
        assert mean.amount == pytest.approx(policy.amount, abs=1e-6)
        assert mean.operations == policy.operations
        assert mean.shares() == pytest.approx(policy.shares(), abs=1e-4)


def test_a_mean_of_both_kinds_is_refused():
    phases = (Phase(1, Genome(Policy())), Phase(1, Genome(equal_weights(0.5))))
    with pytest.raises(RequestError, match="must be of one kind"):
        Schedule(phases, "student", ImageSpec(8, 1, (0,))).mean()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ScaledEntry("Rotat", 1, 1), "unknown operation 'Rotat'"),
        (lambda: ScaledEntry("Rotate", 1.5, 1), "the weight of Rotate must be a number from 0 to 1, got 1.5"),
        (lambda: ScaledEntry("Rotate", 1, -0.1), "the strength of Rotate must be a number from 0 to 1, got -0.1"),
        (lambda: ScaledEntry("Rotate", 1, float("nan")), "the strength of Rotate must be a number from 0 to 1"),
        (lambda: ScaledPolicy(2, 1), "ScaledPolicy.amount must be a number from 0 to 1, got 2"),
        (lambda: ScaledPolicy(1, 0), "ScaledPolicy.operations must be an integer from 1 to 3, got 0"),
        (lambda: ScaledPolicy(1, 4), "ScaledPolicy.operations must be an integer from 1 to 3, got 4"),
        (lambda: ScaledPolicy(1, 1, (ScaledEntry("Rotate", 1, 1),) * 2), "must have one entry for each operation"),
        (lambda: ScaledPolicy(1, 1, (Entry("Rotate", 1, 1),)), "must be ScaledEntry"),
        (lambda: ScaledPolicy.from_json({"amount": 1}), "with the keys amount, entries, operations"),
        (lambda: ScaledPolicy.from_json({"amount": 1, "operations": 1, "entries": "x"}), "must be a list"),
        (lambda: ScaledPolicy.from_json({"amount": 1, "operations": 1, "entries": [{"op": "Rotate"}]}), "the keys op,"),
    ],
)
def test_values_out_of_range_are_refused_with_the_value(build, message):
    with pytest.raises(RequestError) as refused:
        build()
    assert message in str(refused.value)


def test_it_survives_pickling_with_its_hash():
    policy = equal_weights(0.5)
    assert pickle.loads(pickle.dumps(policy)) == policy
    assert hash(pickle.loads(pickle.dumps(policy))) == hash(policy)


# ---- the policy file -------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(scaled_policies())
def test_a_policy_file_of_version_2_gives_the_same_schedule_and_pixels(policy):
    schedule = Schedule((Phase(3, Genome(policy)),), "student", ImageSpec(20, 3, (1, 2, 3)))
    text = schedule.dumps()
    assert json.loads(text)["version"] == 2
    read = Schedule.loads(text)
    assert read == schedule and read.dumps() == text
    images = photographs(8)
    assert torch.equal(read.transform(1, seed=4)(images), schedule.transform(1, seed=4)(images))


def test_a_schedule_without_scaled_policies_stays_a_file_of_version_1():
    schedule = Schedule((Phase(1, Genome(Policy((Entry("Rotate", 5, 5),)))),), "student", ImageSpec(8, 1, (0,)))
    assert json.loads(schedule.dumps())["version"] == 1


def test_a_file_of_version_1_must_not_hold_a_scaled_policy():
    document = json.loads(Schedule((Phase(1, Genome(equal_weights(0.5))),), "student", ImageSpec(8, 1, (0,))).dumps())
    with pytest.raises(RequestError, match="'policy' is a required property"):
        validate_policy({**document, "version": 1})


def test_a_genome_with_both_kinds_is_refused():
    both = {"policy": [], "scaled": equal_weights(0.5).to_json()}
    with pytest.raises(RequestError, match="with policy or scaled"):
        Genome.from_json(both)


def test_the_file_has_one_entry_on_each_line():
    schedule = Schedule((Phase(1, Genome(equal_weights(0.5, 0.8))),), "student", ImageSpec(8, 1, (0,)))
    lines = schedule.dumps().splitlines()
    assert '    {"epochs": 1, "genome": {"scaled": {"amount": 0.8, "operations": 2, "entries": [' in lines
    assert '      {"op": "Rotate", "weight": 1.0, "strength": 0.5},' in lines


def test_single_images_are_augmented_too():
    schedule = Schedule((Phase(1, Genome(equal_weights(1.0))),), "student", ImageSpec(20, 3, (0, 0, 0)))
    transform, images = ImageTransform(schedule, seed=1), photographs(32)
    changed = torch.stack([transform(image) for image in images])
    assert changed.shape == images.shape
    assert 20 <= (changed != images).flatten(1).any(1).sum() <= 32


# ---- spaces of scaled genomes ----------------------------------------------------------------------------------------


SPACE = Space(genome="scaled")


def test_the_zero_genome_changes_nothing_and_the_uniform_one_changes_most_images():
    assert SPACE.zero().is_identity
    assert SPACE.uniform().policy.amount == 0.8
    assert list(SPACE.uniform().policy.shares().values()) == pytest.approx([0.8 * 2 / 15] * 15)


def test_random_genomes_differ_from_each_other_and_half_of_the_operations_are_off():
    genomes = [SPACE.random(np.random.default_rng(seed)) for seed in range(200)]
    assert len(set(genomes)) == 200
    active = np.mean([[entry.active for entry in genome.policy] for genome in genomes])
    assert active == pytest.approx(0.5, abs=0.03)
    assert {genome.policy.operations for genome in genomes} == {1, 2, 3}
    strengths = [genome.policy.mean_strength() for genome in genomes]
    assert np.std(strengths) > 0.5, "numbers that are averaged would make all genomes alike"


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6))
def test_neighbors_stay_in_the_space_and_survive_the_encoding(seed):
    generator = np.random.default_rng(seed)
    genome = SPACE.random(generator)
    for _ in range(3):
        genome = SPACE.explore(genome, generator)
    SPACE.check(genome)
    vector = encode(SPACE, genome)
    assert len(vector) == 2 + 2 * 15
    assert ((vector >= 0) & (vector <= 1)).all()
    assert decode(SPACE, genome, vector) == genome


def test_the_share_of_numbers_that_are_resampled():
    policy = ScaledPolicy(0.5, 2, tuple(ScaledEntry(op, 0.5, 0.5) for op in NAMES))
    far = []
    for seed in range(400):
        moved = SPACE.explore(Genome(policy), np.random.default_rng(seed)).policy
        far += [abs(entry.strength - 0.5) > 0.31 for entry in moved]
    # Resampled with probability 0.2, then further than 0.31 away with probability 0.38.
    assert np.mean(far) == pytest.approx(0.2 * 0.38, abs=0.012)


def test_a_policy_of_the_other_kind_or_other_operations_is_refused():
    with pytest.raises(RequestError, match="must be scaled"):
        SPACE.check(Space().zero())
    with pytest.raises(RequestError, match="must have PBA's entries"):
        Space().check(SPACE.zero())
    with pytest.raises(RequestError, match="the operations of the genome must be those of the space"):
        SPACE.check(Space(("Rotate",), genome="scaled").zero())
    with pytest.raises(RequestError, match=r"space\.genome must be one of pba, scaled"):
        Space(genome="scale")


# ---- baselines -------------------------------------------------------------------------------------------------------


def test_the_free_baselines_are_policies_that_a_file_can_hold():
    assert list(BASELINES) == ["none", "uniform", "trivialaugment", "randaugment"]
    assert [name for name, policy in BASELINES.items() if policy.is_identity] == ["none"]
    for policy in BASELINES.values():
        schedule = Schedule((Phase(1, Genome(policy)),), "teacher", ImageSpec(8, 1, (0,)))
        assert Schedule.loads(schedule.dumps()) == schedule


def test_the_uniform_baseline_has_every_operation_at_a_mild_and_a_strong_level():
    entries = Counter((entry.op, entry.probability, entry.magnitude) for entry in BASELINES["uniform"])
    assert entries == Counter({(op, 10, level): 1 for op in NAMES for level in (3, 8)})
    assert Space().uniform().policy.by_operation() == BASELINES["uniform"].by_operation()


@pytest.mark.parametrize("name", ["trivialaugment", "randaugment"])
@pytest.mark.parametrize("side", [8, 28, 224])
def test_no_baseline_moves_an_image_out_of_its_frame(name, side):
    """Unlike torchvision's TrivialAugmentWide, which translates by up to 32 pixels at any size."""
    images = torch.full((400, 1, side, side), 255, dtype=torch.uint8)
    changed = apply(images, sample(BASELINES[name], len(images), torch.Generator().manual_seed(0)), (0,))
    inside = (changed > 0).float().mean(dim=(1, 2, 3))
    assert inside[inside > 0].min() > 0.3
