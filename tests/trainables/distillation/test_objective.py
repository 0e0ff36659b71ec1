"""The losses of a student: their weights, their state, the export without them, and refused requests."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from spaces import Genome, RequestError
from spaces.augmentations import augmentation
from trainables import Bits, Distill, FrozenTeacher, TrainedTeacher
from trainables.losses import kd_loss
from trainables.models import build_model
from trainables.quantization import size_in_bits
from trainables.task import test_score as score
from trainables.training.frozen_teacher import Renormalize
from trainables.training.learner import Batch

SUM = {"kd": 1, "hint": {"weight": 3, "projection": "inverted", "pool": True}}
LOSSES = {
    "sum": SUM,
    "attention": {"attention": {"weight": 10, "projection": "student"}},
    "crd": {"crd": {"weight": 0.8, "negatives": 8}},
    "mutual": {"mutual": 1},
    "spectral": {"spectral": {"weight": 1, "k": 2}},
}


def other_task(data, classes=4, seed=5, **changes):
    """A teacher of other classes than the data's."""
    weights = build_model("resnet8", seed=seed, classes=classes, channels=data.channels, size=data.size).state_dict()
    return TrainedTeacher("resnet8", weights, classes=classes, **changes)


# ---- settings --------------------------------------------------------------------------------------


def test_a_genome_chooses_the_loss_and_its_numbers_and_nothing_else():
    chosen = Distill(teacher_view="distinct").override({"loss": SUM, "temperature": 2, "alpha": 0.5})
    assert (chosen.loss, chosen.temperature, chosen.alpha, chosen.teacher_view) == (SUM, 2, 0.5, "distinct")
    assert Distill().override({}) == Distill()
    with pytest.raises(RequestError, match="unknown setting of distill that a genome chooses 'teacher_view'"):
        Distill().override({"teacher_view": "distinct"})
    with pytest.raises(RequestError, match="temperature must be > 0, got 0"):
        Distill().override({"temperature": 0})


@pytest.mark.parametrize(
    ("loss", "rule"),
    [
        ("kdd", "did you mean 'kd'"),
        ({"kd": 0}, "> 0"),
        ({"hint": {"weight": 1, "projektion": "student"}}, "did you mean 'projection'"),
        ({"hint": {"weight": 1, "projection": "teacher"}}, "teacher"),
        ({}, "loss"),
        (3, "loss"),
    ],
)
def test_losses_that_there_are_not(loss, rule):
    with pytest.raises(RequestError, match=rule):
        Distill(loss=loss)


# ---- a step ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("augment", ["identity", "cutmix", "cutmixpick"])
def test_the_loss_is_the_weighted_sum_of_its_parts(make_task, augment):
    task = make_task("student", distill=Distill(loss=SUM, alpha=0.7))
    metrics = task.learner(Genome(augment=augmentation(augment)), seed=0).step()
    distilled = metrics["kd_loss"] + 3 * metrics["hint_loss"] + metrics.get("view_loss", 0.0)
    assert metrics["loss"] == pytest.approx(0.3 * metrics["task_loss"] + 0.7 * distilled, rel=1e-5)
    assert ("view_loss" in metrics) == (augment != "identity")
    assert {"distill/hint/rank", "distill/hint/transfer", "distill/hint/regularization"} <= metrics.keys()
    whole = metrics["distill/hint/transfer"] + metrics["distill/hint/regularization"]
    assert whole > 0 and 1 <= metrics["distill/hint/rank"] <= 64


def test_the_second_view_is_distilled_by_kd_whatever_the_loss(make_task):
    """Its images have no label, and what was picked comes with logits alone."""
    task = make_task("student", distill=Distill(loss={"dkd": 1}, temperature=2.0))
    learner = task.learner(Genome(augment=augmentation("cutmix")), seed=0)
    learner.begin_epoch(0)
    teacher_inputs = []
    learner.model.register_forward_hook(lambda module, inputs, output: teacher_inputs.append((inputs[0], output)))
    rows = torch.arange(16)
    raw, labels = learner.data.train.images[:16], learner.data.train.labels[:16]
    parts = learner.losses(learner.normalize(raw), Batch(raw, labels, rows))
    ((images, logits),) = teacher_inputs
    view = kd_loss(logits[16:], learner.teacher(images[16:]), 2.0)
    torch.testing.assert_close(parts["view_loss"], view)
    assert float(view.detach()) > 0 and "dkd_loss" in parts and "kd_loss" not in parts


def test_a_genome_of_an_old_policy_file_names_its_losses_as_then(make_task, assert_same):
    weights = []
    for loss in ({"relational": {"normalisation": "l2"}}, {"rkd": {"normalization": "l2"}}):
        learner = make_task("student").learner(Genome(distill={"loss": loss}), seed=0)
        assert "rkd_loss" in learner.step()
        weights.append(learner.model.state_dict())
    assert_same(*weights)


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_every_kind_of_loss_trains_the_student_and_leaves_the_teacher(make_task, assert_same, loss):
    task = make_task("student", distill=Distill(loss=loss, alpha=0.5))
    learner = task.learner(Genome(), seed=0)
    before = copy.deepcopy(learner.model.state_dict())
    for _ in range(2):
        metrics = learner.step()
    assert not torch.equal(learner.model.state_dict()["0.weight"], before["0.weight"])
    assert_same(learner.teacher.model.state_dict(), dict(task.teacher.weights))
    assert not learner.teacher.training and not any(module.training for module in learner.teacher.model.modules())
    assert all(isinstance(value, float) for value in metrics.values())


def test_what_a_loss_learns_moves_with_the_recipes_rate(make_task):
    """P is trained beside the student, by an optimizer of the same kind."""
    learner = make_task("student", distill=Distill(loss=SUM)).learner(Genome(), seed=0)
    learner.begin_epoch(0)
    before = copy.deepcopy(learner.distillation.state_dict())
    learner.step()
    after = learner.distillation.state_dict()
    assert any(not torch.equal(after[name], before[name]) for name in before)
    student, own = learner.optimizers()
    assert own.param_groups[0]["lr"] == student.param_groups[0]["lr"]
    assert len(make_task("student").learner(Genome(), seed=0).optimizers()) == 1


def test_the_peer_of_mutual_learning_learns_and_the_teacher_does_not(make_task, assert_same):
    task = make_task("student", distill=Distill(loss="mutual", temperature=1.0))
    learner = task.learner(Genome(), seed=0)
    losses = [learner.step() for _ in range(3)]
    peer = {name: value for name, value in learner.distillation.state_dict().items() if name.endswith("conv1.weight")}
    assert peer and not any(
        torch.equal(value, task.teacher.weights["conv1.weight"])
        for value in peer.values()
        if value.shape == task.teacher.weights["conv1.weight"].shape
    )
    assert_same(learner.teacher.model.state_dict(), dict(task.teacher.weights))
    assert all(step["loss"] > 0 for step in losses)


# ---- what travels ----------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_resumed_is_uninterrupted(make_task, rich, through_file, assert_same, loss):
    task = make_task("student", distill=Distill(loss=loss))
    whole, first, second = (task.learner(rich, seed=seed) for seed in (3, 3, 4))
    for _ in range(3):
        expected = whole.step()
    first.step()
    second.load_state_dict(through_file(first.state_dict()))
    second.step()
    measured = second.step()
    assert_same(second.state_dict(), whole.state_dict())
    untimed = [name for name in expected if not name.startswith("seconds") and name != "images_per_s"]
    assert [measured[name] for name in untimed] == [expected[name] for name in untimed]


def test_nothing_but_the_network_is_exported(make_task):
    task = make_task("student", distill=Distill(loss=SUM | {"mutual": 1}))
    learner = task.learner(Genome(), seed=0)
    learner.step()
    weights = task.exported_weights(learner.state_dict()["model"])
    plain = build_model("cnn", seed=0, classes=3, channels=1, size=8)
    assert weights.keys() == plain.state_dict().keys()
    plain.load_state_dict(weights)


def test_another_weight_keeps_what_was_learned_and_another_loss_starts_anew(make_task):
    learner = make_task("student").learner(Genome(distill={"loss": SUM}), seed=0)
    learner.step()
    kept = learner.distillation
    learner.set_genome(Genome(distill={"loss": {"kd": 1, "hint": {**SUM["hint"], "weight": 9}}, "temperature": 2.0}))
    learner.step()
    assert learner.distillation is kept and learner.distill.temperature == 2.0
    assert [term.weight for term in kept.terms] == [1.0, 9.0]
    learner.set_genome(Genome(distill={"loss": {"kd": 1, "hint": {**SUM["hint"], "projection": "student"}}}))
    learner.step()
    assert learner.distillation is not kept


def test_a_donors_losses_are_taken_over(make_task, assert_same):
    genome = Genome(distill={"loss": SUM})
    donor, copier = (make_task("student").learner(g, seed=s) for g, s in ((genome, 1), (Genome(), 2)))
    donor.step()
    copier.step()
    copier.load_state_dict(donor.state_dict())
    assert_same(copier.state_dict()["distill"], donor.state_dict()["distill"])
    copier.set_genome(genome)
    copier.step()


def test_initial_projections_follow_from_the_seed_alone(make_task, assert_same):
    task = make_task("student", distill=Distill(loss=SUM))
    torch.default_generator.manual_seed(1)
    one, again, other = (task.learner(Genome(), seed=seed) for seed in (3, 3, 4))
    before = torch.get_rng_state()
    for learner in (one, again, other):
        learner.begin_epoch(0)
    assert torch.equal(torch.get_rng_state(), before)
    states = [learner.distillation.state_dict() for learner in (one, again, other)]
    assert_same(states[0], states[1])
    assert any(not torch.equal(states[0][name], states[2][name]) for name in states[0])


# ---- teachers of other kinds -----------------------------------------------------------------------


def test_a_teacher_of_other_classes_teaches_by_its_features(make_task, make_data):
    data = make_data()
    task = make_task("student", data=data, teacher=other_task(data), distill=Distill(loss={"hint": SUM["hint"]}))
    metrics = task.learner(Genome(), seed=0).step()
    assert metrics["hint_loss"] > 0


@pytest.mark.parametrize("loss", ["kd", "dkd", "dist", "mutual"])
def test_a_teacher_of_other_classes_has_no_logits_to_compare(make_task, make_data, loss):
    data = make_data()
    task = make_task("student", data=data, teacher=other_task(data), distill=Distill(loss=loss))
    with pytest.raises(RequestError, match=f"{loss} compares logits, so the teacher must have 3 classes"):
        task.learner(Genome(), seed=0).step()


def test_a_second_view_needs_a_teacher_of_the_students_classes(make_task, make_data):
    data = make_data()
    task = make_task("student", data=data, teacher=other_task(data), distill=Distill(loss={"hint": SUM["hint"]}))
    with pytest.raises(RequestError, match=r"a second view .* needs a teacher, which must have 3 classes, got 4"):
        task.learner(Genome(augment=augmentation("cutmix")), seed=0).step()


def test_without_a_teacher_the_spectral_loss_or_labels_alone(make_task):
    task = make_task("student", teacher=None, distill=Distill(loss={"spectral": {"weight": 1, "k": 2}}, alpha=0.5))
    metrics = task.learner(Genome(), seed=0).step()
    assert 0 < metrics["spectral_loss"] < 1 and "t_stddev_ratio" not in metrics
    labels = replace(task, distill=Distill(alpha=0.0)).learner(Genome(), seed=0)
    alone = labels.step()
    assert alone["loss"] == pytest.approx(alone["task_loss"]) and "kd_loss" not in alone
    assert labels.state_dict()["distill"] is None
    with pytest.raises(RequestError, match="kd needs a teacher"):
        replace(task, distill=Distill()).learner(Genome(), seed=0).step()


def test_a_teacher_sees_images_as_it_was_trained_on_them(make_task, make_data):
    """Its own mean and deviation, whatever the student's are."""
    data = make_data()
    own = ((0.4,), (0.3,))
    taught = other_task(data, classes=3, statistics=own)
    images = data.train.images.float() / 255
    teacher, plain = taught.freeze(data), replace(taught, statistics=None).freeze(data)
    given = (images - data.mean[0]) / data.std[0]
    torch.testing.assert_close(teacher(given), plain((images - 0.4) / 0.3), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(teacher(given), plain(given))
    torch.testing.assert_close(teacher.trainable_copy().eval()(given), teacher(given))
    assert replace(taught, statistics=(data.mean, data.std)).freeze(data).model._forward_pre_hooks == {}


def test_renormalizing_is_the_identity_between_equals():
    images = torch.randn(2, 3, 4, 4)
    same = ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    torch.testing.assert_close(Renormalize(same, same)(nn.Identity(), (images,))[0], images)


def test_train_on_a_whole_that_holds_it_leaves_the_teacher_in_evaluation_mode():
    teacher = FrozenTeacher(build_model("resnet8", seed=0, classes=3, channels=1, size=8))
    whole = nn.ModuleList([teacher]).train()
    assert whole.training and not any(module.training for module in teacher.modules())
    peer = teacher.trainable_copy()
    assert peer.training and all(parameter.requires_grad for parameter in peer.parameters())
    assert not any(parameter.requires_grad for parameter in teacher.parameters())


# ---- low-bit students ------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [Bits(1, 1), Bits(2, 2), Bits(4, 32), Bits(32, 8)])
def test_a_low_bit_student_is_trained_scored_and_exported_at_its_levels(make_task, bits):
    task = make_task("student", model="resnet8", bits=bits, distill=Distill(loss=SUM, init="teacher"))
    learner = task.learner(Genome(), seed=0)
    for _ in range(2):
        learner.step()
    state = learner.state_dict()["model"]
    weights = task.exported_weights(state)
    if bits.weights < 32:
        for name in ("layer1.0.conv1.weight", "layer3.0.conv2.weight"):
            assert len(weights[name].unique()) <= 2**bits.weights
        assert size_in_bits(task.network()) < size_in_bits(replace(task, bits=Bits()).network())
    for name in ("conv1.weight", "fc.weight"):
        assert len(weights[name].unique()) == weights[name].numel(), "the first and the last layer stay full"
    exported = replace(task, bits=Bits(32, bits.activations))
    assert score(task, state) == score(exported, weights)


def test_a_low_bit_student_starts_from_its_teachers_weights(make_task):
    task = make_task("student", model="resnet8", bits=Bits(2, 2), distill=Distill(init="teacher"))
    model = task.learner(Genome(), seed=0).model
    original = model.layer1[0].conv1.parametrizations.weight.original
    assert torch.equal(original, task.teacher.weights["layer1.0.conv1.weight"])


def test_a_low_bit_student_can_be_played_against(make_task):
    """HARD's gradient goes through the quantized student to the augmentor."""
    hard = augmentation({"kind": "hard_affine", "warmup": 1, "student_steps": 1, "augmentor_steps": 2})
    learner = make_task("student", bits=Bits(2, 2)).learner(Genome(augment=hard), seed=0)
    for _ in range(2):
        metrics = learner.step()
    assert metrics["view_loss"] > 0 and learner.game.augmentor_steps > 0
