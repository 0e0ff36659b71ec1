"""A task: validation epochs, metrics, and pickling."""

import math
import pickle
from dataclasses import replace

import cloudpickle
import pytest
import torch
import torch.nn.functional as F

from spaces import Entry, Genome, ImageSpec, Phase, Policy, RequestError, Schedule
from spaces.search_space.domain import enumerate_values
from trainables import Bits, Teacher
from trainables.quantization import CHOICES, size_in_bits
from trainables.task import test_score as score_on_test

SCORES = {"validation_accuracy", "validation_loss", "seconds/validate"}


@pytest.mark.parametrize(
    ("every", "epochs", "due"),
    [(1, 3, [1, 2, 3]), (2, 5, [2, 4, 5]), (3, 6, [3, 6]), (10, 4, [4]), (4, 4, [4])],
)
@pytest.mark.parametrize("role", ["teacher", "student"])
def test_scored_when_due_and_at_the_end(make_task, role, every, epochs, due):
    task = make_task(role, validate_every=every, epochs=epochs)
    learner = task.learner(Genome(), seed=0)
    scored = []
    for epoch in range(1, epochs + 1):
        metrics = task.train_epoch(learner)
        assert SCORES & metrics.keys() in (set(), SCORES)
        if metrics.keys() >= SCORES:
            scored.append(epoch)
            score = learner.evaluate(task.validation)
            assert metrics["validation_accuracy"] == score["accuracy"] and metrics["validation_loss"] == score["loss"]
            assert metrics["seconds/validate"] >= 0
    assert scored == due


def test_scored_when_due_after_a_resumption(make_task):
    """What is due follows from the epoch that the learner reached, not from how often it was called."""
    task = make_task(validate_every=3, epochs=9)
    donor, learner = (task.learner(Genome(), seed=0) for _ in range(2))
    donor.step()
    donor.step()
    learner.load_state_dict(donor.state_dict())
    assert task.train_epoch(learner).keys() >= SCORES
    assert not task.train_epoch(learner).keys() & SCORES


def test_nothing_is_scored_where_nothing_is_held_out(make_task):
    task = make_task(validation=None)
    learner = task.learner(Genome(), seed=0)
    assert not any(task.train_epoch(learner).keys() & SCORES for _ in range(4))


def test_scoring_is_what_a_learner_does(make_task):
    task = make_task()
    learner = task.learner(Genome(), seed=0)
    assert task.train_epoch(learner).keys() - SCORES == task.learner(Genome(), seed=0).step().keys()


def test_policy_metrics(make_task):
    """The mean of probability × magnitude over the entries of an operation, of the epoch that was trained."""
    entries = (Entry("Rotate", 10, 6), Entry("Rotate", 5, 2), Entry("ShearX", 0, 9), Entry("Cutout", 5, 4))
    first = Genome(Policy(entries))
    second = Genome(Policy((Entry("Posterize", 5, 8),)))
    schedule = Schedule((Phase(1, first), Phase(1, second)), "teacher", ImageSpec(8, 1, (64,)))
    task = make_task()
    learner = task.learner(schedule, seed=0)
    reported = []
    for _ in range(2):
        metrics = task.train_epoch(learner)
        reported.append({name: value for name, value in metrics.items() if name.startswith("policy/")})
    strengths = {"policy/Rotate/strength": 3.5, "policy/ShearX/strength": 0.0, "policy/Cutout/strength": 2.0}
    assert reported == [pytest.approx(strengths), pytest.approx({"policy/Posterize/strength": 4.0})]


def test_learners_follow_from_the_task(make_task, rich):
    task = make_task("student", epochs=7)
    learner = task.learner(rich, seed=5)
    assert (learner.epochs, learner.seed, learner.role, learner.agent.genome) == (7, 5, "student", rich)
    assert (learner.data, learner.recipe) == (task.data, task.recipe)
    assert isinstance(make_task().learner(rich, seed=5), Teacher)


def test_initial_weights_follow_from_the_seed(make_task, assert_same):
    teacher, student = make_task(), make_task("student")
    weights = [task.learner(Genome(), seed=5).model.state_dict() for task in (teacher, teacher, student)]
    assert_same(weights[0], weights[1])
    assert_same(weights[0], weights[2])
    other = teacher.learner(Genome(), seed=6).model.state_dict()
    assert not torch.equal(weights[0]["0.weight"], other["0.weight"])


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_score_on_the_test_images(make_task, role):
    task = make_task(role)
    learner = task.learner(Genome(), seed=3)
    learner.step()
    score = score_on_test(task, learner.model.state_dict())
    with torch.no_grad():
        logits = learner.model.eval()(learner.normalize(task.data.test.images))
    labels = task.data.test.labels
    assert score["accuracy"] == pytest.approx(float((logits.argmax(1) == labels).float().mean()))
    assert score["loss"] == pytest.approx(float(F.cross_entropy(logits, labels)), rel=1e-5)
    assert score != score_on_test(task, task.learner(Genome(), seed=4).model.state_dict())


@pytest.mark.parametrize("dumps", [pickle.dumps, cloudpickle.dumps])
@pytest.mark.parametrize("role", ["teacher", "student"])
def test_travels(make_task, rich, role, dumps, assert_same):
    task = make_task(role)
    if role == "student":
        schedule = Schedule((Phase(2, rich),), "teacher", ImageSpec(8, 1, (64,)), {"seed": 3})
        task = replace(task, teacher=replace(task.teacher, schedule=schedule))
    again = pickle.loads(dumps(task))
    for name in ("role", "model", "recipe", "epochs", "validate_every", "distill", "image"):
        assert getattr(again, name) == getattr(task, name)
    if role == "student":
        assert again.teacher.schedule == schedule and again.teacher.schedule.provenance == {"seed": 3}
    measured = []
    for each in (task, again):
        learner = each.learner(rich, seed=0)
        metrics = each.train_epoch(learner)
        measured.append((learner.state_dict(), metrics["loss"], metrics["validation_loss"]))
    assert_same(*measured)
    assert math.isfinite(measured[0][1])


def test_to_a_device(make_task):
    task = make_task("student").to("cpu")
    assert torch.equal(task.validation.images, make_task("student").validation.images)
    assert make_task(validation=None).to("cpu").validation is None
    meta = make_task().to("meta")
    assert {part.images.device.type for part in (meta.data.train, meta.validation)} == {"meta"}
    assert meta.data.test.images.device.type == "cpu"  # no search looks at it, so no GPU holds it


# ---- bits that are chosen ----------------------------------------------------------------------------

INNER = "layer2.0.conv1.weight"


def chosen(weights, activations):
    return Genome(bits={"weights": weights, "activations": activations})


def in_phases(*genomes):
    return Schedule(tuple(Phase(2, genome) for genome in genomes), "student", ImageSpec(8, 1, (64,)))


@pytest.mark.parametrize("kind", ["genome", "schedule"])
@pytest.mark.parametrize(("weights", "activations"), [(1, 2), (2, 32), (4, 4), (32, 8)])
def test_a_learner_has_the_bits_that_its_mover_has_chosen(make_task, kind, weights, activations, assert_same):
    task, genome = make_task("student", model="resnet8"), chosen(weights, activations)
    learner = task.learner(genome if kind == "genome" else in_phases(genome, genome), seed=0)
    task.train_epoch(learner)
    state = learner.state_dict()
    levels = len(task.with_bits_of(genome).exported_weights(state["model"])[INNER].unique())
    assert levels <= 2**weights if weights < 32 else levels > 2**8
    given = replace(task, bits=Bits(weights, activations)).learner(Genome(), seed=0)
    task.train_epoch(given)
    assert_same(given.state_dict()["model"], state["model"])
    score = score_on_test(task.with_bits_of(genome), state["model"])
    assert score == learner.evaluate(task.data.test)


def test_what_is_not_chosen_stays_as_the_task_has_it(make_task):
    task = make_task("student", bits=Bits(2, 4))
    assert task.with_bits_of(Genome()) is task
    assert task.with_bits_of(Genome(bits={"weights": 8})).bits == Bits(8, 4)
    assert task.with_bits_of(in_phases(Genome(), Genome())).bits == Bits(2, 4)


@pytest.mark.parametrize("use", ["with_bits_of", "size_in_bits", "learner"])
def test_the_phases_of_a_schedule_have_the_same_bits(make_task, use):
    task, arguments = make_task("student"), {"seed": 0} if use == "learner" else {}
    with pytest.raises(RequestError, match="all phases of a schedule must choose the same bits"):
        getattr(task, use)(in_phases(chosen(2, 2), chosen(2, 4)), **arguments)
    with pytest.raises(RequestError, match="all phases of a schedule must choose the same bits"):
        getattr(task, use)(in_phases(Genome(), chosen(2, 4)), **arguments)
    with pytest.raises(RequestError, match=r"bits.weights must be one of 1, 2, 4, 8, 32, got 3"):
        getattr(task, use)(chosen(3, 4), **arguments)


def test_a_teacher_has_no_bits_to_choose(make_task):
    with pytest.raises(RequestError, match=r"a teacher must have full precision.*got \{'weights': 2"):
        make_task("teacher").learner(chosen(2, 2), seed=0)


def test_a_student_keeps_its_bits(make_task):
    task = make_task("student")
    learner = task.learner(chosen(2, 4), seed=0)
    task.train_epoch(learner)
    learner.set_genome(Genome(bits={"weights": 2}))
    task.train_epoch(learner)
    learner.set_genome(chosen(4, 4))
    with pytest.raises(RequestError, match=r"bits must be those that the network was built with, got \{'weights': 4"):
        task.train_epoch(learner)
    other = task.learner(chosen(8, 4), seed=0)
    other.load_state_dict(learner.state_dict())
    other.agent.set_genome(chosen(2, 4))
    with pytest.raises(RequestError, match="bits must be those that the network was built with"):
        other.step()


def test_an_interrupted_training_with_bits_goes_on_as_it_would_have(make_task, assert_same, through_file):
    task, genome = make_task("student", model="resnet8"), chosen(2, 4)
    whole, first, second = (task.learner(genome, seed=3) for _ in range(3))
    for _ in range(3):
        whole.step()
    first.step()
    second.load_state_dict(through_file(first.state_dict()))
    for _ in range(2):
        second.step()
    assert_same(second.state_dict(), whole.state_dict())
    assert second.agent.history == (Phase(3, genome),)


def test_size_under_every_choice_of_bits(make_task, monkeypatch):
    task = make_task("student", model="resnet8")
    genomes = [Genome(bits=bits) for bits in enumerate_values({"weights": list(CHOICES), "activations": [2, 32]})]
    sizes = {(genome.bits["weights"], genome.bits["activations"]): task.size_in_bits(genome) for genome in genomes}
    assert (
        [sizes[bits, 2] for bits in CHOICES]
        == [sizes[bits, 32] for bits in CHOICES]
        == sorted(size_in_bits(replace(task, bits=Bits(bits, 32)).network()) for bits in CHOICES)
    )
    assert len(set(sizes.values())) == len(CHOICES) and task.size_in_bits(Genome()) == sizes[32, 32]
    monkeypatch.setattr("trainables.task.build_model", None)
    assert [task.size_in_bits(genome) for genome in genomes] == list(sizes.values()), "nothing is built twice"
    assert pickle.loads(pickle.dumps(task)).size_in_bits(genomes[0]) == sizes[1, 2]
