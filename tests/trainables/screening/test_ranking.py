"""The ranking by T. stddev: images shown, calls of the teacher, and the resulting figures."""

import copy
import json
import math
from dataclasses import asdict, dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from spaces import RequestError
from spaces.augmentations import Augmentation, CutMix, CutMixPick, Identity, Mixup, Pick, View, augmentation
from trainables import FrozenTeacher
from trainables.screening.ranking import Precision, check_request, screen
from trainables.screening.t_stddev import identity_reference, mean_deviation

CLASSES = 3
SHORT = Precision(images=6, means=4)


class Bands(nn.Module):
    """A teacher whose answers are known: each logit is the brightness of that class's band, in deviations.

    It keeps every batch's answers, and counts the images that it was asked about.
    """

    def __init__(self, sharpness=1.0, classes=CLASSES):
        super().__init__()
        self.sharpness, self.classes = sharpness, classes
        self.teacher_inputs, self.answers = [], []

    def forward(self, x):
        bands = [x[:, :, 1 + 2 * k : 3 + 2 * k].flatten(1).mean(dim=1) for k in range(CLASSES)]
        logits = self.sharpness * torch.stack(bands, dim=1)
        logits = torch.cat((logits, logits), dim=1)[:, : self.classes]
        self.teacher_inputs.append(len(x))
        self.answers.append(logits.softmax(dim=1))
        return logits


@dataclass(frozen=True)
class Watching(Augmentation):
    """Keeps what it is shown, in `seen`, and changes nothing; its view is a copy, so that the teacher is asked."""

    kind: ClassVar[str] = "watching"
    seen: ClassVar[dict[str, list[torch.Tensor]]] = {}

    tag: str = ""

    def __call__(self, images, fill, generator, answers=None):
        self.seen.setdefault(self.tag, []).append(images.clone())
        return View.unmixed(images.clone())


@dataclass(frozen=True)
class Fade(Augmentation):
    """Darker images, of which the teacher is less certain and as right as before."""

    kind: ClassVar[str] = "fade"

    share: float = 0.5

    def __call__(self, images, fill, generator, answers=None):
        return View.unmixed((self.share * images.float()).round().to(torch.uint8))


@dataclass(frozen=True)
class Blank(Augmentation):
    """Nothing is left of the image."""

    kind: ClassVar[str] = "blank"

    def __call__(self, images, fill, generator, answers=None):
        return View.unmixed(torch.full_like(images, 100))


@dataclass(frozen=True)
class Noise(Augmentation):
    """Every pixel is drawn anew."""

    kind: ClassVar[str] = "noise"

    def __call__(self, images, fill, generator, answers=None):
        return View.unmixed(torch.randint(0, 256, images.shape, generator=generator).to(torch.uint8))


@dataclass(frozen=True)
class BlankMix(Augmentation):
    """Nothing is left of two images, so that to name either label is twice as easy to guess."""

    kind: ClassVar[str] = "blank_mix"

    def __call__(self, images, fill, generator, answers=None):
        rows = torch.arange(len(images))
        return View(torch.full_like(images, 100), rows, rows.roll(1), torch.full((len(images),), 0.5))


@dataclass(frozen=True)
class Partner(Augmentation):
    """A mix of which only the partner is seen: half of it is the image by name."""

    kind: ClassVar[str] = "partner"

    def __call__(self, images, fill, generator, answers=None):
        rows = torch.arange(len(images))
        other = rows.roll(1)
        return View(images[other], rows, other, torch.full((len(images),), 0.5))


@pytest.fixture
def seen():
    """What each `Watching` was shown, by tag."""
    Watching.seen.clear()
    return Watching.seen


@pytest.fixture
def data(make_data):
    """Stripes without base augmentation, so that the teacher is always right."""
    return make_data(crop=0, flip=False)


def ranked(data, augmentations, *, model=None, precision=SHORT, **options):
    """The ranking, and its rows by label."""
    teacher = FrozenTeacher(model if model is not None else Bands())
    result = screen(teacher, data, data.train, augmentations, precision=precision, **options)
    return result, {row.label: row for row in result.rows}


# ---- what is shown ---------------------------------------------------------------------------------


def test_all_are_shown_the_same_images(make_data, seen):
    """After the base augmentation, and whoever else is ranked."""
    data = make_data()
    ranked(data, [Watching(tag="one"), Mixup(), Noise(), Watching(tag="other")])
    assert len(seen["one"]) == 4
    ranked(data, [Watching(tag="alone")])
    for tag in ("other", "alone"):
        assert torch.equal(torch.stack(seen["one"]), torch.stack(seen[tag]))
    shown, plain = torch.cat(seen["one"]), {image.numpy().tobytes() for image in data.train.images}
    assert shown.shape == (24, 1, 8, 8)
    assert sum(image.numpy().tobytes() not in plain for image in shown) > 12, "cropped and flipped"


def test_images_are_drawn_with_replacement(data, seen):
    """From a set of four, four at a time, so that without replacement there would be no spread at all."""
    four = data.train.subset(torch.arange(4))
    result = screen(FrozenTeacher(Bands()), data, four, [Watching()], precision=Precision(images=4, means=30))
    counts = {len(batch.flatten(1).unique(dim=0)) for batch in seen[""]}
    assert counts > {2, 3} and result.rows[0].t_stddev > 0.01


@pytest.mark.parametrize("images", [1, 5, 48, 63, 64])
def test_a_mean_takes_the_images_that_it_is_asked_for(make_data, images):
    data, model = make_data(train=200), Bands()
    result, _ = ranked(data, [], model=model, precision=Precision(images=images, means=2))
    assert result.images == images and model.teacher_inputs == [images] * 2


@pytest.mark.parametrize(
    ("images", "batches"), [(65, [33, 32]), (100, [50, 50]), (150, [50] * 3), (193, [49, 48, 48, 48])]
)
def test_more_than_a_batch_are_split_evenly(make_data, images, batches):
    """None is left alone in a batch, where it would have no partner to be mixed with."""
    model = Bands()
    result, _ = ranked(make_data(train=200), [], model=model, precision=Precision(images=images, means=2))
    assert result.images == images and model.teacher_inputs == batches * 2


@pytest.mark.parametrize(("total", "batches"), [(48, [24]), (200, [64]), (300, [64] * 2), (900, [64] * 5)])
def test_by_default_it_is_five_batches_or_as_many_as_half_of_the_set_has(make_data, total, batches):
    model = Bands()
    result, _ = ranked(make_data(train=total), [], model=model, precision=Precision(means=2))
    assert result.images == sum(batches) and model.teacher_inputs == batches * 2


# ---- the teacher -----------------------------------------------------------------------------------


def test_the_teacher_is_asked_once_for_all_and_once_for_each_view(data):
    """Identity's answers are those of the batch, and a pick's are those that it was picked by."""
    model = Bands()
    choices = [Fade(), CutMixPick(), Pick(base=Mixup(), passes=3), Identity()]
    ranked(data, choices, model=model)
    assert model.teacher_inputs == [6, 6, 12, 18] * 4


def test_a_pick_is_ranked_by_the_answers_to_what_it_picked(data):
    """Its pool is two views alike; the best half of it are the images of highest entropy, with their own answers."""
    model = Bands()
    _, rows = ranked(data, [Pick(base=Fade())], model=model, precision=Precision(images=6, means=2))
    entropies = []
    for pool in model.answers[1::2]:
        entropy = torch.special.entr(pool).sum(dim=1)
        assert torch.equal(entropy[:6], entropy[6:])
        entropies.append(entropy.sort(descending=True).values[:6])
    assert rows["pick(base=fade)"].entropy == pytest.approx(float(torch.cat(entropies).mean()), rel=1e-5)


def test_the_teacher_is_never_changed(data, user_nets, assert_same):
    model = user_nets.spy(CLASSES, 1)
    teacher = FrozenTeacher(model)
    teacher.train()
    before, stream = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    screen(teacher, data, data.train, [CutMix(), CutMixPick()], precision=SHORT)
    assert_same(model.state_dict(), before)
    assert len(model.modes) == 4 * 3 and model.modes == [{False}] * 12
    assert not any(x.requires_grad for x in model.seen) and all(p.grad is None for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), stream), "the global random state is left alone"


def test_a_teacher_of_other_classes_is_refused(data):
    with pytest.raises(RequestError, match=r"the data's 3 classes, got 4; use the teacher that was trained on"):
        ranked(data, [], model=Bands(classes=4))


# ---- the figures -----------------------------------------------------------------------------------


def test_identity_is_added_and_its_ratio_is_exactly_one(data):
    for choices in ([Fade()], [Fade(), Identity()], [Identity(draw="batch"), Fade()]):
        result, rows = ranked(data, choices, precision=Precision(images=6, means=25))
        assert len(result.rows) == 2
        identity = rows["identity"]
        assert (identity.ratio, identity.ratio_low, identity.ratio_high) == (1, 1, 1)
        assert identity.low < identity.t_stddev < identity.high
        assert identity.informative and identity.agreement == 1


def test_one_that_is_named_twice_is_ranked_once(data):
    result, _ = ranked(data, [Fade(), CutMix(), Fade(), augmentation("cutmix")])
    assert sorted(row.label for row in result.rows) == ["cutmix", "fade", "identity"]


def test_the_figures_against_numpy(data):
    """A batch a mean: of each the answers to the images as they are, and those to the view."""
    model, means = Bands(), 30
    _, rows = ranked(data, [Fade()], model=model, precision=Precision(images=48, means=means, half_width=0.0))
    stream = torch.stack(model.answers).double().numpy().reshape(means, 2, 48, CLASSES)

    def t_stddev(views):
        return views.mean(axis=(1, 2)).std(axis=0, ddof=1).mean()

    fade, plain = t_stddev(stream), t_stddev(stream[:, :1])
    assert rows["identity"].t_stddev == pytest.approx(plain, rel=1e-6)
    assert rows["fade"].t_stddev == pytest.approx(fade, rel=1e-6)
    assert rows["fade"].ratio == pytest.approx(fade / plain, rel=1e-6)
    assert rows["fade"].ratio_low < rows["fade"].ratio < rows["fade"].ratio_high
    answered = stream[:, 1].reshape(-1, CLASSES)
    assert rows["fade"].entropy == pytest.approx(-(answered * np.log(answered)).sum(axis=1).mean(), rel=1e-4)


def test_identity_is_what_the_closed_form_says(make_data):
    """Drawn with replacement, the mean of n images wanders by σ/√n, whatever the size of the set."""
    data, model = make_data(train=60, crop=0, flip=False), Bands(sharpness=0.7)
    answers = FrozenTeacher(model)((data.train.images.float() / 255 - 0.25) / 0.2).softmax(dim=1)
    _, rows = ranked(data, [], model=model, precision=Precision(images=40, means=400))
    assert rows["identity"].t_stddev == pytest.approx(identity_reference(mean_deviation(answers), 60, 40), rel=0.08)


def test_a_mix_agrees_with_either_of_its_labels(data):
    _, rows = ranked(data, [Partner(), Mixup(), CutMix()])
    assert rows["partner"].agreement == 1 and rows["partner"].informative
    assert 0.7 < rows["mixup"].agreement <= 1 and 0.7 < rows["cutmix"].agreement <= 1


def test_the_ranking_is_by_ratio(data):
    choices = [Fade(share=0.75), CutMix(), Fade(share=0.25), Fade(share=0.5)]
    result, rows = ranked(data, choices, precision=Precision(images=6, means=30))
    ratios = [row.ratio for row in result.rows]
    assert ratios == sorted(ratios) and all(row.informative for row in result.rows)
    fades = [row.label for row in result.rows if row.label.startswith("fade")]
    assert fades == ["fade(share=0.25)", "fade", "fade(share=0.75)"]
    assert rows["identity"].ratio == 1 > rows["fade(share=0.75)"].ratio


@pytest.mark.parametrize("useless", [Blank(), Noise(), BlankMix()], ids=["blank", "noise", "blank mix"])
def test_what_leaves_nothing_to_know_comes_last_however_low_it_is(data, useless):
    """A constant answer gives half of identity's value, and noise little more: lower than anything honest here."""
    result, rows = ranked(data, [useless, Fade(share=0.75)], precision=Precision(images=24, means=60, guard=0.2))
    row = rows[useless.label]
    assert row.ratio == min(row.ratio for row in result.rows) < 0.65
    assert not row.informative and row.agreement < 0.6
    assert [row.informative for row in result.rows] == [True, True, False] and result.rows[-1] is row
    if not isinstance(useless, Noise):
        assert row.ratio == pytest.approx(0.5, rel=1e-6) and row.entropy == pytest.approx(math.log(3), rel=1e-6)


def test_the_guard_is_a_share_of_what_the_teacher_knows_above_chance(data):
    """Half of the images blank: of the two thirds that the teacher knows above chance, half are left."""

    @dataclass(frozen=True)
    class Half(Augmentation):
        kind: ClassVar[str] = "half"

        def __call__(self, images, fill, generator, answers=None):
            changed = images.clone()
            changed[::2] = 100
            return View.unmixed(changed)

    for guard, passes in ((0.4, True), (0.6, False)):
        precision = Precision(images=24, means=30, guard=guard)
        _, rows = ranked(data, [Half()], precision=precision)
        assert rows["half"].agreement == pytest.approx(0.5 + 0.5 / 3, abs=0.05)
        assert rows["half"].informative is passes


@pytest.mark.parametrize("images", range(2, 14))
def test_identity_passes_the_strictest_guard(make_data, images):
    """Where it has to be as good as itself."""
    _, rows = ranked(make_data(), [], precision=Precision(images=images, means=3, guard=1.0))
    assert rows["identity"].informative


def test_of_a_teacher_that_knows_nothing_nothing_is_informative(data):
    """Its answers wander, so that there are ratios; but it is right by chance."""
    blind = nn.Sequential(nn.Flatten(), nn.Linear(64, CLASSES))
    with torch.no_grad():
        blind[1].weight[:] = 0.05
        blind[1].weight[0] = -0.05
    result, rows = ranked(data, [Fade(), CutMix()], model=blind, precision=Precision(images=24, means=40))
    assert all(row.ratio > 0 for row in result.rows)
    assert rows["identity"].agreement == pytest.approx(1 / 3, abs=0.03)
    assert not any(row.informative for row in result.rows)


class Same(nn.Module):
    """A teacher with one answer to everything."""

    def __init__(self, *logits):
        super().__init__()
        self.logits = torch.tensor(logits)

    def forward(self, x):
        return self.logits.expand(len(x), -1)


@pytest.mark.parametrize("model", [Same(0.0, 0.0, 0.0), Same(5.0, 0.0, 1.0)], ids=["uniform", "certain"])
def test_of_a_teacher_that_answers_all_alike_no_ratio_is_known(data, model):
    """What spread there is, is that of rounding."""
    result, rows = ranked(data, [Fade(), CutMix()], model=model, precision=Precision(means=40))
    assert result.means == 40 and not result.stopped_early
    for row in rows.values():
        assert row.t_stddev == pytest.approx(0, abs=1e-7)
        assert math.isnan(row.ratio) and math.isnan(row.ratio_low) and math.isnan(row.ratio_high)


def figures(result):
    """All of it but the time that it took."""
    return [{name: value for name, value in asdict(row).items() if name != "seconds"} for row in result.rows]


def test_the_seed_decides(make_data):
    data, choices = make_data(), [CutMix(), augmentation("cutout"), CutMixPick(draw="batch")]
    results = [ranked(data, choices, seed=seed)[0] for seed in (3, 3, 4)]
    assert figures(results[0]) == figures(results[1]) != figures(results[2])
    assert all(row.seconds >= 0 for row in results[0].rows)
    json.dumps(figures(results[0]), allow_nan=False)
    assert {augmentation(row.augment) for row in results[0].rows} == {Identity(), *choices}


# ---- how long it looks -----------------------------------------------------------------------------


def test_it_stops_when_every_interval_is_narrow_and_says_so(data):
    told = []

    def widest(rows):
        return max((row.ratio_high - row.ratio_low) / 2 / row.ratio for row in rows.values())

    precision = Precision(images=24, means=400, half_width=0.03)
    result, rows = ranked(data, [Fade(), CutMix()], precision=precision, on_mean=lambda *mean: told.append(mean))
    assert result.stopped_early and 20 < result.means < 400 and widest(rows) <= 0.03
    assert told == [(done, 400) for done in range(1, result.means + 1)]
    before = Precision(images=24, means=result.means - 10, half_width=0.0)
    assert widest(ranked(data, [Fade(), CutMix()], precision=before)[1]) > 0.03, "nor does it go on for longer"


def test_it_does_not_stop_for_the_narrow_ones_alone(data):
    """Identity's own interval is always as narrow as can be."""
    assert ranked(data, [], precision=Precision(means=40, half_width=0.0))[0].stopped_early
    result, _ = ranked(data, [Noise()], precision=Precision(images=6, means=40, half_width=0.0))
    assert not result.stopped_early and result.means == 40


@pytest.mark.parametrize("means", [2, 19, 20])
def test_few_means_are_all_taken(data, means):
    result, _ = ranked(data, [], precision=Precision(means=means, half_width=1.0))
    assert result.means == means and not result.stopped_early


# ---- what is refused -------------------------------------------------------------------------------


def test_what_can_be_known_to_fail_is_refused_before_the_teacher_is_asked(data):
    model = Bands()
    with pytest.raises(RequestError, match=r"must not ask a student, got 'cutmixpick\(pick_by=student\)'; set"):
        ranked(data, [Fade(), CutMixPick(pick_by="student")], model=model)
    with pytest.raises(RequestError, match="images must be at most 48, the images of the set, got 49"):
        ranked(data, [], model=model, precision=Precision(images=49))
    assert model.teacher_inputs == []
    check_request([CutMixPick()], Precision(images=48), 48)


@pytest.mark.parametrize(
    ("settings", "rule"),
    [
        ({"images": 0}, "images must be >= 1, got 0"),
        ({"means": 1}, "means must be >= 2, got 1"),
        ({"half_width": -0.1}, r"half_width must be in \[0, 1\], got -0.1"),
        ({"half_width": math.nan}, r"half_width must be in \[0, 1\], got nan"),
        ({"guard": 1.1}, r"guard must be in \[0, 1\], got 1.1"),
    ],
)
def test_a_precision_that_measures_nothing_is_refused(settings, rule):
    with pytest.raises(RequestError, match=f"^{rule}$"):
        Precision(**settings)


def test_one_image_has_no_partner(data):
    with pytest.raises(RequestError, match="a batch must hold at least two images to be mixed, got 1"):
        ranked(data, [CutMix()], precision=Precision(images=1, means=2))
