"""Can HARD transfer a teacher's shift equivariance to a student without it, without being given the shifts?

Digits of 10 × 10 pixels are centered on a canvas of 20 × 20; the test images are shifted by up to 5 pixels in each
direction. The teacher is convolutional, with blurred strides and global pooling. It recognizes shifted digits although
it was trained on centered ones. The student is a perceptron, which recognizes centered digits only. All arms train for
the same number of student steps:

- `labels`: centered digits, labels only. `kd`: centered digits, 0.1 · CE(x) + 0.9 · KD(x), T = 4.
- The other arms add 0.9 · KD(x̃) for a second view x̃, whose only target is the teacher's output:
  `random affine` draws all six affine parameters uniformly within HARD's bounds;
  `hard` plays HARD's game;
  `hard, λ_t = 0` plays it without the term that keeps the teacher's output;
  `hard, λ_h = 0` plays it without the entropy term;
  `hard, replayed` trains under the policy file that the game of another seed left, without a game;
  `hard, charged` plays the game with fewer student steps, so that the augmentor's steps are included in the budget;
  `oracle` draws the shifts of the test.

Every seed has its own teacher, student and shifts. HARD's settings were selected on validation digits with other seeds.
The test digits are scored once, after each training. The curves show validation digits.

Method: Nix, Burg, Sinz 2023, https://arxiv.org/abs/2305.14890. Experiment: the first author's transfer of equivariance
from a convolutional teacher to a perceptron (AISTATS 2022).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy import stats
from torch import Tensor, nn

from benchmarks.common.plots import save_plot
from benchmarks.common.results_file import ROOT, Row, argument_parser, start
from benchmarks.common.training import train_teacher
from results.analysis.statistics import interval
from spaces import Genome, Schedule
from spaces.augmentations import Augmentation, HardAffine, augmentation
from spaces.augmentors.affine import warp_affine
from spaces.core.seeding import seeded_generator
from trainables import data as datasets
from trainables.data import DataSet, TensorImages
from trainables.distillation.objective import Distill
from trainables.hard.replay import replayable_phases
from trainables.task import Task, TrainedTeacher
from trainables.training.recipe import Recipe

PLOT = ROOT / "docs" / "images" / "hard_shift.png"
DIGIT, CANVAS, SHIFT = 10, 20, 5
BOUND = 0.5
"""Bound of all six affine parameters; for the two shifts it is 5 of 20 pixels."""
LABELS, KD, RANDOM, HARD, REPLAYED, CHARGED, ORACLE = (
    "labels",
    "kd",
    "random affine",
    "hard",
    "hard, replayed",
    "hard, charged",
    "oracle",
)
GAME = HardAffine(linear=BOUND, shift=BOUND, student_steps=25)
"""The catalog's rules with phases of half the length, so that twice as many fit into a short training."""


@dataclass(frozen=True)
class Setting:
    """Size of the benchmark.

    Args:
        teacher_epochs: Epochs of the teacher.
        epochs: Epochs of a student.
        seeds: Number of seeds.
        curve: Epochs between two points of the curve.
    """

    teacher_epochs: int
    epochs: int
    seeds: int
    curve: int


FULL = Setting(teacher_epochs=40, epochs=130, seeds=6, curve=5)
QUICK = Setting(teacher_epochs=1, epochs=2, seeds=2, curve=1)


def main() -> None:
    """Train every arm with every seed."""
    benchmark = start(__file__, argument_parser(__doc__))
    setting = QUICK if benchmark.quick else FULL
    seeds = [100 * (benchmark.seed + 1) + repeat for repeat in range(setting.seeds)]
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn"), _one_thread) as pool:
        teachers = dict(zip(seeds, pool.map(build_teacher, seeds, [setting] * len(seeds)), strict=True))
        first = [pool.submit(train_student, HARD, seed, teachers[seed], setting) for seed in seeds]
        games = {seed: job.result() for seed, job in zip(seeds, first, strict=True)}
        others = [arm for arm in arms() if arm != HARD]
        pending = {}
        for place, seed in enumerate(seeds):
            other_game = games[seeds[place - 1]]  # of another seed
            for arm in others:
                pending[arm, seed] = pool.submit(train_student, arm, seed, teachers[seed], setting, other_game)
        students = {(HARD, seed): games[seed] for seed in seeds}
        students |= {key: job.result() for key, job in pending.items()}
    rows = [_row(arm, [students[arm, seed] for seed in seeds]) for arm in arms()]
    of_teachers = [_teacher_accuracy(teachers[seed], seed) for seed in seeds]
    rows.append({"arm": "teacher", "accuracy": float(np.mean(of_teachers)), "accuracy_by_seed": of_teachers})
    summary = summarize(rows)
    if not benchmark.quick:
        plot(rows, summary)
    benchmark.finish(rows, summary)


def arms() -> dict[str, Augmentation | None]:
    """Return the second view of each arm; None is an arm without one."""
    bounds = {"linear": BOUND, "shift": BOUND}
    return {
        LABELS: None,
        KD: None,
        RANDOM: augmentation({"kind": "benchmarks.methods.hard_shift:RandomAffine", **bounds}),
        HARD: GAME,
        "hard, λ_t = 0": replace(GAME, lambda_t=0.0),
        "hard, λ_h = 0": replace(GAME, lambda_h=0.0),
        REPLAYED: GAME,
        CHARGED: GAME,
        ORACLE: augmentation("benchmarks.methods.hard_shift:Shifts"),
    }


# Data and networks ----------------------------------------------------------------------------------------------------


def build_data(seed: int) -> tuple[DataSet, TensorImages]:
    """Return centered training and validation digits with shifted test digits, and the validation digits shifted.

    The split is the same for all seeds; the shifts follow from `seed`.
    """
    digits = datasets.load(name="digits", train=1000, validation=200, seed=0)
    centered = {part: _center(getattr(digits, part)) for part in ("train", "validation", "test")}
    shifted = {part: _shift(centered[part], seed, place) for place, part in enumerate(("validation", "test"))}
    settings: dict[str, Any] = {"size": CANVAS, "mean": (0.0,), "std": (1.0,), "crop": 0, "flip": False}
    data = replace(digits, train=centered["train"], validation=centered["validation"], test=shifted["test"], **settings)
    return data, shifted["validation"]


def _center(images: datasets.Images) -> TensorImages:
    pixels, labels = next(iter(images.batches(len(images))))
    scaled = F.interpolate(pixels.float(), (DIGIT, DIGIT), mode="bilinear", align_corners=False)
    return TensorImages(F.pad(scaled.round().to(torch.uint8), ((CANVAS - DIGIT) // 2,) * 4), labels)


def _shift(images: TensorImages, seed: int, place: int) -> TensorImages:
    pixels, labels = next(iter(images.batches(len(images))))
    return TensorImages(Shifts()(pixels, seeded_generator(seed, place, 9)), labels)


class Shifts:
    """Random shifts by whole pixels, uniform from -5 to 5 in each direction, with black outside."""

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return the shifted images."""
        batch, _, height, width = images.shape
        down, across = torch.randint(0, 2 * SHIFT + 1, (2, batch), generator=generator)
        rows, columns = torch.arange(height) + down[:, None], torch.arange(width) + across[:, None]
        framed = F.pad(images, (SHIFT,) * 4)[:, 0]
        return framed[torch.arange(batch)[:, None, None], rows[:, :, None], columns[:, None, :]][:, None]


class RandomAffine:
    """HARD's affine transforms, drawn uniformly within the bounds: the control without learning."""

    def __init__(self, linear: float, shift: float) -> None:
        """Set the bounds."""
        self._bounds = torch.tensor([linear, linear, shift] * 2)

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return the transformed images."""
        change = (2 * torch.rand(len(images), 6, generator=generator) - 1) * self._bounds
        return (255 * warp_affine(images.float() / 255, change, torch.zeros(images.shape[1]))).round().to(torch.uint8)


class _Blur(nn.Module):
    """Binomial filter with stride 2, which keeps shift equivariance (Zhang 2019, arXiv 1904.11486)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        weights = torch.tensor([1.0, 3.0, 3.0, 1.0])
        kernel = weights[:, None] * weights / 64
        self.register_buffer("kernel", kernel.expand(channels, 1, 4, 4).clone())

    def forward(self, images: Tensor) -> Tensor:
        kernel: Any = self.kernel
        return F.conv2d(F.pad(images, (1, 2, 1, 2)), kernel, stride=2, groups=len(kernel))


def equivariant(*, classes: int, channels: int, width: int = 16) -> nn.Module:
    """Return a nearly shift-invariant network: five 3 × 3 convolutions, one blurred stride, global pooling."""
    sizes = ((channels, width), (width, width), (width, 2 * width), (2 * width, 2 * width), (2 * width, 2 * width))
    layers: list[nn.Module] = []
    for place, (inputs, outputs) in enumerate(sizes):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
        layers += [_Blur(width)] if place == 1 else []
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * width, classes))


TEACHER = "benchmarks.methods.hard_shift:equivariant"


# Training -------------------------------------------------------------------------------------------------------------


def recipe() -> Recipe:
    """Return the recipe of both roles."""
    return Recipe(lr=0.1, batch_size=64)


def build_teacher(seed: int, setting: Setting) -> TrainedTeacher:
    """Train a teacher on centered digits."""
    data, _ = build_data(seed)
    return train_teacher(Task("teacher", TEACHER, data, recipe(), setting.teacher_epochs), seed)[1]


def train_student(
    arm: str, seed: int, teacher: TrainedTeacher, setting: Setting, other_game: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Train one student, and return its accuracies, its steps and, for the arm `hard`, the result of its game.

    Args:
        arm: Name of the arm, see `arms`.
        seed: Seed of the student and of the shifts.
        teacher: Teacher of the student.
        setting: Size of the benchmark.
        other_game: Result of another seed's arm `hard`: its policy is replayed, and its steps set the budget of
            `hard, charged`.
    """
    data, shifted = build_data(seed)
    epochs = setting.epochs
    if arm == CHARGED and other_game is not None:
        steps = other_game["student_steps"]
        epochs = max(1, round(epochs * steps / (steps + other_game["augmentor_steps"])))
    distill = Distill(alpha=0.0 if arm == LABELS else 0.9)
    task = Task("student", "mlp", data, recipe(), epochs, teacher=teacher, distill=distill)
    view = arms()[arm]
    source: Genome | Schedule = Genome() if view is None else Genome(augment=view)
    if arm == REPLAYED and other_game is not None:
        source = other_game["schedule"]
    learner = task.learner(source, seed=seed)
    curve, augmentor_steps = [], 0.0
    for epoch in range(epochs):
        augmentor_steps += learner.step().get("hard/augmentor_steps", 0.0)
        if (epoch + 1) % setting.curve == 0:
            curve.append(learner.evaluate(shifted)["accuracy"])
    result: dict[str, Any] = {
        "accuracy": learner.evaluate(data.test)["accuracy"],
        "centered": learner.evaluate(data.validation)["accuracy"],
        "curve": curve,
        "student_steps": epochs * (len(data.train) // task.recipe.batch_size),
        "augmentor_steps": augmentor_steps,
    }
    if arm == HARD:
        state = learner.state_dict()
        phases = replayable_phases(learner.agent.history, state["game"], task.weights)
        result |= {"schedule": Schedule(phases, "student", task.image), "epochs": state["game"]["epochs"]}
    return result


def _teacher_accuracy(teacher: TrainedTeacher, seed: int) -> float:
    data, _ = build_data(seed)
    learner = Task("teacher", TEACHER, data, recipe(), 1).learner(Genome(), seed=0)
    learner.model.load_state_dict(teacher.weights)
    return learner.evaluate(data.test)["accuracy"]


def _one_thread() -> None:
    torch.set_num_threads(1)


# Figures --------------------------------------------------------------------------------------------------------------


def _row(arm: str, runs: Sequence[dict[str, Any]]) -> Row:
    by_seed = [run["accuracy"] for run in runs]
    row: Row = {"arm": arm, "accuracy": float(np.mean(by_seed)), "half_width_95": interval(by_seed)[1]}
    for part in ("centered", "student_steps", "augmentor_steps"):
        row[part] = float(np.mean([run[part] for run in runs]))
    row["accuracy_by_seed"] = by_seed
    shortest = min(len(run["curve"]) for run in runs)
    row["curve"] = np.mean([run["curve"][:shortest] for run in runs], axis=0).tolist()
    if "epochs" in runs[0]:  # half the width of the central 90 % of the last epoch's draws, by parameter
        spreads = [[(high - low) / 2 for low, *_, high in run["epochs"][-1]["quantiles"]] for run in runs]
        row["spread"] = np.mean(spreads, axis=0).tolist()
    return row


def summarize(rows: Sequence[Row]) -> dict[str, Any]:
    """Return the share of the gap that is closed, and HARD's gain over its control, paired by seed."""
    by_arm = {row["arm"]: np.array(row["accuracy_by_seed"]) for row in rows}
    gap = by_arm[ORACLE] - by_arm[KD]
    summary: dict[str, Any] = {
        "gap_closed": float((by_arm[HARD] - by_arm[KD]).mean() / gap.mean()),
        "gap_closed_by_random_affine": float((by_arm[RANDOM] - by_arm[KD]).mean() / gap.mean()),
    }
    for key, arm in (
        ("random_affine", HARD),
        ("random_affine_charged", CHARGED),
        ("random_affine_replayed", REPLAYED),
    ):
        gain = by_arm[arm] - by_arm[RANDOM]
        summary |= {f"minus_{key}": float(gain.mean()), f"p_{key}": float(stats.ttest_1samp(gain, 0).pvalue)}
    return summary | {"seeds": len(gap)}


def plot(rows: Sequence[Row], summary: dict[str, Any]) -> None:
    """Plot the accuracy on shifted digits over the student steps, and after training."""
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    colors = {ORACLE: "#000000", HARD: "#d95f02", RANDOM: "#2171b5", KD: "#969696"}
    for row in rows:
        if (arm := row["arm"]) in colors:
            steps = [
                FULL.curve * (place + 1) * row["student_steps"] / FULL.epochs for place in range(len(row["curve"]))
            ]
            left.plot(steps, row["curve"], color=colors[arm])
            left.annotate(arm, (steps[-1], row["curve"][-1]), xytext=(4, -3), textcoords="offset points", fontsize=9)
    left.set_xlabel("student steps")
    left.set_ylabel("accuracy on shifted validation digits")
    left.set_ylim(0, 1)
    left.margins(x=0.16)
    ranked = sorted((row for row in rows if "half_width_95" in row), key=lambda row: row["accuracy"])
    names = [row["arm"] for row in ranked]
    values, halves = [row["accuracy"] for row in ranked], [row["half_width_95"] for row in ranked]
    right.barh(names, values, xerr=halves, color=[colors.get(name, "#bdbdbd") for name in names], ecolor="#525252")
    for place, (value, half) in enumerate(zip(values, halves, strict=True)):
        right.annotate(
            f"{100 * value:.0f}", (value + half, place), xytext=(4, -3), textcoords="offset points", fontsize=9
        )
    right.set_xlim(0, 1.08)
    right.set_xlabel(f"accuracy on shifted test digits ({summary['seeds']} seeds, 95 %)")
    figure.suptitle(
        f"Shift equivariance from a convolutional teacher to a perceptron: "
        f"HARD closes {100 * summary['gap_closed']:.0f} % of the gap",
        x=0.01,
        ha="left",
        fontsize=11,
    )
    save_plot(figure, (left, right), PLOT)


if __name__ == "__main__":
    main()
