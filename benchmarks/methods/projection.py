"""Does projecting the teacher's features instead of the student's help a student, whatever the teacher was trained for?

Digits of 8 × 8 lie in one of the four corners of 16 × 16, black elsewhere. The student, the catalog's `cnn`, learns the
digit from 100 images, each in a corner that is drawn once. Its teachers are `cnn`s of twice the width, frozen in
evaluation mode:

- `same` was trained to classify the digit, and `other` the corner, on 900 digits in all four corners, the student's
  among them.
- `random` was not trained. Its batch normalization has the statistics of the student's training images.

All arms train for the same number of student steps, with gradients clipped to a norm of 1 and 0.99 · CE + weight ·
loss. The losses are `hint` (on features averaged over positions), `attention` (on all three stages) and `pkt`. Each is
used without projection, with the student's features projected, as usual, and with the teacher's: the inverted
projection of Auty et al. 2024 (https://arxiv.org/abs/2403.14494). Without a teacher: `spectral`, our reading of the
loss of the same paper, and the labels alone with 1 · CE. For comparison: `kd` from `same`. `hint` without projection is
impossible, because it needs features of the same width.

Every seed has its own digits, corners, teachers and initial weights. The weight of an arm is the best of three, which
are the same for all arms of a loss, by the mean validation accuracy (column `validation`, in the order of `weights`)
over seeds that are not reported; ties go to the smallest. The three values and all other settings were also selected on
validation digits, some of reported seeds. The test digits, in all four corners each, are scored once, after the last
epoch.

`rank` is the effective rank of P after the last epoch, for `attention` of the last stage. `transfer` and
`regularisation` are the two parts of the mean squared error that P leaves on the last batch. Only `hint` minimizes it.
Under the inverted projection the second part is 0 up to rounding while P has full rank.

The summary's gains are in points, paired by seed, and averaged over the losses of a teacher; `none` are the labels
alone. Every p is that of a paired t test, corrected over the three teachers (Holm 1979). The test digits are the same
for all seeds.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, replace
from itertools import product
from multiprocessing import get_context
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor, nn

from benchmarks.common.plots import save_plot
from benchmarks.common.results_file import ROOT, Row, argument_parser, start, usable_cores
from benchmarks.common.training import train_epochs, train_teacher
from results.analysis.statistics import holm, interval
from spaces import Genome
from spaces.core.seeding import seeded_generator
from trainables import data as datasets
from trainables.data import DataSet, Images, TensorImages
from trainables.distillation.objective import Distill
from trainables.losses.feature.projector import effective_rank
from trainables.models import build_model
from trainables.models.cnn import cnn
from trainables.task import Task, TrainedTeacher
from trainables.training.normalize import Normalize
from trainables.training.recipe import Recipe

Array: TypeAlias = NDArray[np.float64]

PLOT = ROOT / "docs" / "images" / "projection.png"
TEACHERS, LOSSES = ("same", "other", "random"), ("hint", "attention", "pkt")
PROJECTIONS = ("none", "student", "inverted")
NONE, CORNERS, HELD_OUT = "none", 4, 300
STUDENT, LAST, TEACHER, WIDTH = "cnn", "8", "benchmarks.methods.projection:wide", 32
"""Student and name of its last stage; teacher and width of its first stage."""
COLUMNS = {"rank": "rank", "transfer": "transfer", "regularisation": "regularization"}
"""Metrics of a projection, by column of the committed result file."""
COLORS = {"none": "#737373", "student": "#0072b2", "inverted": "#d55e00"}
WEIGHTS = {
    "kd": (1.0, 10.0, 100.0),
    "spectral": (0.1, 1.0, 10.0),
    "hint": (0.1, 1.0, 10.0),
    "attention": (1.0, 10.0, 100.0),
    "pkt": (100.0, 1000.0, 10000.0),
}
ALPHA = 0.01  # the labels' loss has the weight 1 - ALPHA in every arm


@dataclass(frozen=True)
class Setting:
    """Size of the benchmark.

    Args:
        train: Training digits of the student.
        teacher_train: Training digits of the teachers.
        teacher_epochs: Epochs of the teachers.
        epochs: Epochs of a student.
        seeds: Reported seeds.
        selection_seeds: Further seeds on which the weights are selected.
    """

    train: int
    teacher_train: int
    teacher_epochs: int
    epochs: int
    seeds: int
    selection_seeds: int


FULL = Setting(train=100, teacher_train=900, teacher_epochs=3, epochs=100, seeds=10, selection_seeds=3)
QUICK = Setting(train=50, teacher_train=100, teacher_epochs=1, epochs=1, seeds=2, selection_seeds=1)


class Arm(NamedTuple):
    """Teacher, loss and projected features of a student; `none` where there is none."""

    teacher: str = NONE
    loss: str = NONE
    projection: str = NONE

    @property
    def weights(self) -> tuple[float, ...]:
        """Candidate weights of the loss; empty without a loss."""
        return WEIGHTS.get(self.loss, ())

    def distill(self, weight: float) -> Distill:
        """Return the distillation settings with that weight of the loss."""
        if self.loss == NONE:
            return Distill(alpha=0.0)
        options: dict[str, Any] = {"projection": self.projection} if self.loss in LOSSES else {}
        options |= {"pool": True} if self.loss == "hint" else {}
        return Distill(loss={self.loss: {"weight": weight / ALPHA, **options}}, alpha=ALPHA)


LABELS, SPECTRAL, KD = Arm(), Arm(loss="spectral"), Arm("same", "kd")
IMPOSSIBLE = tuple(Arm(teacher, "hint") for teacher in TEACHERS)
FEATURES = tuple(arm for arm in map(Arm._make, product(TEACHERS, LOSSES, PROJECTIONS)) if arm not in IMPOSSIBLE)
ARMS = (LABELS, SPECTRAL, KD, *FEATURES)


@dataclass(frozen=True)
class SeedData:
    """Data and teachers of one seed.

    Args:
        data: Data of the students.
        teachers: Teachers by name.
        teacher_accuracy: Test accuracy of the trained teachers on their own task.
    """

    data: DataSet
    teachers: Mapping[str, TrainedTeacher]
    teacher_accuracy: Mapping[str, float]


def main() -> None:
    """Select the weights, then train every arm with every seed."""
    benchmark = start(__file__, argument_parser(__doc__))
    setting, first = (QUICK if benchmark.quick else FULL), 1000 * benchmark.seed
    seeds = range(first, first + setting.seeds)
    selection_seeds = range(first + 500, first + 500 + setting.selection_seeds)
    with ProcessPoolExecutor(
        1 if benchmark.quick else usable_cores(), get_context("spawn"), torch.set_num_threads, (1,)
    ) as pool:
        prepared = {seed: pool.submit(prepare, seed, setting) for seed in (*selection_seeds, *seeds)}

        def submit(arm: Arm, weight: float, some_seeds: range, part: str) -> list[Future[dict[str, float]]]:
            jobs = [(prepared[seed].result(), arm, weight, setting.epochs, seed, part) for seed in some_seeds]
            return [pool.submit(train_student, *job) for job in jobs]

        trials = {arm: [submit(arm, weight, selection_seeds, "validation") for weight in arm.weights] for arm in ARMS}
        validation = {arm: [_mean(_results(runs), "accuracy") for runs in trials[arm]] for arm in ARMS}
        weights = {arm: arm.weights[int(np.argmax(validation[arm]))] if arm.weights else 0.0 for arm in ARMS}
        pending = {arm: submit(arm, weights[arm], seeds, "test") for arm in ARMS}
        rows = [_row(arm, weights[arm], validation[arm], _results(pending[arm])) for arm in ARMS]
        rows += [_impossible_row(arm) for arm in IMPOSSIBLE]
        rows += _teacher_rows([prepared[seed].result().teacher_accuracy for seed in seeds])
    summary = summarize(rows)
    if not benchmark.quick:
        plot(rows, summary)
    benchmark.finish(rows, summary)


def _results(runs: Sequence[Future[dict[str, float]]]) -> list[dict[str, float]]:
    return [run.result() for run in runs]


# Images and teachers --------------------------------------------------------------------------------------------------


def place_in_corners(images: Images, corners: Tensor) -> TensorImages:
    """Place each image in one corner of a black canvas.

    Args:
        images: Images (N, 1, h, w).
        corners: Corner of each image (N,), 0 to 3 in reading order.

    Returns:
        Images (N, 1, 2h, 2w) with the same labels.
    """
    pixels, labels = next(images.batches(len(images)))
    height, width = pixels.shape[2:]
    canvas = pixels.new_zeros(len(pixels), CORNERS, height, width)
    canvas[torch.arange(len(pixels)), corners] = pixels[:, 0]
    return TensorImages(
        canvas.unflatten(1, (2, 2)).transpose(2, 3).reshape(len(pixels), 1, 2 * height, 2 * width), labels
    )


def place_in_all_corners(images: Images) -> tuple[TensorImages, Tensor]:
    """Place every image in all four corners, and return the images and their corners."""
    corners = torch.arange(CORNERS).repeat(len(images))
    return place_in_corners(images.subset(torch.arange(len(images)).repeat_interleave(CORNERS)), corners), corners


def build_data(seed: int, setting: Setting) -> tuple[DataSet, DataSet, DataSet]:
    """Return the data of the student and of the teachers `same` and `other`."""
    few, many = (
        datasets.load(name="digits", train=count, validation=HELD_OUT, seed=seed)
        for count in (setting.train, setting.teacher_train)  # with the same seed, `many` contains `few`
    )
    train = place_in_corners(
        few.train, torch.randint(CORNERS, (len(few.train),), generator=seeded_generator(seed, 0, 20))
    )
    held_out, test, teacher_train = (place_in_all_corners(part) for part in (few.validation, few.test, many.train))
    pixels = train.images / 255
    canvas: dict[str, Any] = {"size": train.images.shape[-1], "crop": 0, "flip": False}
    canvas |= {"mean": (float(pixels.mean()),), "std": (float(pixels.std()),)}
    data = replace(few, **canvas, train=train, validation=held_out[0], test=test[0])
    corners = [TensorImages(images.images, corner) for images, corner in (teacher_train, held_out, test)]
    other = replace(data, classes=CORNERS, train=corners[0], validation=corners[1], test=corners[2])
    return data, replace(data, train=teacher_train[0]), other


def wide(*, classes: int, channels: int, size: int) -> nn.Module:
    """Return the teachers' network."""
    return cnn(classes=classes, channels=channels, size=size, width=WIDTH)


def prepare(seed: int, setting: Setting) -> SeedData:
    """Return the data of a seed and its three teachers."""
    data, *teacher_data = build_data(seed, setting)
    own_seed = seeded_generator(
        seed, 0, 21
    ).initial_seed()  # with the student's seed, both would start with similar filters
    teachers, accuracy = {"random": random_teacher(data, own_seed)}, {}
    for name, images in zip(("same", "other"), teacher_data, strict=True):
        task = Task("teacher", TEACHER, images, Recipe(lr=0.05, batch_size=64), setting.teacher_epochs)
        learner, teacher = train_teacher(task, own_seed)
        teachers[name] = replace(teacher, classes=images.classes)
        accuracy[name] = learner.evaluate(images.test)["accuracy"]
    return SeedData(data, teachers, accuracy)


def random_teacher(data: DataSet, seed: int) -> TrainedTeacher:
    """Return an untrained teacher whose batch normalization has the statistics of the training images."""
    network = build_model(TEACHER, seed=seed, classes=data.classes, channels=data.channels, size=data.size)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # one batch sets the statistics
    images, _ = next(data.train.batches(len(data.train)))
    with torch.no_grad():
        network.train()(Normalize(data, torch.device("cpu"))(images))
    return TrainedTeacher(TEACHER, network.state_dict())


# Students -------------------------------------------------------------------------------------------------------------


def train_student(prepared: SeedData, arm: Arm, weight: float, epochs: int, seed: int, part: str) -> dict[str, float]:
    """Train one student, and return its accuracy on a part of the data, metrics of its projection, and seconds."""
    started = time.perf_counter()
    recipe, teacher = Recipe(lr=0.05, batch_size=50, clip=1.0), prepared.teachers.get(arm.teacher)
    task = Task("student", STUDENT, prepared.data, recipe, epochs, teacher=teacher, distill=arm.distill(weight))
    learner = task.learner(Genome(), seed=seed)
    metrics = train_epochs(learner, epochs)
    result = {"accuracy": learner.evaluate(getattr(prepared.data, part))["accuracy"]}
    if arm.projection != NONE:
        prefix = f"distill/{arm.loss}/{LAST}/" if arm.loss == "attention" else f"distill/{arm.loss}/"
        result |= {column: metrics[prefix + name] for column, name in COLUMNS.items()}
    return result | {"seconds": time.perf_counter() - started}


# Figures --------------------------------------------------------------------------------------------------------------


def _row(arm: Arm, weight: float, validation: Sequence[float], runs: Sequence[Mapping[str, float]]) -> Row:
    by_seed = [run["accuracy"] for run in runs]
    accuracy, half = interval(by_seed)
    row: Row = {**arm._asdict(), "weight": weight or None, "accuracy": accuracy, "half_width_95": half}
    row["accuracy_by_seed"] = by_seed
    row |= {key: _mean(runs, key) for key in runs[0] if key != "accuracy"}
    return row | ({"weights": list(arm.weights), "validation": list(validation)} if validation else {})


def _impossible_row(arm: Arm) -> Row:
    return {**arm._asdict(), "accuracy": None, "note": "needs features of one width"}


def _teacher_rows(accuracies: Sequence[Mapping[str, float]]) -> list[Row]:
    note = "the teacher on its own task"
    by_teacher = {name: [one[name] for one in accuracies] for name in accuracies[0]}
    return [
        {"teacher": name, "accuracy": float(np.mean(by_seed)), "accuracy_by_seed": by_seed, "note": note}
        for name, by_seed in by_teacher.items()
    ]


def _mean(runs: Sequence[Mapping[str, float]], key: str) -> float:
    return float(np.mean([run[key] for run in runs]))


def _by_arm(rows: Sequence[Row], key: str, scale: float = 1) -> dict[Arm, Array]:
    """Return one column of the rows of all trained arms."""
    arms = (row for row in rows if "loss" in row and row["accuracy"] is not None)
    return {Arm(*(row[name] for name in Arm._fields)): scale * np.array(row[key]) for row in arms if key in row}


def summarize(rows: Sequence[Row]) -> dict[str, Any]:
    """Return the gains in points, with their corrected p."""
    accuracy, summary = _by_arm(rows, "accuracy_by_seed", scale=100), dict[str, Any]()

    def mean_over_losses(teacher: str, projection: str) -> Array:
        return np.mean([accuracy[Arm(teacher, loss, projection)] for loss in LOSSES], axis=0)

    labels = accuracy[LABELS]
    inverted = {teacher: mean_over_losses(teacher, "inverted") for teacher in TEACHERS}
    usual = {teacher: mean_over_losses(teacher, "student") for teacher in TEACHERS}
    summary |= _test({f"inverted_minus_student_{name}": inverted[name] - usual[name] for name in TEACHERS})
    summary |= _test({f"inverted_minus_none_{name}": inverted[name] - labels for name in TEACHERS})
    summary |= _test({f"student_minus_none_{name}": usual[name] - labels for name in TEACHERS})
    summary |= _test({"spectral_minus_none": accuracy[SPECTRAL] - labels})
    summary |= _test({"kd_minus_none": accuracy[KD] - labels})
    random_matrix = torch.rand(4 * WIDTH, 64, generator=seeded_generator(0)) - 0.5
    return summary | {"rank_as_drawn": effective_rank(random_matrix), "seeds": len(labels)}


def _test(gains: Mapping[str, Array]) -> dict[str, float]:
    p = [float(stats.ttest_1samp(gain, 0).pvalue) if np.ptp(gain) else 1.0 for gain in gains.values()]
    summary: dict[str, float] = {}
    for (key, gain), corrected in zip(gains.items(), holm(p), strict=True):
        summary |= {key: float(gain.mean()), f"p_{key}": corrected}
    return summary


def plot(rows: Sequence[Row], summary: Mapping[str, Any]) -> None:
    """Plot the gain of each arm over the labels alone, by seed and with mean and interval, and the rank of its P."""
    from matplotlib.figure import Figure  # every worker process would wait for this import
    from matplotlib.lines import Line2D

    accuracy, ranks = _by_arm(rows, "accuracy_by_seed", scale=100), _by_arm(rows, "rank")
    titles = {
        "same": "same: trained on digits",
        "other": "other: trained on corners",
        "random": "random: untrained",
    }
    panels: list[tuple[str, tuple[str, ...], list[Arm]]] = [("for comparison", ("spectral", "kd"), [SPECTRAL, KD])]
    panels += [(titles[name], LOSSES, [arm for arm in FEATURES if arm.teacher == name]) for name in TEACHERS]
    figure = Figure(figsize=(11, 6), layout="constrained")
    lines = figure.subplots(2, 4, sharey="row", width_ratios=(1.3, 3, 3, 3), height_ratios=(3, 1))
    for (above, below), (title, names, arms) in zip(lines.T, panels, strict=True):
        for arm in arms:
            color, shift = COLORS[arm.projection], 0.25 * (PROJECTIONS.index(arm.projection) - 1)
            place, gain = names.index(arm.loss) + shift * (arm in FEATURES), accuracy[arm] - accuracy[LABELS]
            above.plot([place - 0.05] * len(gain), gain, "o", color=color, markersize=4, alpha=0.4, markeredgewidth=0)
            mean, half = interval(gain.tolist())
            above.errorbar(place + 0.05, mean, half, fmt="o", color=color, markersize=5)
            if arm in ranks:
                below.plot(place, ranks[arm], "o", color=color, markersize=5)
        above.axhline(0, color="#999999", linestyle=":", zorder=0)
        above.set_title(title, loc="left", fontsize=11)
        above.set_xticks(range(len(names)), names)
        below.set_xticks(range(len(names)), [])
        below.set_yticks((0, 32, 64))
        below.set_ylim(0, 64)
        if arms[0] in FEATURES:
            below.axhline(summary["rank_as_drawn"], color="#999999", linestyle=":", zorder=0)
        for axes in (above, below):
            axes.set_xlim(-0.5, len(names) - 0.5)
    seeds = f"{summary['seeds']} seeds, mean, 95 % interval"
    lines[0, 0].set_ylabel(
        f"test accuracy minus that of the labels\nalone, {accuracy[LABELS].mean():.1f} %, in points; {seeds}"
    )
    lines[1, 1].set_ylabel("effective rank\nof P, of 64")
    lines[1, 1].tick_params(labelleft=True)
    lines[1, 3].annotate("untrained P", (-0.45, summary["rank_as_drawn"] + 3), color="#737373", fontsize=9)
    lines[1, 0].set_axis_off()
    labels = {"none": "none", "student": "student's", "inverted": "teacher's\n(inverted)"}
    keys = [Line2D([], [], marker="o", linestyle="", color=COLORS[name], label=labels[name]) for name in PROJECTIONS]
    lines[1, 0].legend(handles=keys, title="projected features", loc="center", frameon=False, fontsize=9)
    save_plot(figure, figure.axes, PLOT)


if __name__ == "__main__":
    main()
