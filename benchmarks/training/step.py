"""Cost of a training step, as a whole and by part, and how much of it the default settings save.

Cases: the demo's data and settings (examples/digits.yaml) with a resnet8 student, and with the demo's own student, a
perceptron whose step is so short that overhead shows. In addition two pairs of the papers, resnet20 ← resnet56 and
wrn_16_2 ← wrn_40_2, on random images of CIFAR-10's shape in batches of 128. Each case runs on one thread, on two, and
on a GPU if there is one. The teacher's weights are random, which costs the same.

An arm trains whole epochs, for roletune with `learner.step()`, of the same distillation. The arms run in turn. An
arm's ratio is the median of paired ratios: epoch against epoch of the same round.

- `plain`: the student's epoch with an empty policy and default settings. The other arms are compared with it.
- `policy`: 30 active entries, strong ones drawn at random: probability 0.5 to 1, level 5 to 9.
- `hard` (digits): the second view and the game of `hard_affine` with its default rules. `kd_loss` is computed for twice
  as many images. A measurement covers two cycles of the game with all augmentor phases, divided by its epochs.
- `naive`: the loop of `benchmarks.training.naive_loop`: float32, Pillow and a DataLoader, hooks on every layer.
- `contiguous`, `bfloat16`, `compiled`: like `plain`, but with images and weights not in channels-last order; with
  autocast; with the teacher compiled by `torch.compile`, whose first epoch is in `first_s`. Not every case has all of
  them, because each takes minutes. In results of earlier versions, `unfolded` is like `plain`, which then folded the
  teacher's batch normalizations into its convolutions, but without the folding.

`plain` and `policy` are also timed by part (`benchmarks.training.step_parts`): rows with a `part` have its share of a
step.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch

from benchmarks.common.results_file import Row, argument_parser, start
from benchmarks.common.timing import Run, interleaved, spread
from benchmarks.common.training import load_demo
from benchmarks.training.naive_loop import naive_epochs
from benchmarks.training.step_parts import time_parts
from spaces import OPERATIONS, Entry, Genome, Policy
from spaces.augmentations import HardAffine
from spaces.operations import LEVELS
from spaces.policy.policy import TENTHS
from trainables import data as datasets
from trainables.data import DataSet, TensorImages
from trainables.distillation.objective import Distill
from trainables.distillation.student import Student
from trainables.models import build_model
from trainables.task import Task, TrainedTeacher
from trainables.training.recipe import Recipe

DIGITS, PAPERS = "digits, resnet8", "resnet20 <- resnet56"
"""Cases of the summary: the first for the policy and HARD, the second for the naive loop."""

SCHEDULED_EPOCHS = 1_000_000
"""Length of the learning-rate schedule, long enough that the rate hardly changes while it is measured."""

USUAL = ("plain", "policy", "naive")
VARIANTS = ("contiguous", "bfloat16", "compiled")


@dataclass(frozen=True)
class Case:
    """Arms that are measured together.

    Args:
        name: Name of the case.
        task: Task of the student.
        arms: Names of the arms.
        rounds: Number of measurements of each arm.
        seconds: Minimum duration of a measurement.
        timed_epochs: Epochs that are timed by part.
        threads: Threads of torch.
        device: Device that trains.
    """

    name: str
    task: Task
    arms: tuple[str, ...]
    rounds: int
    seconds: float
    timed_epochs: int
    threads: int = 1
    device: str = "cpu"


def main() -> None:
    """Measure all cases."""
    benchmark = start(__file__, argument_parser(__doc__))
    gpu = torch.cuda.is_available()
    torch.manual_seed(benchmark.seed)
    rows = [row for case in cases(benchmark.quick, benchmark.seed, gpu) for row in measure_case(case, benchmark.seed)]
    benchmark.finish(rows, summary(rows), gpu=gpu)


def cases(quick: bool, seed: int, gpu: bool) -> list[Case]:
    """Return all cases, in the order in which they are measured."""
    digits = {DIGITS: digits_task("resnet8", seed), "digits, mlp": digits_task("mlp", seed)}
    images = 16 if quick else 128
    shaped = {
        PAPERS: shaped_task("resnet20", "resnet56", images, images, seed),
        "wrn_16_2 <- wrn_40_2": shaped_task("wrn_16_2", "wrn_40_2", images, images, seed),
    }
    if quick:
        both = (*USUAL, "hard"), USUAL
        tasks = {DIGITS: digits[DIGITS], PAPERS: shaped[PAPERS]}
        return [Case(name, task, arms, 1, 0.0, 1) for (name, task), arms in zip(tasks.items(), both, strict=True)]
    measured = []
    for threads, device in [(1, "cpu"), (2, "cpu")] + [(1, "cuda")] * gpu:
        first = (threads, device) == (1, "cpu")
        for name, task in digits.items():
            arms = (*USUAL, "hard", "contiguous") if first else USUAL
            measured.append(Case(name, task, arms, 31 if first else 15, 0.05, 40, threads, device))
        for name, task in shaped.items():
            arms = (*USUAL, "bfloat16") if device == "cuda" else USUAL
            if first:
                arms += VARIANTS if name == PAPERS else ("contiguous", "bfloat16")
            measured.append(Case(name, task, arms, 9 if name == PAPERS else 5, 0.0, 3, threads, device))
    return measured


def summary(rows: Sequence[Row]) -> dict[str, float | None]:
    """Return the key figures, for one CPU thread."""
    whole = [row for row in rows if row["part"] == "all" and (row["threads"], row["device"]) == (1, "cpu")]
    ratios = {(row["case"], row["arm"]): row["over_plain"] for row in whole}
    naive_ratio = ratios[PAPERS, "naive"]
    return {
        "policy_over_plain": ratios[DIGITS, "policy"],
        "kd_over_naive": 1 / naive_ratio,
        "kd_over_naive_bfloat16": ratios[PAPERS, "bfloat16"] / naive_ratio if (PAPERS, "bfloat16") in ratios else None,
        "hard_over_kd": ratios[DIGITS, "hard"],
    }


def digits_task(model: str, seed: int) -> Task:
    """Return the task of the demo's student with another model."""
    config = load_demo()
    student = config.student
    if student is None:
        raise SystemExit("examples/digits.yaml has no student")
    data = datasets.load(**config.data.model_dump())
    return _task(data, config.teacher.model, model, student.recipe, student.distill, seed)


def shaped_task(student: str, teacher: str, images: int, batch: int, seed: int) -> Task:
    """Return the task of a student of the papers on random images of CIFAR-10's shape."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (images, 3, 32, 32), dtype=torch.uint8, generator=generator)
    part = TensorImages(pixels, torch.arange(images) % 10)
    mean, std = datasets.DATA["cifar10"].mean, datasets.DATA["cifar10"].std
    data = DataSet("random", 10, 3, 32, mean, std, 4, True, part, part, part)
    return _task(data, teacher, student, Recipe(batch_size=batch, lr=0.01), Distill(), seed)


def _task(data: DataSet, teacher: str, student: str, recipe: Recipe, distill: Distill, seed: int) -> Task:
    shape: dict[str, Any] = {"classes": data.classes, "channels": data.channels, "size": data.size}
    random_teacher = TrainedTeacher(teacher, build_model(teacher, seed=seed, **shape).state_dict())
    return Task("student", student, data, recipe, SCHEDULED_EPOCHS, teacher=random_teacher, distill=distill)


def strong_genome(seed: int) -> Genome:
    """Return a genome of 30 active entries with random probability 0.5 to 1 and level 5 to 9."""
    generator = np.random.default_rng(seed)
    ops = [*OPERATIONS] * 2
    probabilities = generator.integers(TENTHS // 2, TENTHS, len(ops), endpoint=True).tolist()
    levels = generator.integers(LEVELS // 2, LEVELS, len(ops)).tolist()
    return Genome(Policy(tuple(map(Entry, ops, probabilities, levels))))


def measure_case(case: Case, seed: int) -> list[Row]:
    """Return one row per arm, and one per part of the arms `plain` and `policy`."""
    torch.set_num_threads(case.threads)
    task, epochs = case.task.to(case.device), 1
    arms: dict[str, Run] = {}
    first_epoch: dict[str, float] = {}
    for arm in case.arms:
        if arm == "naive":
            arms[arm] = naive_epochs(case.task, seed, torch.device(case.device))
        elif arm == "hard":
            rules = HardAffine()
            epochs = math.ceil(2 * rules.student_steps * task.recipe.batch_size / len(task.data.train))
            arms[arm] = _repeat(_epoch(build_student(task, arm, seed, case.device)), epochs)
        else:
            run = _epoch(build_student(task, arm, seed, case.device))
            if arm == "compiled":
                started = time.perf_counter()
                try:
                    run(0)
                except Exception as error:  # a missing or failing compiler raises exceptions of many types
                    print(f"{case.name}: {arm} is skipped, {type(error).__name__}: {str(error).splitlines()[0]}")
                    continue
                first_epoch[arm] = time.perf_counter() - started
            arms[arm] = run
    values = interleaved(arms, rounds=case.rounds, seconds=case.seconds, seed=seed)
    values |= {arm: [value / epochs for value in values[arm]] for arm in values if arm == "hard"}
    rows = [_row(case, arm, values[arm], values["plain"], first_epoch.get(arm)) for arm in arms]
    for arm in ("plain", "policy"):
        parts = time_parts(build_student(task, arm, seed, case.device), case.timed_epochs)
        rows += [_part_row(case, arm, part, seconds, sum(parts.values())) for part, seconds in parts.items()]
    return rows


def build_student(task: Task, arm: str, seed: int, device: str) -> Student:
    """Return the student of an arm."""
    genomes: Mapping[str, Callable[[], Genome]] = {
        "policy": lambda: strong_genome(seed),
        "hard": lambda: Genome(augment=HardAffine()),
    }
    recipes = {"contiguous": {"channels_last": False}, "bfloat16": {"precision": "bfloat16"}}
    task = replace(task, recipe=replace(task.recipe, **recipes.get(arm, {})))
    student = cast(Student, task.learner(genomes.get(arm, Genome)(), seed=seed, device=device))
    assert student.teacher is not None
    if arm == "compiled":
        student.teacher.model.compile()
    return student


def _epoch(student: Student) -> Run:
    return lambda _number: student.step()


def _repeat(epoch: Run, count: int) -> Run:
    """Return a run of `count` epochs."""

    def epochs(number: int) -> None:
        for _ in range(count):
            epoch(number)

    return epochs


def _row_key(case: Case, arm: str, part: str) -> Row:
    where = {"case": case.name, "device": case.device, "threads": case.threads, "arm": arm, "part": part}
    return {**where, "batch": case.task.recipe.batch_size}


def _row(case: Case, arm: str, seconds: Sequence[float], plain: Sequence[float], first: float | None) -> Row:
    """Return the milliseconds per step, and the ratio to the arm `plain` of the same round."""
    absolute, ratio = spread(seconds), spread([one / other for one, other in zip(seconds, plain, strict=True)])
    steps = max(1, len(case.task.data.train) // case.task.recipe.batch_size)
    return _row_key(case, arm, "all") | {
        "ms": 1000 * absolute.median / steps,
        "lowest": 1000 * absolute.low / steps,
        "highest": 1000 * absolute.high / steps,
        "rounds": len(seconds),
        "over_plain": ratio.median,
        "first_quartile": ratio.quartiles[0],
        "third_quartile": ratio.quartiles[1],
        "first_s": first,
    }


def _part_row(case: Case, arm: str, part: str, seconds: float, total: float) -> Row:
    return _row_key(case, arm, part) | {"ms": 1000 * seconds, "share": seconds / total}


if __name__ == "__main__":
    main()
