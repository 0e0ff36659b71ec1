"""What a training step costs, whole and in parts, and what of it the defaults save.

Cases: the demo's data and settings (examples/digits.yaml) with a resnet8 for a student, and with the demo's own, a
perceptron whose step is so short that all else shows; and on random images of CIFAR-10's shape, in batches of 128, the
pairs of the papers, resnet20 ← resnet56 and wrn_16_2 ← wrn_40_2. Each on one thread and on two, and on a GPU where
there is one. The arms are whole epochs, `learner.step()` for ours, of the same distillation. They take turns, so that
an arm's ratio is the median of paired ratios, epoch against epoch of the same round.

- `plain`: the student's epoch with the identity for a policy, all settings as they are by default. The arm that all
  others are measured against.
- `policy`: 30 entries that are all in force, drawn strong at random: probability 0.5 to 1, level 5 to 9.
- `hard`, on digits: the second view and the game of `hard_affine` at its default rules, with which `kd_loss` is asked
  for twice as many images; each turn is two cycles of the game, augmentor phases and all, shared out over its epochs.
- `naive`: the loop of benchmarks/training/naive_loop.py: float32, Pillow and a DataLoader, hooks on every layer.
- `unfolded`, `contiguous`, `bfloat16`, `compiled`: as `plain`, but the teacher's batch normalizations not folded;
  images and weights not in channels-last order; autocast; the teacher compiled by `torch.compile`, whose first epoch is
  in `first_s`. Not every case has all of them: each costs minutes.

`plain` and `policy` are taken apart too (benchmarks/training/step_parts.py): rows with a `part` say what share of a step it has.
The teacher's weights are random, which costs the same.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import torch

from benchmarks.common.results_file import ROOT, Row, argument_parser, start
from benchmarks.common.timing import Run, interleaved, spread
from benchmarks.training.naive_loop import naive
from benchmarks.training.step_parts import apart
from search.config.schema import SweepConfig
from spaces import OPERATIONS, Entry, Genome, Policy
from spaces.augmentations import HardAffine
from spaces.operations import LEVELS
from spaces.policy.policy import TENTHS
from trainables import data as datasets
from trainables.data import DataSet, TensorImages
from trainables.distillation.student import Distill, Student
from trainables.models import build_model
from trainables.task import Task, TrainedTeacher
from trainables.training.folding import unfold
from trainables.training.recipe import Recipe

DIGITS, PAPERS = "digits, resnet8", "resnet20 <- resnet56"
"""The cases that the summary takes: of policy and HARD, and of the naive loop."""

LONG = 1_000_000
"""Epochs that the learning rate is laid over, so that it hardly moves while we measure."""

USUAL = ("plain", "policy", "naive")
VARIANTS = ("unfolded", "contiguous", "bfloat16", "compiled")


@dataclass(frozen=True)
class Case:
    """What is measured together.

    Args:
        name: of the case.
        task: the student's.
        arms: which.
        rounds: how often each is measured.
        seconds: that a measurement takes at least.
        apart: epochs that are taken apart.
        threads: of torch.
        device: where.
    """

    name: str
    task: Task
    arms: tuple[str, ...]
    rounds: int
    seconds: float
    apart: int
    threads: int = 1
    device: str = "cpu"


def main() -> None:
    """Measure all cases."""
    benchmark = start(__file__, argument_parser(__doc__))
    gpu = torch.cuda.is_available()
    torch.manual_seed(benchmark.seed)
    rows = [row for case in cases(benchmark.quick, benchmark.seed, gpu) for row in of_case(case, benchmark.seed)]
    benchmark.finish(rows, summary(rows), gpu=gpu)


def cases(quick: bool, seed: int, gpu: bool) -> list[Case]:
    """Everything that is measured, in its order."""
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
    found = []
    for threads, device in [(1, "cpu"), (2, "cpu")] + [(1, "cuda")] * gpu:
        first = (threads, device) == (1, "cpu")
        for name, task in digits.items():
            arms = (*USUAL, "hard", "unfolded", "contiguous") if first else USUAL
            found.append(Case(name, task, arms, 31 if first else 15, 0.05, 40, threads, device))
        for name, task in shaped.items():
            arms = (*USUAL, "bfloat16") if device == "cuda" else USUAL
            if first:
                arms += VARIANTS if name == PAPERS else ("contiguous", "bfloat16")
            found.append(Case(name, task, arms, 9 if name == PAPERS else 5, 0.0, 3, threads, device))
    return found


def summary(rows: Sequence[Row]) -> dict[str, float | None]:
    """The figures that others read: one thread of the CPU."""
    whole = [row for row in rows if row["part"] == "all" and (row["threads"], row["device"]) == (1, "cpu")]
    ratios = {(row["case"], row["arm"]): row["over_plain"] for row in whole}
    naive = ratios[PAPERS, "naive"]
    return {
        "policy_over_plain": ratios[DIGITS, "policy"],
        "kd_over_naive": 1 / naive,
        "kd_over_naive_bfloat16": ratios[PAPERS, "bfloat16"] / naive if (PAPERS, "bfloat16") in ratios else None,
        "hard_over_kd": ratios[DIGITS, "hard"],
    }


def digits_task(model: str, seed: int) -> Task:
    """The demo's student, with this model."""
    config = SweepConfig.load(ROOT / "examples" / "digits.yaml")
    student = config.student
    if student is None:
        raise SystemExit("examples/digits.yaml has no student")
    data = datasets.load(**config.data.model_dump())
    return _task(data, config.teacher.model, model, student.recipe, student.distill, seed)


def shaped_task(student: str, teacher: str, images: int, batch: int, seed: int) -> Task:
    """A student of the CIFAR papers on random images, so many an epoch."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (images, 3, 32, 32), dtype=torch.uint8, generator=generator)
    part = TensorImages(pixels, torch.arange(images) % 10)
    mean, std = datasets.DATA["cifar10"].mean, datasets.DATA["cifar10"].std
    data = DataSet("random", 10, 3, 32, mean, std, 4, True, part, part, part)
    return _task(data, teacher, student, Recipe(batch_size=batch, lr=0.01), Distill(), seed)


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


def of_case(case: Case, seed: int) -> list[Row]:
    """A row for each arm, and for each part of two of them."""
    torch.set_num_threads(case.threads)
    task, epochs = case.task.to(case.device), 1
    arms: dict[str, Run] = {}
    first: dict[str, float] = {}
    for arm in case.arms:
        if arm == "naive":
            arms[arm] = naive(case.task, seed, torch.device(case.device))
        elif arm == "hard":
            rules = HardAffine()
            epochs = math.ceil(2 * rules.student_steps * task.recipe.batch_size / len(task.data.train))
            arms[arm] = _in_turns(_epoch(learner(task, arm, seed, case.device)), epochs)
        else:
            run = _epoch(learner(task, arm, seed, case.device))
            if arm == "compiled":
                begun = time.perf_counter()
                try:
                    run(0)
                except Exception as error:  # whatever a compiler that is not there, or not understood, raises
                    print(f"{case.name}: {arm} is left out, {type(error).__name__}: {str(error).splitlines()[0]}")
                    continue
                first[arm] = time.perf_counter() - begun
            arms[arm] = run
    figures = interleaved(arms, rounds=case.rounds, seconds=case.seconds, seed=seed)
    figures |= {arm: [turn / epochs for turn in figures[arm]] for arm in figures if arm == "hard"}
    rows = [_row(case, arm, figures[arm], figures["plain"], first.get(arm)) for arm in arms]
    for arm in ("plain", "policy"):
        parts = apart(learner(task, arm, seed, case.device), case.apart)
        rows += [_part(case, arm, part, seconds, sum(parts.values())) for part, seconds in parts.items()]
    return rows


def learner(task: Task, arm: str, seed: int, device: str) -> Student:
    """The student of an arm."""
    genomes: Mapping[str, Callable[[], Genome]] = {
        "policy": lambda: strong_genome(seed),
        "hard": lambda: Genome(augment=HardAffine()),
    }
    recipes = {"contiguous": {"channels_last": False}, "bfloat16": {"precision": "bfloat16"}}
    task = replace(task, recipe=replace(task.recipe, **recipes.get(arm, {})))
    found = cast(Student, task.learner(genomes.get(arm, Genome)(), seed=seed, device=device))
    assert found.teacher is not None
    if arm == "unfolded":
        unfold(found.teacher.model)
    if arm == "compiled":
        found.teacher.model.compile()
    return found


def _epoch(student: Student) -> Run:
    return lambda _turn: student.step()


def _in_turns(epoch: Run, count: int) -> Run:
    """`count` epochs at once."""

    def turn(number: int) -> None:
        for _ in range(count):
            epoch(number)

    return turn


def _about(case: Case, arm: str, part: str) -> Row:
    where = {"case": case.name, "device": case.device, "threads": case.threads, "arm": arm, "part": part}
    return {**where, "batch": case.task.recipe.batch_size}


def _row(case: Case, arm: str, taken: Sequence[float], plain: Sequence[float], first: float | None) -> Row:
    """Milliseconds a step, and their ratio to the plain arm's of the same round."""
    own, ratio = spread(taken), spread([mine / other for mine, other in zip(taken, plain, strict=True)])
    steps = max(1, len(case.task.data.train) // case.task.recipe.batch_size)
    return _about(case, arm, "all") | {
        "ms": 1000 * own.median / steps,
        "lowest": 1000 * own.low / steps,
        "highest": 1000 * own.high / steps,
        "rounds": len(taken),
        "over_plain": ratio.median,
        "first_quartile": ratio.quartiles[0],
        "third_quartile": ratio.quartiles[1],
        "first_s": first,
    }


def _part(case: Case, arm: str, part: str, seconds: float, total: float) -> Row:
    return _about(case, arm, part) | {"ms": 1000 * seconds, "share": seconds / total}


if __name__ == "__main__":
    main()
