"""HARD's game: updates of both players, phase changes, records, and a bit-exact continuation from a file."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from support import taught, with_any_vae
from torch import nn

import trainables.hard.game
from spaces import Entry, Genome, ImageSpec, Phase, Policy, RequestError, Schedule, WorkError
from spaces.augmentations import augmentation
from spaces.augmentations.hard_weights import learned_weights
from spaces.core.seeding import seeded_generator
from spaces.core.weights import Learned
from trainables import FrozenTeacher
from trainables.hard.game import (
    AUGMENTOR_SHARE,
    DECAY,
    DIVERGED,
    MIN_SCALE,
    READ_EVERY,
    SHOWN,
    Game,
)
from trainables.hard.replay import augmentation_of, replayable_phases
from trainables.models import build_model
from trainables.training.normalize import Normalize

SHAPE = {"classes": 3, "channels": 1, "size": 8}
SHORT = {"warmup": 2, "student_steps": 4, "augmentor_steps": 3, "low": 1.0, "high": 2.5, "lr": 0.05, "memory": 0}
"""Rules under which every phase has its turn within a few steps."""

VAE = {"kind": "hard_vae", "latent": 2, "width": 4}
KINDS = {
    "affine": {"kind": "hard_affine"},
    "affine of the image": {"kind": "hard_affine", "conditional": True},
    "mix": {"kind": "hard_mix", "regions": 2},
    "color": {"kind": "hard_color"},
    "vae": VAE,
    "chain": {"kind": "hard_chain", "parts": ["hard_color", {"kind": "hard_mix", "conditional": False}, VAE]},
}
every_kind = pytest.mark.parametrize("kind", KINDS)
TIMED = ("seconds/", "images_per_s")


def hard(kind="affine", **rules):
    """One of `KINDS` under rules by which it has its turn soon; a VAE in it is one that nobody trained."""
    return with_any_vae(augmentation(KINDS[kind] | SHORT | rules), 1)


def genome(kind="affine", **rules):
    return Genome(augment=hard(kind, **rules))


def weights_for(*choices):
    """What a task has to hand over: the tensors that the choices refer to, by their hash."""
    return {part.sha256: part.tensors for choice in choices for part in learned_weights(choice)}


@pytest.fixture
def pixels(make_data):
    """Sixteen images, as a step has them."""
    return make_data().train.images[:16]


@pytest.fixture
def teacher(make_task):
    """One that was trained a little, and so answers different things to different images."""
    learner = make_task(epochs=2).learner(Genome(), seed=1)
    for _ in range(2):
        learner.step()
    return FrozenTeacher(learner.model)


@pytest.fixture
def make_game(make_data):
    """A game at the start of its first epoch, against a student that knows nothing."""

    def make(choice=None, *, teacher=None, student=None, temperature=4.0, seed=0):
        choice = choice or hard()
        game = Game(
            choice,
            channels=1,
            teacher=teacher or FrozenTeacher(build_model("resnet8", seed=77, **SHAPE)),
            student=student or build_model("cnn", seed=1, **SHAPE),
            normalize=Normalize(make_data(), "cpu"),
            temperature=temperature,
            seed=seed,
            device=torch.device("cpu"),
        )
        game.begin_epoch(0, choice, seed)
        return game

    return make


def student_steps(game, disagreement, clean=1.0, times=1):
    for _ in range(times):
        game.record_student_step(torch.tensor(clean), torch.tensor(disagreement))


def warm(game, clean=1.0):
    """Past the warm-up: the next turn is the augmentor's, and ℓ is `clean`."""
    student_steps(game, clean, clean, times=game.augment.warmup)
    return game


def settle(state):
    """A state whose missing numbers compare as equal."""
    if isinstance(state, dict):
        return {key: settle(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return [settle(value) for value in state]
    return "nan" if isinstance(state, float) and math.isnan(state) else state


def train(learner, epochs):
    """Some epochs: what they measured, times apart."""
    measured = [learner.step() for _ in range(epochs)]
    return [{name: value for name, value in one.items() if not name.startswith(TIMED)} for one in measured]


# ---- the augmentor's turn --------------------------------------------------------------------------


@every_kind
@pytest.mark.parametrize("training", [True, False])
def test_a_turn_leaves_teacher_and_student_alone(make_game, pixels, user_nets, assert_same, kind, training):
    student, teacher = user_nets.dropping(3, 1), FrozenTeacher(user_nets.dropping(3, 1))
    for value in student.parameters():
        value.grad = torch.randn_like(value)
    student.train(training)
    modes = set()
    student.body[1].register_forward_hook(lambda module, given, answer: modes.add(module.training))
    game = warm(make_game(hard(kind, high=1000, augmentor_steps=4), teacher=teacher, student=student))
    parts = {"student": student, "teacher": teacher}
    before = copy.deepcopy({name: part.state_dict() for name, part in parts.items()})
    gradients = [value.grad.clone() for value in student.parameters()]
    ready = {name: value.clone() for name, value in game.augmentor.state_dict().items() if "vae" in name}
    started, images, stream = game.augmentor.learnable(), pixels.clone(), torch.get_rng_state()
    game.train_augmentor(pixels)
    assert game.augmentor_steps == 4
    after = game.augmentor.learnable()
    assert all(not torch.equal(after[name], started[name]) for name in after if "network" not in name)
    assert_same({name: part.state_dict() for name, part in parts.items()}, before)
    assert_same([value.grad for value in student.parameters()], gradients)
    assert all(value.grad is None and not value.requires_grad for value in teacher.parameters())
    assert_same({name: value for name, value in game.augmentor.state_dict().items() if "vae" in name}, ready)
    assert {module.training for module in student.modules()} == {training}
    assert modes == {False}, "but it is played against in evaluation mode"
    assert torch.equal(pixels, images) and torch.equal(torch.get_rng_state(), stream)


@pytest.mark.parametrize("training", [True, False])
def test_a_picture_leaves_teacher_and_student_alone(make_game, pixels, user_nets, assert_same, training):
    student = user_nets.dropping(3, 1).train(training)
    game = warm(make_game(student=student))
    before = copy.deepcopy(student.state_dict())
    game.end_epoch(pixels)
    assert_same(student.state_dict(), before)
    assert {module.training for module in student.modules()} == {training}
    assert all(value.grad is None for value in student.parameters())


def test_a_turn_that_fails_leaves_the_student_in_its_mode(make_game, pixels):
    game = warm(make_game())
    for value in game._student.parameters():
        value.data.fill_(math.nan)
    game._student.train()
    with pytest.raises(WorkError, match="the disagreement is NaN"):
        game.train_augmentor(pixels)
    assert game._student.training


def by_hand(game, images, rows):
    """-λ_s·L_st/ℓ + λ_t·L_tt/ℓ - λ_h·H of some images, from the formulas, and its three parts."""
    augmentor, rules = copy.deepcopy(game.augmentor), game.augment
    generator = seeded_generator(0, 0, 6)
    torch.randperm(len(images), generator=generator)
    clean = images[rows].float() / 255
    drawn = augmentor(clean, torch.tensor([0.25]).mul(255).round() / 255, generator)

    def share(logits):
        return (logits / 4.0).softmax(dim=1)

    def divergence(teacher, student):
        return 16.0 * (teacher * (teacher / student).log()).sum(dim=1).mean()

    normal = [(255 * shown - 255 * 0.25) / (255 * 0.2) for shown in (clean, drawn.images)]
    game._student.eval()
    before, after, said = (share(net(x)) for net, x in zip(by_whom(game), (*normal, normal[1]), strict=True))
    sought, shift = divergence(after, said), divergence(before, after)
    loss = -rules.lambda_s * sought / 2.0 + rules.lambda_t * shift / 2.0 - rules.lambda_h * drawn.entropy
    return augmentor, loss, [float(part.detach()) for part in (sought, shift, drawn.entropy)]


def by_whom(game):
    return game._teacher.model, game._teacher.model, game._student


@pytest.mark.parametrize(
    "rules",
    [
        {"lambda_s": 1, "lambda_t": 0, "lambda_h": 0},
        {"lambda_s": 0, "lambda_t": 1, "lambda_h": 0},
        {"lambda_s": 0, "lambda_t": 0, "lambda_h": 1},
        {"lambda_s": 2, "lambda_t": 3, "lambda_h": 0.1},
    ],
    ids=["disagreement", "the teacher's answer", "entropy", "all"],
)
def test_a_step_goes_down_the_loss_by_hand(make_game, pixels, teacher, rules):
    """Adam's first moment after its first step is a tenth of the gradient; ℓ is 2."""
    game = warm(make_game(hard("affine", augmentor_steps=1, high=1000, **rules), teacher=teacher), clean=2.0)
    rows = torch.randperm(len(pixels), generator=seeded_generator(0, 0, 6))[: len(pixels) // AUGMENTOR_SHARE]
    augmentor, loss, parts = by_hand(game, pixels, rows)
    expected = torch.autograd.grad(loss, list(augmentor.parameters()))
    before = list(augmentor.parameters())
    game.train_augmentor(pixels)
    for value, old, gradient in zip(game.augmentor.parameters(), before, expected, strict=True):
        found = 10 * game._optimizer.state[value]["exp_avg"]
        torch.testing.assert_close(found, gradient, rtol=1e-3, atol=1e-6)
        down = gradient.abs() > 1e-4
        assert down.any() and ((value - old)[down].sign() == -gradient[down].sign()).all()
    metrics = game.end_epoch(None)
    names = ("hard/sought", "hard/teacher_shift", "hard/entropy")
    assert [metrics[name] for name in names] == pytest.approx(parts, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize(("batch", "seen"), [(16, 4), (48, 12), (7, 2), (2, 2)])
def test_a_step_sees_a_quarter_of_a_batch(make_game, make_data, batch, seen):
    game = warm(make_game(hard(high=1000)))
    counts = []
    game._student.register_forward_hook(lambda module, given, answer: counts.append(len(given[0])))
    game.train_augmentor(make_data().train.images[:batch])
    assert counts == [seen] * 3


class Bands(nn.Module):
    """Names the brightest third of the rows, or of the columns."""

    def __init__(self, dim):
        super().__init__()
        self.dim = dim

    def forward(self, images):
        thirds = images.mean(dim=(1, 2 + 3 - self.dim)).unflatten(1, (3, -1)).mean(dim=2)
        return 3 * thirds


@pytest.fixture
def blocks():
    """Gray images with one bright ninth, on the diagonal: who looks at rows agrees with who looks at columns."""
    images = torch.full((48, 1, 12, 12), 20, dtype=torch.uint8)
    for place, image in enumerate(images):
        third = slice(4 * (place % 2), 4 * (place % 2) + 4)
        image[:, third, third] = 250
    return images


@pytest.fixture
def turned(make_game, blocks):
    """A game after many augmentor steps, the teacher looking at rows and the student at columns; what they measured."""

    def make(kind, steps=60, **rules):
        rules = {"augmentor_steps": 1, "student_steps": 1, "high": 1000, **rules}
        networks = {"teacher": FrozenTeacher(Bands(2)), "student": Bands(3), "temperature": 1.0}
        game = warm(make_game(hard(kind, **rules), **networks))
        measured = []
        for epoch in range(steps):
            game.begin_epoch(epoch, game.augment, 0)
            game.train_augmentor(blocks)
            student_steps(game, 1.0)
            measured.append(game.end_epoch(None))
        assert game.augmentor_steps == steps
        game.view(blocks)
        return game, measured

    return make


def mean_of(measured, name):
    return sum(one[f"hard/{name}"] for one in measured) / len(measured)


def test_the_augmentor_finds_what_the_student_minds_and_the_teacher_does_not(turned):
    """Which is to shift the images sideways."""
    game, measured = turned("affine", linear=0.0, shift=1.0, lambda_s=1, lambda_t=10, lambda_h=0)
    sideways, down = game._drawn.parameters.abs().mean(dim=0)[[2, 5]].tolist()
    assert sideways > 0.5 and down < 0.2
    assert mean_of(measured[-10:], "sought") > 5 * mean_of(measured[:3], "sought")


def test_the_teachers_own_answer_holds_the_augmentor_back(turned):
    free, held = (turned("affine", lambda_s=1, lambda_t=tied, lambda_h=0)[1] for tied in (0, 10))
    assert mean_of(held[-10:], "teacher_shift") < 0.2 * mean_of(free[-10:], "teacher_shift")


@pytest.mark.parametrize("kind", ["affine", "mix", "color"])
def test_without_disagreement_to_seek_the_change_stays_small(turned, kind):
    """λ_s = λ_h = 0: the teacher's own answer is all that counts, and to change nothing is best."""
    _, still = turned(kind, lambda_s=0, lambda_t=1, lambda_h=0)
    assert mean_of(still[-10:], "teacher_shift") < min(0.02, mean_of(still[:3], "teacher_shift"))
    _, wild = turned(kind, lambda_s=1, lambda_t=0, lambda_h=1)
    assert mean_of(wild[-10:], "teacher_shift") > 10 * mean_of(still[-10:], "teacher_shift")


def test_the_entropy_widens_what_is_drawn(turned):
    game, wide = turned("affine", lambda_s=0, lambda_t=0, lambda_h=1)
    assert mean_of(wide[-5:], "entropy") > mean_of(wide[:3], "entropy") + 3
    assert game._drawn.parameters.abs().mean() > 0.3


# ---- the student's view ----------------------------------------------------------------------------


@every_kind
def test_a_view_is_what_the_augmentor_makes_now(make_game, pixels, kind):
    """And so what a replay of its weights makes of the same images from the same generator."""
    game = make_game(hard(kind))
    before = pixels.clone()
    view = game.view(pixels)
    assert torch.equal(pixels, before) and not view.images.requires_grad
    learned = replace(game.augment, learned=Learned.of(game.augmentor.learnable()))
    replayed = learned(pixels, (64,), seeded_generator(0, 0, 6))
    assert torch.equal(view.images, replayed.images)
    assert torch.equal(view.second, replayed.second) and torch.equal(view.weight, replayed.weight)


@pytest.mark.parametrize("kind", ["affine of the image", "vae"])
def test_a_view_does_not_depend_on_the_recipes_precision(make_game, pixels, kind):
    game = make_game(hard(kind))
    for value in game.augmentor.parameters():
        value.data += 0.3 * torch.randn(value.shape, generator=seeded_generator(1))
    expected = game.view(pixels).images
    game.begin_epoch(0, game.augment, 0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(game.view(pixels).images, expected)


@pytest.mark.parametrize("kind", ["affine", "mix"])
def test_with_a_memory_half_of_a_view_is_an_earlier_augmentors(make_game, pixels, kind):
    game = make_game(hard(kind, memory=5))
    earlier, now = taught(game.augment, seed=1), replace(game.augment, learned=Learned.of(game.augmentor.learnable()))
    game._memory = [dict(earlier.learned.tensors)]
    view = game.view(pixels)
    generator = seeded_generator(0, 0, 6)
    torch.randint(1, (), generator=generator)
    first, second = (
        choice(part, (64,), generator) for choice, part in zip((earlier, now), pixels.split(8), strict=True)
    )
    assert torch.equal(view.images, torch.cat((first.images, second.images)))
    assert torch.equal(view.first, torch.arange(16))
    assert torch.equal(view.second, torch.cat((first.second, second.second + 8)))
    assert torch.equal(view.weight, torch.cat((first.weight, second.weight)))


def test_every_earlier_augmentor_has_its_turn(make_game, pixels):
    game = make_game(hard(memory=3, linear=0.0, shift=1.0))
    for at in (-2.0, 0.0, 2.0):
        game._memory.append({"drawn.location": torch.full((6,), at), "drawn.scale": torch.full((6,), -50.0)})
    places = set()
    for _ in range(30):
        generator = game._generator.clone_state()
        place = int(torch.randint(3, (), generator=generator))
        earlier = replace(game.augment, learned=Learned.of(game._memory[place]))
        assert torch.equal(game.view(pixels).images[:8], earlier(pixels[:8], (64,), generator).images)
        places.add(place)
    assert places == {0, 1, 2}


@pytest.mark.parametrize("batch", [2, 3, 4, 5])
def test_a_small_batch_can_be_mixed_with_a_memory(make_game, pixels, batch):
    game = make_game(hard("mix", memory=2))
    game._memory = [game.augmentor.learnable()]
    view = game.view(pixels[:batch])
    assert view.images.shape == (batch, 1, 8, 8) and (view.first != view.second).all()


def test_the_memory_keeps_the_latest(make_game, pixels):
    game = warm(make_game(hard(memory=2, high=1000)))
    kept = []
    for _ in range(4):
        game.train_augmentor(pixels)
        kept.append(game.augmentor.learnable())
        student_steps(game, 1.5, times=4)
    assert len(game._memory) == 2
    for found, expected in zip(game._memory, kept[-2:], strict=True):
        assert all(torch.equal(found[name], expected[name]) for name in expected)
    game.begin_epoch(1, replace(game.augment, memory=1), 0)
    assert len(game._memory) == 1 and torch.equal(game._memory[0]["drawn.scale"], kept[-1]["drawn.scale"])
    game.begin_epoch(2, replace(game.augment, memory=0), 0)
    game.train_augmentor(pixels)
    assert game._memory == []


# ---- phases ----------------------------------------------------------------------------------------


IMAGES = torch.zeros(8, 1, 8, 8, dtype=torch.uint8)


@pytest.fixture
def scripted(make_game, monkeypatch):
    """A game whose disagreements are given: the augmentor's here, the student's to `play`."""

    def make(augmentor, **rules):
        game = make_game(hard(**{"low": 1.0, "high": 2.5, "warmup": 10, "augmentor_steps": 8} | rules))
        script = iter(augmentor)

        def step(images):
            game.augmentor_steps += 1
            game._length += 1
            game._update_running_mean(next(script))

        monkeypatch.setattr(game, "_augmentor_step", step)
        return game

    return make


def play(game, steps, student, clean=1.0):
    """So many steps as the student takes them; `student` gives the disagreement of each, counted from 1."""
    for step in range(1, steps + 1):
        game.train_augmentor(IMAGES)
        student_steps(game, student(step), clean)
    return [(entry["phase"], entry["student_steps"], entry["augmentor_steps"]) for entry in game.phases]


def forever(value):
    return iter(lambda: value, None)


def test_the_warm_up_sets_the_scale(scripted):
    """ℓ is the running mean of the clean loss, and so of the warm-up's end; no augmentor has a turn before."""
    game, losses, expected = scripted(forever(1.0), warmup=7), [8.0, 1.0, 3.0, 2.0, 0.5, 4.0, 1.0], None
    for step, loss in enumerate(losses, 1):
        game.train_augmentor(IMAGES)
        assert game.augmentor_steps == 0 and game.phases == []
        expected = loss if expected is None else DECAY * expected + (1 - DECAY) * loss
        student_steps(game, 5.0, loss)
        assert math.isnan(game.state_dict()["scale"]) == (step < 7)
    assert game.state_dict()["scale"] == pytest.approx(expected)
    assert play(game, 1, lambda step: 5.0)[0] == ("student", 7, 0)
    assert game.augmentor_steps > 0
    student_steps(game, 5.0, 100.0, times=20)
    assert game.state_dict()["scale"] == pytest.approx(expected), "it stays"


def test_a_student_that_starts_as_its_teacher_has_a_scale_all_the_same(scripted):
    game = scripted(forever(1.0), warmup=3)
    student_steps(game, 0.0, 0.0, times=3)
    assert game.state_dict()["scale"] == MIN_SCALE


@pytest.mark.parametrize("steps", [1, 8, 30])
def test_an_augmentors_phase_has_a_longest_length(scripted, steps):
    game = scripted(forever(2.4), augmentor_steps=steps)
    assert play(game, 11, lambda step: 2.0) == [("student", 10, 0), ("augmentor", 10, steps)]


def test_an_augmentors_phase_ends_where_the_running_mean_is_above_high(scripted):
    """It is 1, 1, 1, then 0.9 + 0.1·9 = 1.8 and 0.9·1.8 + 0.1·9 = 2.52."""
    game = scripted(iter([1.0, 1.0, 1.0, *forever_of(9.0, 20)]))
    assert play(game, 11, lambda step: 2.0)[-1] == ("augmentor", 10, 5)
    assert game.phases[-1]["disagreement"] == pytest.approx(2.52)


def forever_of(value, times):
    return [value] * times


def test_an_augmentor_has_a_step_at_least(scripted):
    """However much its earlier views make them disagree."""
    game = scripted(forever(100.0))
    assert play(game, 11, lambda step: 100.0)[-1] == ("augmentor", 10, 1)


@pytest.mark.parametrize("high_for", [5, 15, 23, 31])
def test_a_students_phase_ends_at_a_read(scripted, high_for):
    """2 for a while, then 0: below 1 from the seventh 0 on, which the next multiple of `READ_EVERY` steps notices.

    The first of them that is late enough: a quarter of the longest phase, 20 steps, has to be over.
    """
    game = scripted(forever(100.0), student_steps=80)
    below = 10 + high_for + 7
    ended = play(game, 89, lambda step: 2.0 if step <= 10 + high_for else 0.0)
    assert READ_EVERY == 10
    assert ended[2] == ("student", max(30, READ_EVERY * math.ceil(below / READ_EVERY)), 1)


def test_between_looks_nobody_waits_for_the_device(scripted, monkeypatch):
    """With a look at each step, the phase ends at the very step: so it is the looks that hold it up."""
    monkeypatch.setattr(trainables.hard.game, "READ_EVERY", 1)
    game = scripted(forever(100.0), student_steps=80)
    assert play(game, 60, lambda step: 2.0 if step <= 33 else 0.0)[2] == ("student", 40, 1)
    monkeypatch.setattr(trainables.hard.game, "READ_EVERY", 7)
    game = scripted(forever(100.0), student_steps=80)
    assert play(game, 60, lambda step: 2.0 if step <= 33 else 0.0)[2] == ("student", 42, 1)


def test_a_students_phase_has_a_shortest_length(scripted):
    """A quarter of the longest, rounded up; what the last look saw, at step 20, still counts at step 25."""
    game = scripted(forever(100.0), student_steps=60)
    assert play(game, 40, lambda step: 0.0 if step > 10 else 1.0)[2] == ("student", 25, 1)


@pytest.mark.parametrize("longest", [1, 4, 33])
def test_a_students_phase_has_a_longest_length(scripted, longest):
    """Whether a look is due or not."""
    game = scripted(forever(100.0), student_steps=longest)
    ends = [end for end in play(game, 10 + 3 * longest, lambda step: 2.0) if end[0] == "student"]
    assert [steps for _, steps, _ in ends] == [10, 10 + longest, 10 + 2 * longest, 10 + 3 * longest]


def test_between_low_and_high_neither_gives_way(scripted):
    """What ends one phase does not end the other at once: both last as long as they may."""
    game = scripted(forever(1.7), student_steps=40)
    ended = play(game, 100, lambda step: 1.7)
    assert ended == [
        ("student", 10, 0),
        ("augmentor", 10, 8),
        ("student", 50, 8),
        ("augmentor", 50, 16),
        ("student", 90, 16),
        ("augmentor", 90, 24),
    ]


@pytest.mark.parametrize("scale", [0.02, 1.0, 40.0])
def test_thresholds_are_in_units_of_the_scale(scripted, scale):
    """Losses so many times larger switch at the same steps."""
    script = [1.0, 2.0, 9.0, 9.0, 9.0, 0.5, 0.5, 20.0, *forever_of(1.0, 40)]
    game = scripted([scale * value for value in script], student_steps=40)
    found = play(game, 120, lambda step: scale * (2.0 if step % 50 < 20 else 0.1), clean=scale)
    game = scripted(script, student_steps=40)
    assert found == play(game, 120, lambda step: 2.0 if step % 50 < 20 else 0.1)
    assert len(found) > 6


def test_each_phase_has_a_running_mean_of_its_own(scripted):
    """The student trains in one mode and is played against in the other: their losses do not compare."""
    game = scripted(forever(50.0), student_steps=20)
    play(game, 25, lambda step: 0.5)
    judged = [entry["disagreement"] for entry in game.phases]
    assert judged == pytest.approx([0.5, 50.0, 0.5, 50.0][: len(judged)]) and len(judged) >= 4


# ---- what goes wrong -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "what"),
    [
        (math.nan, "is NaN"),
        (math.inf, "diverged to inf"),
        (1.5 * DIVERGED, "diverged to 1.5e+04"),
    ],
)
def test_a_disagreement_that_nobody_learns_from_stops_the_training(make_game, value, what):
    game = make_game(hard(warmup=100, lr=0.1))
    game.begin_epoch(7, game.augment, 0)
    student_steps(game, 1.0, times=READ_EVERY - 1)
    with pytest.raises(WorkError) as error:
        student_steps(game, value)
    assert str(error.value).startswith("hard_affine(") and len(str(error.value).splitlines()) == 1
    assert f": the disagreement {what} in epoch 7; " in str(error.value)
    assert str(error.value).endswith("; try a smaller lr or lambda_s, or a larger lambda_t")


def test_what_explodes_is_measured_by_the_scale(scripted):
    scale = 100.0
    game = scripted(iter([0.9 * DIVERGED * scale]))
    student_steps(game, scale, scale, times=10)
    game.train_augmentor(IMAGES)
    assert game.augmentor_steps == 1
    game = scripted(iter([1.1 * DIVERGED * scale]))
    student_steps(game, scale, scale, times=10)
    with pytest.raises(WorkError, match="diverged"):
        game.train_augmentor(IMAGES)


def test_a_student_that_explodes_says_so_at_the_epochs_end_at_the_latest(make_game):
    game = make_game(hard(warmup=100))
    student_steps(game, math.nan)
    with pytest.raises(WorkError, match="the disagreement is NaN in epoch 0"):
        game.end_epoch(None)


# ---- a student at play -----------------------------------------------------------------------------


def test_steps_are_counted(make_task):
    """Three steps an epoch, of which the first three are the warm-up."""
    learner = make_task("student", epochs=9).learner(genome(warmup=3), seed=0)
    measured = train(learner, 5)
    assert all(one["hard/student_steps"] == 3 for one in measured)
    assert measured[0]["hard/augmentor_steps"] == 0 and measured[0]["hard/phases"] == 1
    assert not {"hard/sought", "hard/teacher_shift", "hard/entropy"} & measured[0].keys()
    assert measured[1]["hard/augmentor_steps"] > 0
    assert {"hard/sought", "hard/teacher_shift", "hard/entropy"} <= measured[1].keys()
    assert sum(one["hard/augmentor_steps"] for one in measured) == learner.game.augmentor_steps
    assert sum(one["hard/phases"] for one in measured) == len(learner.game.phases)
    assert learner.game.student_steps == 15 and learner.game.phases[0]["student_steps"] == 3
    for one in measured:
        assert one["hard/disagreement"] == pytest.approx(one["view_loss"], rel=1e-5)
        assert one["loss"] == pytest.approx(
            0.1 * one["task_loss"] + 0.9 * (one["kd_loss"] + one["view_loss"]), rel=1e-5
        )


def test_an_augmentor_stands_still_in_the_warm_up_and_moves_after_it(make_task):
    learner = make_task("student", epochs=9).learner(genome(warmup=6), seed=0)
    train(learner, 4)
    kept = learner.game.snapshots
    assert sorted(kept) == [0, 1, 2, 3]
    assert all(torch.equal(kept[0][name], kept[1][name]) for name in kept[0])
    assert not any(torch.equal(kept[1][name], kept[3][name]) for name in kept[0])


def test_what_an_epoch_leaves_to_look_at(make_task):
    learner = make_task("student", epochs=9).learner(genome("chain"), seed=0)
    train(learner, 9)
    game = learner.game.state_dict()
    assert [entry["epoch"] for entry in game["epochs"]] == list(range(9))
    assert len(game["names"]) == 2 + 16 + 2 and game["names"][0] == "color brightness"
    for entry in game["epochs"]:
        quantiles = torch.tensor(entry["quantiles"])
        assert quantiles.shape == (20, 5) and (quantiles.diff(dim=1) >= 0).all() and quantiles.abs().max() <= 1
    assert [grid["epoch"] for grid in game["grids"]] == [0, 2, 4, 6, 8]
    for grid in game["grids"]:
        assert grid["images"].shape == grid["views"].shape == (SHOWN, 1, 8, 8)
        assert torch.equal(grid["images"], learner.data.train.images[:SHOWN])
        assert len(grid["disagreement"]) == SHOWN and min(grid["disagreement"]) >= 0
        for who in ("teacher_before", "teacher", "student"):
            assert all(1 / 3 <= share <= 1 for share in grid[who]["probability"])
            assert set(grid[who]["label"]) <= {0, 1, 2}


def test_a_picture_says_what_both_say_of_the_views(make_game, pixels):
    game = make_game()
    game.end_epoch(pixels)
    (grid,) = game.grids
    game._student.eval()
    with torch.no_grad():
        theirs, own = (net(game._normalize(grid["views"])) / 4.0 for net in (game._teacher, game._student))
        before = game._teacher(game._normalize(pixels))
    said = [(before, "teacher_before"), (4 * theirs, "teacher"), (4 * own, "student")]
    for logits, name in said:
        assert grid[name]["label"] == logits.argmax(dim=1).tolist()
        assert grid[name]["probability"] == pytest.approx(logits.softmax(dim=1).amax(dim=1).tolist(), rel=1e-4)
    teacher = theirs.softmax(dim=1)
    apart = 16.0 * (teacher * (theirs.log_softmax(dim=1) - own.log_softmax(dim=1))).sum(dim=1)
    assert grid["disagreement"] == pytest.approx(apart.tolist(), rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("seed", [0, 5])
def test_the_seed_decides(make_task, assert_same, seed):
    """A game draws from neither the global state nor the student's own streams."""
    states = []
    for stream in (1, 2):
        torch.default_generator.manual_seed(stream)
        learner = make_task("student").learner(genome("affine of the image", memory=2), seed=seed)
        before = torch.get_rng_state()
        train(learner, 3)
        assert torch.equal(torch.get_rng_state(), before)
        states.append(settle(learner.state_dict()))
    assert_same(*states)


# ---- going on --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "memory"), [("affine", 0), ("mix", 0), *((kind, 2) for kind in KINDS)], ids=lambda value: str(value)
)
def test_resumed_is_uninterrupted(make_task, through_file, assert_same, kind, memory):
    plays = genome(kind, memory=memory)
    task = make_task("student", epochs=6, weights=weights_for(plays.augment))
    whole, first, second = (task.learner(plays, seed=seed) for seed in (3, 3, 4))
    expected = train(whole, 6)
    measured = train(first, 3)
    torch.default_generator.manual_seed(9)
    second.load_state_dict(through_file(first.state_dict()))
    measured += train(second, 3)
    assert whole.game.augmentor_steps > 6 and len(whole.game._memory) == memory
    assert_same(settle(second.state_dict()), settle(whole.state_dict()))
    assert_same(settle(measured), settle(expected))


@pytest.mark.parametrize("saved", [1, 2, 4, 5])
def test_resumed_in_any_phase_is_uninterrupted(make_task, through_file, assert_same, saved):
    """In the warm-up, at its end, and between the steps of a student's phase."""
    plays = genome(warmup=5, student_steps=7, memory=1)
    task = make_task("student", epochs=6)
    whole, first, second = (task.learner(plays, seed=seed) for seed in (3, 3, 4))
    train(whole, 6)
    train(first, saved)
    second.load_state_dict(through_file(first.state_dict()))
    train(second, 6 - saved)
    assert_same(settle(second.state_dict()), settle(whole.state_dict()))


def test_a_state_that_was_not_loaded_leads_elsewhere(make_task):
    """What the tests above compare does depend on what is restored."""
    task, plays = make_task("student", epochs=6), genome(memory=2, student_steps=5)
    whole, fresh = (task.learner(plays, seed=3) for _ in range(2))
    fresh.begin_epoch(0)
    train(whole, 3)
    state, empty = copy.deepcopy(whole.state_dict()), fresh.game.state_dict()
    empty["phase"] = {"student": "augmentor", "augmentor": "student"}[state["game"]["phase"]]
    train(whole, 2)
    for name in (None, "augmentor", "optimizer", "memory", "scale", "phase", "length"):
        changed = copy.deepcopy(state)
        if name is not None:
            changed["game"][name] = empty[name]
        other = task.learner(plays, seed=4)
        other.load_state_dict(changed)
        train(other, 2)
        found, expected = (learner.game.augmentor.learnable() for learner in (other, whole))
        alike = all(torch.equal(found[key], expected[key]) for key in found)
        assert (alike and other.game.phases == whole.game.phases) == (name is None), name


def test_to_load_a_state_leaves_it_as_it_is(make_task, assert_same):
    task = make_task("student", epochs=6)
    donor, copier = (task.learner(genome(memory=2), seed=seed) for seed in (1, 2))
    train(donor, 3)
    state = donor.state_dict()
    before = settle(copy.deepcopy(state))
    copier.load_state_dict(state)
    train(copier, 2)
    assert_same(settle(state), before)


def test_a_game_is_loaded_before_its_first_step(make_task):
    """A search saves its members before they have trained at all."""
    task = make_task("student")
    learner = task.learner(genome(), seed=0)
    state = learner.state_dict()
    assert state["game"] is None
    learner.load_state_dict(state)
    assert learner.game is None
    learner.step()
    assert learner.game.student_steps == 3


def test_a_games_state_names_its_vae(make_task):
    """Which the task hands over; a task that does not, cannot go on."""
    plays = genome("vae")
    learner = make_task("student", weights=weights_for(plays.augment)).learner(plays, seed=0)
    learner.step()
    state = learner.state_dict()
    assert not any("vae." in name for name in state["game"]["augmentor"])
    bare = Genome.from_json(plays.to_json())
    other = make_task("student", weights=weights_for(plays.augment)).learner(bare, seed=1)
    other.load_state_dict(state)
    other.step()
    assert other.game.student_steps == 6
    with pytest.raises(RequestError, match="the learned weights of this augmentation must be loaded"):
        make_task("student").learner(bare, seed=1).load_state_dict(state)


def test_a_state_that_names_no_game_is_refused():
    with pytest.raises(RequestError, match=r"^the state of a game must name a hard augmentation, got 'cutmix'$"):
        augmentation_of({"augment": {"kind": "cutmix"}}, {})


# ---- a population ----------------------------------------------------------------------------------


def test_a_game_may_begin_at_any_epoch(make_task):
    learner = make_task("student", epochs=9).learner(Genome(), seed=0)
    (first,) = train(learner, 1)
    assert learner.game is None and not any(name.startswith("hard/") for name in first)
    learner.set_genome(genome())
    second, third = train(learner, 2)
    assert second["hard/student_steps"] == 3 and learner.game.student_steps == 6
    assert third["hard/augmentor_steps"] > 0 and sorted(learner.game.snapshots) == [1, 2]


def test_a_game_stops_and_goes_on_where_it_was(make_task):
    learner = make_task("student", epochs=9).learner(genome(), seed=0)
    train(learner, 3)
    game, steps = learner.game, learner.game.augmentor_steps
    learner.set_genome(Genome(augment=augmentation("cutmix")))
    (between,) = train(learner, 1)
    assert not any(name.startswith("hard/") for name in between)
    assert learner.game is game and game.augmentor_steps == steps and "view_loss" in between
    learner.set_genome(Genome())
    assert "view_loss" not in train(learner, 1)[0]
    learner.set_genome(genome())
    train(learner, 1)
    assert learner.game is game and game.student_steps == 12 and game.augmentor_steps > steps
    assert sorted(game.snapshots) == [0, 1, 2, 5]


def test_other_rules_keep_the_weights(make_task):
    """As after exploring: what was learned stays, and the new numbers hold from the next epoch on."""
    learner = make_task("student", epochs=9).learner(genome(), seed=0)
    train(learner, 3)
    game, before, moments = (
        learner.game,
        learner.game.augmentor.learnable(),
        learner.game._optimizer.state_dict()["state"],
    )
    other = genome(lr=0.01, lambda_s=3, low=0.5, high=4.0, memory=2)
    learner.set_genome(other)
    learner.begin_epoch(3)
    assert learner.game is game and game.augment == other.augment
    after = game.augmentor.learnable()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert [group["lr"] for group in game._optimizer.param_groups] == [0.01]
    assert moments and game._optimizer.state_dict()["state"].keys() == moments.keys()
    train(learner, 2)
    assert game.student_steps == 15 and game.state_dict()["augment"]["lr"] == 0.01


@pytest.mark.parametrize("other", ["mix", "affine of the image"])
def test_another_augmentor_starts_anew(make_task, other):
    learner = make_task("student", epochs=9).learner(genome(), seed=0)
    train(learner, 3)
    learner.set_genome(genome(other))
    train(learner, 1)
    assert learner.game.student_steps == 3 and [entry["epoch"] for entry in learner.game.epochs] == [3]
    assert learner.game.augment == hard(other)
    assert [entry["student_steps"] for entry in learner.game.phases] == [2, 2], "it has a warm-up of its own"
    assert sorted(learner.game.snapshots) == [0, 1, 2, 3], "what the one before it made can still be replayed"


def test_a_donors_game_is_taken_over_under_the_copiers_rules(make_task):
    task = make_task("student", epochs=9)
    donor, copier = (task.learner(genome(lr=lr), seed=seed) for lr, seed in ((0.05, 1), (0.2, 2)))
    train(donor, 3)
    train(copier, 1)
    copier.load_state_dict(donor.state_dict())
    copier.begin_epoch(3)
    assert copier.game.augment == hard(lr=0.2)
    found, expected = (learner.game.augmentor.learnable() for learner in (copier, donor))
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert copier.game._optimizer.param_groups[0]["lr"] == 0.2
    train(copier, 2)
    assert copier.game.student_steps == 15 and donor.game.student_steps == 9


@pytest.mark.parametrize("own", ["mix", None], ids=["another", "none"])
def test_a_donors_game_with_another_augmentor_ends_with_the_copy(make_task, own):
    task = make_task("student", epochs=9)
    donor = task.learner(genome(), seed=1)
    train(donor, 3)
    copier = task.learner(genome(own) if own else Genome(), seed=2)
    copier.load_state_dict(donor.state_dict())
    assert copier.agent.genome == (genome(own) if own else Genome())
    (metrics,) = train(copier, 1)
    if own:
        assert copier.game.student_steps == metrics["hard/student_steps"] == 3
        assert copier.game.augment == hard("mix")
    else:
        assert copier.game.student_steps == 9, "it waits, should a genome go on with it"
        assert not any(name.startswith("hard/") for name in metrics)


def test_a_donor_without_a_game(make_task):
    task = make_task("student", epochs=9)
    donor, copier = task.learner(Genome(), seed=1), task.learner(genome(), seed=2)
    train(donor, 1)
    train(copier, 2)
    copier.load_state_dict(donor.state_dict())
    assert copier.game is None
    train(copier, 1)
    assert copier.game.student_steps == 3


# ---- replay ----------------------------------------------------------------------------------------


def schedule_of(phases):
    return Schedule(tuple(phases), "student", ImageSpec(8, 1, (64,)))


@every_kind
def test_a_finished_game_is_replayed_from_its_file_without_teacher_or_student(make_task, pixels, tmp_path, kind):
    plays = genome(kind)
    task = make_task("student", epochs=3, weights=weights_for(plays.augment))
    learner = task.learner(plays, seed=0)
    train(learner, 3)
    phases = replayable_phases(learner.agent.history, learner.game.state_dict(), task.weights)
    path = schedule_of(phases).save(tmp_path / "policy.json")
    view = Schedule.load(path).second_view(2, seed=8)(pixels)
    learned = replace(plays.augment, learned=Learned.of(learner.game.augmentor.learnable()))
    assert torch.equal(view.images, learned(pixels, (64,), seeded_generator(8, 2, 1)).images)
    epochs = {Schedule.load(path).at(epoch).augment.learned.sha256 for epoch in range(3)}
    assert len(epochs) > 1, "each epoch has the augmentor as it stood then"


def test_a_student_trains_on_a_replay_without_a_game(make_task, tmp_path):
    task = make_task("student", epochs=3)
    learner = task.learner(genome(), seed=0)
    train(learner, 3)
    phases = replayable_phases(learner.agent.history, learner.game.state_dict(), {})
    loaded = Schedule.load(schedule_of(phases).save(tmp_path / "policy.json"))
    other = task.learner(loaded, seed=0)
    measured = train(other, 3)
    assert other.game is None and other.state_dict()["game"] is None
    assert all(one["view_loss"] > 0 and not any(name.startswith("hard/") for name in one) for one in measured)
    bare = make_task("student", epochs=3, weights=loaded.weights).learner(Schedule.from_json(loaded.to_json()), seed=0)
    assert [one["view_loss"] for one in train(bare, 3)] == [one["view_loss"] for one in measured]


def test_what_played_no_game_is_replayed_as_it_is():
    phases = (Phase(2, Genome()), Phase(3, Genome(Policy((Entry("Invert", 3, 0),)), augmentation("cutmix"))))
    assert replayable_phases(phases, None, {}) == phases


def test_a_lineage_that_played_two_games_is_replayable(make_task):
    learner = make_task("student", epochs=4).learner(genome(), seed=0)
    train(learner, 2)
    learner.set_genome(genome("mix"))
    train(learner, 2)
    phases = replayable_phases(learner.agent.history, learner.game.state_dict(), {})
    assert [phase.genome.augment.kind for phase in phases][:: len(phases) - 1] == ["hard_affine", "hard_mix"]
    assert not any(phase.genome.augment.learns for phase in phases)
