"""The catalog: one contract for all, mixes counted pixel by pixel, picks against numpy, names of one's own."""

import copy
import itertools
import json
import pickle
import random
import sys
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import stats
from support import FILLS, READY, pictures

from spaces import Entry, Genome, ImageSpec, Phase, Policy, RequestError, Schedule, apply, sample
from spaces.augmentations import CATALOG, CustomAugmentation, CutMix, Mixup, View, augmentation, entropy, imported_name
from spaces.core.seeding import seeded_generator

quick = settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow])

STRONG = [{"op": "Rotate", "probability": 7, "magnitude": 6}, {"op": "Invert", "probability": 4, "magnitude": 0}]
CHANGED = [
    {"kind": "crop_flip", "padding": 0.3},
    {"kind": "cutout", "side": 0.25},
    {"kind": "autoaugment", "table": "svhn"},
    {"kind": "randaugment", "operations": 3, "magnitude": 30},
    {"kind": "policy", "policy": STRONG},
    {"kind": "policy", "policy": []},
    {"kind": "mixup", "alpha": 0.4},
    {"kind": "cutmix", "alpha": 2},
    {"kind": "cutmixpick", "alpha": 0.5, "passes": 3, "pick_by": "student"},
    {"kind": "pick", "base": {"kind": "policy", "policy": STRONG}, "passes": 4},
]
"""Parameters that are not the defaults."""

MIXES = ["mixup", "cutmix", "cutmixpick", "pick"]
every_kind = pytest.mark.parametrize("kind", CATALOG)
every_ready = pytest.mark.parametrize("kind", READY)
every_draw = pytest.mark.parametrize("draw", ["sample", "batch"])
every_size = pytest.mark.parametrize("size", [(8, 8), (5, 9), (32, 32)], ids=lambda size: f"{size[0]}x{size[1]}")
both_mixes = pytest.mark.parametrize("mix", ["mixup", "cutmix"])


def made(kind, draw, **parameters):
    """Of the catalog; what `pick` picks from draws likewise."""
    if kind == "pick":
        parameters = {"base": {"kind": "cutmix", "draw": draw}} | parameters
    return augmentation({"kind": kind, "draw": draw, **parameters})


def linear(images):
    """A network that answers with five logits, whatever the size of the images."""
    # Whole numbers times 1024ths: every sum is exact, so that the answers are the same bits in a batch of any size.
    pixels = images.double().flatten(1)
    weights = torch.randn(pixels.shape[1], 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return pixels @ (weights * 1024).round() / (1024 * 255)


def view_of(choice, images, seed=0):
    return choice(images, FILLS[images.shape[1]], seeded_generator(seed), linear)


def same(one, other):
    names = ("images", "first", "second", "weight", "logits")
    pairs = [(getattr(one, name), getattr(other, name)) for name in names]
    return all(a is b is None or torch.equal(a, b) for a, b in pairs)


def colors(batch, height=8, width=8):
    """Images of one color each, all different."""
    shades = torch.arange(batch, dtype=torch.uint8) * (250 // batch) + 3
    return shades.view(-1, 1, 1, 1).expand(batch, 1, height, width).contiguous()


# ---- the contract ----------------------------------------------------------------------------------


@every_ready
@every_draw
@every_size
@pytest.mark.parametrize("channels", [1, 3])
def test_a_view_has_the_promised_shapes_and_leaves_the_images_as_they_are(kind, draw, size, channels):
    choice = made(kind, draw)
    for batch in (2, 7) if kind in MIXES else (1, 2, 7):
        images = pictures(batch, channels, *size)
        before = images.clone()
        view = view_of(choice, images, seed=batch)
        assert torch.equal(images, before)
        assert (view.images.dtype, view.images.shape) == (torch.uint8, images.shape)
        assert (view.first.dtype, view.first.shape) == (torch.int64, (batch,))
        assert (view.second.dtype, view.second.shape) == (torch.int64, (batch,))
        assert (view.weight.dtype, view.weight.shape) == (torch.float32, (batch,))
        assert all(0 <= row < batch for rows in (view.first, view.second) for row in rows.tolist())
        assert ((view.weight >= 0) & (view.weight <= 1)).all()
        if kind in MIXES:
            assert (view.first != view.second).all()
        else:
            assert view.first.tolist() == view.second.tolist() == list(range(batch))
            assert (view.weight == 1).all()
        assert (view.logits is None) == (choice.scored_by == "")
        assert view.logits is None or view.logits.shape == (batch, 5)


@every_ready
@every_draw
def test_the_generator_decides(kind, draw):
    choice, images = made(kind, draw), pictures(6, 3, 9, 8)
    one, other = seeded_generator(4), seeded_generator(4)
    for _ in range(2):  # and so does where it has come to
        assert same(choice(images, FILLS[3], one, linear), choice(images, FILLS[3], other, linear))
        assert torch.equal(one.get_state(), other.get_state())
    distinct = {view_of(choice, images, seed).images.numpy().tobytes() for seed in range(20)}
    assert len(distinct) == 1 if kind == "identity" else len(distinct) > 1
    moved = not torch.equal(one.get_state(), seeded_generator(4).get_state())
    assert moved == (kind != "identity")


@every_ready
@every_draw
def test_the_global_random_states_are_neither_read_nor_touched(kind, draw):
    choice, images = made(kind, draw), pictures(4, 3)
    before = (torch.get_rng_state(), np.random.get_state(), random.getstate())
    views = []
    try:
        for seed in (1, 2):
            torch.default_generator.manual_seed(seed)
            np.random.seed(seed)
            random.seed(seed)
            state = (torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate())
            views.append(view_of(choice, images))
            assert torch.equal(torch.get_rng_state(), state[0])
            assert np.array_equal(np.random.get_state()[1], state[1])
            assert random.getstate() == state[2]
    finally:
        torch.set_rng_state(before[0])
        np.random.set_state(before[1])
        random.setstate(before[2])
    assert same(*views)


@pytest.mark.parametrize(
    "content", [{"kind": kind} for kind in READY] + CHANGED, ids=lambda content: ",".join(map(str, content))
)
@every_draw
def test_an_augmentation_is_a_value(content, draw):
    choice = augmentation(content | {"draw": draw})
    plain = choice.to_json()
    assert plain["kind"] == choice.kind == content["kind"]
    assert plain["draw"] == draw
    assert json.loads(json.dumps(plain)) == plain
    for twin in (
        augmentation(plain),
        augmentation(json.loads(json.dumps(plain))),
        pickle.loads(pickle.dumps(choice)),
        copy.deepcopy(choice),
    ):
        assert twin == choice and twin is not choice
        assert hash(twin) == hash(choice)
        assert twin.to_json() == plain
        assert same(view_of(twin, pictures(3, 1, 6, 6)), view_of(choice, pictures(3, 1, 6, 6)))
    assert augmentation(choice) is choice
    with pytest.raises(FrozenInstanceError):
        choice.draw = "batch"


def test_what_differs_is_not_equal():
    choices = [augmentation(kind) for kind in CATALOG] + [augmentation(content) for content in CHANGED]
    choices += [augmentation({"kind": kind, "draw": "batch"}) for kind in READY if kind != "identity"]
    assert len(set(choices)) == len(choices)
    assert augmentation({"kind": "identity", "draw": "batch"}) == augmentation("identity"), "it draws nothing"


@every_kind
def test_a_name_alone_is_the_one_with_its_defaults(kind):
    assert augmentation(kind) == augmentation({"kind": kind}) == CATALOG[kind]()
    assert augmentation(kind).label == kind
    assert augmentation(kind).draw == "sample"


def test_a_label_names_what_differs_from_the_defaults():
    assert augmentation({"kind": "cutout", "side": 0.25, "draw": "batch"}).label == "cutout(draw=batch, side=0.25)"
    assert augmentation({"kind": "cutmixpick", "passes": 3}).label == "cutmixpick(passes=3)"


def test_who_is_asked():
    assert {kind: augmentation(kind).scored_by for kind in CATALOG if augmentation(kind).scored_by} == {
        "cutmixpick": "teacher",
        "pick": "teacher",
    }
    assert augmentation({"kind": "pick", "pick_by": "student"}).scored_by == "student"


# ---- one draw for the batch, or one for each image -------------------------------------------------


@pytest.mark.parametrize("kind", [kind for kind in READY if kind not in MIXES])
def test_equal_images_stay_equal_under_one_draw_and_part_under_many(kind):
    images = pictures(1, 3, 12, 10).expand(6, -1, -1, -1)
    alike = {"sample": set(), "batch": set()}
    for draw, found in alike.items():
        for seed in range(12):
            result = view_of(made(kind, draw), images, seed).images
            found.add(torch.equal(result, result[:1].expand_as(result)))
    assert alike["batch"] == {True}
    assert False in alike["sample"] or kind == "identity"


@pytest.mark.parametrize("kind", ["flip", "crop_flip", "cutout"])
def test_one_draw_is_the_same_change_to_every_image(kind):
    """Each image alone, under the same numbers."""
    images = pictures(5, 1, 8, 6)
    for seed in range(8):
        together = view_of(made(kind, "batch"), images, seed).images
        alone = [view_of(made(kind, "batch"), image.unsqueeze(0), seed).images for image in images]
        assert torch.equal(together, torch.cat(alone))


@both_mixes
def test_a_mix_has_one_lambda_and_one_box_for_the_batch(mix):
    images = colors(6)
    shares, boxes = {"sample": [], "batch": []}, {"sample": [], "batch": []}
    for draw, seed in itertools.product(shares, range(12)):
        view = view_of(made(mix, draw), images, seed)
        shares[draw].append(len(set(view.weight.tolist())))
        boxes[draw].append(len({mask.numpy().tobytes() for mask in view.images != images}))
    assert set(shares["batch"]) == {1} and set(boxes["batch"]) == {1}
    assert max(shares["sample"]) > 3 and (mix == "mixup" or max(boxes["sample"]) > 3)


@pytest.mark.parametrize("kind", ["cutmixpick", "pick"])
def test_each_pass_of_a_pick_has_a_draw_of_its_own(kind):
    images, boxes = colors(7), {"sample": [], "batch": []}
    for draw, seed in itertools.product(boxes, range(12)):
        view = view_of(made(kind, draw), images, seed)
        masks = view.images != images[view.first]
        boxes[draw].append(len({mask.numpy().tobytes() for mask in masks}))
    assert max(boxes["batch"]) == 2, "of two passes"
    assert max(boxes["sample"]) > 2


# ---- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("choice", "rule"),
    [
        (None, "an augmentation must be a name, or a mapping with kind and parameters, got None"),
        (3, "a mapping with kind and parameters, got 3"),
        (["cutmix"], r"with kind and parameters, got \['cutmix'\]"),
        ({}, "with kind and parameters, got {}"),
        ({"alpha": 1.0}, "with kind and parameters, got {'alpha': 1.0}"),
        ({"kind": 3}, "with kind and parameters, got {'kind': 3}"),
        ("cutmx", "^unknown augmentation 'cutmx'; did you mean 'cutmix'"),
        ("CutMix", "^unknown augmentation 'CutMix'; did you mean 'cutmix'"),
        ({"kind": "rand_augment"}, "^unknown augmentation 'rand_augment'; did you mean 'randaugment'"),
        ("", "^unknown augmentation ''; known: autoaugment, crop_flip, .*trivialaugment"),
        ("custom", "^unknown augmentation 'custom'; did you mean 'cutout'"),
        ({"kind": "mixup", "alhpa": 1.0}, "^unknown parameter of mixup 'alhpa'; did you mean 'alpha'"),
        ({"kind": "cutout", "alpha": 1.0}, "^unknown parameter of cutout 'alpha'; known: draw, kind, side"),
        ({"kind": "flip", 3: 1.0}, "^unknown parameter of flip '3'; known"),
        ({"kind": "cutmixpick", "base": "flip"}, "^unknown parameter of cutmixpick 'base'"),
        ({"kind": "mixup", "_weights": 1}, "^unknown parameter of mixup '_weights'"),
        ({"kind": "flip", "draw": "image"}, "^draw must be one of sample, batch, got 'image'$"),
        ({"kind": "flip", "draw": None}, "^draw must be one of sample, batch, got None$"),
        ({"kind": "cutmixpick", "draw": "both"}, "^draw must be one of sample, batch, got 'both'$"),
        ({"kind": "autoaugment", "table": "cifar"}, "^unknown table of autoaugment 'cifar'; did you mean 'cifar10'"),
        ({"kind": "autoaugment", "table": 10}, "^autoaugment table must be a string, got 10$"),
        ({"kind": "autoaugment", "table": 10**5000}, "^autoaugment table must be a string, got a value of type int"),
        ({"kind": "autoaugment", "table": ["svhn"]}, "^autoaugment table must be a string, got \\['svhn'\\]$"),
        ({"kind": "policy", "policy": "Rotate"}, "a policy must be a list of entries, got 'Rotate'"),
        ({"kind": "policy", "policy": [{**STRONG[0], "op": "Rotat"}]}, "unknown operation 'Rotat'; did you mean"),
        ({"kind": "policy", "policy": [{**STRONG[0], "magnitude": 10}]}, "from 0 to 9, got 10"),
        ({"kind": "pick", "pick_by": "both"}, "^pick pick_by must be one of teacher, student, got 'both'$"),
        ({"kind": "cutmixpick", "pick_by": None}, "^cutmixpick pick_by must be one of teacher, student, got None$"),
        ({"kind": "pick", "base": "pick"}, "^the base of pick must not be a pick, got 'pick'$"),
        ({"kind": "pick", "base": "cutmixpick"}, "^the base of pick must not be a pick, got 'cutmixpick'$"),
        ({"kind": "pick", "base": {"kind": "pick", "base": "flip"}}, "^the base of pick must not be a pick, got"),
        ({"kind": "pick", "base": "cutmixx"}, "^unknown augmentation 'cutmixx'; did you mean 'cutmix'"),
        ({"kind": "pick", "base": None}, "an augmentation must be a name, or a mapping .* got None"),
        (
            {"kind": "own.module:f", "side": [1]},
            r"^parameter side of own.module:f must be a string, a number, true, false or null, got \[1\]$",
        ),
        (
            {"kind": "own.f", "side": {"a": 1}},
            "^parameter side of own.f must be a string, a number, true, false or null, got {'a': 1}$",
        ),
    ],
)
def test_what_is_no_augmentation(choice, rule):
    with pytest.raises(RequestError, match=rule) as error:
        augmentation(choice)
    assert len(str(error.value).splitlines()) == 1


NUMBERS = [
    ("mixup", "alpha", [0.001, 1, 100, 0.5], [0, -1, 0.0009, 100.1], "mixup alpha must be a number from 0.001 to 100"),
    ("cutmix", "alpha", [0.001, 100.0], [0.0, 101], "cutmix alpha must be a number from 0.001 to 100"),
    ("cutmixpick", "alpha", [0.001, 100], [0, 1000], "cutmix alpha must be a number from 0.001 to 100"),
    ("crop_flip", "padding", [0, 1, 0.01], [-0.1, 1.01], "crop_flip padding must be a number from 0 to 1"),
    ("cutout", "side", [0, 1.0, 0.7], [-0.1, 1.01], "cutout side must be a number from 0 to 1"),
]
COUNTS = [
    ("randaugment", "operations", [0, 14], [-1, 15, 2.0], "randaugment operations must be an integer from 0 to 14"),
    ("randaugment", "magnitude", [0, 30], [-1, 31, 9.0], "randaugment magnitude must be an integer from 0 to 30"),
    ("pick", "passes", [2, 16], [17, 2.0], "pick passes must be an integer from 2 to 16"),
    ("cutmixpick", "passes", [2, 16], [17, 2.0], "cutmixpick passes must be an integer from 2 to 16"),
]
NEVER = [True, False, None, "1", [1], float("nan"), float("inf"), -float("inf"), 10**400]


@pytest.mark.parametrize(("kind", "name", "accepted", "refused", "rule"), NUMBERS + COUNTS)
def test_the_bounds_of_every_number(kind, name, accepted, refused, rule):
    images = pictures(3, 3)
    for value in accepted:
        choice = augmentation({"kind": kind, name: value})
        assert getattr(choice, name) == choice.to_json()[name] == value
        assert view_of(choice, images).images.shape == images.shape
    for value in refused + NEVER:
        with pytest.raises(RequestError) as error:
            augmentation({"kind": kind, name: value})
        assert str(error.value).startswith(f"{rule}, got {value!r}"[:140])
        assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, name, *_ in NUMBERS])
def test_equal_numbers_have_one_form(kind, name):
    """Else equal schedules would not have equal bytes."""
    forms = [[1, 1.0]] if name == "alpha" else [[1, 1.0], [0, 0.0, -0.0]]
    for equal in forms:
        choices = [augmentation({"kind": kind, name: value}) for value in equal]
        assert len(set(choices)) == 1
        assert len({json.dumps(choice.to_json()) for choice in choices}) == 1
        assert len({choice.label for choice in choices}) == 1


def test_every_parameter_is_bounded():
    """Whatever is added to the catalog has to be added here; what learns, to test_learned.py."""
    known = {"draw", "table", "policy", "base", "pick_by"}
    numbers = {(kind, name) for kind, name, *_ in NUMBERS + COUNTS}
    parameters = {(kind, name) for kind in READY for name in augmentation(kind).to_json() if name != "kind"}
    assert {pair for pair in parameters if pair[1] not in known} == numbers


@pytest.mark.parametrize("kind", ["pick", "cutmixpick"])
@pytest.mark.parametrize("passes", [1, 0, -1])
def test_a_pick_over_one_pass_is_refused(kind, passes):
    with pytest.raises(RequestError) as error:
        augmentation({"kind": kind, "passes": passes})
    rule = f"{kind} passes must be an integer from 2 to 16, got {passes}"
    assert str(error.value) == rule


def test_a_base_that_is_no_augmentation_is_refused():
    with pytest.raises(RequestError, match=r"^the base of pick must be an augmentation, got 'cutmix'$"):
        CATALOG["pick"](base="cutmix")
    with pytest.raises(RequestError, match=r"^the base of pick must not be a pick, got 'cutmixpick'$"):
        CATALOG["pick"](base=augmentation("cutmixpick"))


@pytest.mark.parametrize("kind", MIXES)
@every_draw
def test_a_batch_of_one_has_nobody_to_mix_with(kind, draw):
    with pytest.raises(RequestError) as error:
        view_of(made(kind, draw), pictures(1, 3))
    assert str(error.value) == "a batch must hold at least two images to be mixed, got 1; use larger batches"


@pytest.mark.parametrize("by", ["teacher", "student"])
@pytest.mark.parametrize("kind", ["pick", "cutmixpick"])
def test_a_pick_without_answers_is_refused(kind, by):
    with pytest.raises(RequestError, match=f"^{kind} must be called with `predict`, for the logits of the {by}$"):
        augmentation({"kind": kind, "pick_by": by})(pictures(4, 1), FILLS[1], seeded_generator(0))


def test_picks_in_picks_are_refused_at_any_depth():
    choice = {"kind": "cutmix"}
    for _ in range(50_000):
        choice = {"kind": "pick", "base": choice}
    with pytest.raises(RequestError, match=r"^the base of pick must not be a pick, got 'pick'$"):
        augmentation(choice)


def test_the_catalog_cannot_be_changed():
    with pytest.raises(TypeError):
        CATALOG["mine"] = CutMix
    assert all(cls.kind == kind and cls.__doc__ for kind, cls in CATALOG.items())


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters())
NAMES = st.sampled_from([*CATALOG, "Cutmix", "a.b:c", "..", ":"])
KEYS = st.sampled_from(["draw", "alpha", "side", "table", "policy", "base", "passes", "pick_by", "padding", "kind"])
VALUES = st.sampled_from([0, 1, 2, 0.5, 16, "sample", "batch", "svhn", "student", "flip", "cutmix", STRONG, []])
ANY = st.recursive(
    LEAVES | NAMES | VALUES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS | st.text(max_size=3), inner, max_size=4),
    max_leaves=8,
)


@given(
    ANY | st.builds(lambda kind, rest: rest | {"kind": kind}, NAMES, st.dictionaries(KEYS, VALUES | ANY, max_size=3))
)
@quick
def test_any_json_is_an_augmentation_or_refused_in_one_line(content):
    before = repr(content)
    try:
        choice = augmentation(content)
    except RequestError as error:
        assert len(str(error).splitlines()) == 1
        assert len(str(error)) < 600
    else:
        assert augmentation(choice.to_json()) == choice
        assert hash(augmentation(choice.to_json())) == hash(choice)
        assert isinstance(choice.label, str)
    assert repr(content) == before


# ---- flips, crops, Cutout, policies ----------------------------------------------------------------


def test_a_flip_mirrors_half_of_the_images_and_changes_nothing_else():
    images = pictures(400, 3, 5, 6)
    result = view_of(made("flip", "sample"), images).images
    mirrored = [torch.equal(one, image.flip(-1)) for one, image in zip(result, images, strict=True)]
    assert all(
        torch.equal(one, image) for one, image, turned in zip(result, images, mirrored, strict=True) if not turned
    )
    assert stats.binomtest(sum(mirrored), 400).pvalue > 1e-3


@pytest.mark.parametrize(
    ("padding", "rooms"), [(0, (0, 0)), (0.01, (1, 1)), (0.125, (1, 1)), (0.3, (2, 2)), (1, (6, 5))]
)
def test_a_crop_is_one_of_the_crops_of_the_padded_image(padding, rooms):
    image = pictures(1, 3, 6, 5)
    (down, right), fill = rooms, torch.tensor(FILLS[3], dtype=torch.uint8)
    padded = fill.view(3, 1, 1).expand(3, 6 + 2 * down, 5 + 2 * right).clone()
    padded[:, down : down + 6, right : right + 5] = image[0]
    crops = [padded[:, y : y + 6, x : x + 5] for y in range(2 * down + 1) for x in range(2 * right + 1)]
    known = {crop.contiguous().numpy().tobytes() for crop in (*crops, *(crop.flip(-1) for crop in crops))}
    result = view_of(made("crop_flip", "sample", padding=padding), image.expand(1500, -1, -1, -1)).images
    found = {crop.numpy().tobytes() for crop in result}
    assert found <= known
    assert found == known or padding == 1, "every one of them occurs"


@pytest.mark.parametrize(
    ("side", "size", "most"), [(0, (8, 8), 0), (0.5, (8, 8), 4), (0.5, (32, 16), 8), (1, (5, 9), 5)]
)
def test_cutout_covers_a_square_about_a_center_anywhere(side, size, most):
    images = torch.full((600, 1, *size), 255, dtype=torch.uint8)
    covered = view_of(made("cutout", "sample", side=side), images).images[:, 0] == FILLS[1][0]
    rows, columns = covered.any(2), covered.any(1)
    assert torch.equal(covered, rows.unsqueeze(2) & columns.unsqueeze(1)), "a rectangle"
    heights, widths = rows.sum(1), columns.sum(1)
    assert heights.max() == widths.max() == most
    assert heights.min() == widths.min() == most - most // 2, (
        "half of it lies outside where the center is at the border"
    )
    if most:
        assert covered.any(0).all(), "no pixel is safe"


@every_draw
def test_a_policy_is_what_the_engine_makes_of_it(draw):
    policy = Policy((Entry("Rotate", 7, 6), Entry("Invert", 4, 0)))
    images, generator = pictures(20, 3), seeded_generator(0)
    if draw == "sample":
        expected = apply(images, sample(policy, 20, generator), FILLS[3])
    else:
        one = sample(policy, 1, generator)
        expected = torch.cat([apply(image.unsqueeze(0), one, FILLS[3]) for image in images])
    assert torch.equal(view_of(made("policy", draw, policy=STRONG), images).images, expected)


# ---- torchvision's ---------------------------------------------------------------------------------


def torchvisions(kind, fill):
    from torchvision.transforms import v2

    return {
        "autoaugment": lambda: v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10, fill=fill),
        "randaugment": lambda: v2.RandAugment(2, 9, fill=fill),
        "trivialaugment": lambda: v2.TrivialAugmentWide(fill=fill),
    }[kind]()


@pytest.mark.parametrize("kind", ["autoaugment", "randaugment", "trivialaugment"])
@every_draw
@pytest.mark.parametrize("channels", [1, 3])
def test_torchvisions_own_output_under_the_same_seed(kind, draw, channels):
    """A gray image is one whose three channels are equal."""
    images = pictures(4, channels)
    wide = images.expand(-1, 3, -1, -1)
    change = torchvisions(kind, [float(value) for value in FILLS[3]] if channels == 3 else [float(FILLS[1][0])] * 3)
    for seed in range(6):
        drawn = int(torch.randint(2**62, (), generator=seeded_generator(seed)))
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(drawn)
            expected = change(wide) if draw == "batch" else torch.stack([change(image) for image in wide])
        assert torch.equal(view_of(made(kind, draw), images, seed).images, expected[:, :channels])


@pytest.mark.parametrize(("operations", "magnitude"), [(0, 9), (1, 30), (4, 3), (14, 0)])
def test_randaugments_parameters_are_torchvisions(operations, magnitude):
    from torchvision.transforms import v2

    images, change = pictures(4, 3), v2.RandAugment(operations, magnitude, fill=[float(value) for value in FILLS[3]])
    choice = made("randaugment", "batch", operations=operations, magnitude=magnitude)
    for seed in range(6):
        drawn = int(torch.randint(2**62, (), generator=seeded_generator(seed)))
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(drawn)
            expected = change(images)
        assert torch.equal(view_of(choice, images, seed).images, expected)


@pytest.mark.parametrize("table", ["cifar10", "imagenet", "svhn"])
def test_every_table_of_autoaugment_is_its_own(table):
    images = pictures(32, 3)
    others = {"cifar10", "imagenet", "svhn"} - {table}
    result = view_of(made("autoaugment", "sample", table=table), images).images
    assert not torch.equal(result, images)
    for other in others:
        assert not torch.equal(view_of(made("autoaugment", "sample", table=other), images).images, result)


# ---- mixes -----------------------------------------------------------------------------------------


@both_mixes
@pytest.mark.parametrize("batch", [2, 3, 4, 7])
def test_nobody_is_its_own_partner_and_everybody_is_somebodys(mix, batch):
    images, choice, generator = colors(batch, 2, 2), augmentation(mix), seeded_generator(batch)
    met = np.zeros((batch, batch))
    for _ in range(300 * (batch - 1)):
        view = choice(images, (0,), generator)
        assert view.first.tolist() == list(range(batch))
        assert sorted(view.second.tolist()) == list(range(batch)), "a permutation"
        met[np.arange(batch), view.second.numpy()] += 1
    assert (np.diag(met) == 0).all()
    for row in range(batch):
        chances = np.delete(met[row], row)
        assert (chances > 0).all()
        assert stats.chisquare(chances).pvalue > 1e-4 if batch > 2 else len(chances) == 1


@every_draw
@every_size
def test_cutmix_is_exact(draw, size):
    """Each pixel is of one of the two images, the partner's are a box, and λ is the share of the others, counted."""
    images, pixels = colors(40, *size), size[0] * size[1]
    areas = set()
    for seed in range(8):
        view = view_of(made("cutmix", draw), images, seed)
        own, partners = (view.images == images[rows] for rows in (view.first, view.second))
        assert (own ^ partners).all(), "of one or the other, and of both nowhere"
        box = partners[:, 0]
        assert torch.equal(box, box.any(2).unsqueeze(2) & box.any(1).unsqueeze(1)), "a box"
        counted = own[:, 0].sum(dim=(1, 2))
        assert torch.equal((view.weight.double() * pixels).round().long(), counted)
        torch.testing.assert_close(view.weight.double() * pixels, counted.double(), rtol=1e-6, atol=1e-5)
        areas.update(counted.tolist())
    assert len(areas) > 3


@pytest.mark.parametrize("size", [(32, 32), (32, 20)])
def test_a_box_away_from_the_border_has_the_sides_of_one_lambda(size):
    """With r = √(1 − λ) the sides are 2⌊⌊rH⌋/2⌋ and 2⌊⌊rW⌋/2⌋, so that both tell where r lies."""
    view = view_of(augmentation("cutmix"), colors(100, *size), 3)
    inside = 0
    for row, box in enumerate((view.images == colors(100, *size)[view.second])[:, 0]):
        lines, columns = box.any(1).nonzero().flatten().tolist(), box.any(0).nonzero().flatten().tolist()
        if not lines or min(lines + columns) == 0 or max(lines) == size[0] - 1 or max(columns) == size[1] - 1:
            continue
        inside += 1
        (height, width), (h, w) = (len(lines), len(columns)), size
        assert height % 2 == width % 2 == 0
        assert max(height / h, width / w) < min((height + 2) / h, (width + 2) / w)
        assert view.weight[row] == pytest.approx(1 - height * width / (h * w), abs=1e-6)
    assert inside > 10


def authors_box(generator, alpha, height, width):
    """How many pixels the box of CutMix's authors covers, after their `rand_bbox`."""
    ratio = np.sqrt(1.0 - generator.beta(alpha, alpha))
    cut_w, cut_h = int(width * ratio), int(height * ratio)
    cx, cy = generator.integers(width), generator.integers(height)
    x1, x2 = np.clip(cx - cut_w // 2, 0, width), np.clip(cx + cut_w // 2, 0, width)
    y1, y2 = np.clip(cy - cut_h // 2, 0, height), np.clip(cy + cut_h // 2, 0, height)
    return int((x2 - x1) * (y2 - y1))


@pytest.mark.parametrize("alpha", [0.3, 1.0])
def test_boxes_are_distributed_as_their_authors(alpha):
    height, width, count = 6, 9, 6000
    generator = np.random.default_rng(0)
    expected = [authors_box(generator, alpha, height, width) for _ in range(count)]
    images = torch.zeros(count, 1, height, width, dtype=torch.uint8)
    weight = view_of(augmentation({"kind": "cutmix", "alpha": alpha}), images).weight
    got = ((1 - weight) * height * width).round().long().tolist()
    table = np.stack([np.bincount(areas, minlength=height * width + 1) for areas in (expected, got)])
    assert stats.chi2_contingency(table[:, table.sum(axis=0) > 10]).pvalue > 1e-3


@pytest.mark.parametrize("alpha", [0.2, 1.0, 5.0])
def test_lambda_is_beta_distributed(alpha):
    images = torch.zeros(5000, 1, 1, 1, dtype=torch.uint8)
    weight = view_of(augmentation({"kind": "mixup", "alpha": alpha}), images).weight
    assert stats.kstest(weight.double().numpy(), stats.beta(alpha, alpha).cdf).pvalue > 1e-3
    once = [float(view_of(made("mixup", "batch", alpha=alpha), images[:2], seed).weight[0]) for seed in range(1000)]
    assert stats.kstest(once, stats.beta(alpha, alpha).cdf).pvalue > 1e-3


@every_draw
def test_mixup_is_the_weighted_sum_of_two_images_in_bytes(draw):
    images = pictures(30, 3)
    view = view_of(made("mixup", draw), images)
    weight, pixels = view.weight.double().view(-1, 1, 1, 1), images.double()
    exact = weight * pixels[view.first] + (1 - weight) * pixels[view.second]
    assert ((view.images.double() - exact).abs() <= 0.5 + 1e-4).all()


def test_mixup_of_two_images_by_hand():
    images = torch.stack((torch.zeros(1, 2, 2), torch.full((1, 2, 2), 200.0))).to(torch.uint8)
    for seed in range(10):
        view = view_of(augmentation("mixup"), images, seed)
        assert view.second.tolist() == [1, 0]
        ours, theirs = view.weight.tolist()
        expected = [round((1 - ours) * 200), round(theirs * 200)]
        assert view.images[:, 0, 0, 0].tolist() == expected


def test_mixing_an_image_with_its_copy_changes_nothing():
    images = pictures(1, 3).expand(5, -1, -1, -1)
    assert torch.equal(view_of(Mixup(), images).images, images)
    assert torch.equal(view_of(CutMix(), images).images, images)


def test_a_class_agrees_with_either_image_that_is_shown():
    labels = torch.tensor([4, 7, 9])
    view = View(
        images=torch.zeros(6, 1, 1, 1, dtype=torch.uint8),
        first=torch.tensor([0, 0, 0, 1, 2, 1]),
        second=torch.tensor([1, 1, 1, 0, 0, 1]),
        weight=torch.tensor([0.7, 0.7, 0.7, 1.0, 0.0, 1.0]),
    )
    assert view.matches_label(torch.tensor([4, 7, 9, 4, 9, 7]), labels).tolist() == [
        True,
        True,
        False,
        False,
        False,
        True,
    ]
    assert view.matches_label(torch.tensor([7, 4, 0, 7, 4, 4]), labels).tolist() == [
        True,
        True,
        False,
        True,
        True,
        False,
    ]


def test_a_view_alone_agrees_with_the_label():
    labels = torch.tensor([2, 0, 1, 1])
    view = View.unmixed(pictures(4, 1))
    assert view.matches_label(torch.tensor([2, 1, 1, 0]), labels).tolist() == [True, False, True, False]
    assert view.logits is None


# ---- entropy, and what is picked by it -------------------------------------------------------------


def test_entropy_on_logits_by_hand():
    logits = torch.tensor([[0.0, 0, 0, 0], [1000, 0, 0, 0], [5, 5, -1000, -1000], [0, float(np.log(3)), -1e9, -1e9]])
    quarter = -(0.25 * np.log(0.25) + 0.75 * np.log(0.75))
    assert entropy(logits).tolist() == pytest.approx([np.log(4), 0, np.log(2), quarter], abs=1e-6)
    without = torch.tensor([[0.0, -torch.inf, 0.0], [-torch.inf, 3.0, -torch.inf]])
    assert entropy(without).tolist() == pytest.approx([np.log(2), 0], abs=1e-6), "a class that is ruled out"


def test_entropy_against_scipy_and_whatever_is_added_to_all_logits():
    logits = 4 * torch.randn(50, 10, generator=seeded_generator(1))
    expected = stats.entropy(np.exp(logits.double().numpy()), axis=1)
    np.testing.assert_allclose(entropy(logits), expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(entropy(logits + 50), entropy(logits), rtol=1e-4, atol=1e-4)


class Answers:
    """Answers row k of the pool with certainty k, and remembers what was asked."""

    def __init__(self, *certainties):
        self.logits = torch.tensor(certainties).unsqueeze(1) * torch.tensor([[1.0, 0.0, -1.0]])
        self.teacher_inputs = []
        self.gradients = []

    def __call__(self, images):
        self.teacher_inputs.append(images.clone())
        self.gradients.append(torch.is_grad_enabled())
        return self.logits


@pytest.mark.parametrize(
    ("certainties", "picked"),
    [
        ([9, 0, 8, 1, 7, 2], [1, 3, 5]),
        ([5, 1, 5, 5, 2, 3], [1, 4, 5]),  # both versions of image 1, and none of image 0
        ([0, 1, 2, 7, 8, 9], [0, 1, 2]),
        ([7, 8, 9, 2, 1, 0], [5, 4, 3]),
        ([9, 8, 7, 9, 8, 1, 0, 6, 2], [6, 5, 8]),  # three passes; image 2 twice
    ],
)
def test_the_least_certain_of_the_whole_pool_are_picked(certainties, picked):
    answers, images = Answers(*map(float, certainties)), colors(3)
    choice = augmentation({"kind": "pick", "base": "cutout", "passes": len(certainties) // 3})
    view = choice(images, (0,), seeded_generator(5), answers)
    (pool,) = answers.teacher_inputs
    assert len(pool) == len(certainties), "asked once, about the whole pool"
    assert answers.gradients == [False]
    assert view.first.tolist() == view.second.tolist() == [row % 3 for row in picked]
    assert torch.equal(view.images, pool[picked])
    assert torch.equal(view.logits, answers.logits[picked])


@every_draw
@pytest.mark.parametrize("passes", [2, 3])
@pytest.mark.parametrize("by", ["teacher", "student"])
def test_cutmixpick_against_a_plain_implementation(draw, passes, by):
    images, batch = pictures(8, 3, 8, 8), 8
    choice = made("cutmixpick", draw, passes=passes, pick_by=by)
    for seed in range(6):
        generator = seeded_generator(seed)
        views = [CutMix(draw=draw)(images, FILLS[3], generator) for _ in range(passes)]
        pool = np.concatenate([view.images.numpy() for view in views])
        logits = linear(torch.from_numpy(pool)).numpy()
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        uncertainty = -(shares * np.log(shares)).sum(axis=1)
        best = np.argsort(-uncertainty)[:batch]
        view = view_of(choice, images, seed)
        np.testing.assert_array_equal(view.images.numpy(), pool[best])
        np.testing.assert_allclose(view.logits.numpy(), logits[best], rtol=1e-12)
        for name in ("first", "second", "weight"):
            parts = np.concatenate([getattr(one, name).numpy() for one in views])
            np.testing.assert_array_equal(getattr(view, name).numpy(), parts[best])


def test_cutmixpick_is_a_pick_from_cutmix():
    images = pictures(9, 1)
    both = (augmentation("cutmixpick"), augmentation({"kind": "pick", "base": "cutmix", "passes": 2}))
    assert same(*(view_of(choice, images) for choice in both))


@pytest.mark.parametrize("base", [kind for kind in READY if kind not in ("pick", "cutmixpick")])
def test_any_other_augmentation_can_be_picked_from(base):
    images = pictures(5, 3)
    view = view_of(augmentation({"kind": "pick", "base": base, "passes": 3}), images)
    assert torch.equal(view.logits, linear(view.images)), "the answers are those to what was picked"
    certainty = entropy(view.logits)
    assert torch.equal(certainty, certainty.sort(descending=True).values)


# ---- names of one's own ----------------------------------------------------------------------------

MODULE = """
import torch

def darker(factor=2):
    return lambda images, generator: images // factor

def noisy():
    return lambda images, generator: torch.randint(0, 256, images.shape, generator=generator, dtype=torch.uint8)

def in_place():
    return lambda images, generator: images.zero_()

def smaller():
    return lambda images, generator: images[..., :-1]

def fewer():
    return lambda images, generator: images[1:]

def floats():
    return lambda images, generator: images.float()

def nothing():
    return lambda images, generator: None

def number():
    return 3
"""
numbered = itertools.count()


@pytest.fixture
def module(tmp_path, monkeypatch):
    """The name of a module of the user's own that nobody imported."""
    name = f"roletune_own_view_{next(numbered)}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    yield name
    sys.modules.pop(name, None)


def file_of(choice):
    genome = Genome(Policy((Entry("Rotate", 3, 4),)), augmentation(choice))
    return Schedule((Phase(2, genome), Phase(1, Genome())), "student", ImageSpec(8, 1, (0,)))


@pytest.mark.parametrize("form", ["{}:darker", "{}.darker"])
def test_an_augmentation_of_ones_own_in_a_genome(module, form):
    name, images = form.format(module), pictures(3, 3)
    genome = Genome(augment=augmentation({"kind": name, "factor": 3}))
    assert genome.has_view and not genome.is_identity
    assert Genome.from_json(json.loads(json.dumps(genome.to_json()))) == genome
    assert hash(pickle.loads(pickle.dumps(genome))) == hash(genome)
    assert genome.augment.to_json() == {"kind": name, "factor": 3}
    assert module not in sys.modules, "nothing was imported so far"
    view = view_of(genome.augment, images)
    assert module in sys.modules
    assert torch.equal(view.images, images // 3)
    assert torch.equal(view.first, view.second) and view.weight.tolist() == [1, 1, 1]
    assert torch.equal(view_of(augmentation(name), images).images, images // 2)


def test_one_of_ones_own_draws_from_the_generator_it_is_given(module):
    choice, images = augmentation(f"{module}:noisy"), pictures(3, 1)
    assert same(view_of(choice, images, 1), view_of(choice, images, 1))
    assert not same(view_of(choice, images, 1), view_of(choice, images, 2))


def test_one_that_writes_into_what_it_is_given_does_no_harm(module):
    images = pictures(3, 1)
    before = images.clone()
    assert not view_of(augmentation(f"{module}:in_place"), images).images.any()
    assert torch.equal(images, before)


@pytest.mark.parametrize(
    ("name", "got"),
    [
        ("smaller", r"\(torch.uint8, \(3, 1, 13, 10\)\)$"),
        ("fewer", r"\(torch.uint8, \(2, 1, 13, 11\)\)$"),
        ("floats", r"\(torch.float32, \(3, 1, 13, 11\)\)$"),
        ("nothing", "'NoneType'$"),
    ],
)
def test_one_that_returns_something_else_is_refused(module, name, got):
    with pytest.raises(
        RequestError, match=rf"{name} must return images of \(torch.uint8, \(3, 1, 13, 11\)\), got {got}"
    ):
        view_of(augmentation(f"{module}:{name}"), pictures(3, 1))


def test_one_that_cannot_be_called_or_is_not_there(module):
    with pytest.raises(RequestError, match=r"number must return a callable \(images, generator\) → images, got 'int'$"):
        view_of(augmentation(f"{module}:number"), pictures(3, 1))
    with pytest.raises(RequestError, match=r"unknown attribute of .* 'darkr'; did you mean 'darker'"):
        view_of(augmentation(f"{module}:darkr"), pictures(3, 1))
    with pytest.raises(RequestError, match="there is no module 'roletune_nowhere'"):
        view_of(augmentation("roletune_nowhere.views:darker"), pictures(3, 1))


@pytest.mark.parametrize("picked", [False, True])
def test_a_file_with_a_name_of_ones_own_is_refused_unless_it_is_allowed(module, picked, tmp_path):
    name = f"{module}:darker"
    choice = {"kind": "pick", "base": name} if picked else name
    assert imported_name(augmentation(choice)) == name
    schedule = file_of(choice)
    text, path = schedule.dumps(), schedule.save(tmp_path / "policy.json")
    for own in ([], ["darker"], [module], [f"{module}.darker"]):
        with pytest.raises(RequestError) as error:
            Schedule.loads(text, custom=own)
        (line,) = str(error.value).splitlines()
        assert line.startswith("the text: a policy file must not import custom code without permission")
        assert f"got {name!r}; if you trust it, allow that name: custom=[" in line
    with pytest.raises(
        RequestError, match=r"policy.json: a policy file must not import custom code without permission"
    ):
        Schedule.load(path)
    assert Schedule.loads(text, custom=[name]) == Schedule.load(path, custom={name, "other.one"}) == schedule
    assert Schedule.loads(text, custom=[name]).dumps() == text
    assert module not in sys.modules, "to read a file imports nothing"


@every_kind
def test_what_is_of_the_catalog_imports_nothing(kind):
    assert imported_name(augmentation(kind)) == ""
    assert Schedule.loads(file_of(kind).dumps()) == file_of(kind)


def test_a_value_of_ones_own_is_compared_by_name_and_parameters():
    one = augmentation({"kind": "mine.f", "a": 1, "b": None})
    assert (
        one
        == augmentation({"b": None, "kind": "mine.f", "a": 1})
        == CustomAugmentation(factory="mine.f", parameters=(("a", 1), ("b", None)))
    )
    assert one != augmentation({"kind": "mine.f", "a": 2, "b": None})
    assert one != augmentation({"kind": "mine:f", "a": 1, "b": None})
