"""What learns: hard augmentations as values, their rules, their learned weights, and the file that these travel in."""

import copy
import hashlib
import json
import pickle
from dataclasses import FrozenInstanceError, fields, replace

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from support import FILLS, READY, pictures, taught, with_any_vae

from spaces import Entry, Genome, ImageSpec, Phase, Policy, RequestError, Schedule, Space
from spaces.augmentations import CATALOG, Hard, HardAffine, HardChain, HardColor, HardMix, HardVae, augmentation
from spaces.augmentations.hard import FACTORS, RANGES, fill_color, load_weights
from spaces.augmentations.hard_weights import learned_weights, with_weights
from spaces.core.seeding import seeded_generator
from spaces.core.weights import Learned

quick = settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])

HARD = [kind for kind in CATALOG if kind not in READY]
SMALL_VAE = {"kind": "hard_vae", "latent": 2, "width": 4}
CHANGED = [
    {"kind": "hard_affine", "linear": 0, "shift": 1, "conditional": True, "lambda_t": 0, "lr": 0.001},
    {"kind": "hard_mix", "regions": 2, "most": 0.25, "conditional": False, "memory": 3},
    {"kind": "hard_color", "reach": 1, "low": 0.5, "high": 0.75, "warmup": 1},
    {**SMALL_VAE, "reach": 0, "vae_steps": 10, "augmentor_steps": 7},
    {"kind": "hard_chain", "parts": ["hard_mix", {"kind": "hard_affine", "shift": 0.1}, SMALL_VAE], "lambda_h": 2},
]
"""Parameters that are not the defaults."""

EVERY = [{"kind": kind} for kind in HARD] + CHANGED
every_hard = pytest.mark.parametrize("content", EVERY, ids=lambda content: ",".join(map(str, content.values()))[:40])
every_taught = pytest.mark.parametrize(
    "content", [SMALL_VAE if kind == "hard_vae" else {"kind": kind} for kind in HARD] + CHANGED[-1:], ids=str
)
SHA = "0123456789abcdef" * 4
IMAGE = ImageSpec(8, 1, (64,))
ROTATE = Policy((Entry("Rotate", 3, 4),))


def view_of(choice, images, seed=0):
    return choice(images, FILLS[images.shape[1]], seeded_generator(seed))


def refusal(work):
    with pytest.raises(RequestError) as error:
        work()
    (line,) = str(error.value).splitlines()
    assert len(line) < 600
    return line


# ---- values ----------------------------------------------------------------------------------------


def test_these_learn():
    assert HARD == ["hard_affine", "hard_mix", "hard_vae", "hard_color", "hard_chain"]
    assert not any(augmentation(kind).learns for kind in READY)


@every_hard
@pytest.mark.parametrize("learned", [False, True])
def test_a_hard_augmentation_is_a_value(content, learned):
    choice = taught(content) if learned else augmentation(content)
    plain = choice.to_json()
    assert plain["kind"] == choice.kind == content["kind"]
    assert ("learned" in plain) == learned == (not choice.learns)
    assert json.loads(json.dumps(plain)) == plain
    for twin in (
        augmentation(plain),
        augmentation(json.loads(json.dumps(plain))),
        pickle.loads(pickle.dumps(choice)),
        copy.deepcopy(choice),
    ):
        assert twin == choice and twin is not choice
        assert hash(twin) == hash(choice)
        assert twin.to_json() == plain and twin.label == choice.label
        assert twin.learns == choice.learns
    assert augmentation(choice) is choice
    with pytest.raises(FrozenInstanceError):
        choice.lr = 0.1


def test_what_differs_is_not_equal():
    choices = [augmentation(content) for content in EVERY] + [taught(content) for content in EVERY]
    choices += [taught("hard_affine", seed=1), augmentation({"kind": "hard_affine", "memory": 7})]
    assert len(set(choices)) == len(choices)
    assert len({json.dumps(choice.to_json()) for choice in choices}) == len(choices)


def test_a_label_names_what_differs_from_the_defaults():
    assert augmentation("hard_chain").label == "hard_chain"
    assert augmentation({"kind": "hard_affine", "lambda_t": 0, "conditional": True}).label == (
        "hard_affine(lambda_t=0.0, conditional=True)"
    )
    parts = {"kind": "hard_chain", "parts": [{"kind": "hard_mix", "most": 0.2}, "hard_color"]}
    assert augmentation(parts).label == "hard_chain(parts=hard_mix(most=0.2)+hard_color)"
    one, other = (taught("hard_color", seed=seed).label for seed in (1, 2))
    assert one.startswith("hard_color(learned=#") and len(one) < 40 and one != other


NUMBERS = [
    *[
        ("hard_affine", name, [100, 0, 0.5], [-0.1, 100.1], f"hard_affine {name} must be a number from 0 to 100")
        for name in ("lambda_s", "lambda_t", "lambda_h")
    ],
    ("hard_mix", "low", [0.01, 0.5], [0, 0.009, 1000.1], "hard_mix low must be a number from 0.01 to 1000"),
    ("hard_mix", "high", [1000, 900.5], [0, 1000.1], "hard_mix high must be a number from 0.01 to 1000"),
    ("hard_chain", "lr", [1, 1e-5], [0, 9e-6, 1.1], "hard_chain lr must be a number from 1e-05 to 1"),
    ("hard_affine", "linear", [1, 0, 0.5], [-0.1, 1.1], "hard_affine linear must be a number from 0 to 1"),
    ("hard_affine", "shift", [1, 0, 0.5], [-0.1, 1.1], "hard_affine shift must be a number from 0 to 1"),
    ("hard_mix", "most", [1, 0, 0.7], [-0.1, 1.1], "hard_mix most must be a number from 0 to 1"),
    ("hard_vae", "reach", [0, 4, 0.7], [-0.1, 4.1], "hard_vae reach must be a number from 0 to 4"),
    ("hard_color", "reach", [0, 1, 0.7], [-0.1, 1.1], "hard_color reach must be a number from 0 to 1"),
]
COUNTS = [
    ("hard_affine", "warmup", [1, 10**6], [0, -1, 10**6 + 1, 2.0], "hard_affine warmup must be an integer from 1 to"),
    ("hard_mix", "student_steps", [1, 10**6], [0, -1, 2.0], "hard_mix student_steps must be an integer from 1 to"),
    ("hard_vae", "augmentor_steps", [1, 10**6], [0, 2.0], "hard_vae augmentor_steps must be an integer from 1 to"),
    ("hard_color", "memory", [0, 1000], [-1, 1001, 2.0], "hard_color memory must be an integer from 0 to 1000"),
    ("hard_mix", "regions", [1, 16], [0, 17, 4.0], "hard_mix regions must be an integer from 1 to 16"),
    ("hard_vae", "latent", [1, 256], [0, 257, 4.0], "hard_vae latent must be an integer from 1 to 256"),
    ("hard_vae", "width", [1, 256], [0, 257, 4.0], "hard_vae width must be an integer from 1 to 256"),
    ("hard_vae", "vae_steps", [1, 10**6], [0, 10**6 + 1, 4.0], "hard_vae vae_steps must be an integer from 1 to"),
]
NEVER = [True, False, None, "1", [1], float("nan"), float("inf"), -float("inf"), 10**400]


@pytest.mark.parametrize(("kind", "name", "accepted", "refused", "rule"), NUMBERS + COUNTS)
def test_the_bounds_of_every_number(kind, name, accepted, refused, rule):
    rest = {"kind": kind} | ({} if name in ("low", "high") else {"low": 0.5, "high": 2.5})
    for value in accepted:
        choice = augmentation({**rest, name: value})
        assert getattr(choice, name) == choice.to_json()[name] == value
    for value in refused + NEVER:
        assert refusal(lambda value=value: augmentation({**rest, name: value})).startswith(rule)


@pytest.mark.parametrize(("kind", "name", "accepted"), [row[:3] for row in NUMBERS])
def test_equal_numbers_have_one_form(kind, name, accepted):
    """Else equal schedules would not have equal bytes."""
    value = accepted[0]
    forms = [augmentation({"kind": kind, name: form}) for form in (value, float(value), np.float64(value))]
    assert len(set(forms)) == len({json.dumps(choice.to_json()) for choice in forms}) == 1


def test_every_parameter_is_bounded():
    """Whatever is added to a hard augmentation has to be added here."""
    known = {"draw", "learned", "conditional", "vae", "parts"}
    shared = {field.name for field in fields(Hard)} - known
    found = {(kind, field.name) for kind in HARD for field in fields(CATALOG[kind])}
    own = {(kind, name) for kind, name in found if name not in known | shared}
    tested = {(kind, name) for kind, name, *_ in NUMBERS + COUNTS}
    assert {name for _, name in tested} >= shared
    assert {(kind, name) for kind, name in tested if name not in shared} == own
    assert set(RANGES) <= shared


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (
            {"kind": "hard_affine", "draw": "batch"},
            "^the draw of hard_affine must be sample, got 'batch'$",
        ),
        ({"kind": "hard_affine", "draw": "both"}, "^draw must be one of sample, batch, got 'both'$"),
        ({"kind": "hard_mix", "low": 2, "high": 1.5}, "^hard_mix low must be less than high, got '?2 and 1.5'?$"),
        ({"kind": "hard_mix", "low": 2, "high": 2}, "^hard_mix low must be less than high"),
        ({"kind": "hard_mix", "conditional": 1}, "^hard_mix conditional must be true or false, got 1$"),
        ({"kind": "hard_affine", "conditional": None}, "^hard_affine conditional must be true or false, got None$"),
        ({"kind": "hard_color", "conditional": "no"}, "^hard_color conditional must be true or false, got 'no'$"),
        (
            {"kind": "hard_color", "learned": "abc"},
            "^learned weights must be an object with the one key \"sha256\", got 'abc'",
        ),
        ({"kind": "hard_color", "learned": {}}, '^learned weights must be an object with the one key "sha256"'),
        (
            {"kind": "hard_color", "learned": {"sha256": SHA, "a": 1}},
            '^learned weights must be an object with the one key "sha256"',
        ),
        (
            {"kind": "hard_color", "learned": {"sha256": SHA[1:]}},
            "^the sha256 of learned weights must have 64 hexadec",
        ),
        ({"kind": "hard_color", "learned": {"sha256": SHA.upper()}}, "^the sha256 of learned weights must"),
        ({"kind": "hard_color", "learned": {"sha256": f"{SHA}\n"}}, "^the sha256 of learned weights must"),
        ({"kind": "hard_vae", "vae": {"sha256": 3}}, "^the sha256 of learned weights must .* got 3$"),
        ({"kind": "hard_vae", "vae": 3}, '^learned weights must be an object with the one key "sha256", got 3$'),
        ({"kind": "hard_affine", "vae": {"sha256": SHA}}, "^unknown parameter of hard_affine 'vae'"),
        ({"kind": "hard_afine"}, "^unknown augmentation 'hard_afine'; did you mean 'hard_affine'"),
        ({"kind": "hard_affine", "lamda_s": 1}, "^unknown parameter of hard_affine 'lamda_s'; did you mean 'lambda_s'"),
        (
            {"kind": "hard_chain", "parts": []},
            "^the parts of hard_chain must be two or more of the other hard augmentations",
        ),
        ({"kind": "hard_chain", "parts": ["hard_mix"]}, "^the parts of hard_chain must be two or more"),
        ({"kind": "hard_chain", "parts": "hard_mix"}, "^the parts of hard_chain must be two or more"),
        ({"kind": "hard_chain", "parts": {"kind": "hard_mix"}}, "^the parts of hard_chain must be two or more"),
        (
            {"kind": "hard_chain", "parts": ["hard_mix", "flip"]},
            "^the parts of hard_chain must be two or more of the other hard",
        ),
        ({"kind": "hard_chain", "parts": ["hard_mix", 3]}, "^an augmentation must be a name, or a mapping .* got 3$"),
        ({"kind": "hard_chain", "parts": ["hard_mix", "hard_mx"]}, "^unknown augmentation 'hard_mx'; did you mean"),
        (
            {"kind": "hard_chain", "parts": ["hard_color", "hard_chain"]},
            "^the parts of hard_chain must not be chains",
        ),
        (
            {
                "kind": "hard_chain",
                "parts": ["hard_color", {"kind": "hard_chain", "parts": ["hard_mix", "hard_color"]}],
            },
            "^the parts of hard_chain must not be chains, got 'hard_chain'$",
        ),
        (
            {"kind": "hard_chain", "parts": ["hard_mix", "hard_mix"]},
            "^at most one of the parts of hard_chain must mix, got",
        ),
        (
            {"kind": "hard_chain", "parts": ["hard_mix", {"kind": "hard_color", "learned": {"sha256": SHA}}]},
            "^the learned weights of hard_chain must be in the chain, not in its parts",
        ),
    ],
)
def test_what_is_refused(content, rule):
    with pytest.raises(RequestError, match=rule) as error:
        augmentation(content)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("parts", [5, None, 1.5, True])
def test_parts_that_are_no_list_are_refused(parts):
    assert refusal(lambda: augmentation({"kind": "hard_chain", "parts": parts})).startswith(
        "the parts of hard_chain must be two"
    )


def test_chains_in_chains_are_refused_at_any_depth():
    chain = {"kind": "hard_chain", "parts": ["hard_color", "hard_affine"]}
    for _ in range(50_000):
        chain = {"kind": "hard_chain", "parts": ["hard_color", chain]}
    assert refusal(lambda: augmentation(chain)).startswith("the parts of hard_chain must not be chains")


def test_chains_in_picks_in_chains_are_refused_at_any_depth():
    choice = {"kind": "flip"}
    for _ in range(50_000):
        choice = {"kind": "pick", "base": {"kind": "hard_chain", "parts": [choice, "hard_affine"]}}
    assert refusal(lambda: augmentation(choice))


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters())
NAMES = st.sampled_from([*HARD, "pick", "flip", "a.b:c"])
KEYS = st.sampled_from(
    ["kind", "parts", "base", "learned", "vae", "conditional", "lr", "low", "reach", "memory", "draw"]
)
VALUES = st.sampled_from([0, 1, 0.5, True, "sample", {"sha256": SHA}, ["hard_mix", "hard_color"], ["hard_vae"] * 2])
ANY = st.recursive(
    LEAVES | NAMES | VALUES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=8,
)


@example({"kind": "hard_chain", "parts": 5})
@given(st.builds(lambda kind, rest: rest | {"kind": kind}, NAMES, st.dictionaries(KEYS, VALUES | ANY, max_size=3)))
@settings(quick, max_examples=300)
def test_any_json_is_an_augmentation_or_refused_in_one_line(content):
    try:
        choice = augmentation(content)
    except RequestError as error:
        assert len(str(error).splitlines()) == 1 and len(str(error)) < 600
    else:
        assert augmentation(json.loads(json.dumps(choice.to_json()))) == choice
        assert isinstance(choice.label, str)


def test_a_pick_from_what_has_yet_to_learn_is_refused():
    """Nobody plays a game against a pick's base, so it could never be called."""
    assert "hard_affine" in refusal(lambda: augmentation({"kind": "pick", "base": "hard_affine"}))


def test_a_pick_from_what_was_learned_keeps_its_weights(tmp_path):
    schedule = schedule_of(augmentation({"kind": "pick", "base": taught("hard_affine")}))
    loaded = Schedule.load(schedule.save(tmp_path / "policy.json"))
    images, answers = pictures(4, 1), [lambda shown: shown.float().flatten(1)[:, :5]]
    views = [one.second_view(0)(images, *answers).images for one in (schedule, loaded)]
    assert torch.equal(*views)


# ---- which augmentor -------------------------------------------------------------------------------


def test_the_structure_is_what_the_weights_depend_on():
    one = augmentation({"kind": "hard_affine", "shift": 0.25})
    rules = {"lambda_s": 3, "lambda_t": 0, "lambda_h": 1, "low": 0.2, "high": 7, "lr": 0.1, "warmup": 3, "memory": 4}
    assert replace(one, **rules, student_steps=9, augmentor_steps=8).structure == one.structure
    assert taught(one).structure == one.structure
    for other in ({"shift": 0.5}, {"linear": 0.1}, {"conditional": True}):
        assert replace(one, **other).structure != one.structure
    assert augmentation("hard_color").structure != augmentation("hard_chain").structure != one.structure


@every_hard
@pytest.mark.parametrize("channels", [1, 3])
def test_an_augmentor_has_the_settings_of_its_entry(content, channels):
    choice = with_any_vae(augmentation(content), channels)
    with torch.random.fork_rng(devices=[]):
        module = choice.augmentor(channels)
    drawn = module(pictures(4, channels, 8, 8).float() / 255, fill_color(FILLS[channels], "cpu"), seeded_generator(0))
    assert drawn.images.shape == (4, channels, 8, 8)
    assert drawn.parameters.shape == (4, len(module.names))
    if isinstance(choice, HardMix):
        assert (module.regions, module.most) == (choice.regions, choice.most)
    if isinstance(choice, HardAffine):
        assert (module.drawn.network is not None) == choice.conditional
        assert module._bounds.tolist() == pytest.approx([choice.linear, choice.linear, choice.shift] * 2)
    if isinstance(choice, HardColor | HardVae):
        assert module.reach == choice.reach
    if isinstance(choice, HardChain):
        assert len(module.parts) == len(choice.parts)


# ---- what was learned, replayed --------------------------------------------------------------------


@every_taught
@pytest.mark.parametrize("channels", [1, 3])
def test_a_replay_is_a_view_by_the_weights_as_they_are(content, channels):
    choice, images = taught(content, channels), pictures(6, channels, 8, 9)
    before = images.clone()
    view = view_of(choice, images, 3)
    assert torch.equal(images, before)
    with torch.random.fork_rng(devices=[]):
        module = choice.augmentor(channels)
    module.load_state_dict(choice.learned.tensors, strict=False)
    drawn = module(images.float() / 255, torch.tensor(FILLS[channels]) / 255, seeded_generator(3))
    assert torch.equal(view.images, (255 * drawn.images).round().to(torch.uint8))
    assert (view.images.dtype, view.images.shape, view.logits) == (torch.uint8, images.shape, None)
    assert view.first.tolist() == list(range(6)) and view.weight.dtype == torch.float32
    assert ((view.weight >= 0) & (view.weight <= 1)).all()
    mixes = drawn.partner is not None
    assert (
        torch.equal(view.second, drawn.partner if mixes else view.first) and (view.first != view.second).all() == mixes
    )
    assert torch.equal(view.weight, drawn.weight if mixes else torch.ones(6))


@every_taught
def test_a_replay_follows_from_its_generator_alone(content):
    choice, images = taught(content), pictures(4, 1)
    state = torch.get_rng_state()
    torch.default_generator.manual_seed(5)
    one = view_of(choice, images, 1).images
    torch.set_rng_state(state)
    assert torch.equal(view_of(copy.deepcopy(choice), images, 1).images, one)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(view_of(choice, images, 2).images, one)
    assert not torch.equal(view_of(taught(content, seed=9), images, 1).images, one), "and from its weights"


@every_hard
def test_what_has_yet_to_learn_cannot_be_called(content):
    line = refusal(lambda: view_of(augmentation(content), pictures(4, 1)))
    assert line.startswith(f"{content['kind']} must be learned before it is applied; train a student with it")
    assert "policy" in line


@every_taught
def test_a_reference_without_its_weights_cannot_be_called(content):
    choice = taught(content)
    view_of(choice, pictures(4, 1))  # the weights of that name were seen before
    line = refusal(lambda: view_of(augmentation(choice.to_json()), pictures(4, 1)))
    assert line.startswith("the learned weights of this augmentation must be loaded, got ")
    assert "load the policy from its file, with its .safetensors file in the same folder" in line


def test_a_vae_that_nobody_trained():
    assert refusal(lambda: augmentation(SMALL_VAE).augmentor(1)).startswith("the VAE of hard_vae must be trained first")
    named = augmentation({**SMALL_VAE, "vae": {"sha256": SHA}})
    assert "must be loaded" in refusal(lambda: named.augmentor(1))


@pytest.mark.parametrize(
    ("choice", "rule"),
    [
        (
            replace(taught("hard_mix"), regions=3),
            "^the learned weights of hard_mix must have the shapes of these settings",
        ),
        (taught("hard_color", channels=3), "^the learned weights of hard_color must have the shapes"),
        (
            replace(taught("hard_affine"), learned=Learned.of({"z": torch.ones(2)})),
            r"^the learned weights of hard_affine .*'z'",
        ),
        (replace(taught(SMALL_VAE), latent=3), "^the weights of the VAE must have the shapes"),
    ],
)
def test_weights_that_do_not_fit_are_refused(choice, rule):
    with pytest.raises(RequestError, match=rule):
        view_of(choice, pictures(4, 1))


@pytest.mark.parametrize(
    "choice",
    [
        replace(taught("hard_affine"), conditional=True),
        replace(taught("hard_affine"), learned=Learned.of({})),
        replace(taught(SMALL_VAE), vae=Learned.of({})),
        replace(taught(SMALL_VAE), learned=Learned.of({})),
    ],
    ids=["no network", "none", "no VAE", "no residual"],
)
def test_weights_that_are_not_all_there_are_refused(choice):
    """Else the rest would be drawn from the global random state."""
    assert "weights" in refusal(lambda: view_of(choice, pictures(4, 1)))


def test_fit_puts_weights_in_place():
    module = augmentation("hard_color").augmentor(1)
    load_weights(module, taught("hard_color").learned.tensors, "they")
    assert torch.equal(module.drawn.location, taught("hard_color").learned.tensors["drawn.location"])


# ---- exploring -------------------------------------------------------------------------------------


numbers = {name: st.floats(least, most) for name, (least, most) in RANGES.items()}
rules = st.fixed_dictionaries(numbers).filter(lambda found: found["low"] < found["high"])


@given(st.sampled_from(HARD), rules, st.integers(0, 10**6))
@quick
def test_explored_rules_are_neighbors_within_their_ranges(kind, found, seed):
    choice = augmentation({"kind": kind, **found})
    near = choice.explore(np.random.default_rng(seed))
    assert near.low < near.high
    for name, (least, most) in RANGES.items():
        value, before = getattr(near, name), getattr(choice, name)
        assert least <= value <= most and isinstance(value, float)
        steps = [min(max(before * factor, least), most) for factor in FACTORS]
        assert value in steps or (name in ("low", "high") and value == before)
    assert near.structure == choice.structure
    same = ("warmup", "student_steps", "augmentor_steps", "memory", "learned", "draw")
    assert all(getattr(near, name) == getattr(choice, name) for name in same)
    assert near == choice.explore(np.random.default_rng(seed)), "the generator decides"
    assert augmentation(json.loads(json.dumps(near.to_json()))) == near


def test_exploring_moves_each_number_both_ways():
    choice, found = augmentation("hard_chain"), {name: set() for name in RANGES}
    generator = np.random.default_rng(0)
    for _ in range(40):
        near = choice.explore(generator)
        for name, values in found.items():
            values.add(getattr(near, name))
    assert all(values == {getattr(choice, name) * factor for factor in FACTORS} for name, values in found.items())


def test_low_and_high_stay_as_they_are_where_they_would_meet():
    choice = augmentation({"kind": "hard_mix", "low": 1, "high": 1.1})
    found = {(near.low, near.high) for near in (choice.explore(np.random.default_rng(seed)) for seed in range(40))}
    assert found == {(1.0, 1.1), (0.8, 0.8 * 1.1), (0.8, 1.1 * 1.25), (1.25, 1.1 * 1.25)}


@pytest.mark.parametrize("kind", CATALOG)
def test_what_has_nothing_to_move_draws_nothing(kind):
    choices = [taught(SMALL_VAE if kind == "hard_vae" else kind)] if kind in HARD else [augmentation(kind)]
    for choice in choices:
        generator = np.random.default_rng(3)
        assert choice.explore(generator) is choice
        assert generator.bit_generator.state == np.random.default_rng(3).bit_generator.state


def test_a_space_explores_the_numbers_of_a_game():
    space, generator = Space(("Rotate",), 1, ("hard_affine",)), np.random.default_rng(0)
    genome = space.zero()
    seen = {genome}
    for _ in range(20):
        genome = space.explore(genome, generator)
        seen.add(genome)
        assert genome.augment.structure == augmentation("hard_affine").structure
    assert len({genome.augment for genome in seen}) > 15


def test_a_space_draws_one_of_its_augmentations_anew_at_its_usual_rules():
    space, generator = Space(("Rotate",), 1, ("hard_affine", "hard_mix", "flip")), np.random.default_rng(0)
    moved, kinds = space.explore(space.zero(), generator), []
    for _ in range(300):
        near = space.explore(moved, generator).augment
        kinds.append(near.kind)
        fresh = near == augmentation(near.kind)
        assert fresh or near.kind == moved.augment.kind == "hard_affine"
    assert kinds.count("hard_mix") == pytest.approx(300 * 0.2 / 3, abs=15)
    assert kinds.count("flip") == pytest.approx(300 * 0.2 / 3, abs=15)


def test_without_an_augmentation_that_learns_the_random_stream_is_what_it_was():
    """These numbers are those of the release before: a search from the same seed stays the same search."""
    space = Space(("Rotate", "Invert"), 1, ("identity", "cutmix", {"kind": "cutout", "side": 0.25}))
    generator = np.random.default_rng(11)
    genome, kinds = space.random(generator), []
    for _ in range(12):
        genome = space.explore(genome, generator)
        kinds.append(genome.augment.kind)
    assert [(entry.probability, entry.magnitude) for entry in genome.policy] == [(10, 0), (7, 2)]
    assert kinds == ["cutmix"] * 5 + ["identity"] * 7
    assert int(generator.integers(10**9)) == 364369343


# ---- Learned ---------------------------------------------------------------------------------------


TENSORS = {"b": torch.arange(6.0).view(2, 3), "a": torch.tensor([1, 2]), "c": torch.tensor(0.5)}


def test_learned_weights_are_known_by_what_they_hold():
    one = Learned.of(TENSORS)
    assert one == Learned.of(dict(reversed(TENSORS.items()))), "the order does not count"
    assert one == Learned.of({name: value.clone() for name, value in TENSORS.items()})
    assert hash(one) == hash(Learned(one.sha256)) and one == Learned(one.sha256), "nor whether they are at hand"
    changes = {
        "value": {**TENSORS, "c": torch.tensor(0.25)},
        "name": {**TENSORS, "d": TENSORS["c"]},
        "missing": {"a": TENSORS["a"]},
        "renamed": {"x" if name == "c" else name: value for name, value in TENSORS.items()},
        "shape": {**TENSORS, "b": TENSORS["b"].view(3, 2)},
        "type": {**TENSORS, "a": TENSORS["a"].int()},
        "same bytes": {**TENSORS, "c": TENSORS["c"].view(torch.int32)},
        "swapped": {"b": TENSORS["b"], "a": TENSORS["c"], "c": TENSORS["a"]},
        "none": {},
    }
    found = {name: Learned.of(tensors).sha256 for name, tensors in changes.items()} | {"as it was": one.sha256}
    assert len(set(found.values())) == len(found)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.bool, torch.uint8, torch.int64])
def test_learned_weights_of_any_type(dtype):
    tensors = {
        "a": torch.tensor([0, 1, 1]).to(dtype),
        "b": torch.zeros(0, dtype=dtype),
        "c": torch.ones((), dtype=dtype),
    }
    one = Learned.of(tensors)
    assert Learned.of({name: value.clone() for name, value in tensors.items()}) == one
    assert Learned.of({**tensors, "a": torch.tensor([0, 1, 0]).to(dtype)}) != one


def test_learned_weights_do_not_change_with_what_they_came_from():
    module = torch.nn.Linear(3, 2)
    one = Learned.of(module.state_dict())
    expected = module.weight.detach().clone()
    module.weight.data.zero_()
    assert torch.equal(one.tensors["weight"], expected)
    assert Learned.of(one.tensors) == one


def test_learned_weights_lie_as_anybody_reads_them():
    turned = torch.arange(6.0).view(2, 3).T
    assert Learned.of({"a": turned}) == Learned.of({"a": turned.contiguous()})
    gradient = torch.ones(2, requires_grad=True)
    assert not Learned.of({"a": gradient}).tensors["a"].requires_grad


def test_learned_weights_as_plain_data():
    one = Learned.of(TENSORS)
    assert one.to_json() == {"sha256": one.sha256}
    assert Learned.from_json(one.to_json()) == one == Learned.from_json(one) == pickle.loads(pickle.dumps(one))
    assert Learned.from_json(one.to_json()).tensors is None
    assert torch.equal(one.required()["b"], TENSORS["b"])
    assert "tensor" not in repr(one)


def test_which_weights_a_choice_refers_to():
    chain = taught({"kind": "hard_chain", "parts": ["hard_color", SMALL_VAE]})
    assert {part.sha256 for part in learned_weights(chain)} == {chain.learned.sha256, chain.parts[1].vae.sha256}
    vae = taught(SMALL_VAE)
    assert set(learned_weights(vae)) == {vae.learned, vae.vae}
    assert learned_weights(augmentation("hard_affine")) == learned_weights(augmentation("cutmix")) == ()
    found = {part.sha256: part.tensors for choice in (chain, vae) for part in learned_weights(choice)}
    for choice in (chain, vae):
        bare = augmentation(choice.to_json())
        filled = with_weights(bare, found)
        assert filled == bare and all(part.tensors is not None for part in learned_weights(filled))
        assert torch.equal(view_of(filled, pictures(4, 1)).images, view_of(choice, pictures(4, 1)).images)
        some = with_weights(bare, {choice.learned.sha256: choice.learned.tensors})
        assert [part.tensors is not None for part in learned_weights(some)].count(True) == 1
    for kind in READY:  # all others, a pick that makes its own base among them
        assert (
            with_weights(augmentation(kind), found) == augmentation(kind) and learned_weights(augmentation(kind)) == ()
        )


# ---- the policy file -------------------------------------------------------------------------------


def schedule_of(*choices):
    return Schedule(tuple(Phase(2, Genome(ROTATE, augmentation(c))) for c in choices), "student", IMAGE, {"run": "a"})


@pytest.fixture
def several():
    vae = taught(SMALL_VAE)
    return schedule_of("cutmix", taught("hard_affine"), vae, replace(vae, learned=taught(SMALL_VAE, seed=3).learned))


def document_of(path):
    return json.loads(path.read_text("utf-8"))


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def beside(path):
    return path.with_suffix(".safetensors")


def test_a_policy_file_gives_back_what_was_learned(several, tmp_path):
    path = several.save(tmp_path / "policy.student.json")
    loaded = Schedule.load(path)
    assert loaded == several and loaded.provenance == several.provenance
    images = pictures(6, 1, 8, 8)
    for epoch in range(2, several.epochs):
        views = [schedule.second_view(epoch, seed=4)(images) for schedule in (several, loaded)]
        assert torch.equal(views[0].images, views[1].images)
        assert torch.equal(views[0].second, views[1].second) and torch.equal(views[0].weight, views[1].weight)
    different = {several.second_view(epoch, seed=4)(images).images.numpy().tobytes() for epoch in (2, 4, 6)}
    assert len(different) == 3
    assert {key: sorted(part) for key, part in loaded.weights.items()} == {
        key: sorted(part) for key, part in several.weights.items()
    }


def test_the_same_schedule_gives_the_same_bytes(several, tmp_path):
    paths = [several.save(tmp_path / folder / "policy.json") for folder in "ab"]
    paths.append(Schedule.load(paths[0]).save(tmp_path / "c" / "policy.json"))
    assert len({path.read_bytes() for path in paths}) == 1
    assert len({beside(path).read_bytes() for path in paths}) == 1


def test_what_the_file_says_of_its_weights(several, tmp_path):
    path = several.save(tmp_path / "policy.student.json")
    document = document_of(path)
    content = (tmp_path / "policy.student.safetensors").read_bytes()
    assert document["weights"] == {
        "file": "policy.student.safetensors",
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    assert names(tmp_path) == ["policy.student.json", "policy.student.safetensors"]
    assert "drawn.location" not in path.read_text() and b"drawn.location" in content


def test_a_vae_that_two_phases_share_is_stored_once(several, tmp_path):
    shared = several.phases[2].genome.augment.vae
    assert shared == several.phases[3].genome.augment.vae
    path = several.save(tmp_path / "policy.json")
    named = safetensors.torch.load_file(beside(path))
    keys = [name.partition("/")[0] for name in named]
    assert len(set(keys)) == len(several.weights) == 4, "affine, VAE, and two residuals"
    assert keys.count(shared.sha256) == len(shared.tensors)
    alone = schedule_of(several.phases[2].genome.augment).save(tmp_path / "alone.json")
    assert beside(path).stat().st_size < 2 * beside(alone).stat().st_size


def test_a_file_without_learned_weights_says_nothing_of_any(tmp_path):
    schedule = schedule_of("cutmix", "hard_affine")
    path = schedule.save(tmp_path / "policy.json")
    assert "weights" not in document_of(path)
    assert path.read_text() == schedule.dumps()
    assert names(tmp_path) == ["policy.json"]
    assert Schedule.load(path) == Schedule.loads(schedule.dumps()) == schedule
    assert schedule.weights == {}


def test_weights_that_were_tampered_with_are_refused(several, tmp_path):
    path = several.save(tmp_path / "policy.json")
    content = bytearray(beside(path).read_bytes())
    content[-1] ^= 1
    beside(path).write_bytes(content)
    line = refusal(lambda: Schedule.load(path))
    assert line.startswith(f"{path}: the weights file must be the one saved with the policy, got 'policy.safetensors'")
    assert "fetch both files again" in line


def test_weights_that_are_missing_are_refused(several, tmp_path):
    path = several.save(tmp_path / "policy.json")
    beside(path).unlink()
    line = refusal(lambda: Schedule.load(path))
    assert line.startswith(f"{path}: cannot read the weights file {beside(path)}: ") and "check the path" in line


def saved_with(path, content, **changes):
    """The policy file at `path`, its weights replaced by `content`, whose hash it bears."""
    beside(path).write_bytes(content)
    document = document_of(path)
    document["weights"] |= {"sha256": hashlib.sha256(content).hexdigest(), **changes}
    path.write_text(json.dumps(document))
    return path


def test_a_part_under_a_wrong_hash_is_refused(several, tmp_path):
    """Whoever changes the weights and the file's own hash still has not changed what the genome asks for."""
    path = several.save(tmp_path / "policy.json")
    named = safetensors.torch.load_file(beside(path))
    key = several.phases[1].genome.augment.learned.sha256
    named[f"{key}/drawn.location"] += 1
    line = refusal(lambda: Schedule.load(saved_with(path, safetensors.torch.save(named))))
    assert line == f"{path}: learned weights must match their hash, got {key!r}"


def test_a_part_that_is_not_there_is_refused(several, tmp_path):
    path = several.save(tmp_path / "policy.json")
    key = several.phases[1].genome.augment.learned.sha256
    named = {name: value for name, value in safetensors.torch.load_file(beside(path)).items() if key not in name}
    line = refusal(lambda: Schedule.load(saved_with(path, safetensors.torch.save(named))))
    assert "the learned weights of this augmentation must be loaded" in line and key in line


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\xff" * 64, pickle.dumps({"a": 1})])
def test_what_is_no_safetensors_file_is_refused(several, tmp_path, content):
    path = several.save(tmp_path / "policy.json")
    assert "policy.safetensors must be a safetensors file" in refusal(lambda: Schedule.load(saved_with(path, content)))


@pytest.mark.parametrize(
    "name",
    [
        "../policy.safetensors",
        "/etc/policy.safetensors",
        "a/policy.safetensors",
        "a\\policy.safetensors",
        "..",
        ".",
        "",
        ".safetensors",
        "policy.json",
        "policy.safetensors.exe",
        3,
        None,
    ],
)
def test_a_weights_file_lies_beside_the_policy_or_is_refused(several, tmp_path, name):
    path = several.save(tmp_path / "in" / "policy.json")
    content = beside(path).read_bytes()
    (tmp_path / "policy.safetensors").write_bytes(content)
    line = refusal(lambda: Schedule.load(saved_with(path, content, file=name)))
    assert line.startswith(f"{path}: policy file, at $.weights.file: ")


@pytest.mark.parametrize(
    "entry",
    [None, [], {}, {"file": "a.safetensors"}, {"sha256": SHA}, {"file": "a.safetensors", "sha256": SHA, "url": "x"}]
    + [{"file": "a.safetensors", "sha256": sha} for sha in (SHA[1:], SHA.upper(), "", 3)],
)
def test_what_the_schema_refuses_of_weights(several, tmp_path, entry):
    path = several.save(tmp_path / "policy.json")
    path.write_text(json.dumps(document_of(path) | {"weights": entry}))
    assert refusal(lambda: Schedule.load(path)).startswith(f"{path}: policy file, at $.weights")


def test_a_text_has_no_folder_for_weights(several, tmp_path):
    path = several.save(tmp_path / "policy.json")
    line = refusal(lambda: Schedule.loads(path.read_text()))
    assert line.startswith("the text: the learned weights must be read from their file, got 'policy.safetensors'")
    assert line.endswith("load the policy from its file: Schedule.load(path)")
    given_one = Schedule.loads(path.read_text(), read_file=lambda name: (tmp_path / name).read_bytes())
    assert given_one == several and given_one.weights.keys() == several.weights.keys()


def test_plain_data_carry_the_names_of_the_weights_alone(several):
    bare = Schedule.from_json(json.loads(several.dumps()))
    assert bare == several and bare.weights == {}
    assert "must be loaded" in refusal(lambda: bare.second_view(2)(pictures(4, 1)))


def test_a_schedule_without_its_weights_is_not_saved(several, tmp_path):
    bare = Schedule.from_json(several.to_json())
    assert "must be loaded" in refusal(lambda: bare.save(tmp_path / "policy.json"))
    assert names(tmp_path) == []


def test_learned_weights_survive_whatever_is_done_to_a_schedule(several, tmp_path):
    for other in (several.stretch(40), several.shuffled(1), pickle.loads(pickle.dumps(several))):
        path = other.save(tmp_path / "policy.json")
        assert Schedule.load(path) == other and Schedule.load(path).weights.keys() == several.weights.keys()


@pytest.mark.parametrize("name", ["policy", "policy.json", ".policy", "a.b.c", "policy.safetensors", ""])
def test_whatever_the_name_it_is_loaded_again_or_refused(several, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    try:
        path = several.save(name)
    except RequestError:
        assert names(tmp_path) == []
    else:
        assert Schedule.load(path) == several


def test_neighbors_keep_their_weights_apart(several, tmp_path):
    other = schedule_of(taught("hard_color"))
    paths = [one.save(tmp_path / name) for one, name in ((several, "policy.1"), (other, "policy.2"))]
    assert [Schedule.load(path) for path in paths] == [several, other]
