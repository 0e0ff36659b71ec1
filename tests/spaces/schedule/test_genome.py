"""Genomes and their space: bounds, PBA's explore rule against its closed form, and JSON that is refused in one line."""

import itertools
import json
import pickle
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import stats
from support import READY

from spaces import OPERATIONS, Entry, Genome, ImageSpec, Phase, Policy, RequestError, Schedule, Space
from spaces.augmentations import CATALOG, augmentation
from spaces.operations import LEVELS
from spaces.policy.policy import TENTHS
from spaces.search_space.domain import contains

quick = settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])

names = st.sampled_from(list(OPERATIONS))
entries = st.builds(Entry, names, st.integers(0, 10), st.integers(0, 9))
genomes = st.builds(Genome, st.lists(entries, max_size=40).map(lambda found: Policy(tuple(found))))
seeds = st.integers(0, 2**32)
leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | names
keys = st.sampled_from(["policy", "op", "probability", "magnitude", "epochs"]) | st.text(max_size=3)
json_values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4), max_leaves=12
)


def numbers(genome):
    return [number for entry in genome.policy for number in (entry.probability, entry.magnitude)]


def lines(error):
    return str(error.value).splitlines()


# ---- an entry's bounds -----------------------------------------------------------------------------


@pytest.mark.parametrize("op", OPERATIONS)
@pytest.mark.parametrize(("probability", "magnitude"), [(0, 0), (10, 9), (10, 0), (0, 9)])
def test_an_entry_within_bounds(op, probability, magnitude):
    entry = Entry(op, probability, magnitude)
    assert (entry.op, entry.probability, entry.magnitude) == (op, probability, magnitude)


@pytest.mark.parametrize("value", [-1, 11, 10**30, True, False, 3.0, 0.5, float("nan"), "3", None, [3], np.int64(3)])
def test_a_probability_out_of_bounds(value):
    with pytest.raises(RequestError) as error:
        Entry("ShearX", value, 0)
    assert lines(error) == [f"the probability of ShearX must be an integer from 0 to 10, got {value!r}"]


@pytest.mark.parametrize("value", [-1, 10, 10**30, True, False, 3.0, 0.5, float("inf"), "3", None, (3,), np.int64(3)])
def test_a_magnitude_out_of_bounds(value):
    with pytest.raises(RequestError) as error:
        Entry("Cutout", 0, value)
    assert lines(error) == [f"the magnitude of Cutout must be an integer from 0 to 9, got {value!r}"]


def test_a_number_too_long_to_be_shown_is_refused_all_the_same():
    with pytest.raises(RequestError) as error:
        Entry("Cutout", 10**5000, 0)
    assert "from 0 to 10" in str(error.value)
    assert len(str(error.value)) < 200


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("Rotat", "Rotate"),
        ("shearx", "ShearX"),
        ("CONTRAST", "Contrast"),
        ("Translate", "Translate"),
        ("Colorr", "Color"),
    ],
)
def test_an_unknown_operation_names_the_nearest(name, near):
    with pytest.raises(RequestError, match=f"^unknown operation '{name}'; did you mean '{near}") as error:
        Entry(name, 0, 0)
    assert len(lines(error)) == 1


@pytest.mark.parametrize("name", ["Mixup", "", 3, None])
def test_an_operation_far_from_all_names_all(name):
    with pytest.raises(RequestError) as error:
        Entry(name, 0, 0)
    assert lines(error) == [f"unknown operation {name!r}; known: {', '.join(sorted(OPERATIONS))}"]


def test_a_genome_is_a_value():
    one, same, other = (Genome(Policy((Entry("Rotate", 3, m),))) for m in (4, 4, 5))
    assert one == same and hash(one) == hash(same)
    assert one != other
    assert pickle.loads(pickle.dumps(one)) == one
    with pytest.raises(AttributeError):
        one.policy = ()
    with pytest.raises(AttributeError):
        one.policy.entries[0].magnitude = 9


# ---- strength and identity -------------------------------------------------------------------------


@given(entries)
@quick
def test_an_entrys_strength_is_its_expected_magnitude(entry):
    level = 9 if entry.op in {"AutoContrast", "Equalize", "Invert"} else entry.magnitude  # those are on or off
    assert entry.strength == pytest.approx(float(Fraction(entry.probability, 10) * level), abs=1e-12)


def test_a_genomes_strength_is_the_mean_over_the_entries_of_an_operation():
    genome = Genome(
        Policy((Entry("Rotate", 10, 9), Entry("Invert", 5, 4), Entry("Rotate", 3, 2), Entry("Rotate", 0, 9)))
    )
    assert genome.policy.strength() == pytest.approx({"Rotate": (9 + 0.6 + 0) / 3, "Invert": 4.5})
    assert Genome().policy.strength() == {}


@given(genomes)
@quick
def test_a_genome_is_the_identity_when_nothing_is_ever_applied(genome):
    assert genome.is_identity == (sum(entry.probability for entry in genome.policy) == 0)


# ---- the space -------------------------------------------------------------------------------------


def test_zero_is_pbas_start():
    zero = Space().zero()
    assert [entry.op for entry in zero.policy] == [*OPERATIONS, *OPERATIONS]
    assert len(zero.policy) == 30
    assert numbers(zero) == [0] * 60
    assert zero.is_identity


def test_a_smaller_space():
    space = Space(("Invert", "Rotate"), copies=3)
    for genome in (space.zero(), space.random(np.random.default_rng(0))):
        assert [entry.op for entry in genome.policy] == ["Invert", "Rotate"] * 3


OWN_LOSS = {"loss": {"kd": 1, "mine.losses:made": {"weight": 2, "student": "layer1.0"}}}


def test_losses_of_ones_own_are_imported_and_layers_are_not():
    assert Genome(distill=OWN_LOSS).imported_names == ("mine.losses:made",)
    assert Genome(distill={"loss": {"hint": {"student": "layer1.0"}}}).imported_names == ()
    assert Genome(distill={"loss": "mine:made", "temperature": 2.0}).imported_names == ("mine:made",)
    assert Space(distill={"loss": ["kd", "a.b", OWN_LOSS["loss"]]}).custom_names == ("a.b", "mine.losses:made")


def test_a_policy_file_with_a_loss_of_someones_own_is_refused_unless_it_is_named():
    schedule = Schedule((Phase(1, Genome(distill=OWN_LOSS)),), "student", ImageSpec(8, 1, (3,)))
    with pytest.raises(RequestError, match=r"must not import custom code without permission.* got 'mine.losses:made'"):
        Schedule.from_json(schedule.to_json())
    assert Schedule.from_json(schedule.to_json(), custom=["mine.losses:made"]) == schedule


def test_what_is_chosen_of_the_distillation_is_part_of_a_genome():
    chosen = {"loss": {"kd": 1.0, "hint": {"weight": 3.5}}, "temperature": 2.0}
    genome = Genome(distill=chosen)
    assert Genome.from_json(genome.to_json()) == genome != Genome() and hash(genome) == hash(Genome())
    assert genome.to_json()["distill"] == chosen and "distill" not in Genome().to_json()
    genome.to_json()["distill"]["loss"]["kd"] = 9
    assert genome.distill["loss"]["kd"] == 1.0
    for wrong in ([], "kd", {1: 2}):
        with pytest.raises(RequestError, match="the distill of a genome must be an object"):
            Genome.from_json({"policy": [], "distill": wrong})


def test_a_space_frees_the_distillation():
    hint = {"hint": {"weight": {"low": 1.0, "high": 9.0}, "projection": ["student", "inverted"]}}
    space = Space(operations=(), distill={"loss": ["kd", hint], "temperature": {"low": 1.0, "high": 8.0}})
    assert space.zero() == Genome(Policy(), distill={"loss": "kd", "temperature": 1.0}) and not space.is_constant
    generator = np.random.default_rng(0)
    seen = [space.random(generator) for _ in range(40)]
    assert len({str(genome.distill["loss"]) for genome in seen}) > 10
    moved = seen[0]
    for _ in range(40):
        moved = space.explore(moved, generator)
        assert contains(space.distill, moved.distill)
    assert Space(operations=(), distill={"alpha": 0.5}).is_constant and Space(operations=()).is_constant
    assert not Space(operations=(), augment=("identity", "cutmix")).is_constant and not Space().is_constant


BITS = {"weights": [2, 4, 8, 32], "activations": [4, 32]}


def test_what_is_chosen_of_the_bits_is_part_of_a_genome():
    genome = Genome(bits={"weights": 2, "activations": 4})
    assert Genome.from_json(genome.to_json()) == genome != Genome() and hash(genome) == hash(Genome())
    assert genome.to_json() == {"policy": [], "bits": {"weights": 2, "activations": 4}}
    assert "bits" not in Genome().to_json() and genome.is_identity
    for wrong in ([], 2, {1: 2}, {"weights": "2"}, {"weights": 2.0}, {"weights": True}, {"weights": None}):
        with pytest.raises(RequestError, match="the bits of a genome must be an object of integers") as error:
            Genome.from_json({"policy": [], "bits": wrong})
        assert len(lines(error)) == 1


def test_a_space_frees_the_bits():
    space = Space(operations=(), bits=BITS)
    assert space.zero() == Genome(Policy(), bits={"weights": 2, "activations": 4}) and not space.is_constant
    generator = np.random.default_rng(0)
    seen = [space.random(generator).bits for _ in range(200)]
    assert sorted({tuple(bits.values()) for bits in seen}) == [(w, a) for w in BITS["weights"] for a in (4, 32)]
    moved = space.zero()
    path = []
    for _ in range(200):
        moved = space.explore(moved, generator)
        assert contains(BITS, moved.bits) and Genome.from_json(moved.to_json()) == moved
        path.append(moved.bits)
    assert len({str(bits) for bits in path}) == 8
    stays = sum(one == other for one, other in itertools.pairwise(path))
    assert 100 < stays < 180, "each is drawn anew in one of five moves, and may come back: 0.85 × 0.9 of them stay"
    fixed = Space(operations=(), bits={"weights": 2})
    assert fixed.is_constant and fixed.zero() == fixed.random(generator) == fixed.explore(fixed.zero(), generator)


def test_suggested_bits_have_names_of_their_own():
    class Last:
        def __init__(self):
            self.questions = []

        def choice(self, name, count):
            self.questions.append((name, count))
            return count - 1

    draw = Last()
    assert Space(operations=(), bits=BITS).suggest(draw).bits == {"weights": 32, "activations": 32}
    assert draw.questions == [("bits.weights", 4), ("bits.activations", 2)]


def test_what_a_fixed_space_draws_is_what_it_drew_before_there_was_distillation():
    """An empty domain draws nothing, so that the genomes of a seed stay what they were."""
    plain, with_constant = Space(), Space(distill={"temperature": 4.0}, bits={"weights": 2})
    one, other = np.random.default_rng(3), np.random.default_rng(3)
    for _ in range(3):
        assert plain.random(one).policy == with_constant.random(other).policy
        assert plain.explore(plain.zero(), one).policy == with_constant.explore(with_constant.zero(), other).policy


@pytest.mark.parametrize(
    ("given_", "rule"),
    [
        ({"operations": ("Rotate", "Rotate")}, r"each operation once, got \['Rotate', 'Rotate'\]"),
        ({"operations": ("Rotate", "Shear")}, "unknown operation 'Shear'; did you mean 'ShearY'|'ShearX'"),
        ({"copies": 0}, "copies must be an integer >= 1, got 0"),
        ({"copies": -1}, ">= 1, got -1"),
        ({"copies": True}, ">= 1, got True"),
        ({"copies": 1.5}, ">= 1, got 1.5"),
        ({"augment": ()}, r"at least one augmentation, each once, got \[\]"),
        ({"augment": ("cutmix", "cutmix")}, r"each once, got \['cutmix', 'cutmix'\]"),
        ({"augment": ("cutmix", {"kind": "cutmix", "alpha": 1})}, "at least one augmentation, each once, got"),
        ({"augment": ("identity", {"kind": "identity", "draw": "batch"})}, "each once, got"),
        ({"augment": ("identity", "cutmx")}, "unknown augmentation 'cutmx'; did you mean 'cutmix'"),
        ({"augment": ({"kind": "cutout", "sid": 0.5},)}, "unknown parameter of cutout 'sid'; did you mean 'side'"),
        ({"augment": ({"kind": "mixup", "alpha": 0},)}, "mixup alpha must be a number from 0.001 to 100, got 0"),
        ({"distill": {"loss": []}}, "space.distill.loss"),
        ({"distill": {"temperature": {"low": 3, "high": 3}}}, "space.distill.temperature"),
        ({"bits": {"weights": []}}, "space.bits.weights must be a choice of at least one item"),
        ({"bits": {"weights": [2, 2]}}, "space.bits.weights must be a choice of different items"),
        ({"augment": (3,)}, "an augmentation must be a name, or a mapping with kind and parameters, got 3"),
    ],
)
def test_what_is_no_space(given_, rule):
    with pytest.raises(RequestError, match=rule) as error:
        Space(**given_)
    assert len(lines(error)) == 1


def test_random_is_uniform():
    """400 genomes, 12,000 entries."""
    space, generator = Space(), np.random.default_rng(11)
    policy = [entry for _ in range(400) for entry in space.random(generator).policy]
    joint = Counter((entry.probability, entry.magnitude) for entry in policy)
    observed = [joint[p, m] for p in range(TENTHS + 1) for m in range(LEVELS)]
    assert sum(observed) == len(policy)
    assert stats.chisquare(observed).pvalue > 1e-3


def test_the_generator_decides():
    space = Space()
    start = space.random(np.random.default_rng(5))
    for draw in (space.random, lambda generator: space.explore(start, generator)):
        same = [draw(np.random.default_rng(3)) for _ in range(2)]
        assert same[0] == same[1]
        assert draw(np.random.default_rng(4)) != same[0]
        generator = np.random.default_rng(3)
        assert draw(generator) == same[0]
        assert draw(generator) != same[0], "a generator that was used goes on"


def test_the_global_random_state_is_not_touched():
    np.random.seed(0)
    before = np.random.get_state()[1].copy()
    space = Space()
    space.explore(space.random(np.random.default_rng(0)), np.random.default_rng(1))
    np.testing.assert_array_equal(np.random.get_state()[1], before)


# ---- explore ---------------------------------------------------------------------------------------


@given(genomes, seeds)
@quick
def test_explore_stays_in_bounds_and_keeps_the_operations(genome, seed):
    explored = Space().explore(genome, np.random.default_rng(seed))
    assert [entry.op for entry in explored.policy] == [entry.op for entry in genome.policy]
    assert all(type(number) is int for number in numbers(explored))
    assert all(0 <= entry.probability <= 10 and 0 <= entry.magnitude <= 9 for entry in explored.policy)


def closed_form(value, most):
    """Where a number lands: 0.2 × uniform + 0.8 × (±{0, 1, 2, 3}, clipped)."""
    chance = [Fraction(1, 5) / (most + 1)] * (most + 1)
    for step in (-3, -2, -1, 0, 0, 1, 2, 3):
        chance[min(max(value + step, 0), most)] += Fraction(4, 5) / 8
    assert sum(chance) == 1
    return chance


def explored(probability, magnitude, count, seed):
    genome = Genome(Policy((Entry("Rotate", probability, magnitude),) * count))
    return Space().explore(genome, np.random.default_rng(seed)).policy.entries


@pytest.mark.parametrize("value", range(11))
def test_explores_moves_follow_the_closed_form(value):
    """From every value, so at both walls too, where what is clipped piles up."""
    count = 6000
    policy = explored(value, min(value, 9), count, seed=100 + value)
    for start, most, landed in (
        (value, TENTHS, [entry.probability for entry in policy]),
        (min(value, 9), LEVELS - 1, [entry.magnitude for entry in policy]),
    ):
        expected = [float(chance) * count for chance in closed_form(start, most)]
        assert stats.chisquare(np.bincount(landed, minlength=most + 1), expected).pvalue > 1e-3


def test_the_share_that_is_drawn_anew():
    """Out of reach of a step (0 → 4 … 10) lands only what is drawn anew: 0.2 × 7 / 11 of all."""
    count = 20_000
    far = sum(entry.probability > 3 for entry in explored(0, 0, count, seed=1))
    assert stats.binomtest(far, count, 0.2 * 7 / 11).pvalue > 1e-3


def test_the_numbers_move_independently():
    policy = explored(5, 5, 12_000, seed=2)
    table = np.zeros((11, 10))
    for entry in policy:
        table[entry.probability, entry.magnitude] += 1
    assert stats.chi2_contingency(table).pvalue > 1e-3
    neighbors = np.zeros((11, 11))
    for one, next_one in zip(policy[::2], policy[1::2], strict=True):
        neighbors[one.probability, next_one.probability] += 1
    assert stats.chi2_contingency(neighbors).pvalue > 1e-3


# ---- the second view -------------------------------------------------------------------------------

CHOICES = ("cutmix", "identity", {"kind": "cutout", "side": 0.25}, {"kind": "pick", "base": "flip"})


def test_a_search_starts_with_the_first_augmentation():
    assert Space().zero().augment == augmentation("identity")
    assert not Space().zero().has_view
    for first in CHOICES:
        space = Space(augment=(first, *(choice for choice in CHOICES if choice != first)))
        assert space.zero().augment == augmentation(first)
        assert numbers(space.zero()) == [0] * 60
        assert space.zero().is_identity == (first == "identity")


def test_random_is_uniform_over_the_augmentations_too():
    space, generator = Space(("Rotate",), 1, CHOICES), np.random.default_rng(12)
    drawn = [space.random(generator) for _ in range(4000)]
    table = np.zeros((len(CHOICES), TENTHS + 1))
    for genome in drawn:
        table[space.augmentations.index(genome.augment), genome.policy.entries[0].probability] += 1
    assert stats.chisquare(table.sum(axis=1)).pvalue > 1e-3
    assert stats.chi2_contingency(table).pvalue > 1e-3, "whatever the numbers are"


@pytest.mark.parametrize("start", [*CHOICES, "mixup"])
def test_explore_draws_the_augmentation_anew_with_probability_a_fifth(start):
    """Of those that are drawn anew, one in four is drawn as it was, where the space has it."""
    space, generator, count = Space(augment=CHOICES), np.random.default_rng(13), 8000
    genome = Genome(augment=augmentation(start))
    landed = Counter(space.explore(genome, generator).augment for _ in range(count))
    known = list(dict.fromkeys((genome.augment, *space.augmentations)))
    assert set(landed) == set(known)
    expected = [0.05 * count * (choice in space.augmentations) for choice in known]
    expected[0] += 0.8 * count
    assert stats.chisquare([landed[choice] for choice in known], expected).pvalue > 1e-3


def test_numbers_and_augmentation_are_explored_independently():
    space, generator = Space(("Rotate",), 1, CHOICES), np.random.default_rng(14)
    genome, table = space.zero(), np.zeros((2, 2))
    for _ in range(8000):
        moved = space.explore(genome, generator)
        table[int(moved.augment != genome.augment), int(moved.policy != genome.policy)] += 1
    assert stats.chi2_contingency(table).pvalue > 1e-3


@pytest.mark.parametrize("augment", [("identity",), ("cutmix",), ({"kind": "cutout", "side": 0.25},)])
def test_a_single_augmentation_draws_no_number(augment):
    """The numbers are those that were drawn before there were augmentations."""
    space, generator = Space(("Rotate", "Invert"), 2, augment), np.random.default_rng(7)
    first = space.random(generator)
    second = space.explore(first, generator)
    third = space.explore(second, generator)
    assert numbers(first) == [10, 6, 7, 8, 6, 7, 9, 2]
    assert numbers(second) == [10, 3, 10, 9, 4, 5, 10, 2]
    assert numbers(third) == [1, 1, 10, 9, 10, 7, 6, 8]
    assert generator.integers(10**9) == 267599304
    assert {genome.augment for genome in (first, second, third)} == {augmentation(augment[0])}


def test_a_single_augmentation_leaves_another_one_as_it_is():
    genome = Genome(augment=augmentation("mixup"))
    assert all(Space().explore(genome, np.random.default_rng(seed)) == genome for seed in range(30))


def test_two_genomes_with_different_views_differ():
    one, other = (Genome(augment=augmentation({"kind": "cutout", "side": side})) for side in (0.25, 0.5))
    assert one != other and one != Genome()
    assert len({one, other, Genome(), Genome(augment=augmentation("identity"))}) == 3
    assert one.has_view and not Genome().has_view
    assert Genome().is_identity and not one.is_identity


@pytest.mark.parametrize("kind", CATALOG)
def test_json_gives_a_view_back(kind):
    draw = "batch" if kind in READY else "sample"
    genome = Genome(Policy((Entry("Rotate", 3, 4),)), augmentation({"kind": kind, "draw": draw}))
    written = genome.to_json()
    assert sorted(written) == (["policy"] if kind == "identity" else ["augment", "policy"])
    assert Genome.from_json(written) == Genome.from_json(json.loads(json.dumps(written))) == genome
    assert pickle.loads(pickle.dumps(genome)) == genome
    assert hash(Genome.from_json(written)) == hash(genome)


@given(genomes)
@quick
def test_a_genome_without_a_view_writes_none(genome):
    assert list(genome.to_json()) == ["policy"]
    assert Genome.from_json({**genome.to_json(), "augment": {"kind": "identity"}}) == genome


@pytest.mark.parametrize(
    ("augment", "rule"),
    [
        (None, "an augmentation must be a name, or a mapping with kind and parameters, got None"),
        ({}, "an augmentation must be a name, or a mapping with kind and parameters, got {}"),
        ({"kind": "cutmx"}, "unknown augmentation 'cutmx'; did you mean 'cutmix'"),
        ({"kind": "cutmix", "alhpa": 1}, "unknown parameter of cutmix 'alhpa'; did you mean 'alpha'"),
        ({"kind": "pick", "passes": 1}, "pick passes must be an integer from 2 to 16"),
    ],
)
def test_what_is_no_view(augment, rule):
    with pytest.raises(RequestError, match=rule) as error:
        Genome.from_json({"policy": [], "augment": augment})
    assert len(lines(error)) == 1


@given(json_values | st.dictionaries(st.sampled_from(["kind", "draw", "alpha", "policy", "base"]), json_values))
@quick
def test_any_json_is_a_view_or_refused_in_one_line(augment):
    try:
        genome = Genome.from_json({"policy": [], "augment": augment})
    except RequestError as error:
        assert len(str(error).splitlines()) == 1
    else:
        assert Genome.from_json(genome.to_json()) == genome


# ---- JSON ------------------------------------------------------------------------------------------


def test_the_plain_data_of_a_genome():
    genome = Genome(Policy((Entry("Rotate", 3, 4), Entry("Invert", 0, 9))))
    assert genome.to_json() == {
        "policy": [
            {"op": "Rotate", "probability": 3, "magnitude": 4},
            {"op": "Invert", "probability": 0, "magnitude": 9},
        ]
    }


@given(genomes)
@quick
def test_json_gives_a_genome_back(genome):
    assert Genome.from_json(genome.to_json()) == genome
    assert Genome.from_json(json.loads(json.dumps(genome.to_json()))) == genome


ROTATE = {"op": "Rotate", "probability": 3, "magnitude": 4}


@pytest.mark.parametrize(
    ("data", "rule"),
    [
        (
            None,
            "a genome must be an object with policy or scaled, optional augment, distill .* no others, got None",
        ),
        ([], r"a genome must be an object .* got \[\]"),
        ("policy", "a genome must be an object .* got 'policy'"),
        ({}, r"a genome must be an object .* got \[\]"),
        ({"policy": [], "mix": {}}, r"and no others, got \['mix', 'policy'\]"),
        ({"policy": "Rotate"}, "a policy must be a list of entries, got 'Rotate'"),
        ({"policy": {"op": "Rotate"}}, "policy must be a list of entries"),
        ({"policy": None}, "policy must be a list of entries, got None"),
        (
            {"policy": ["Rotate"]},
            "a policy entry must be an object with the keys magnitude, op, probability and no others",
        ),
        ({"policy": [ROTATE, None]}, "a policy entry must be .* got None"),
        ({"policy": [{"op": "Rotate", "probability": 3}]}, r"a policy entry must be .* got \['op', 'probability'\]"),
        ({"policy": [{**ROTATE, "sign": 1}]}, "a policy entry .* 'sign'"),
        ({"policy": [{**ROTATE, "op": ["Rotate"]}]}, r"the op of an entry must be a string, got \['Rotate'\]"),
        ({"policy": [{**ROTATE, "op": "Rotation"}]}, "unknown operation 'Rotation'; did you mean 'Rotate'"),
        ({"policy": [{**ROTATE, "probability": 11}]}, "from 0 to 10, got 11"),
        ({"policy": [{**ROTATE, "probability": True}]}, "from 0 to 10, got True"),
        ({"policy": [{**ROTATE, "magnitude": 4.0}]}, "from 0 to 9, got 4.0"),
    ],
)
def test_what_is_no_genome(data, rule):
    with pytest.raises(RequestError, match=rule) as error:
        Genome.from_json(data)
    assert len(lines(error)) == 1


@given(json_values | st.fixed_dictionaries({"policy": json_values}))
@quick
def test_any_json_is_a_genome_or_refused_in_one_line(data):
    try:
        genome = Genome.from_json(data)
    except RequestError as error:
        assert len(str(error).splitlines()) == 1
    else:
        assert genome.to_json() == {"policy": list(data["policy"])}


@given(st.lists(st.fixed_dictionaries({"op": names | leaves, "probability": leaves, "magnitude": leaves}), min_size=1))
@quick
def test_any_entries_are_a_genome_or_refused_in_one_line(policy):
    allowed = all(
        isinstance(entry["op"], str)
        and entry["op"] in OPERATIONS
        and type(entry["probability"]) is int
        and type(entry["magnitude"]) is int
        and entry["probability"] in range(11)
        and entry["magnitude"] in range(10)
        for entry in policy
    )
    if allowed:
        assert Genome.from_json({"policy": policy}).to_json() == {"policy": policy}
    else:
        with pytest.raises(RequestError) as error:
            Genome.from_json({"policy": policy})
        assert len(lines(error)) == 1


def test_nesting_to_the_limit_is_refused_in_one_line():
    data = []
    for _ in range(100_000):
        data = [data]
    for wrong in (data, {"policy": data}, {"policy": [{**ROTATE, "probability": data}]}):
        with pytest.raises(RequestError) as error:
            Genome.from_json(wrong)
        assert len(lines(error)) == 1
        assert len(str(error.value)) < 300
