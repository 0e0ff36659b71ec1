"""Does a separate augmentation schedule for each role help a 2-bit student of a full-precision teacher?

Both networks are resnet8. The student has 2 bits for weights and for activations (DoReFa), starts from the teacher's
weights and is trained with 0.1 · CE(x) + 0.9 · KD(x), T = 4. Teacher and student see the same view x. The data are
digits of 8 × 8: 100 training images, 1,000 validation images for the searches, so that these do not select on noise,
and 597 test images.

A repetition is a whole pipeline with its own training and validation images: the teacher's search, the teacher, the
student's searches, the students. The arms share the teacher, the seeds and the number of steps. They differ in the
augmentation of x:

- `none`: no augmentation.
- `teacher_schedule`: the teacher's schedule, so that both roles have the same.
- `student_only`: the schedule of a population of 2-bit students trained on labels alone, without a teacher. The
  compared student is distilled under it, like all others.
- `role_wise`: the schedule of a population of students that are distilled from the teacher.
- `shuffled_schedule`: the phases of `role_wise` in another order.
- `random_schedule`: the best of as many fixed random genomes as that population has members, each distilled for as many
  epochs.
- `trivialaugment`: TrivialAugment instead of a policy.

All networks are trained on the 100 images only, in the searches and after them, the teacher included. (The final
trainings of a sweep also use the validation images.) So no network was trained on the images that the searches are
scored on. The test images are scored once, after each student's training. The settings were selected on validation
images of other seeds.

`accuracy_by_seed` has one value per repetition, the mean over its students. `search_epochs` is the cost of an arm's
schedule beyond the teacher's search, `seconds` the time of one student. `strength` is the mean strength of the
schedule, 0 to 9, and `strength_by_seed` that of each slice between perturbations, repetition after repetition. The
summary's differences are in points. Every p is that of a paired t test over the repetitions, not corrected for the five
comparisons. The test images are the same in all repetitions, so p does not cover other test images.

Method: Fu et al. 2020, https://arxiv.org/abs/2004.08861. Search: PBA (Ho et al. 2019,
https://arxiv.org/abs/1905.05393). TrivialAugment: Müller and Hutter 2021, https://arxiv.org/abs/2103.10158.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from scipy import stats

from benchmarks.common.plots import save_plot
from benchmarks.common.results_file import ROOT, Row, argument_parser, start, usable_cores
from benchmarks.common.search import build_search, run_searches, search_settings
from benchmarks.common.training import train_epochs, train_teacher
from results.analysis.statistics import interval
from search.algorithms.base import member_seed
from search.execution.cluster import connected
from search.execution.journal import Journal
from search.execution.trials import JournalCallback
from spaces import Genome, Schedule
from spaces.augmentations import TrivialAugment
from trainables import data as datasets
from trainables.distillation.objective import Distill
from trainables.quantization import Bits, size_in_bits
from trainables.task import Task
from trainables.training.recipe import Recipe

PLOT = ROOT / "docs" / "images" / "role_wise.png"
MODEL = "resnet8"
NONE, TEACHER, ALONE, ROLE_WISE, SHUFFLED, RANDOM, TRIVIAL = ARMS = (
    "none",
    "teacher_schedule",
    "student_only",
    "role_wise",
    "shuffled_schedule",
    "random_schedule",
    "trivialaugment",
)
OPPONENTS = (NONE, ALONE, RANDOM, TRIVIAL, TEACHER)


@dataclass(frozen=True)
class Setting:
    """Size of the benchmark.

    Args:
        train: Training images.
        validation: Validation images.
        epochs: Epochs of every training, those of the members of a search included.
        population: Members of every search.
        interval: Epochs between perturbations.
        repetitions: Repetitions of the whole pipeline.
        students: Students per arm and repetition.
    """

    train: int
    validation: int
    epochs: int
    population: int
    interval: int
    repetitions: int
    students: int


FULL = Setting(train=100, validation=1000, epochs=150, population=8, interval=10, repetitions=6, students=3)
QUICK = Setting(train=50, validation=50, epochs=2, population=2, interval=1, repetitions=1, students=1)


@dataclass(frozen=True)
class Repetition:
    """Results of the searches of one repetition.

    Args:
        task: Task of its students.
        schedules: Schedule by arm; arms without a policy are missing.
        seed: Seed of the repetition.
    """

    task: Task
    schedules: dict[str, Schedule]
    seed: int


def main() -> None:
    """Run the searches of every repetition, then train every arm."""
    benchmark = start(__file__, argument_parser(__doc__))
    setting = QUICK if benchmark.quick else FULL
    torch.set_num_threads(1)
    seeds = [100 * (benchmark.seed + 1) + number for number in range(setting.repetitions)]
    with TemporaryDirectory() as folder, connected(None):
        repetitions = [search_schedules(setting, seed, Path(folder) / str(seed)) for seed in seeds]
    processes = 1 if benchmark.quick else usable_cores()
    with ProcessPoolExecutor(processes, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        keys = list(product(range(setting.repetitions), ARMS, range(setting.students)))
        jobs = [pool.submit(train_student, arm, repetitions[number], student) for number, arm, student in keys]
        runs = {key: job.result() for key, job in zip(keys, jobs, strict=True)}
    rows = [_row(arm, repetitions, runs, setting) for arm in ARMS]
    summary = summarize(rows) | {"seeds": setting.repetitions} | model_sizes(repetitions[0].task)
    if not benchmark.quick:
        plot(rows)
    benchmark.finish(rows, summary, peers=("ray",))


# Searching ------------------------------------------------------------------------------------------------------------


def search_schedules(setting: Setting, seed: int, folder: Path) -> Repetition:
    """Run all searches of one repetition, and train its teacher."""
    data = datasets.load(name="digits", train=setting.train, validation=setting.validation, seed=seed)
    recipe = Recipe(lr=0.05, batch_size=setting.train // 2)
    task = Task("teacher", MODEL, data, recipe, setting.epochs, data.validation, setting.interval)
    (of_teacher,) = run_role(TEACHER, ("pbt",), task, setting, seed, folder)
    _, teacher = train_teacher(task, member_seed(seed, "teacher", 1, 0), of_teacher)
    alone = replace(task, role="student", bits=Bits(2, 2), distill=Distill(alpha=0.0))
    distilled = replace(alone, teacher=teacher, distill=Distill(alpha=0.9, init="teacher"))
    (of_labels,) = run_role(ALONE, ("pbt",), alone, setting, seed, folder)
    role_wise, random = run_role(ROLE_WISE, ("pbt", "random"), distilled, setting, seed, folder)
    schedules = {TEACHER: of_teacher, ALONE: of_labels, ROLE_WISE: role_wise, RANDOM: random}
    schedules[SHUFFLED] = role_wise.shuffled(seed)
    return Repetition(replace(distilled, validation=None), schedules, seed)


def run_role(
    name: str, algorithms: Sequence[str], task: Task, setting: Setting, seed: int, folder: Path
) -> list[Schedule]:
    """Search `task` with several algorithms at the same time, and return their schedules."""
    folder.mkdir(exist_ok=True)
    size: dict[str, int] = {"size": setting.population, "epochs": task.epochs, "interval": setting.interval}
    with Journal(folder) as journal:
        callback = JournalCallback(journal)
        searches = [
            build_search(f"{name}-{algorithm}", search_settings(algorithm, **size), task, callback, seed=seed)
            for algorithm in algorithms
        ]
        return [result.schedule for result in run_searches(searches, callback, name=name)]


# Training -------------------------------------------------------------------------------------------------------------


def train_student(arm: str, repetition: Repetition, student: int) -> dict[str, float]:
    """Train the student of that number, and return its test accuracy and the seconds of its training."""
    started, task = time.perf_counter(), repetition.task
    source, seed = repetition.schedules.get(arm, Genome()), member_seed(repetition.seed, "student", 1, student)
    learner = task.learner(source, seed=seed, baseline=TrivialAugment() if arm == TRIVIAL else None)
    train_epochs(learner, task.epochs)
    return {"accuracy": learner.evaluate(task.data.test)["accuracy"], "seconds": time.perf_counter() - started}


# Figures --------------------------------------------------------------------------------------------------------------


def _row(
    arm: str, repetitions: Sequence[Repetition], runs: dict[tuple[int, str, int], dict[str, float]], setting: Setting
) -> Row:
    def means(column: str) -> list[float]:
        students, numbers = range(setting.students), range(len(repetitions))
        return [float(np.mean([runs[number, arm, student][column] for student in students])) for number in numbers]

    accuracy, half = interval(by_seed := means("accuracy"))
    row: Row = {
        "arm": arm,
        "accuracy": accuracy,
        "half_width_95": half,
        "accuracy_by_seed": by_seed,
        "search_epochs": setting.population * setting.epochs * (arm not in (NONE, TEACHER, TRIVIAL)),
        "seconds": float(np.mean(means("seconds"))),
    }
    if arm not in repetitions[0].schedules:
        return row
    slices = range(0, setting.epochs, setting.interval)
    strengths = [one.schedules[arm].at(epoch).policy.mean_strength() for one in repetitions for epoch in slices]
    return row | {"strength": float(np.mean(strengths)), "strength_by_seed": strengths}


def summarize(rows: Sequence[Row]) -> dict[str, Any]:
    """Return the gain of `role_wise` over each opponent in points, paired by repetition."""
    by_arm = {row["arm"]: 100 * np.array(row["accuracy_by_seed"]) for row in rows}
    summary: dict[str, Any] = {}
    for opponent in OPPONENTS:
        gain, key = by_arm[ROLE_WISE] - by_arm[opponent], f"role_wise_minus_{opponent}"
        p = float(stats.ttest_1samp(gain, 0).pvalue) if np.ptp(gain) else 1.0
        summary |= {key: float(gain.mean()), f"p_{key}": p}
    return summary


def model_sizes(task: Task) -> dict[str, int]:
    """Return the size of the student and of the same network in full precision, in bits."""
    full = replace(task, bits=Bits())
    return {"size_in_bits": size_in_bits(task.network()), "full_precision_in_bits": size_in_bits(full.network())}


def plot(rows: Sequence[Row]) -> None:
    """Plot the accuracy of each arm by repetition, and the strength of both roles' schedules over the epochs."""
    from matplotlib.figure import Figure  # every worker process would wait for this import

    figure = Figure(figsize=(11, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    colors = {ROLE_WISE: "#d55e00", TEACHER: "#0072b2"}
    ranked = sorted(rows, key=lambda row: row["accuracy"])
    points = 100 * np.array([row["accuracy_by_seed"] for row in ranked])
    left.plot(points, range(len(ranked)), color="#d9d9d9", linewidth=0.8, zorder=0)
    for place, (row, values) in enumerate(zip(ranked, points, strict=True)):
        color = colors.get(row["arm"], "#525252")
        left.scatter(values, [place] * len(values), s=14, color=color, alpha=0.45, linewidths=0)
        mean, half = 100 * row["accuracy"], 100 * row["half_width_95"]
        left.errorbar(mean, place, xerr=half, fmt="D", color=color, markersize=6)
    left.set_yticks(range(len(ranked)), [row["arm"] for row in ranked])
    left.set_xlabel(f"test accuracy of the 2-bit student, %: {points.shape[1]} repetitions, mean, 95 % interval")
    for row in rows:
        if row["arm"] in colors:
            curves = np.array(row["strength_by_seed"]).reshape(len(row["accuracy_by_seed"]), -1)
            edges = np.linspace(0, FULL.epochs, curves.shape[1] + 1)
            name = {ROLE_WISE: "student", TEACHER: "teacher"}[row["arm"]]
            for curve in curves:
                right.stairs(curve, edges, baseline=None, color=colors[row["arm"]], alpha=0.25, linewidth=0.8)
            right.stairs(curves.mean(0), edges, baseline=None, color=colors[row["arm"]], linewidth=2.2, label=name)
    right.set_ylim(bottom=0)
    right.set_xlabel("epoch; thin lines: single repetitions")
    right.set_ylabel("mean strength of the schedule, 0 to 9")
    right.legend(frameon=False, loc="upper left")
    save_plot(figure, (left, right), PLOT)


if __name__ == "__main__":
    main()
