"""What it saves to train several students as one batched computation (`trainables.Stack`), on one thread.

Members of one task with seeds and strong policies of their own learn from one teacher. Three cases: the demo's data
and settings (examples/digits.yaml) with its perceptron and with a resnet8 for a student, 2, 4 and 8 members; and
resnet56 → resnet20 on random images of CIFAR-10's shape in batches of 128, 4 members. What is timed:

- `epoch`: one epoch of every member: each steps alone, one after the other; against one step of their stack.
- `network`: a student's forward and backward on one batch for each member; against all of them by `torch.vmap`.
- `teacher`: the teacher's answers to one batch for each member; against one call with all their images.

Separate and stacked take turns, and `stacked_over_separate`, seconds over seconds, is the median over rounds: below 1
the stack is faster. `apart` is the largest difference of any weight or statistic after one epoch from the same start;
it is float32's rounding, which training then carries on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from benchmarks.record import Row, arguments, start
from benchmarks.step import digits_task, shaped_task, strong_genome
from benchmarks.timing import Run, interleaved, spread
from trainables.learner import Learner
from trainables.stacked import Joined, Stack
from trainables.task import Task

Pair = tuple[Callable[[], object], Callable[[], object]]
"""The same work, done for one member after the other, and for all at once."""


def main() -> None:
    """Measure all cases."""
    benchmark = start(__file__, arguments(__doc__))
    quick, seed = benchmark.quick, benchmark.seed
    torch.set_num_threads(1)
    rows: list[Row] = []
    for model in ("mlp", "resnet8"):
        for members in (2, 4, 8):
            rows += of_case(digits_task(model, seed), members, rounds=1 if quick else 31, seed=seed)
    images = 16 if quick else 128  # one batch an epoch
    rows += of_case(shaped_task("resnet20", "resnet56", images, images, seed), 4, rounds=1 if quick else 3, seed=seed)
    benchmark.finish(rows, summary(rows))


def of_case(task: Task, members: int, *, rounds: int, seed: int) -> list[Row]:
    """A row for each piece of work."""
    separate, stacked = population(task, members, seed), population(plain(task), members, seed)
    stack = Stack(stacked)
    for learner in separate:
        learner.step()
    stack.step()
    difference = apart(separate, stacked)
    pairs: dict[str, Pair] = {"epoch": (lambda: [learner.step() for learner in separate], stack.step)}
    return [
        row | {"apart": difference if row["what"] == "epoch" else None}
        for what, pair in (pairs | parts(task, members, seed)).items()
        for row in [_row(task, members, what, pair, rounds, seed)]
    ]


def plain(task: Task) -> Task:
    """The same with weights in the plain order, which a stack needs; alone, networks have them as they like it best."""
    return replace(task, recipe=replace(task.recipe, channels_last=False))


def population(task: Task, members: int, seed: int) -> list[Learner]:
    """Learners with policies and seeds of their own."""
    return [task.learner(strong_genome(seed + member), seed=seed + member) for member in range(members)]


def parts(task: Task, members: int, seed: int) -> dict[str, Pair]:
    """The work of one batch that a stack does at once."""
    learners, others = population(task, members, seed), population(plain(task), members, seed)
    for learner in (*learners, *others):
        learner.model.train()
    one, data = Joined([learner.model for learner in others]), task.data
    shape = (members, task.recipe.batch_size, data.channels, data.size, data.size)
    images = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    teacher = learners[0].teacher
    if teacher is None:
        raise SystemExit("the task has no teacher")

    def each() -> None:
        for learner, batch in zip(learners, images, strict=True):
            learner.forget()
            learner.model(batch).sum().backward()

    def all_at_once() -> None:
        one.backward(one(images).sum())

    def asked() -> list[Tensor]:
        return [teacher(batch) for batch in images]

    return {"network": (each, all_at_once), "teacher": (asked, lambda: teacher(images.flatten(0, 1)))}


def apart(some: Sequence[Learner], others: Sequence[Learner]) -> float:
    """The largest difference of any number in the networks' states."""
    states = [[learner.model.state_dict() for learner in learners] for learners in (some, others)]
    return max(
        float((value.double() - other[name].double()).abs().max())
        for one, other in zip(*states, strict=True)
        for name, value in one.items()
    )


def summary(rows: Sequence[Row]) -> dict[str, float]:
    """Of the epochs: seconds of the stack over those of its members one by one."""
    return {
        f"stacked_over_separate_{row['model']}_{row['members']}": row["stacked_over_separate"]
        for row in rows
        if row["what"] == "epoch"
    }


def _row(task: Task, members: int, what: str, pair: Pair, rounds: int, seed: int) -> Row:
    runs: dict[str, Run] = {
        name: lambda _turn, work=work: work() for name, work in zip(("separate", "stacked"), pair, strict=True)
    }
    taken = interleaved(runs, rounds=rounds, seconds=0.0 if rounds == 1 else 0.05, seed=seed)
    ratio = spread([mine / other for mine, other in zip(taken["stacked"], taken["separate"], strict=True)])
    return {
        "model": task.model,
        "teacher": task.teacher.model if task.teacher is not None else None,
        "size": task.data.size,
        "batch": task.recipe.batch_size,
        "members": members,
        "what": what,
        "separate_s": spread(taken["separate"]).median,
        "stacked_s": spread(taken["stacked"]).median,
        "stacked_over_separate": ratio.median,
        "first_quartile": ratio.quartiles[0],
        "third_quartile": ratio.quartiles[1],
        "rounds": rounds,
    }


if __name__ == "__main__":
    main()
