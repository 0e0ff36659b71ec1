"""A full-precision teacher, a student of 2 bits: does an augmentation schedule of each role's own pay?

Both are resnet8. The student has 2 bits for weights and for activations (DoReFa), starts from the teacher's weights and
learns under 0.1 · CE(x) + 0.9 · KD(x), T = 4; teacher and student see the same view x. Digits of 8 × 8: 100 to train
on, 1,000 that the searches are scored on, so that they do not select on noise, and 597 to test on.

A repetition is a whole pipeline, with images of its own to train on and to score on: the teacher's search, the teacher,
the student's searches, the students. The arms have the teacher, the seeds and the steps in common; they differ in what
makes x:

- `none`: nothing.
- `teacher_schedule`: the teacher's own schedule, so one for both roles.
- `student_only`: the schedule of a population of 2-bit students that learn from labels alone, without a teacher; what
  is compared is a student that is distilled under it, like all others.
- `role_wise`: the schedule of a population of students that are distilled from the teacher.
- `shuffled_schedule`: the same phases in another order.
- `random_schedule`: the best of as many fixed random genomes as that population has members, each distilled as long.
- `trivialaugment`: TrivialAugment, in place of a policy.

All networks are trained on the 100 images alone, in the searches and after them, the teacher too (a sweep's own full
trainings take the validation images as well): no network has seen what the searches are scored on. The test images are
scored once, at the end of each student's training. The settings were chosen on validation images of other seeds.

`accuracy_by_seed` is by repetition, the mean over its students; `search_epochs` is what an arm's schedule costs beyond
the teacher's search, `seconds` what one student takes; `strength` is the schedule's mean, 0 … 9, and `strength_by_seed`
that of each slice between perturbations, one repetition after another. The summary's differences are in
points. Every p is a paired t-test's by repetition, not corrected for there being five; the test images are the same in
all repetitions, so it says nothing of others.

Source of the method: Fu et al. 2020, https://arxiv.org/abs/2004.08861; of the search: PBA (Ho et al. 2019,
https://arxiv.org/abs/1905.05393); of TrivialAugment: Müller and Hutter 2021, https://arxiv.org/abs/2103.10158.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from io import BytesIO
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from scipy import stats

from benchmarks.common.record import ROOT, Row, arguments, cores, start
from results.analysis.statistics import interval
from search.algorithms.base import Kind, SearchAlgorithm, member_seed
from search.config.schema import ResourceConfig, SearchConfig, StageConfig
from search.execution.cluster import connected
from search.execution.journal import Journal
from search.execution.trials import JournalCallback, run_trials
from spaces import Genome, Schedule, Space
from spaces.augmentations import TrivialAugment
from spaces.core.io import write_atomic
from trainables import data as datasets
from trainables.distillation.objective import Distill
from trainables.quantization import Bits, size_in_bits
from trainables.task import Task, TrainedTeacher
from trainables.training.recipe import Recipe

PICTURE = ROOT / "docs" / "images" / "role_wise.png"
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
    """How much everything gets.

    Args:
        train: images.
        validation: images.
        epochs: of every training, of a search's members too.
        population: members of every search.
        interval: epochs between perturbations.
        repetitions: of the whole pipeline.
        students: of each arm in a repetition.
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
class SearchResult:
    """What the searches of one repetition found.

    Args:
        task: of its students.
        schedules: by arm; none where the arm has no policy.
        seed: of the repetition.
    """

    task: Task
    schedules: dict[str, Schedule]
    seed: int


def main() -> None:
    """Search in every repetition, then train every arm, in pairs by seed."""
    benchmark = start(__file__, arguments(__doc__))
    setting = QUICK if benchmark.quick else FULL
    torch.set_num_threads(1)
    seeds = [100 * (benchmark.seed + 1) + repeat for repeat in range(setting.repetitions)]
    with TemporaryDirectory() as folder, connected(None):
        found = [searched(setting, seed, Path(folder) / str(seed)) for seed in seeds]
    processes = 1 if benchmark.quick else cores()
    with ProcessPoolExecutor(processes, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        places = list(product(range(setting.repetitions), ARMS, range(setting.students)))
        jobs = [pool.submit(trained_student, arm, found[place], student) for place, arm, student in places]
        runs = {place: job.result() for place, job in zip(places, jobs, strict=True)}
    rows = [_row(arm, found, runs, setting) for arm in ARMS]
    summary = figures(rows) | {"seeds": setting.repetitions} | sizes(found[0].task)
    if not benchmark.quick:
        plot(rows)
    benchmark.finish(rows, summary, peers=("ray",))


# Searching ------------------------------------------------------------------------------------------------------------


def searched(setting: Setting, seed: int, folder: Path) -> SearchResult:
    """All searches of one repetition, and its teacher."""
    data = datasets.load(name="digits", train=setting.train, validation=setting.validation, seed=seed)
    recipe = Recipe(lr=0.05, batch_size=setting.train // 2)
    task = Task("teacher", MODEL, data, recipe, setting.epochs, data.validation, setting.interval)
    (own,) = schedules(TEACHER, ("pbt",), task, setting, seed, folder)
    learner = task.learner(own, seed=member_seed(seed, "teacher", 1, 0))
    for _ in range(setting.epochs):
        learner.step()
    teacher = TrainedTeacher(MODEL, learner.model.state_dict())
    alone = replace(task, role="student", bits=Bits(2, 2), distill=Distill(alpha=0.0))
    distilled = replace(alone, teacher=teacher, distill=Distill(alpha=0.9, init="teacher"))
    (without,) = schedules(ALONE, ("pbt",), alone, setting, seed, folder)
    role_wise, control = schedules(ROLE_WISE, ("pbt", "random"), distilled, setting, seed, folder)
    found = {TEACHER: own, ALONE: without, ROLE_WISE: role_wise, SHUFFLED: role_wise.shuffled(seed), RANDOM: control}
    return SearchResult(replace(distilled, validation=None), found, seed)


def schedules(
    name: str, kinds: Sequence[Kind], task: Task, setting: Setting, seed: int, folder: Path
) -> list[Schedule]:
    """What a sweep's searches of those kinds find for `task`; the first moves its members, the others run beside it."""
    folder.mkdir(exist_ok=True)
    config = StageConfig(epochs=setting.epochs, population=setting.population, interval=setting.interval)
    search = SearchConfig(seed=seed)
    with Journal(folder) as journal:
        stages = [SearchAlgorithm(f"{name}-{kind}", kind, task, config, search, Space(), journal) for kind in kinds]
        outcomes = run_trials(
            [member for stage in stages for member in stage.members],
            task,
            ResourceConfig(),
            JournalCallback(journal),
            name=name,
            save_every=setting.interval,
            scheduler=stages[0].scheduler(),
        )
        return [stage.found(outcomes, {}).schedule for stage in stages]


# Training -------------------------------------------------------------------------------------------------------------


def trained_student(arm: str, found: SearchResult, student: int) -> dict[str, float]:
    """The test accuracy of a repetition's student of that number, and the seconds of its training."""
    began = time.perf_counter()
    source, seed = found.schedules.get(arm, Genome()), member_seed(found.seed, "student", 1, student)
    learner = found.task.learner(source, seed=seed, shown=TrivialAugment() if arm == TRIVIAL else None)
    for _ in range(found.task.epochs):
        learner.step()
    return {
        "accuracy": learner.evaluate(found.task.data.test)["accuracy"],
        "seconds": time.perf_counter() - began,
    }


# Figures --------------------------------------------------------------------------------------------------------------


def _row(
    arm: str, found: Sequence[SearchResult], runs: dict[tuple[int, str, int], dict[str, float]], setting: Setting
) -> Row:
    def means(part: str) -> list[float]:
        students = range(setting.students)
        return [float(np.mean([runs[place, arm, one][part] for one in students])) for place in range(len(found))]

    accuracy, half = interval(by_seed := means("accuracy"))
    row: Row = {
        "arm": arm,
        "accuracy": accuracy,
        "half_width_95": half,
        "accuracy_by_seed": by_seed,
        "search_epochs": setting.population * setting.epochs * (arm not in (NONE, TEACHER, TRIVIAL)),
        "seconds": float(np.mean(means("seconds"))),
    }
    if arm not in found[0].schedules:
        return row
    slices = range(0, setting.epochs, setting.interval)
    strengths = [one.schedules[arm].at(epoch).policy.mean_strength() for one in found for epoch in slices]
    return row | {"strength": float(np.mean(strengths)), "strength_by_seed": strengths}


def figures(rows: Sequence[Row]) -> dict[str, Any]:
    """What `role_wise` adds to each opponent, in points, paired by repetition."""
    by_arm = {row["arm"]: 100 * np.array(row["accuracy_by_seed"]) for row in rows}
    summary: dict[str, Any] = {}
    for opponent in OPPONENTS:
        gain, key = by_arm[ROLE_WISE] - by_arm[opponent], f"role_wise_minus_{opponent}"
        p = float(stats.ttest_1samp(gain, 0).pvalue) if np.ptp(gain) else 1.0
        summary |= {key: float(gain.mean()), f"p_{key}": p}
    return summary


def sizes(task: Task) -> dict[str, int]:
    """The student's size, and that of the same network in full precision, in bits."""
    full = replace(task, bits=Bits())
    return {"size_in_bits": size_in_bits(task.network()), "full_precision_in_bits": size_in_bits(full.network())}


def plot(rows: Sequence[Row]) -> None:
    """Left the arms with every repetition's accuracy; right how strong the two roles' schedules are over the epochs."""
    from matplotlib.figure import Figure  # here, since every worker would wait for it

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
    left.set_xlabel(f"2-bit student's test accuracy, %; a line a repetition, mean of {points.shape[1]}, 95 % interval")
    for row in rows:
        if row["arm"] in colors:
            curves = np.array(row["strength_by_seed"]).reshape(len(row["accuracy_by_seed"]), -1)
            edges = np.linspace(0, FULL.epochs, curves.shape[1] + 1)
            name = {ROLE_WISE: "student's own", TEACHER: "teacher's"}[row["arm"]]
            for curve in curves:
                right.stairs(curve, edges, baseline=None, color=colors[row["arm"]], alpha=0.25, linewidth=0.8)
            right.stairs(curves.mean(0), edges, baseline=None, color=colors[row["arm"]], linewidth=2.2, label=name)
    right.set_ylim(bottom=0)
    right.set_xlabel("epoch; thin: each repetition")
    right.set_ylabel("schedule's mean strength, of 9")
    right.legend(frameon=False, loc="upper left")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(buffer := BytesIO(), format="png", dpi=120, metadata={"Software": None})
    write_atomic(PICTURE, buffer.getvalue())


if __name__ == "__main__":
    main()
