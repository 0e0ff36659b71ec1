"""A study of searches: every arm in every repetition, on equal numbers of trained epochs, each confirmed alike.

A repetition has its own split and seeds. Rows are written to `benchmarks/results/NAME.rows.jsonl` as they come, so a
run that is cut off goes on where it was; the result file is written when all are there.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.common.direct_search import Trainer, confirmed, factorial, pipeline, population, random_search, tpe
from benchmarks.common.plots import save_plot
from benchmarks.common.results_file import RESULTS, ROOT, Benchmark, Row, current_commit, print_table, usable_cores
from benchmarks.common.training import train_teacher
from results.analysis.statistics import holm, interval, paired_p
from search.algorithms.base import member_seed
from spaces import BASELINES, Genome, Schedule, Space
from trainables.data import DataSet
from trainables.distillation.objective import Distill
from trainables.task import Task
from trainables.training.recipe import Recipe

FREE = tuple(BASELINES)
BEST_FREE, DEFAULT = "best_free", "default"
SEARCHES = ("random", "random_pba", "pba", "blind", "tpe", "factorial", DEFAULT)
ARMS = (*FREE, BEST_FREE, *SEARCHES)
OPPONENTS = (BEST_FREE, "random", "pba")


@dataclass(frozen=True)
class Setting:
    """Size of a study.

    Args:
        train: Training images.
        validation: Validation images.
        test: Test images.
        epochs: Epochs of a training.
        members: Trainings of `epochs` epochs of every search.
        trials: Trials of the factorial search in the default pipeline, each of two thirds of the epochs; the population
            that follows has the rest of the budget.
        seeds: Seeds of the last round of the confirmation.
        tests: Trainings whose mean is tested.
        repetitions: Repetitions.
        batch_size: Images in a batch.
        model: Network.
        teacher: Network of the student's teacher.
    """

    train: int
    validation: int
    test: int
    epochs: int
    members: int
    trials: int
    seeds: int
    tests: int
    repetitions: int
    batch_size: int = 50
    model: str = "mlp"
    teacher: str = "mlp"

    @property
    def trial_epochs(self) -> int:
        """Epochs of a factorial trial."""
        return max(1, self.epochs * 2 // 3)

    @property
    def pipeline(self) -> dict[str, Any]:
        """Arguments of `direct_search.pipeline`, whose searches have the epochs of `members` trainings together."""
        size = max(2, self.members - round(self.trials * self.trial_epochs / self.epochs))
        interval = max(1, self.epochs // 8)
        return {
            "trials": self.trials,
            "trial_epochs": self.trial_epochs,
            "size": size,
            "interval": interval,
            "growth": 1.5,
        }


QUICK = Setting(40, 60, 100, epochs=3, members=4, trials=4, seeds=1, tests=1, repetitions=1)


@dataclass(frozen=True)
class Job:
    """One repetition of one place: a data set or domain, in one role."""

    place: str
    role: str
    repetition: int
    seed: int
    setting: Setting


def run_study(
    benchmark: Benchmark,
    settings: Mapping[str, Setting],
    repeat: Callable[[Job], list[Row]],
    roles: Sequence[str] = ("teacher",),
    arms: Sequence[str] = ARMS,
) -> list[Row]:
    """Run what is missing of a study, and return its rows: one for each place, role, repetition and arm.

    Args:
        benchmark: Run of the benchmark.
        settings: Size of the study for each data set or domain.
        repeat: Importable function that runs a repetition; it returns a row for each of `arms`.
        roles: Roles that are searched.
        arms: Arms of the study.
    """
    path = None if benchmark.quick else RESULTS / f"{benchmark.name}.rows.jsonl"
    rows: list[Row] = [json.loads(line) for line in path.read_text().splitlines()] if path and path.is_file() else []
    known = {(row["place"], row["role"], row["repetition"], row["arm"]) for row in rows}
    jobs = [
        Job(place, role, number, 1000 * (benchmark.seed + 1) + number, setting)
        for number in range(max(setting.repetitions for setting in settings.values()))
        for place, setting in settings.items()
        for role in roles
        if number < setting.repetitions and any((place, role, number, arm) not in known for arm in arms)
    ]
    commit = "" if benchmark.quick else current_commit()
    with ProcessPoolExecutor(1 if benchmark.quick else usable_cores(), get_context("spawn")) as pool:
        futures = [pool.submit(repeat, job) for job in jobs]
        for future in as_completed(futures):
            for row in future.result():
                if (row["place"], row["role"], row["repetition"], row["arm"]) not in known:
                    rows.append(row | {"commit": commit})
                    if path:
                        _append(path, rows[-1])
    return rows


def _append(path: Path, row: Mapping[str, Any]) -> None:
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")


def compare_searches(job: Job, load: Callable[[str, Setting, int], DataSet]) -> list[Row]:
    """Run every arm of one repetition.

    Args:
        job: The repetition.
        load: Function from place, setting and seed to its data.
    """
    torch.set_num_threads(1)
    setting, seed = job.setting, job.seed
    trainer = Trainer(_task(job, load(job.place, setting, seed)))
    rows = []
    for arm in ARMS:
        started = time.process_time()
        before = len(trainer.known)
        found = _search(arm, trainer, setting, seed)
        winner = arm
        if arm in FREE:
            schedule = found
            assert schedule is not None
        else:
            schedule, decision = confirmed(trainer, found, setting.seeds)
            winner = decision.winner
        tested = [trainer.train(schedule, 3000 + number) for number in range(setting.tests)]
        alone = tested if found is None else [trainer.train(found, 3000 + number) for number in range(setting.tests)]
        rows.append(
            {
                "place": job.place,
                "role": job.role,
                "repetition": job.repetition,
                "arm": arm,
                "accuracy": float(np.mean([each["test_accuracy"] for each in tested])),
                "loss": float(np.mean([each["test_loss"] for each in tested])),
                "unconfirmed_accuracy": float(np.mean([each["test_accuracy"] for each in alone])),
                "winner": winner,
                "trainings": len(trainer.known) - before,
                "seconds": time.process_time() - started,
            }
        )
    return rows


def _task(job: Job, data: DataSet) -> Task:
    setting = job.setting
    recipe = Recipe(lr=0.05, batch_size=min(setting.batch_size, setting.train // 2))
    task = Task("teacher", setting.model, data, recipe, setting.epochs, data.validation)
    if job.role == "teacher":
        return task
    genome = Genome(BASELINES["randaugment"])
    _, teacher = train_teacher(replace(task, model=setting.teacher), member_seed(job.seed, "teacher", 1, 0), genome)
    return replace(task, role="student", teacher=teacher, distill=Distill(alpha=0.9))


def _search(arm: str, trainer: Trainer, setting: Setting, seed: int) -> Schedule | None:
    """Return what an arm finds, before its confirmation; None for the best free baseline, which is all confirmation."""
    scaled, pba = Space(genome="scaled"), Space(genome="pba")
    short = setting.trial_epochs
    if arm in FREE:
        return trainer.constant(Genome(BASELINES[arm]))
    if arm == BEST_FREE:
        return None
    if arm in ("random", "random_pba"):
        return random_search(trainer, scaled if arm == "random" else pba, seed, setting.members)
    if arm in ("pba", "blind"):
        blind = arm == "blind"
        interval = max(1, setting.epochs // 20)
        return population(
            trainer, pba, lambda _: pba.zero(), seed, size=setting.members, interval=interval, blind=blind
        )
    if arm == "tpe":
        return tpe(trainer, scaled, seed, setting.members)
    if arm == "factorial":
        return factorial(trainer, scaled, seed, setting.members * setting.epochs // short, short)
    assert arm == DEFAULT, arm
    return pipeline(trainer, scaled, seed, **setting.pipeline)


def aggregate(rows: Iterable[Row]) -> list[Row]:
    """Return one row for each place, role and arm, with its mean and 95 % interval over repetitions."""
    rows = list(rows)
    keys = dict.fromkeys((row["place"], row["role"], row["arm"]) for row in rows)
    found = []
    for place, role, arm in keys:
        own = sorted(
            (row for row in rows if (row["place"], row["role"], row["arm"]) == (place, role, arm)),
            key=lambda row: row["repetition"],
        )
        mean, half = interval([row["accuracy"] for row in own])
        found.append(
            {
                "place": place,
                "role": role,
                "arm": arm,
                "accuracy": mean,
                "half_width_95": half,
                "accuracy_by_repetition": [row["accuracy"] for row in own],
                "unconfirmed_accuracy": float(np.mean([row["unconfirmed_accuracy"] for row in own])),
                "loss": float(np.mean([row["loss"] for row in own])),
                "seconds": float(np.mean([row["seconds"] for row in own])),
            }
        )
    return found


def summarize(rows: Sequence[Row], names: Mapping[str, str]) -> dict[str, Any]:
    """Return the default pipeline minus each opponent in points, paired by repetition; p with Holm's correction.

    Args:
        rows: Rows of `aggregate`.
        names: What a place is called in the keys.
    """
    summary: dict[str, Any] = {}
    for (place, role), name in {(row["place"], row["role"]): names[row["place"]] for row in rows}.items():
        by_arm = {r["arm"]: r["accuracy_by_repetition"] for r in rows if (r["place"], r["role"]) == (place, role)}
        prefix = name if role == "teacher" else f"{role}_{name}"
        gains = {other: 100 * (np.array(by_arm[DEFAULT]) - np.array(by_arm[other])) for other in OPPONENTS}
        many = len(by_arm[DEFAULT]) > 1
        p = holm([paired_p(by_arm[DEFAULT], by_arm[other]) for other in OPPONENTS]) if many else [1.0] * len(OPPONENTS)
        for (other, gain), corrected in zip(gains.items(), p, strict=True):
            key = f"{prefix}_default_minus_{other}"
            mean, half = interval(gain.tolist())
            summary |= {key: mean, f"half_width_{key}": half, f"p_{key}": corrected}
        summary[f"repetitions_{prefix}"] = len(by_arm[DEFAULT])
    return summary


COLORS = {DEFAULT: "#d55e00", BEST_FREE: "#0072b2"}
LABELS = {
    BEST_FREE: "best free baseline",
    DEFAULT: "default pipeline",
    "random": "best of random",
    "random_pba": "best of random, PBA's space",
    "pba": "PBA from zero",
    "blind": "PBA, blind",
    "tpe": "TPE",
}


def plot_study(rows: Sequence[Row], file: Path) -> None:
    """Plot each arm minus the best free baseline, paired by repetition, with mean and 95 % interval.

    There is a panel for each place and role. An arm that is far below the others is a number at the edge.

    Args:
        rows: Rows of `aggregate`.
        file: PNG file to write.
    """
    from matplotlib.figure import Figure  # every worker process would wait for this import

    panels = list(dict.fromkeys((row["place"], row["role"]) for row in rows))
    figure = Figure(figsize=(4.2 * len(panels) + 1, 4.6), layout="constrained")
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for panel, (place, role) in zip(axes, panels, strict=True):
        by_arm = {r["arm"]: r["accuracy_by_repetition"] for r in rows if (r["place"], r["role"]) == (place, role)}
        reference = np.array(by_arm[BEST_FREE])
        gains = {arm: 100 * (np.array(values) - reference) for arm, values in reversed(by_arm.items())}
        best = max(gain.max() for gain in gains.values())
        edge = -1.5 * max(best, 1.0)
        for height, (arm, gain) in enumerate(gains.items()):
            color = COLORS.get(arm, "#525252")
            mean, half = interval(gain.tolist())
            if mean < edge:
                panel.text(edge, height, f"◂ {mean:.1f}".replace("-", "−"), va="center", fontsize=9, color=color)
                continue
            panel.scatter(gain, [height] * len(gain), s=14, color=color, alpha=0.35, linewidths=0)
            panel.errorbar(mean, height, xerr=half or 0, fmt="D", color=color, markersize=5)
        panel.axvline(0, color=COLORS[BEST_FREE], linewidth=0.8, alpha=0.6, zorder=0)
        panel.set_xlim(edge * 1.05, best * 1.08)
        panel.set_yticks(range(len(gains)), [LABELS.get(arm, arm) for arm in gains])
        panel.set_title(f"{place.partition('=')[0]}, {role}", fontsize=11)
        panel.set_xlabel("test accuracy − best free baseline, points")
    save_plot(figure, axes, file)


def finish_study(benchmark: Benchmark, rows: Sequence[Row], names: Mapping[str, str]) -> None:
    """Write the result file and a plot where every place was run; else print the table of what there is.

    Args:
        benchmark: Run of the benchmark.
        rows: Rows of `aggregate`.
        names: Places of the whole study, and what they are called in the keys of the summary.
    """
    if {row["place"] for row in rows} < set(names):
        print_table(f"{benchmark.name}, so far", rows)
        return
    if not benchmark.quick:
        plot_study(rows, ROOT / "docs" / "images" / f"{benchmark.name}.png")
    benchmark.finish(rows, summarize(rows, names), peers=("optuna",))
