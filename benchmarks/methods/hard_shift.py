"""Can HARD hand a teacher's shift equivariance to a student that has none, without being told of shifts?

Digits of 10 × 10 pixels stand in the middle of a canvas of 20 × 20; the test shows them shifted by up to 5 pixels each
way. The teacher is convolutional, with blurred strides and global pooling: it reads shifted digits though it never saw
any. The student is a perceptron, which reads none but the centered. All arms take the same student steps:

- `labels`, `kd`: centered digits alone, under the labels, and under 0.1 · CE(x) + 0.9 · KD(x), T = 4.
- the others have + 0.9 · KD(x̃) on a second view x̃, with the teacher's own answer as its only target:
  `random affine` draws all six affine parameters uniformly within HARD's bounds, `hard` plays the game,
  `hard, λ_t = 0` does so without asking the teacher to keep its answer, `hard, λ_h = 0` without the entropy term,
  `hard, replayed` has no game: it trains under the policy file that another seed's game left, and
  `hard, charged` plays the game with so many fewer steps that its augmentor's steps are paid for,
  `oracle` draws the very shifts of the test.

Every seed has a teacher, a student and shifts of its own. HARD's settings were chosen on validation digits, with other
seeds. The test digits are scored once, at the end of each training; the curves are of validation digits.

Source of the method: Nix, Burg, Sinz 2023, https://arxiv.org/abs/2305.14890; of the experiment: the same first author's
transfer of equivariance from a convolutional teacher to a perceptron (AISTATS 2022).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from io import BytesIO
from multiprocessing import get_context
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy import stats
from torch import Tensor, nn

from benchmarks.common.record import ROOT, Row, arguments, start
from spaces import Genome, Schedule
from spaces.augmentations import Augmentation, HardAffine, augmentation
from spaces.augmentors.affine import warped
from spaces.core.io import write_atomic
from spaces.policy.sampling import seeded
from trainables import data as datasets
from trainables.data import DataSet, TensorImages
from trainables.distillation.student import Distill
from trainables.hard.game import replayable
from trainables.task import Task, TrainedTeacher
from trainables.training.recipe import Recipe

PICTURE = ROOT / "docs" / "images" / "hard_shift.png"
DIGIT, CANVAS, SHIFT = 10, 20, 5
BOUND = 0.5
"""Of all six affine parameters; for the two shifts it is 5 px of 20."""
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
"""The catalog's rules, but for phases half as long, so that twice as many fit into a short training."""


@dataclass(frozen=True)
class Setting:
    """How long everything is trained."""

    teacher_epochs: int
    epochs: int
    seeds: int
    curve: int


FULL = Setting(teacher_epochs=40, epochs=130, seeds=6, curve=5)
QUICK = Setting(teacher_epochs=1, epochs=2, seeds=2, curve=1)


def main() -> None:
    """Train every arm with every seed, in pairs by seed."""
    benchmark = start(__file__, arguments(__doc__))
    setting = QUICK if benchmark.quick else FULL
    seeds = [100 * (benchmark.seed + 1) + repeat for repeat in range(setting.seeds)]
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn"), _one_thread) as pool:
        teachers = dict(zip(seeds, pool.map(trained_teacher, seeds, [setting] * len(seeds)), strict=True))
        first = [pool.submit(trained_student, HARD, seed, teachers[seed], setting) for seed in seeds]
        games = {seed: answer.result() for seed, answer in zip(seeds, first, strict=True)}
        others = [arm for arm in arms() if arm != HARD]
        pending = {}
        for place, seed in enumerate(seeds):
            before = games[seeds[place - 1]]  # whose policy is replayed
            for arm in others:
                pending[arm, seed] = pool.submit(trained_student, arm, seed, teachers[seed], setting, before)
        found = {(HARD, seed): games[seed] for seed in seeds}
        found |= {key: answer.result() for key, answer in pending.items()}
    rows = [_row(arm, [found[arm, seed] for seed in seeds]) for arm in arms()]
    known = [_accuracy_of_teacher(teachers[seed], seed) for seed in seeds]
    rows.append({"arm": "teacher", "accuracy": float(np.mean(known)), "accuracy_by_seed": known})
    summary = figures(rows)
    if not benchmark.quick:
        plot(rows, summary)
    benchmark.finish(rows, summary)


def arms() -> dict[str, Augmentation | None]:
    """What makes each arm's second view; None: there is none."""
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


def canvas(seed: int) -> tuple[DataSet, TensorImages]:
    """Centered digits, 1,000 to train on and 200 to look at, and a shifted test part; beside it, the 200 shifted.

    Which digits are in which part is the same for all seeds; how they are shifted follows from `seed`.
    """
    digits = datasets.load(name="digits", train=1000, validation=200, seed=0)
    centered = {part: _centered(getattr(digits, part)) for part in ("train", "validation", "test")}
    shown = {part: _shifted(centered[part], seed, place) for place, part in enumerate(("validation", "test"))}
    settings: dict[str, Any] = {"size": CANVAS, "mean": (0.0,), "std": (1.0,), "crop": 0, "flip": False}
    data = replace(digits, train=centered["train"], validation=centered["validation"], test=shown["test"], **settings)
    return data, shown["validation"]


def _centered(images: datasets.Images) -> TensorImages:
    pixels, labels = next(iter(images.batches(len(images))))
    scaled = F.interpolate(pixels.float(), (DIGIT, DIGIT), mode="bilinear", align_corners=False)
    return TensorImages(F.pad(scaled.round().to(torch.uint8), ((CANVAS - DIGIT) // 2,) * 4), labels)


def _shifted(images: TensorImages, seed: int, place: int) -> TensorImages:
    pixels, labels = next(iter(images.batches(len(images))))
    return TensorImages(Shifts()(pixels, seeded(seed, place, 9)), labels)


class Shifts:
    """Every image shifted by whole pixels, uniform from -5 to 5 each way, with black behind."""

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """The shifted images."""
        batch, _, height, width = images.shape
        down, across = torch.randint(0, 2 * SHIFT + 1, (2, batch), generator=generator)
        rows, columns = torch.arange(height) + down[:, None], torch.arange(width) + across[:, None]
        framed = F.pad(images, (SHIFT,) * 4)[:, 0]
        return framed[torch.arange(batch)[:, None, None], rows[:, :, None], columns[:, None, :]][:, None]


class RandomAffine:
    """HARD's affine transforms, uniform within the bounds: the control that learns nothing."""

    def __init__(self, linear: float, shift: float) -> None:
        """Take the bounds."""
        self._bounds = torch.tensor([linear, linear, shift] * 2)

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """The transformed images."""
        change = (2 * torch.rand(len(images), 6, generator=generator) - 1) * self._bounds
        return (255 * warped(images.float() / 255, change, torch.zeros(images.shape[1]))).round().to(torch.uint8)


class _Blur(nn.Module):
    """A stride of 2 behind a binomial filter, so that shifts stay shifts (Zhang 2019, arXiv 1904.11486)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        weights = torch.tensor([1.0, 3.0, 3.0, 1.0])
        kernel = weights[:, None] * weights / 64
        self.register_buffer("kernel", kernel.expand(channels, 1, 4, 4).clone())

    def forward(self, images: Tensor) -> Tensor:
        kernel: Any = self.kernel
        return F.conv2d(F.pad(images, (1, 2, 1, 2)), kernel, stride=2, groups=len(kernel))


def equivariant(*, classes: int, channels: int, width: int = 16) -> nn.Module:
    """Five 3 × 3 convolutions, one blurred stride, global pooling: it hardly matters where a digit stands."""
    sizes = ((channels, width), (width, width), (width, 2 * width), (2 * width, 2 * width), (2 * width, 2 * width))
    layers: list[nn.Module] = []
    for place, (inputs, outputs) in enumerate(sizes):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
        layers += [_Blur(width)] if place == 1 else []
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * width, classes))


TEACHER = "benchmarks.methods.hard_shift:equivariant"


# Training -------------------------------------------------------------------------------------------------------------


def recipe() -> Recipe:
    """For both roles."""
    return Recipe(lr=0.1, batch_size=64)


def trained_teacher(seed: int, setting: Setting) -> TrainedTeacher:
    """A teacher that has seen centered digits alone."""
    data, _ = canvas(seed)
    learner = Task("teacher", TEACHER, data, recipe(), setting.teacher_epochs).learner(Genome(), seed=seed)
    for _ in range(setting.teacher_epochs):
        learner.step()
    return TrainedTeacher(TEACHER, learner.model.state_dict())


def trained_student(
    arm: str, seed: int, teacher: TrainedTeacher, setting: Setting, before: dict[str, Any] | None = None
) -> dict[str, Any]:
    """One student: its accuracies, its steps, and what its game left, if it played one.

    Args:
        arm: of `arms`.
        seed: of everything.
        teacher: learned from.
        setting: how long.
        before: what this gave for another seed's game: replayed by one arm, and what another is charged by.
    """
    data, shifted = canvas(seed)
    epochs = setting.epochs
    if arm == CHARGED and before is not None:
        epochs = max(1, round(epochs * before["student_steps"] / (before["student_steps"] + before["augmentor_steps"])))
    distill = Distill(alpha=0.0 if arm == LABELS else 0.9)
    task = Task("student", "mlp", data, recipe(), epochs, teacher=teacher, distill=distill)
    made = arms()[arm]
    source: Genome | Schedule = Genome() if made is None else Genome(augment=made)
    if arm == REPLAYED and before is not None:
        source = before["schedule"]
    learner = task.learner(source, seed=seed)
    curve, augmentor_steps = [], 0.0
    for epoch in range(epochs):
        augmentor_steps += learner.step().get("hard/augmentor_steps", 0.0)
        if (epoch + 1) % setting.curve == 0:
            curve.append(learner.evaluate(shifted)["accuracy"])
    found: dict[str, Any] = {
        "accuracy": learner.evaluate(data.test)["accuracy"],
        "centered": learner.evaluate(data.validation)["accuracy"],
        "curve": curve,
        "student_steps": epochs * (len(data.train) // task.recipe.batch_size),
        "augmentor_steps": augmentor_steps,
    }
    if arm == HARD:
        state = learner.state_dict()
        phases = replayable(learner.agent.history, state["game"], task.weights)
        found |= {"schedule": Schedule(phases, "student", task.image), "epochs": state["game"]["epochs"]}
    return found


def _accuracy_of_teacher(teacher: TrainedTeacher, seed: int) -> float:
    data, _ = canvas(seed)
    learner = Task("teacher", TEACHER, data, recipe(), 1).learner(Genome(), seed=0)
    learner.model.load_state_dict(teacher.weights)
    return learner.evaluate(data.test)["accuracy"]


def _one_thread() -> None:
    torch.set_num_threads(1)


# Figures --------------------------------------------------------------------------------------------------------------


def _row(arm: str, runs: Sequence[dict[str, Any]]) -> Row:
    by_seed = [run["accuracy"] for run in runs]
    row: Row = {"arm": arm, "accuracy": float(np.mean(by_seed)), "half_width_95": _half_width(by_seed)}
    for part in ("centered", "student_steps", "augmentor_steps"):
        row[part] = float(np.mean([run[part] for run in runs]))
    row["accuracy_by_seed"] = by_seed
    shortest = min(len(run["curve"]) for run in runs)
    row["curve"] = np.mean([run["curve"][:shortest] for run in runs], axis=0).tolist()
    if "epochs" in runs[0]:  # half the width of the middle 90 % of what was drawn in the last epoch, by parameter
        spreads = [[(high - low) / 2 for low, *_, high in run["epochs"][-1]["quantiles"]] for run in runs]
        row["spread"] = np.mean(spreads, axis=0).tolist()
    return row


def figures(rows: Sequence[Row]) -> dict[str, Any]:
    """The gap that is closed, and what HARD adds to its control, paired by seed."""
    by_arm = {row["arm"]: np.array(row["accuracy_by_seed"]) for row in rows}
    gap = by_arm[ORACLE] - by_arm[KD]
    summary: dict[str, Any] = {
        "gap_closed": float((by_arm[HARD] - by_arm[KD]).mean() / gap.mean()),
        "gap_closed_by_random_affine": float((by_arm[RANDOM] - by_arm[KD]).mean() / gap.mean()),
    }
    for key, ours in (
        ("random_affine", HARD),
        ("random_affine_charged", CHARGED),
        ("random_affine_replayed", REPLAYED),
    ):
        gain = by_arm[ours] - by_arm[RANDOM]
        summary |= {f"minus_{key}": float(gain.mean()), f"p_{key}": float(stats.ttest_1samp(gain, 0).pvalue)}
    return summary | {"seeds": len(gap)}


def _half_width(values: Sequence[float]) -> float:
    return float(stats.sem(values) * stats.t.ppf(0.975, len(values) - 1))


def plot(rows: Sequence[Row], summary: dict[str, Any]) -> None:
    """Accuracy on shifted digits against student steps, and at the end."""
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
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(
        f"Shift equivariance handed from a convolutional teacher to a perceptron: "
        f"HARD closes {100 * summary['gap_closed']:.0f} % of the gap",
        x=0.01,
        ha="left",
        fontsize=11,
    )
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=120, metadata={"Software": None})
    write_atomic(PICTURE, buffer.getvalue())


if __name__ == "__main__":
    main()
