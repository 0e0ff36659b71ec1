"""The student: the parts of its loss, the views of both roles, and a teacher that never changes."""

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from spaces import Entry, Genome, ImageSpec, Phase, Policy, RequestError, Schedule
from spaces.augmentations import CATALOG, TrivialAugment, augmentation
from spaces.core.seeding import seeded_generator
from trainables import Distill, FrozenTeacher, Recipe, Student, TrainedTeacher
from trainables.data import TensorImages
from trainables.distillation.student import copy_matching_weights
from trainables.losses import kd_loss
from trainables.models import build_model
from trainables.training.learner import Batch

SHAPE = {"classes": 3, "channels": 1, "size": 8}
INVERT = Genome(Policy((Entry("Invert", 10, 0),)))


def trained(model="resnet8", schedule=None, seed=77):
    return TrainedTeacher(model, build_model(model, seed=seed, **SHAPE).state_dict(), schedule)


def schedule(*phases):
    return Schedule(tuple(Phase(*phase) for phase in phases), "teacher", ImageSpec(8, 1, (64,)))


def watch(learner):
    """The tensors that teacher and student are given, step by step."""
    learner.end_epoch = dict  # which may ask the teacher about images as they are
    seen = {"teacher": [], "student": []}
    learner.teacher.register_forward_hook(lambda module, given, answer: seen["teacher"].append(given[0]))
    learner.model.register_forward_hook(lambda module, given, answer: seen["student"].append(given[0]))
    return seen


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.9, 1.0])
@pytest.mark.parametrize("view", ["shared", "distinct"])
def test_the_loss_is_the_weighted_sum_of_its_parts(make_task, rich, alpha, view):
    task = make_task("student", distill=Distill(alpha=alpha, teacher_view=view, temperature=2.0))
    learner = task.learner(rich, seed=0)
    for _ in range(2):
        metrics = learner.step()
        expected = (1 - alpha) * metrics["task_loss"] + alpha * metrics["kd_loss"]
        assert metrics["loss"] == pytest.approx(expected, rel=1e-5)
        assert metrics["task_loss"] > 0 and metrics["kd_loss"] > 0


def test_each_part_by_hand(make_task):
    recipe = Recipe(label_smoothing=0.1)
    learner = make_task("student", recipe=recipe, distill=Distill(temperature=3.0)).learner(Genome(), seed=0)
    learner.model.eval()
    learner.begin_epoch(0)
    images, labels = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 3
    parts = learner.losses(images, Batch(images, labels, torch.arange(6)))
    logits, answers = learner.model(images), learner.teacher.model(images)
    assert torch.equal(parts["logits"], logits)
    torch.testing.assert_close(parts["task_loss"], F.cross_entropy(logits, labels, label_smoothing=0.1))
    torch.testing.assert_close(parts["kd_loss"], kd_loss(logits, answers, 3.0))


def weights_after(learner, epochs=2):
    for _ in range(epochs):
        learner.step()
    return learner.model.state_dict()


def test_at_alpha_0_the_teacher_counts_for_nothing(make_task, assert_same):
    weights = {}
    for alpha in (0.0, 0.5):
        for seed in (1, 2):
            task = make_task("student", teacher=trained(seed=seed), distill=Distill(alpha=alpha))
            weights[alpha, seed] = weights_after(task.learner(Genome(), seed=0))
    assert_same(weights[0.0, 1], weights[0.0, 2])
    assert not torch.equal(weights[0.5, 1]["0.weight"], weights[0.5, 2]["0.weight"])


def test_at_alpha_1_the_labels_count_for_nothing(make_task, make_data, assert_same):
    data, weights = make_data(), {}
    for alpha in (1.0, 0.5):
        for shift in (0, 1):
            labels = (data.train.labels + shift) % 3
            other = replace(data, train=TensorImages(data.train.images, labels))
            task = make_task("student", data=other, distill=Distill(alpha=alpha))
            weights[alpha, shift] = weights_after(task.learner(Genome(), seed=0))
    assert_same(weights[1.0, 0], weights[1.0, 1])
    assert not torch.equal(weights[0.5, 0]["0.weight"], weights[0.5, 1]["0.weight"])


def test_the_distillation_update_is_applied(make_task, make_data):
    """The released code discarded it for several baselines: from the teacher alone, the student learns its answers."""
    data = make_data()
    teacher = make_task(data=data, epochs=6).learner(Genome(), seed=1)
    weights = weights_after(teacher, 6)
    distilled = make_task(
        "student", data=data, teacher=TrainedTeacher("cnn", weights), distill=Distill(alpha=1.0), epochs=6
    ).learner(Genome(), seed=2)
    losses = [distilled.step()["kd_loss"] for _ in range(6)]
    assert losses[-1] < 0.5 * losses[0]
    assert distilled.evaluate(data.test)["accuracy"] > 0.9


@pytest.mark.parametrize("view", ["shared", "distinct"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_the_teacher_is_never_changed(make_task, user_nets, rich, view, optimizer, assert_same):
    net = user_nets.dropping(3, 1)
    task = make_task(
        "student",
        teacher=TrainedTeacher("roletune_user_nets:dropping", net.state_dict(), schedule((4, rich))),
        recipe=Recipe(optimizer=optimizer, batch_size=16, weight_decay=0.1),
        distill=Distill(teacher_view=view),
    )
    learner = task.learner(rich, seed=0)
    modes = set()
    learner.teacher.model.body[1].register_forward_hook(lambda module, given, answer: modes.add(module.training))
    before = copy.deepcopy(learner.teacher.state_dict())
    weights_after(learner)
    learner.evaluate(task.data.test)
    assert_same(learner.teacher.state_dict(), before)
    assert modes == {False} and all(p.grad is None and not p.requires_grad for p in learner.teacher.parameters())
    assert_same(task.teacher.weights, net.state_dict())


def test_shared_view_is_the_very_tensor(make_task, rich):
    learner = make_task("student", teacher=trained(schedule=schedule((4, INVERT)))).learner(rich, seed=0)
    seen = watch(learner)
    learner.step()
    assert len(seen["teacher"]) == len(seen["student"]) == 3
    assert all(one is other for one, other in zip(*seen.values(), strict=True))


def test_distinct_views_differ_by_base_augmentation_where_the_teacher_has_no_schedule(make_task, make_data):
    for base, alike in (({"crop": 0, "flip": False}, True), ({"crop": 2, "flip": True}, False)):
        task = make_task("student", data=make_data(**base), distill=Distill(teacher_view="distinct"))
        learner = task.learner(Genome(), seed=0)
        seen = watch(learner)
        learner.step()
        assert all(torch.equal(t, s) == alike and t is not s for t, s in zip(*seen.values(), strict=True))


def test_distinct_view_of_the_teacher_is_its_own_schedule_stretched(make_task, make_data):
    """Both roles see the same images in the same order; only the teacher's are inverted, in the second half."""
    data = make_data(train=480, crop=0, flip=False)
    task = make_task(
        "student",
        data=data,
        teacher=trained(schedule=schedule((1, Genome()), (1, INVERT))),
        distill=Distill(teacher_view="distinct"),
        recipe=Recipe(lr=0.05, batch_size=480),
    )
    learner = task.learner(Genome(), seed=0)
    seen = watch(learner)
    inverted = []
    for _ in range(4):
        learner.step()
        teachers, students = (seen[role].pop() for role in ("teacher", "student"))
        darker = (255 - 2 * 255 * 0.25) / 255 / 0.2  # what an inversion maps the normalized value v to, minus −v
        assert torch.equal(learner.normalize(data.train.images).sum().round(), students.sum().round())
        changed = (teachers != students).flatten(1).any(1)
        torch.testing.assert_close(teachers[changed], darker - students[changed], rtol=1e-4, atol=1e-4)
        inverted.append(float(changed.float().mean()))
    assert inverted[:2] == [0, 0] and all(0.7 < share < 0.9 for share in inverted[2:])


def test_student_does_not_see_what_the_teacher_sees_in_distinct_views(make_task, rich):
    """The student's own view is the same whatever the teacher's schedule is."""
    seen = []
    for genome in (Genome(), rich):
        task = make_task(
            "student", teacher=trained(schedule=schedule((4, genome))), distill=Distill(teacher_view="distinct")
        )
        learner = task.learner(rich, seed=0)
        seen.append(watch(learner))
        learner.step()
    assert all(torch.equal(one, other) for one, other in zip(seen[0]["student"], seen[1]["student"], strict=True))
    assert not any(torch.equal(one, other) for one, other in zip(seen[0]["teacher"], seen[1]["teacher"], strict=True))


def test_start_from_copies_what_fits():
    weights = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 4)).state_dict()
    student = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 5), nn.Linear(5, 1))
    before = copy.deepcopy(student.state_dict())
    assert copy_matching_weights(student, weights) == 2
    after = student.state_dict()
    assert {name for name in after if not torch.equal(after[name], before[name])} == {"0.weight", "0.bias"}
    assert torch.equal(after["0.weight"], weights["0.weight"])
    student[0].weight.data.zero_()
    assert weights["0.weight"].any()
    assert copy_matching_weights(student, {}) == 0


def test_init_teacher_with_the_same_network(make_task, assert_same):
    task = make_task("student", model="resnet8", distill=Distill(init="teacher"))
    assert_same(task.learner(Genome(), seed=0).model.state_dict(), task.teacher.weights)
    fresh = replace(task, distill=Distill()).learner(Genome(), seed=0).model.state_dict()
    assert not torch.equal(fresh["conv1.weight"], task.teacher.weights["conv1.weight"])


def test_init_teacher_with_a_smaller_network(make_task):
    task = make_task("student", model="resnet8", teacher=trained("resnet20"), distill=Distill(init="teacher"))
    after = task.learner(Genome(), seed=0).model.state_dict()
    assert after.keys() < task.teacher.weights.keys()
    assert all(torch.equal(after[name], task.teacher.weights[name]) for name in after)


def test_init_teacher_with_another_network_keeps_the_initial_weights(make_task, assert_same):
    plain, started = (make_task("student", distill=Distill(init=init)) for init in ("random", "teacher"))
    weights = [task.learner(Genome(), seed=0).model.state_dict() for task in (plain, started)]
    assert not weights[0].keys() & plain.teacher.weights.keys()
    assert_same(*weights)


def test_the_student_trains_on_from_the_teachers_weights_without_changing_them(make_task, assert_same):
    task = make_task("student", model="resnet8", distill=Distill(init="teacher"))
    before = copy.deepcopy(task.teacher.weights)
    learner = task.learner(Genome(), seed=0)
    learner.step()
    assert_same(task.teacher.weights, before)
    assert_same(learner.teacher.model.state_dict(), before)
    assert not torch.equal(learner.model.state_dict()["conv1.weight"], before["conv1.weight"])


def test_by_hand_without_a_task(make_data, rich):
    """The pieces fit together in a plain loop."""
    from spaces.schedule.agent import Agent

    data = make_data()
    teacher = FrozenTeacher(build_model("mlp", seed=0, **SHAPE))
    learner = Student(
        build_model("cnn", seed=0, **SHAPE),
        data,
        Recipe(batch_size=16),
        Agent(rich),
        teacher=teacher,
        distill=Distill(),
        epochs=2,
        seed=0,
    )
    learner.step()
    assert learner.teacher is teacher and learner.agent.history == (Phase(1, rich),)


def test_a_student_needs_a_teacher(make_task):
    learner = replace(make_task("student"), teacher=None).learner(Genome(), seed=0)
    with pytest.raises(RequestError, match="kd needs a teacher"):
        learner.step()


# ---- the second view -------------------------------------------------------------------------------


def with_view(choice):
    return Genome(augment=augmentation(choice))


@pytest.mark.parametrize("kind", [kind for kind in CATALOG if kind not in ("identity", "hard_vae")])
def test_every_augmentation_of_the_catalog_makes_a_second_view(make_task, kind):
    """But for `hard_vae`, which needs a VAE: see test_vae.py."""
    learner = make_task("student", distill=Distill(alpha=0.7)).learner(with_view(kind), seed=0)
    metrics = learner.step()
    expected = 0.3 * metrics["task_loss"] + 0.7 * (metrics["kd_loss"] + metrics["view_loss"])
    assert metrics["loss"] == pytest.approx(expected, rel=1e-5)
    assert metrics["view_loss"] > 0
    assert learner.step()["t_stddev_ratio"] > 0


@pytest.mark.parametrize(
    ("choice", "teacher", "student"),
    [
        ("identity", [16], [16]),
        ("cutmix", [16, 16], [32]),
        ("cutmixpick", [16, 32], [32]),
        ({"kind": "cutmixpick", "passes": 3}, [16, 48], [32]),
        ({"kind": "cutmixpick", "pick_by": "student"}, [16, 16], [32, 32]),
        ({"kind": "pick", "base": "cutout", "passes": 4}, [16, 64], [32]),
    ],
)
def test_nobody_is_asked_twice(make_task, choice, teacher, student):
    """Images a forward pass, for each step: the pool's answers are the targets of what was picked from it."""
    learner = make_task("student").learner(with_view(choice), seed=0)
    seen = watch(learner)
    learner.step()
    assert [len(images) for images in seen["teacher"]] == teacher * 3
    assert [len(images) for images in seen["student"]] == student * 3


def test_the_second_view_is_made_of_the_images_without_the_policy(make_task, make_data):
    data = make_data(crop=0, flip=False)
    genome = replace(INVERT, augment=augmentation({"kind": "cutout", "side": 0.0}))
    learner = make_task("student", data=data).learner(genome, seed=0)
    seen = watch(learner)
    learner.step()
    first, second = seen["student"][0].chunk(2)
    assert torch.equal(seen["teacher"][0], first)
    assert torch.equal(seen["teacher"][1], second)
    assert not torch.equal(first, second), "the policy inverts the first view alone"


def test_to_pick_by_the_student_leaves_its_statistics_alone(make_task):
    by_student = with_view({"kind": "cutmixpick", "pick_by": "student"})
    learner = make_task("student", model="resnet8").learner(by_student, seed=0)
    learner.begin_epoch(0)
    learner.model.train()
    before = copy.deepcopy(learner.model.state_dict())
    learner._student_logits(torch.randint(0, 256, (8, 1, 8, 8), dtype=torch.uint8))
    assert learner.model.training
    assert all(torch.equal(value, before[name]) for name, value in learner.model.state_dict().items())


def test_the_running_ratio_starts_anew_with_every_genome(make_task, make_data):
    """Inverting every image moves each mean answer by chance alone; one that hides the images makes them all alike."""
    hidden = Genome(Policy((Entry("Solarize", 10, 0), Entry("Brightness", 10, 0), Entry("Posterize", 10, 9))))
    learner = make_task("student", data=make_data(train=480, crop=0, flip=False), epochs=12).learner(Genome(), seed=0)
    plain = [learner.step()["t_stddev_ratio"] for _ in range(6)][-1]
    assert plain == pytest.approx(1, abs=0.3)
    learner.set_genome(hidden)
    first = learner.step()["t_stddev_ratio"]
    means = learner._t_stddev.state_dict()["metric"]["means"]
    learner.step()
    assert first != plain
    assert learner._t_stddev.state_dict()["metric"]["means"] == 2 * means


def test_a_teacher_with_a_view_of_its_own_says_nothing_of_the_students(make_task, rich):
    distinct = make_task("student", distill=Distill(teacher_view="distinct"))
    assert "t_stddev_ratio" not in distinct.learner(rich, seed=0).step()
    learner = distinct.learner(with_view("cutmix"), seed=0)
    learner.step()
    assert learner.step()["t_stddev_ratio"] > 0


def test_what_is_shown_comes_before_the_policy_and_is_the_same_for_both_roles(make_task):
    plain, shown = (make_task("student").learner(INVERT, seed=0, baseline=each) for each in (None, TrivialAugment()))
    seen = watch(shown)
    assert "view_loss" not in shown.step()
    assert seen["student"] and all(map(torch.equal, seen["student"], seen["teacher"]))
    raw, _ = next(shown.data.train.batches(8))
    first = TrivialAugment()(raw, shown.fill, generator := seeded_generator(1)).images
    plain.begin_epoch(0), shown.begin_epoch(0)
    assert torch.equal(shown.view(raw, seeded_generator(1)), plain.view(first, generator)) and not torch.equal(
        raw, first
    )
