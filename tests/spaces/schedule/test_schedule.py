"""Schedules: which genome at which epoch, stretched exactly, and equal when they do the same."""

import copy
import pickle
from fractions import Fraction
from itertools import pairwise

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spaces import Entry, Genome, ImageSpec, Phase, Policy, RequestError, Schedule, Transform, apply
from spaces.augmentations import Flip
from spaces.core.seeding import seeded_generator
from spaces.policy.sampling import ParameterStream
from spaces.schedule.schedule import merge

quick = settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])
IMAGE = ImageSpec(32, 3, (125, 122, 113))


def numbered(index):
    """110 genomes, told apart by their numbers."""
    return Genome(Policy((Entry("Rotate", index // 10, index % 10),)))


def schedule_of(*lengths, role="student", image=IMAGE, **more):
    """Phases of these lengths, no two with the same genome."""
    return Schedule(tuple(Phase(n, numbered(i)) for i, n in enumerate(lengths)), role, image, **more)


def indices(schedule):
    """For every epoch, which genome of `numbered` is in force."""
    genomes = [schedule.at(epoch).policy.entries[0] for epoch in range(schedule.epochs)]
    return [entry.probability * 10 + entry.magnitude for entry in genomes]


lengths = st.lists(st.integers(1, 60), min_size=1, max_size=12)


# ---- at --------------------------------------------------------------------------------------------


def test_at_an_epoch():
    assert indices(schedule_of(2, 1, 3)) == [0, 0, 1, 2, 2, 2]


@given(lengths)
@quick
def test_every_phase_is_in_force_for_its_epochs_in_order(counts):
    assert indices(schedule_of(*counts)) == [i for i, n in enumerate(counts) for _ in range(n)]


@pytest.mark.parametrize("epoch", [6, 7, 1000, -1])
def test_at_no_epoch_of_the_schedule(epoch):
    with pytest.raises(RequestError, match=f"^the epoch must be from 0 to 5 for this schedule, got {epoch};.*stretch"):
        schedule_of(2, 1, 3).at(epoch)


# ---- stretch ---------------------------------------------------------------------------------------


@given(lengths, st.integers(1, 700))
@quick
def test_every_epoch_shows_what_was_in_force_at_its_middle(counts, epochs):
    """Boundaries that are rounded to whole epochs, said the other way round; a middle on a boundary looks back."""
    original, stretched = schedule_of(*counts), schedule_of(*counts).stretch(epochs)
    expected = []
    for epoch in range(epochs):
        middle = (epoch + Fraction(1, 2)) * original.epochs / epochs
        ends = [sum(counts[: i + 1]) for i in range(len(counts))]
        expected.append(next(i for i, end in enumerate(ends) if middle <= end))
    assert indices(stretched) == expected


@given(lengths, st.integers(1, 700))
@quick
def test_stretch_covers_exactly_so_many_epochs_in_order(counts, epochs):
    stretched = schedule_of(*counts).stretch(epochs)
    order = indices(stretched)
    assert stretched.epochs == len(order) == epochs
    assert order == sorted(order)
    assert all(one.genome != other.genome for one, other in pairwise(stretched.phases))


@given(lengths, st.integers(1, 700))
@quick
def test_every_boundary_keeps_its_fraction_within_half_an_epoch(counts, epochs):
    original, order = schedule_of(*counts), indices(schedule_of(*counts).stretch(epochs))
    for index in range(len(counts)):
        end = Fraction(sum(counts[: index + 1]), original.epochs) * epochs
        assert abs(sum(i <= index for i in order) - end) <= Fraction(1, 2)


@given(lengths)
@quick
def test_stretch_to_its_own_length_changes_nothing(counts):
    schedule = schedule_of(*counts)
    assert schedule.stretch(schedule.epochs) == schedule


@given(lengths, st.integers(1, 20))
@quick
def test_stretch_by_a_whole_factor_multiplies_every_phase(counts, factor):
    schedule = schedule_of(*counts)
    stretched = schedule.stretch(schedule.epochs * factor)
    assert stretched == schedule_of(*(n * factor for n in counts))
    assert stretched.stretch(schedule.epochs) == schedule, "and back again"


def test_stretch_drops_phases_too_short_to_show():
    assert schedule_of(10, 1, 10).stretch(2).phases == (Phase(1, numbered(0)), Phase(1, numbered(2)))
    assert [phase.epochs for phase in schedule_of(*[1] * 100).stretch(1).phases] == [1]


def test_halves_round_up():
    assert indices(schedule_of(1, 1).stretch(1)) == [0]
    assert indices(schedule_of(1, 1).stretch(3)) == [0, 0, 1]
    assert indices(schedule_of(1, 1).stretch(5)) == [0, 0, 0, 1, 1]


def test_stretch_keeps_all_but_the_phases():
    schedule = schedule_of(2, 3, role="teacher", provenance={"run": "a"}).stretch(50)
    assert (schedule.role, schedule.image, schedule.provenance) == ("teacher", IMAGE, {"run": "a"})


def test_stretch_of_a_very_long_schedule_is_exact():
    """Floats would be off by then."""
    schedule = schedule_of(10**17 + 1, 1, 10**17)
    assert schedule.stretch(2 * schedule.epochs) == schedule_of(2 * 10**17 + 2, 2, 2 * 10**17)


@pytest.mark.parametrize("epochs", [0, -3, 2.5, 3.0, True, "3", None])
def test_stretch_to_no_epochs(epochs):
    with pytest.raises(RequestError) as error:
        schedule_of(1).stretch(epochs)
    assert str(error.value) == f"the epochs of a schedule must be an integer >= 1, got {epochs!r}"


# ---- merge -----------------------------------------------------------------------------------------


def test_merge_joins_neighbors_and_only_neighbors():
    a, b = numbered(0), numbered(1)
    phases = (Phase(1, a), Phase(2, a), Phase(3, b), Phase(4, a), Phase(5, a), Phase(6, a))
    assert merge(phases) == (Phase(3, a), Phase(3, b), Phase(15, a))
    assert merge(()) == ()


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 2)), min_size=1, max_size=20))
@quick
def test_merge_changes_no_epoch(runs):
    phases = tuple(Phase(n, numbered(i)) for n, i in runs)
    merged = merge(phases)
    assert indices(Schedule(merged, "teacher", IMAGE)) == [i for n, i in runs for _ in range(n)]
    assert all(one.genome != other.genome for one, other in pairwise(merged))
    assert merge(merged) == merged


# ---- a schedule is a value -------------------------------------------------------------------------


def test_where_it_comes_from_does_not_count():
    one, other = schedule_of(2, 3, provenance={"run": "a", "parents": [1]}), schedule_of(2, 3)
    assert one == other
    assert hash(one) == hash(other)
    assert {one, other} == {one}


@pytest.mark.parametrize(
    "other",
    [
        schedule_of(2, 4),
        schedule_of(2),
        schedule_of(2, 3, role="teacher"),
        schedule_of(2, 3, image=ImageSpec(31, 3, (125, 122, 113))),
        schedule_of(2, 3, image=ImageSpec(32, 3, (125, 122, 114))),
        schedule_of(2, 3, image=ImageSpec(32, 1, (125,))),
        Schedule((Phase(2, numbered(0)), Phase(3, numbered(5))), "student", IMAGE),
    ],
)
def test_everything_else_counts(other):
    assert schedule_of(2, 3) != other


@pytest.mark.parametrize("provenance", [{}, {"run": "a", "seed": 3}])
def test_copies_are_equal(provenance):
    schedule = schedule_of(2, 3, provenance=provenance)
    for twin in (pickle.loads(pickle.dumps(schedule)), copy.deepcopy(schedule)):
        assert twin == schedule
        assert twin.provenance == provenance
    plain = Schedule(schedule.phases, "student", IMAGE)
    assert pickle.loads(pickle.dumps(plain)) == plain


# ---- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize("epochs", [0, -1, True, 1.0, 2.5, "3", None, float("nan")])
def test_a_phase_of_no_epochs(epochs):
    with pytest.raises(RequestError) as error:
        Phase(epochs, numbered(0))
    assert str(error.value) == f"Phase.epochs must be an integer >= 1, got {epochs!r}"


@pytest.mark.parametrize(
    ("image", "rule"),
    [
        ((0, 3, (1, 2, 3)), "ImageSpec.size must be an integer >= 1, got 0"),
        ((32.0, 3, (1, 2, 3)), ">= 1, got 32.0"),
        ((True, 3, (1, 2, 3)), ">= 1, got True"),
        ((32, 2, (1, 2)), "ImageSpec.channels must be 1 or 3, got 2"),
        ((32, 3.0, (1, 2, 3)), "must be 1 or 3, got 3.0"),
        ((32, True, (1,)), "must be 1 or 3, got True"),
        ((32, 3, (1, 2)), r"ImageSpec.fill must have 3 integers from 0 to 255, got \[1, 2\]"),
        ((32, 1, (1, 2, 3)), r"ImageSpec.fill must have 1 integers from 0 to 255, got \[1, 2, 3\]"),
        ((32, 3, (1, 2, 256)), "from 0 to 255, got"),
        ((32, 3, (-1, 2, 3)), "from 0 to 255, got"),
        ((32, 3, (1.0, 2, 3)), r"from 0 to 255, got \[1.0, 2, 3\]"),
        ((32, 1, (False,)), r"from 0 to 255, got \[False\]"),
    ],
)
def test_what_is_no_image(image, rule):
    with pytest.raises(RequestError, match=rule):
        ImageSpec(*image)


def test_what_is_no_schedule():
    with pytest.raises(RequestError, match="at least one phase"):
        Schedule((), "student", IMAGE)
    with pytest.raises(RequestError, match=r"Schedule.role must be one of teacher, student, got 'judge'"):
        schedule_of(1, role="judge")


# ---- its transform ---------------------------------------------------------------------------------


def strong(index):
    return Genome(Policy((Entry("Invert", 10, index), Entry("Rotate", 10, 9), Entry("Cutout", 10, 9))))


def batch(channels=3):
    generator = torch.Generator().manual_seed(channels)
    return torch.randint(0, 256, (48, channels, 16, 16), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("image", [IMAGE, ImageSpec(16, 1, (77,))])
def test_the_transform_of_an_epoch_is_that_epochs_genome_and_color(image):
    schedule = Schedule((Phase(2, strong(1)), Phase(2, strong(2))), "student", image)
    images = batch(image.channels)
    for epoch in range(4):
        transform = schedule.transform(epoch, seed=9)
        assert isinstance(transform, Transform)
        expected = apply(
            images, ParameterStream(schedule.at(epoch).policy, seeded_generator(9, epoch)).take(48), image.fill
        )
        assert torch.equal(transform(images), expected)


def test_the_transforms_numbers_follow_from_seed_and_epoch():
    schedule = Schedule((Phase(9, strong(1)),), "student", IMAGE)
    images = batch()
    assert torch.equal(schedule.transform(3)(images), schedule.transform(3, seed=0)(images))
    results = [schedule.transform(epoch, seed=seed)(images) for epoch in range(4) for seed in range(4)]
    assert all(not torch.equal(one, other) for i, one in enumerate(results) for other in results[:i])


def test_no_transform_after_the_end():
    with pytest.raises(RequestError, match="from 0 to 1 for this schedule, got 2"):
        schedule_of(2).transform(2)


# ---- the control, and one number -------------------------------------------------------------------


def test_shuffled_keeps_genomes_and_epochs_and_changes_their_order():
    schedule = schedule_of(1, 2, 3, 4, 5)
    orders = {schedule.shuffled(seed).phases for seed in range(40)}
    assert all(sorted(map(repr, phases)) == sorted(map(repr, schedule.phases)) for phases in orders)
    assert schedule.phases not in orders
    assert len(orders) > 25
    assert schedule.shuffled(3) == schedule.shuffled(3)
    assert schedule.shuffled(3).provenance == {"shuffled": 3, "of": dict(schedule.provenance)}
    assert Schedule.loads(schedule.shuffled(3).dumps()) == schedule.shuffled(3)


def test_two_phases_change_places_and_one_stays():
    two = schedule_of(1, 2)
    assert all(two.shuffled(seed).phases == two.phases[::-1] for seed in range(5))
    assert schedule_of(4).shuffled(0).phases == schedule_of(4).phases


entries = st.builds(Entry, st.sampled_from(["Rotate", "Invert", "Cutout"]), st.integers(0, 10), st.integers(0, 9))
policies = st.lists(entries, max_size=6).map(lambda each: Policy(tuple(each)))


@given(st.lists(st.tuples(st.integers(1, 30), policies), min_size=1, max_size=6))
@quick
def test_the_mean_of_policies_keeps_how_often_operations_are_applied(weighted):
    total = sum(epochs for epochs, _ in weighted)
    mean = Policy.mean(weighted)
    for op in ("Rotate", "Invert", "Cutout"):
        wanted = sum(epochs * entry.probability for epochs, policy in weighted for entry in policy if entry.op == op)
        places = [entry for entry in mean if entry.op == op]
        assert abs(sum(entry.probability for entry in places) - wanted / total) < max(1, len(places))
    wanted = sum(epochs * entry.probability for epochs, policy in weighted for entry in policy) / total
    assert abs(sum(entry.probability for entry in mean) - wanted) <= 0.5, "rounding takes nothing away over all"
    assert Policy.mean([(7, mean)]).entries == tuple(
        entry if entry.probability else Entry(entry.op, 0, 0) for entry in mean
    )


def test_the_mean_of_a_schedule_is_one_phase():
    strong, weak = Policy((Entry("Rotate", 8, 9), Entry("Cutout", 0, 5))), Policy((Entry("Rotate", 4, 3),))
    flipped = Genome(weak, Flip(), {"alpha": 0.5}, {"weights": 2})
    schedule = Schedule((Phase(1, Genome(strong)), Phase(3, flipped)), "student", IMAGE)
    mean = schedule.mean()
    assert [phase.epochs for phase in mean.phases] == [4]
    genome = mean.phases[0].genome
    assert genome.policy.entries == (Entry("Rotate", 5, 5), Entry("Cutout", 0, 0))  # (8 + 3·4) / 4, (72 + 3·12) / 20
    assert (genome.augment, genome.distill, genome.bits) == (Flip(), {"alpha": 0.5}, {"weights": 2})
    assert Schedule.loads(mean.dumps()) == mean


def test_mean_strength_is_over_entries_and_epochs():
    strong = Genome(Policy((Entry("Rotate", 10, 9), Entry("Invert", 5, 0))))  # 9 and 4.5
    weak = Genome(Policy((Entry("Rotate", 5, 2), Entry("Invert", 0, 0))))  # 1 and 0
    schedule = Schedule((Phase(1, strong), Phase(3, weak)), "teacher", ImageSpec(8, 1, (0,)))
    assert schedule.mean_strength() == pytest.approx((6.75 + 3 * 0.5) / 4)
    assert Schedule((Phase(2, Genome()),), "teacher", ImageSpec(8, 1, (0,))).mean_strength() == 0


@pytest.mark.parametrize("epoch", [0.5, True, "0", None])
def test_an_epoch_is_a_whole_number(epoch):
    with pytest.raises(RequestError, match="an epoch must be an integer"):
        schedule_of(3).at(epoch)


@pytest.mark.parametrize("seed", [-1, 0.5, "0"])
def test_a_shuffles_seed_is_a_whole_number(seed):
    with pytest.raises(RequestError, match="seed must be an integer >= 0"):
        schedule_of(3).shuffled(seed)


def test_lists_are_taken_for_tuples():
    entry = Entry("Rotate", 3, 4)
    listed = Schedule([Phase(2, Genome(Policy([entry])))], "student", ImageSpec(8, 3, [1, 2, 3]))
    plain = Schedule((Phase(2, Genome(Policy((entry,)))),), "student", ImageSpec(8, 3, (1, 2, 3)))
    assert listed == plain
    assert hash(listed.phases) == hash(plain.phases)
    with pytest.raises(RequestError, match=r"Policy.entries must be Entry"):
        Policy(("Rotate",))
    with pytest.raises(RequestError, match=r"Schedule.phases must be Phase"):
        Schedule((Genome(),), "student", ImageSpec(8, 1, (0,)))
