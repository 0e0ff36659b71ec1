"""Does a policy of its own for each role help a 2-bit student of a full-precision teacher?

Both networks are `cnn`. The student has 2 bits for weights and for activations (DoReFa), starts from the teacher's
weights and is trained with 0.1 · CE(x) + 0.9 · KD(x), T = 4. Teacher and student see the same view x. The data are
mnist5k, averaged to 14 px: 500 training images, 2,000 validation images that searches are scored on, 2,000 test
images.

A repetition is a whole pipeline with its own split and seeds: the teacher's search, the teacher trained with what it
found, the student's searches, the students. The arms share the teacher, the seeds and the number of steps. They differ
in the augmentation of x:

- `none`, `uniform`, `trivialaugment`, `randaugment`: the free baselines, scaled to the images.
- `teacher_policy`: what the teacher's search found, so that both roles have the same.
- `shared`: the policy of the pooled effects of both roles, from the same 24 factorial trials of each.
- `role_wise_effects`: the policy of the student's effects alone, from its 24 trials.
- `role_wise`: the default pipeline on the student: these 24 trials, then a population of 4 from their policy.
- `shuffled_schedule`: the phases of `role_wise` in another order.
- `student_only`: the default pipeline on 2-bit students trained on labels alone, without a teacher. The compared
  student is distilled under its policy, like all others.
- `random`: the best of 20 random genomes, each distilled for 60 epochs, the budget of `role_wise`.
- `pba`, `role_kd`: released schedules, where `--pba FILE` and `--role-kd FILE` give them; neither comes with roletune.

No network is trained on the images that searches are scored on. The test images are opened once, after each student's
training; no arm is confirmed. `accuracy_by_repetition` has the mean over three students. `strength` is the mean
expected strength of the policy over the epochs, 0 to 9. Differences are in points, paired by repetition; p is that of a
paired t test, Holm-corrected over the opponents.

Method: Fu et al. 2020, https://arxiv.org/abs/2004.08861.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from benchmarks.common.direct_search import Trainer, pipeline, random_search, screen
from benchmarks.common.domains import halved, in_domain
from benchmarks.common.plots import save_plot
from benchmarks.common.results_file import ROOT, Row, argument_parser, start
from benchmarks.common.search_study import QUICK, Job, Setting, run_study
from benchmarks.common.training import train_teacher
from results.analysis.statistics import holm, interval, paired_p
from search.algorithms.base import member_seed
from spaces import BASELINES, Genome, Schedule, Space
from spaces.importers import read_schedule
from trainables.distillation.objective import Distill
from trainables.quantization import Bits, size_in_bits
from trainables.task import Task
from trainables.training.recipe import Recipe

PLOT = ROOT / "docs" / "images" / "role_wise.png"
FULL = Setting(500, 2000, 2000, epochs=60, members=20, trials=24, seeds=0, tests=3, repetitions=6, teacher="cnn")
TEACHER, ROLE_WISE = "teacher_policy", "role_wise"
SEARCHED = (TEACHER, "shared", "role_wise_effects", ROLE_WISE, "shuffled_schedule", "student_only", "random")
ARMS = (*BASELINES, *SEARCHED)
OPPONENTS = ("shared", "uniform", "none", "trivialaugment", "randaugment", TEACHER, "student_only", "random")
RELEASED, RELEASED_EPOCHS = ("pba", "role_kd"), 200


def main() -> None:
    """Run what is missing, and write the result file."""
    parser = argument_parser(__doc__)
    for name in RELEASED:
        parser.add_argument(f"--{name.replace('_', '-')}", metavar="FILE", help=f"released schedule of {name}")
    benchmark = start(__file__, parser)
    released = {name: file for name in RELEASED if (file := getattr(benchmark.options, name))}
    setting, arms = QUICK if benchmark.quick else FULL, (*ARMS, *released)
    found = run_study(benchmark, {"mnist5k": setting}, partial(repeat, released=released), ["student"], arms)
    rows = [_row([row for row in found if row["arm"] == arm]) for arm in arms]
    if not benchmark.quick:
        plot(rows)
    benchmark.finish(rows, summarize(rows) | model_sizes())


# One repetition -------------------------------------------------------------------------------------------------------


def repeat(job: Job, released: dict[str, str]) -> list[Row]:
    """Run every search of one repetition, then train every arm.

    Args:
        job: The repetition.
        released: Files of released schedules by arm.
    """
    torch.set_num_threads(1)
    setting, seed = job.setting, job.seed
    teacher_task = _task(setting, seed)
    teachers, space = Trainer(teacher_task), Space(genome="scaled")
    found: dict[str, Schedule] = {TEACHER: pipeline(teachers, space, seed, **setting.pipeline)}
    _, teacher = train_teacher(teacher_task, member_seed(seed, "teacher", 1, 0), found[TEACHER])
    alone = replace(teacher_task, role="student", bits=Bits(2, 2), distill=Distill(alpha=0.0))
    distilled = replace(alone, teacher=teacher, distill=Distill(alpha=0.9, init="teacher"))
    students = Trainer(distilled)
    screens = [screen(each, space, seed, setting.trials, setting.trial_epochs) for each in (teachers, students)]
    found |= {
        "shared": students.constant(screens[1].pooled(screens[0]).genome()),
        "role_wise_effects": students.constant(screens[1].genome()),
        ROLE_WISE: pipeline(students, space, seed, **setting.pipeline),
        "student_only": pipeline(Trainer(alone), space, seed, **setting.pipeline),
        "random": random_search(students, space, seed, setting.members),
    }
    found["shuffled_schedule"] = found[ROLE_WISE].shuffled(seed)
    found |= {
        name: read_schedule("pba", file, epochs=RELEASED_EPOCHS, image=distilled.image).stretch(setting.epochs)
        for name, file in released.items()
    }
    found |= {name: students.constant(Genome(policy)) for name, policy in BASELINES.items()}
    return [_measured(job, arm, found[arm], students) for arm in (*ARMS, *released)]


def _task(setting: Setting, seed: int) -> Task:
    sizes = {"train": setting.train, "validation": setting.validation, "test": setting.test}
    data = halved(in_domain("mnist5k", "data", seed=seed, **sizes))
    recipe = Recipe(lr=0.05, batch_size=min(50, setting.train // 2))
    return Task("teacher", setting.teacher, data, recipe, setting.epochs, data.validation)


def _measured(job: Job, arm: str, schedule: Schedule, students: Trainer) -> Row:
    started = time.process_time()
    schedule = replace(schedule, role="student")
    tested = [students.train(schedule, 3000 + number) for number in range(job.setting.tests)]
    strengths = [schedule.at(epoch).policy.mean_strength() for epoch in range(schedule.epochs)]
    return {
        "place": job.place,
        "role": job.role,
        "repetition": job.repetition,
        "arm": arm,
        "accuracy": float(np.mean([each["test_accuracy"] for each in tested])),
        "loss": float(np.mean([each["test_loss"] for each in tested])),
        "strength": float(np.mean(strengths)),
        "seconds": (time.process_time() - started) / len(tested),
    }


# Figures --------------------------------------------------------------------------------------------------------------


def _row(found: Sequence[Row]) -> Row:
    """Return the means of one arm over its repetitions."""
    ordered = sorted(found, key=lambda row: row["repetition"])
    accuracy, half_width = interval([row["accuracy"] for row in ordered])
    return {
        "arm": ordered[0]["arm"],
        "accuracy": accuracy,
        "half_width_95": half_width,
        "accuracy_by_repetition": [row["accuracy"] for row in ordered],
        "loss": float(np.mean([row["loss"] for row in ordered])),
        "strength": float(np.mean([row["strength"] for row in ordered])),
        "seconds": float(np.mean([row["seconds"] for row in ordered])),
    }


def summarize(rows: Sequence[Row]) -> dict[str, Any]:
    """Return the gain of `role_wise` over each opponent in points, paired by repetition; p with Holm's correction."""
    by_arm = {row["arm"]: row["accuracy_by_repetition"] for row in rows}
    ours = by_arm[ROLE_WISE]
    opponents = [*OPPONENTS, *(name for name in RELEASED if name in by_arm)]
    many = len(ours) > 1
    p = holm([paired_p(ours, by_arm[other]) for other in opponents]) if many else [1.0] * len(opponents)
    summary: dict[str, Any] = {"repetitions": len(ours)}
    for other, corrected in zip(opponents, p, strict=True):
        key = f"role_wise_minus_{other}"
        mean, half = interval((100 * (np.array(ours) - np.array(by_arm[other]))).tolist())
        summary |= {key: mean, f"half_width_{key}": half, f"p_{key}": corrected}
    return summary


def model_sizes() -> dict[str, int]:
    """Return the size of the student and of the same network in full precision, in bits."""
    full = _task(FULL, 0)
    small = replace(full, bits=Bits(2, 2))
    return {"size_in_bits": size_in_bits(small.network()), "full_precision_in_bits": size_in_bits(full.network())}


def plot(rows: Sequence[Row]) -> None:
    """Plot the accuracy of each arm by repetition, the best above."""
    from matplotlib.figure import Figure  # every worker process would wait for this import

    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.subplots()
    colors = {ROLE_WISE: "#d55e00", "shared": "#009e73", TEACHER: "#0072b2"}
    ranked = sorted(rows, key=lambda row: row["accuracy"])
    points = 100 * np.array([row["accuracy_by_repetition"] for row in ranked])
    axes.plot(points, range(len(ranked)), color="#d9d9d9", linewidth=0.8, zorder=0)
    for place, (row, values) in enumerate(zip(ranked, points, strict=True)):
        color = colors.get(row["arm"], "#525252")
        axes.scatter(values, [place] * len(values), s=14, color=color, alpha=0.45, linewidths=0)
        axes.errorbar(100 * row["accuracy"], place, xerr=100 * row["half_width_95"], fmt="D", color=color, markersize=6)
    axes.set_yticks(range(len(ranked)), [row["arm"].replace("_", " ") for row in ranked])
    axes.set_xlabel(f"test accuracy of the 2-bit student, %: {points.shape[1]} repetitions, mean, 95 % interval")
    save_plot(figure, [axes], PLOT)


if __name__ == "__main__":
    main()
