"""A task: when it scores, what it reports, and that it can travel."""

import math
import pickle
from dataclasses import replace

import cloudpickle
import pytest
import torch
import torch.nn.functional as F

from spaces import Entry, Genome, ImageSpec, Phase, Policy, Schedule
from trainables import Teacher
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
        logits = learner.model.eval()(learner.normalise(task.data.test.images))
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
