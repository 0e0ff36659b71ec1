"""The contract of every distillation loss: options, refused requests, and one step between any two networks."""

import json
import pickle
from copy import deepcopy
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import nn

from spaces import RequestError
from trainables.losses import (
    LOSSES,
    Criterion,
    DistillBatch,
    FeatureLoss,
    Loss,
    NetworkPair,
    WeightedLoss,
    describe_losses,
    parse_losses,
    upgrade_losses,
)

IMAGES, CLASSES, BATCH = 40, 4, 6
NARROW, WIDE = 5, 8
FEATURES = [name for name, loss in LOSSES.items() if issubclass(loss, FeatureLoss)]
PROJECTIONS = ("none", "student", "inverted", "ensemble")
SHAPES = {"maps": (4, 4), "vectors": (), "tokens": None}
SMALL = {"crd": {"width": 4}, "spectral": {"k": 1}}


def shape(form, width):
    return (10, width) if form == "tokens" else (width, *SHAPES[form])


def between(student, teacher, form="maps"):
    """Two networks, of one layer each."""
    return NetworkPair(
        classes=CLASSES,
        images=IMAGES,
        student={"last": shape(form, student)},
        teacher={"end": shape(form, teacher)},
        teacher_classes=CLASSES,
        peer=lambda: nn.Sequential(nn.Flatten(), nn.BatchNorm1d(12), nn.Linear(12, CLASSES)),
    )


def batch(pair, size=BATCH, dtype=torch.float32):
    draw = torch.Generator().manual_seed(7)

    def normal(*shape):
        return torch.randn(*shape, generator=draw).to(dtype).requires_grad_()

    return DistillBatch(
        images=torch.randn(size, 3, 2, 2, generator=draw),
        labels=torch.arange(size) % CLASSES,
        rows=torch.randperm(IMAGES, generator=draw)[:size],
        temperature=3.0,
        student=normal(size, CLASSES),
        teacher=normal(size, CLASSES),
        student_features={name: normal(size, *shape) for name, shape in pair.student.items()},
        teacher_features={name: normal(size, *shape) for name, shape in pair.teacher.items()},
    )


def made(name, **options):
    (term,) = parse_losses({name: {**SMALL.get(name, {}), **options}})
    return term.loss


def built(loss, pair):
    torch.default_generator.manual_seed(1)
    return loss.build(pair)


def judged(criterion, seen):
    torch.default_generator.manual_seed(2)
    return criterion(seen)


def ours(seen):
    """What the student's gradient flows into."""
    return [seen.student, *seen.student_features.values()]


def gradients(tensors):
    return sum(float(tensor.grad.abs().sum()) for tensor in tensors if tensor.grad is not None)


def check_step(loss, pair, seen):
    criterion = built(loss, pair)
    parts = judged(criterion, seen)
    assert parts["loss"].shape == () and parts["loss"].dtype == torch.float32
    assert all(part.isfinite() for part in parts.values())
    parts["loss"].backward()
    learning = gradients(ours(seen))
    assert 0 < learning < float("inf")
    assert gradients([seen.teacher, *seen.teacher_features.values()]) == 0
    if "auxiliary_loss" in parts:
        assert gradients(criterion.parameters()) == 0, "what the student minimizes moves no peer"
        parts["auxiliary_loss"].backward()
        assert gradients(ours(seen)) == learning and gradients(criterion.parameters()) > 0
    elif isinstance(loss, FeatureLoss) and loss.projection != "none":
        assert all(float(parameter.grad.abs().sum()) > 0 for parameter in criterion.projections.parameters())
    said = criterion.report()
    assert all(isinstance(value, float) for value in said.values())


CASES = [
    (name, projection, widths, form)
    for name in FEATURES
    for projection in PROJECTIONS
    for widths in ((NARROW, WIDE), (WIDE, NARROW), (NARROW, NARROW))
    for form in SHAPES
    if not (name == "hint" and projection == "none" and widths != (NARROW, NARROW))
    and not (name == "attention" and form == "vectors")
]


@pytest.mark.parametrize(("name", "projection", "widths", "form"), CASES)
def test_one_step_on_features(name, projection, widths, form):
    pair = between(*widths, form)
    check_step(made(name, projection=projection), pair, batch(pair))


@pytest.mark.parametrize("name", [name for name in FEATURES if name != "attention"])
@pytest.mark.parametrize("form", SHAPES)
@pytest.mark.parametrize("pool", [False, True])
def test_one_step_on_maps_and_on_pooled_vectors(name, form, pool):
    pair = between(NARROW, WIDE, form)
    check_step(made(name, projection="inverted", pool=pool), pair, batch(pair))


@pytest.mark.parametrize("name", sorted({*LOSSES} - {*FEATURES}))
def test_one_step_on_the_rest(name):
    pair = between(NARROW, WIDE)
    check_step(made(name), pair, batch(pair))


@pytest.mark.parametrize("normalization", ["batch", "layer", "l2", "none"])
def test_one_step_under_each_normalization(normalization):
    pair = between(NARROW, WIDE)
    check_step(made("hint", projection="inverted", normalization=normalization), pair, batch(pair))


def fitting(name):
    return made(name, projection="inverted") if name in FEATURES else made(name)


@pytest.mark.parametrize("name", LOSSES)
def test_half_precision(name):
    pair = between(NARROW, WIDE)
    seen = batch(pair, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        check_step(fitting(name), pair, seen)
    full = batch(pair)
    for tensor in (*ours(full), full.teacher, *full.teacher_features.values()):
        tensor.data = tensor.data.bfloat16().float()
    with torch.autocast("cpu", torch.bfloat16):
        half = judged(built(fitting(name), pair), seen)["loss"].item()
        torch.testing.assert_close(half, judged(built(fitting(name), pair), full)["loss"].item(), rtol=0, atol=0)


@pytest.mark.parametrize("name", LOSSES)
def test_a_batch_of_two(name):
    pair = between(NARROW, WIDE)
    parts = judged(built(fitting(name), pair), batch(pair, size=2))
    assert parts["loss"].isfinite()
    parts["loss"].backward()


@pytest.mark.parametrize("name", LOSSES)
def test_copies_go_on_alike(name):
    pair = between(NARROW, WIDE)
    first = built(fitting(name), pair)
    judged(first, batch(pair))
    again = fitting(name).build(pair)
    again.load_state_dict(first.state_dict())
    copies = [again, deepcopy(first), pickle.loads(pickle.dumps(first))]
    expected = judged(first, batch(pair))
    for copy in copies:
        parts = judged(copy, batch(pair))
        assert {key: part.item() for key, part in parts.items()} == {key: part.item() for key, part in expected.items()}


@pytest.mark.parametrize("name", LOSSES)
def test_a_report_says_nothing_twice_of_a_batch(name):
    pair = between(NARROW, WIDE)
    criterion = built(fitting(name), pair)
    before = {*criterion.state_dict()}
    judged(criterion, batch(pair))
    said = criterion.report()
    if name in FEATURES:
        assert {*said} == {"rank", "transfer", "regularization"}
        assert {*criterion.report()} == {"rank"}
    assert {*criterion.state_dict()} == before


def test_several_layers_add_up_and_report_by_name():
    two = {"low": (NARROW, 6, 6), "last": (NARROW, 4, 4)}
    pair = NetworkPair(CLASSES, IMAGES, two, {"a": (WIDE, 6, 6), "b": (WIDE, 4, 4)}, CLASSES)
    seen = batch(pair)
    loss = made("hint", projection="inverted", student=["low", "last"], teacher=["a", "b"])
    criterion = built(loss, pair)
    both = judged(criterion, seen)["loss"].item()
    each = []
    for index, names in enumerate((("low", "a"), ("last", "b"))):
        single = made("hint", projection="inverted", student=names[0], teacher=names[1]).build(pair)
        single.projections[0].load_state_dict(criterion.projections[index].state_dict())
        each.append(single(seen)["loss"].item())
    assert both == pytest.approx(sum(each)) and min(each) > 0
    assert {"low/rank", "last/transfer"} < {*criterion.report()}


# What fits, and what does not.


@pytest.mark.parametrize("name", sorted({*LOSSES} - {"spectral"}))
def test_a_teacher_is_needed(name):
    with pytest.raises(RequestError, match=f"{name} needs a teacher; .*spectral"):
        made(name).build(NetworkPair(CLASSES, IMAGES, {"last": (NARROW, 4, 4)}))


def test_spectral_needs_none():
    pair = NetworkPair(CLASSES, IMAGES, {"last": (NARROW, 4, 4)})
    assert made("spectral").build(pair)(batch(pair))["loss"].isfinite()
    assert "teacher" not in LOSSES["spectral"].needs


@pytest.mark.parametrize("name", ["kd", "dkd", "dist", "mutual"])
def test_logits_are_compared_over_the_same_classes(name):
    pair = NetworkPair(CLASSES, IMAGES, {}, {}, teacher_classes=7)
    with pytest.raises(RequestError, match=f"{name} compares logits, so the teacher must have 4 classes, got 7"):
        made(name).build(pair)
    assert "classes" in LOSSES[name].needs


def fine(name):
    """Each on a teacher of another task."""
    pair = between(NARROW, WIDE)
    return NetworkPair(CLASSES, IMAGES, pair.student, pair.teacher, teacher_classes=7)


@pytest.mark.parametrize("name", FEATURES)
def test_features_are_compared_whatever_the_teachers_classes(name):
    assert "loss" in built(fitting(name), fine(name))(batch(fine(name)))


def refused(rule, loss, pair):
    with pytest.raises(RequestError, match=rule):
        loss.build(pair)


def test_layers_that_do_not_fit():
    pair = between(NARROW, WIDE)
    refused(
        "layers compared by hint must have the same width, got .5 in.*last, 8 in.*end.*projection: student",
        made("hint"),
        pair,
    )
    refused("attention must compare maps of more than one", made("attention"), between(NARROW, WIDE, "vectors"))
    refused("unknown layer 'lost'; did you mean 'last'", made("pkt", student="lost"), pair)
    refused("must name as many layers.*2 and 1", made("pkt", student=["last", "first"]), pair)
    refused("k of spectral must be below 5, the channels", made("spectral", k=5), pair)
    tokens = NetworkPair(CLASSES, IMAGES, {"last": (7, NARROW)}, {"end": (WIDE, 4, 4)}, CLASSES)
    refused("square map.*7 tokens.*pool: true", made("similarity"), tokens)
    assert made("similarity", pool=True).build(tokens)(batch(tokens))["loss"].isfinite()
    refused(
        "must give maps .C, H, W., tokens",
        made("pkt", student="odd"),
        NetworkPair(CLASSES, IMAGES, {"odd": (1,) * 4}, {"end": (WIDE,)}, 4),
    )


def test_spectral_refuses_a_small_batch():
    pair = between(NARROW, WIDE)
    with pytest.raises(RequestError, match="more than k = 4 images for the loss spectral, got 4"):
        made("spectral", k=4).build(pair)(batch(pair, size=4))


def test_crd_refuses_a_single_class():
    pair = NetworkPair(CLASSES, 2, {"last": (NARROW,)}, {"end": (WIDE,)}, CLASSES)
    seen = DistillBatch(
        torch.zeros(2, 1),
        torch.zeros(2, dtype=torch.long),
        torch.arange(2),
        1.0,
        torch.zeros(2, 4),
        student_features={"last": torch.ones(2, NARROW)},
        teacher_features={"end": torch.ones(2, WIDE)},
    )
    with pytest.raises(RequestError, match="at least 2 classes"):
        made("crd").build(pair)(seen)


def test_attention_takes_all_stages_with_positions_from_the_end():
    student = {"stem": (2, 8, 8), "low": (2, 8, 8), "last": (2, 4, 4)}
    teacher = {"low": (3, 8, 8), "last": (3, 4, 4), "pool": (3, 1, 1)}
    loss = made("attention")
    assert loss.layers(NetworkPair(4, 9, student, teacher, 4)) == (("low", "last"), ("low", "last"))
    assert made("hint").layers(NetworkPair(4, 9, student, teacher, 4)) == (("last",), ("pool",))


# Names.


def test_a_name_is_a_loss_of_weight_one():
    (term,) = parse_losses("kd")
    assert term == WeightedLoss(1.0, LOSSES["kd"]()) and describe_losses((term,)) == "kd"


def test_weights_and_options():
    chosen = parse_losses({"hint": {"weight": 50, "projection": "inverted"}, "kd": 1})
    assert describe_losses(chosen) == {"kd": 1.0, "hint": {"weight": 50.0, "projection": "inverted"}}


def test_equal_choices_are_described_alike():
    first = {"kd": 1, "pkt": {"weight": 2, "student": "a"}, "rkd": {"distance": 25, "angle": 1}}
    second = {"rkd": {"angle": 1.0}, "pkt": {"student": ["a"], "weight": 2.0}, "kd": {"weight": True + 0.0}}
    assert parse_losses(first) == parse_losses(second)
    assert json.dumps(describe_losses(parse_losses(first))) == json.dumps(describe_losses(parse_losses(second)))


@pytest.mark.parametrize(
    "choice",
    ["kd", "spectral", {"kd": 2}, {"crd": {"negatives": 5, "pool": False, "normalization": "l2"}, "kd": 0.1}],
)
def test_what_is_described_can_be_named(choice):
    once = parse_losses(choice)
    assert parse_losses(json.loads(json.dumps(describe_losses(once)))) == once


@pytest.mark.parametrize(
    ("choice", "rule"),
    [
        ("kdd", "unknown loss 'kdd'; did you mean 'kd'"),
        ("relational", "the loss 'relational' must be named 'rkd'"),
        ({"relational": {"angle": 1}}, "must be named 'rkd'"),
        ({"hint": {"normalisation": "l2"}}, "the option 'normalisation' of hint must be named 'normalization'"),
        ({"kd": {"normalisation": "l2"}}, "unknown option of kd 'normalisation'"),
        ({"hnit": 1}, "unknown loss 'hnit'; did you mean 'hint'"),
        ({}, "loss must be a name"),
        (None, "loss must be a name"),
        (["kd"], "loss must be a name"),
        ({1: 1}, "loss must be a name"),
        ({"kd": 0}, "weight of kd must be a finite number > 0, got 0"),
        ({"kd": -1}, "weight of kd"),
        ({"kd": True}, "weight of kd"),
        ({"kd": "1"}, "weight of kd"),
        ({"kd": None}, "weight of kd"),
        ({"kd": float("nan")}, "weight of kd"),
        ({"kd": float("inf")}, "weight of kd"),
        ({"kd": 10**400}, "weight of kd"),
        ({"kd": {"weight": 0}}, "weight of kd"),
        ({"kd": {1: 2}}, "option name of kd must be a string"),
        ({"hint": {"projecton": "none"}}, "unknown option of hint 'projecton'; did you mean 'projection'"),
        ({"hint": {"wieght": 2}}, "unknown option of hint 'wieght'; did you mean 'weight'"),
        ({"hint": {"projection": "invert"}}, "unknown projection of hint 'invert'; did you mean 'inverted'"),
        ({"hint": {"projection": ["none"]}}, "unknown projection of hint"),
        ({"hint": {"normalization": "batches"}}, "unknown normalization of hint"),
        ({"hint": {"pool": 1}}, "pool of hint must be true or false"),
        ({"hint": {"student": 3}}, "student of hint must be a layer name"),
        ({"hint": {"student": [""]}}, "student of hint must be a layer name"),
        ({"hint": {"teacher": ["a", "a"]}}, "teacher of hint must name each layer once"),
        ({"attention": {"pool": True}}, "pool of attention must be false"),
        ({"dkd": {"alpha": -1}}, "alpha of dkd must be >= 0"),
        ({"dkd": {"beta": True}}, "beta of dkd must be a finite number"),
        ({"dist": {"gamma": "1"}}, "gamma of dist must be a finite number"),
        ({"rkd": {"angle": -1}}, "angle of rkd must be >= 0"),
        ({"crd": {"temperature": 0}}, "temperature of crd must be > 0"),
        ({"crd": {"momentum": 1}}, "momentum of crd must be in"),
        ({"crd": {"negatives": 0}}, "negatives of crd must be an integer >= 1"),
        ({"crd": {"width": 2.5}}, "width of crd must be an integer >= 1"),
        ({"spectral": {"k": True}}, "k of spectral must be an integer >= 1"),
        ({"nowhere.to.find": 1}, "cannot import 'nowhere.to'"),
        ({"math.pi.": 1}, "a dotted name must have a module and an attribute"),
    ],
)
def test_refusals(choice, rule):
    with pytest.raises(RequestError, match=rule):
        parse_losses(choice)


# A loss of one's own.


class OwnCriterion(Criterion):
    def forward(self, seen):
        return {"loss": seen.student.square().mean()}


@dataclass(frozen=True)
class OwnLoss(Loss):
    kind: ClassVar[str] = "mine"
    needs: ClassVar[frozenset[str]] = frozenset()

    power: int = 2

    def build(self, pair):
        return OwnCriterion()


@pytest.fixture
def own(monkeypatch):
    """The name under which this file's loss is imported."""
    monkeypatch.setattr(torch, "own_loss", OwnLoss, raising=False)
    monkeypatch.setattr(torch, "no_loss", dict, raising=False)
    return "torch:own_loss"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("relational", "rkd"),
        ("kd", "kd"),
        ({"relational": 2, "kd": 1}, {"rkd": 2, "kd": 1}),
        (
            {"relational": {"weight": 2, "normalisation": "l2"}, "torch:own_loss": {"power": 3}},
            {"rkd": {"weight": 2, "normalization": "l2"}, "torch:own_loss": {"power": 3}},
        ),
    ],
)
def test_old_spellings_of_policy_files_are_upgraded(old, new):
    assert upgrade_losses(old) == new


def test_own_loss(own):
    chosen = parse_losses({own: {"weight": 3, "power": 4}, "kd": 1})
    assert [term.name for term in chosen] == ["kd", own] and chosen[1].loss == OwnLoss(power=4)
    assert describe_losses(chosen) == {"kd": 1.0, own: {"weight": 3.0, "power": 4}}
    assert parse_losses(describe_losses(chosen)) == chosen
    assert describe_losses(parse_losses(own)) == own


def test_own_loss_refusals(own):
    for choice, rule in (
        ({own: {"strength": 1}}, "factory torch:own_loss raised TypeError"),
        ({own: {"power": [1]}}, "option power of torch:own_loss must be a string, a number"),
        ("torch.no_loss", "must return a trainables.losses.Loss, got 'dict'"),
    ):
        with pytest.raises(RequestError, match=rule):
            parse_losses(choice)
