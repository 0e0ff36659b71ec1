"""What a step costs: an epoch of distillation with a full policy, without one, and in a loop written by hand.

Three cases on one thread: the demo's data and settings (examples/digits.yaml) with a resnet8 for a student, which the
summary takes; the same with the demo's own student, a perceptron whose step is so short that all else shows; and
resnet56 → resnet20 on random images of CIFAR-10's shape in batches of 128. The arms are whole epochs,
`learner.step()` for ours.
They take turns, so that an arm's ratio is the median of paired ratios, epoch against epoch of the same round.

- `plain`: the student's epoch with the identity for a policy. The arm that the policy is measured against.
- `policy`: 30 entries that are all in force, drawn strong at random: probability 0.5 to 1, level 5 to 9.
- `naive`: the same distillation as a user would write it: the teacher in evaluation mode under `no_grad`, the
  student's answer, the same loss, the same optimiser and base augmentation, and the mean loss and accuracy at the end.

- `hard`, on digits: the second view and the game of `hard_affine` at its default rules, with which `kd_loss` is asked
  for twice as many images; each turn is two cycles of the game, augmentor phases and all, shared out over its epochs.

The teacher's weights are random, which costs the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.record import ROOT, Row, arguments, start
from benchmarks.timing import Run, interleaved, spread
from search.config import SweepConfig
from spaces import OPERATIONS, BaseAugmentation, Entry, Genome, Policy
from spaces.augmentations import HardAffine
from spaces.operations import LEVELS
from spaces.parameters import seeded
from spaces.policy import TENTHS
from trainables import data as datasets
from trainables.data import DataSet, TensorImages
from trainables.models import build_model
from trainables.recipe import Recipe
from trainables.student import Distill
from trainables.task import Task, TrainedTeacher

SUMMARISED = "digits, resnet8"

LONG = 1_000_000
"""Epochs that the learning rate is laid over, so that it hardly moves while we measure."""


def main() -> None:
    """Measure both cases."""
    benchmark = start(__file__, arguments(__doc__))
    quick, seed = benchmark.quick, benchmark.seed
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    rows: list[Row] = []
    for case, model in ((SUMMARISED, "resnet8"), ("digits, mlp", "mlp")):
        task = digits_task(model, seed)
        rows += of_case(case, task, rounds=3 if quick else 61, seconds=0.0 if quick else 0.05, seed=seed, game=True)
    images = 32 if quick else 512
    shaped = shaped_task(images, min(images, 128), seed)
    rows += of_case("32 px, resnet20", shaped, rounds=1 if quick else 9, seconds=0.0, seed=seed)
    ratios = {row["arm"]: row["over_plain"] for row in rows if row["case"] == SUMMARISED}
    figures = {
        "policy_over_plain": ratios["policy"],
        "kd_over_naive": 1 / ratios["naive"],
        "hard_over_kd": ratios["hard"],
    }
    benchmark.finish(rows, figures)


def digits_task(model: str, seed: int) -> Task:
    """The demo's student, with this model."""
    config = SweepConfig.load(ROOT / "examples" / "digits.yaml")
    student = config.student
    if student is None:
        raise SystemExit("examples/digits.yaml has no student")
    data = datasets.load(**config.data.model_dump())
    return _task(data, config.teacher.model, model, student.recipe, student.distill, seed)


def shaped_task(images: int, batch: int, seed: int) -> Task:
    """A student of the CIFAR papers on random images, so many an epoch."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (images, 3, 32, 32), dtype=torch.uint8, generator=generator)
    part = TensorImages(pixels, torch.arange(images) % 10)
    mean, std = datasets.DATA["cifar10"].mean, datasets.DATA["cifar10"].std
    data = DataSet("random", 10, 3, 32, mean, std, 4, True, part, part, part)
    return _task(data, "resnet56", "resnet20", Recipe(batch_size=batch, lr=0.01), Distill(), seed)


def _task(data: DataSet, teacher: str, student: str, recipe: Recipe, distill: Distill, seed: int) -> Task:
    weights = build_model(teacher, classes=data.classes, channels=data.channels, size=data.size, seed=seed).state_dict()
    return Task("student", student, data, recipe, LONG, teacher=TrainedTeacher(teacher, weights), distill=distill)


def strong_genome(seed: int) -> Genome:
    """PBA's 30 entries, every one in force: probability 0.5 … 1 and level 5 … 9, drawn from `seed`."""
    generator = np.random.default_rng(seed)
    ops = [*OPERATIONS] * 2
    probabilities = generator.integers(TENTHS // 2, TENTHS, len(ops), endpoint=True).tolist()
    levels = generator.integers(LEVELS // 2, LEVELS, len(ops)).tolist()
    return Genome(Policy(tuple(map(Entry, ops, probabilities, levels))))


def of_case(case: str, task: Task, *, rounds: int, seconds: float, seed: int, game: bool = False) -> list[Row]:
    """One row for each arm."""
    shares: dict[str, list[float]] = {"plain": [], "policy": []}
    genomes = {"plain": Genome(), "policy": strong_genome(seed)}
    arms: dict[str, Run] = {arm: _ours(task, genome, shares[arm], seed) for arm, genome in genomes.items()}
    arms["naive"] = naive(task, seed)
    epochs = 1
    if game:
        rules = HardAffine()
        epochs = math.ceil(2 * rules.student_steps * task.recipe.batch_size / len(task.data.train))
        shares["hard"] = []
        arms["hard"] = _in_turns(_ours(task, Genome(augment=rules), shares["hard"], seed), epochs)
    figures = interleaved(arms, rounds=rounds, seconds=seconds, seed=seed)
    figures |= {arm: [turn / epochs for turn in figures[arm]] for arm in figures if arm == "hard"}
    return [_row(case, task, arm, figures[arm], figures["plain"], shares.get(arm)) for arm in arms]


def _ours(task: Task, genome: Genome, shares: list[float], seed: int) -> Run:
    """Epochs of our learner; each notes the share of its time that went into augmentation."""
    learner = task.learner(genome, seed=seed)

    def epoch(_turn: int) -> None:
        metrics = learner.step()
        shares.append(metrics["seconds/augment"] / metrics["seconds/train"])

    return epoch


def _in_turns(epoch: Run, count: int) -> Run:
    """`count` epochs at once."""

    def turn(number: int) -> None:
        for _ in range(count):
            epoch(number)

    return turn


def naive(task: Task, seed: int) -> Run:
    """Epochs of a plain loop that does what the arm `plain` does, written for one task and nothing else."""
    data, recipe, distill = task.data, task.recipe, task.distill
    shape: dict[str, Any] = {"classes": data.classes, "channels": data.channels, "size": data.size}
    assert task.teacher is not None
    teacher = build_model(task.teacher.model, seed=seed, **shape)
    teacher.load_state_dict(task.teacher.weights)
    teacher.eval()
    student = build_model(task.model, seed=seed, **shape)
    optimizer = recipe.make_optimizer(student)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, task.epochs)
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (data.mean, data.std))
    loss_of = distillation(distill.temperature, distill.alpha)
    base, fill = BaseAugmentation(data.crop, data.flip), tuple(round(255 * value) for value in data.mean)
    generator = seeded(seed)

    def epoch(_turn: int) -> tuple[float, float]:
        student.train()
        total, hits, seen = torch.zeros(()), torch.zeros(()), 0
        for raw, labels in data.train.batches(recipe.batch_size, generator=generator, drop_last=True):
            images = (base(raw, fill, generator).float() / 255 - mean) / std
            with torch.no_grad():
                answers = teacher(images)
            logits = student(images)
            loss = loss_of(logits, answers, labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.detach() * len(labels)
            hits += (logits.argmax(1) == labels).sum()
            seen += len(labels)
        scheduler.step()
        return float(total) / seen, float(hits) / seen

    return epoch


def distillation(temperature: float, alpha: float) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """The loss as a user would write it: (student's logits, teacher's, labels) → a number."""

    def loss(logits: Tensor, answers: Tensor, labels: Tensor) -> Tensor:
        soft, own = F.softmax(answers / temperature, dim=1), F.log_softmax(logits / temperature, dim=1)
        distance = F.kl_div(own, soft, reduction="batchmean") * temperature**2
        return (1 - alpha) * F.cross_entropy(logits, labels) + alpha * distance

    return loss


def _row(
    case: str, task: Task, arm: str, taken: Sequence[float], plain: Sequence[float], shares: Sequence[float] | None
) -> Row:
    """Seconds an epoch, and their ratio to the plain arm's of the same round."""
    own, ratio = spread(taken), spread([mine / other for mine, other in zip(taken, plain, strict=True)])
    return {
        "case": case,
        "arm": arm,
        "images": len(task.data.train),
        "batch": task.recipe.batch_size,
        "seconds_an_epoch": own.median,
        "lowest": own.low,
        "highest": own.high,
        "rounds": len(taken),
        "over_plain": ratio.median,
        "first_quartile": ratio.quartiles[0],
        "third_quartile": ratio.quartiles[1],
        "augmentation_share": median(shares) if shares else None,
    }


if __name__ == "__main__":
    main()
