"""Sweeps with many trials and without training: the driver's cost per report, and the regret of each search.

Nothing is trained and Ray is not started. `benchmarks.scheduling.simulated_tune` makes the calls of Ray Tune's
controller, and `benchmarks.scheduling.response_surface` takes the place of training. Everything between is that of a
sweep: the search algorithm and its scheduler, the searcher, the journal on disk, the callback, and MLflow on SQLite.

**Driver.** A population of 64, 256 and 1,024 trials, of which a quarter run at once, reports 60 epochs each, as fast as
the driver handles them. The space is PBA's, 60 numbers per genome, perturbed every third epoch. `driver_ms` is the CPU
time of the main thread per report, which trials wait for. `tracking_ms` is that of all other threads, that is, of
delivery to MLflow in the background. The work of Ray and of the workers is not included. `memory_mb` is the largest
memory of the process minus that before the first run. `rows_waiting` are the metrics that MLflow had not received when
the last trial ended; their events wait in the journal, on disk. `mlflow_rows_per_s` counts the metrics received, from
the first report until the last one arrived. Journal and store lie in the folder for temporary files, which was in
memory for the committed results, so no disk is measured.

**Regret.** On a surface of 8 numbers each search has the same budget in epochs, that of 16 members with 60 epochs. TPE
with ASHA starts with as many members as that budget allows; `epochs` is what it used, because later members are better
and more than one in three continue. The schedule that a search returns is trained on the surface without noise. Its
regret is the skill of the best schedule minus its own. On `moving` the best genome changes during training, on `still`
it does not; the regret of the best constant genome shows what schedules can gain. Seeds are paired: all searches get
the same surfaces. p is that of a paired t test of PBT against each other search, corrected over both surfaces (Holm
1979). `benchmarks.scheduling.response_surface` lists the limits of the surface. With other widths, budgets or noise the
order of the searches may differ.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from ray.tune.schedulers import FIFOScheduler

from benchmarks.common.results_file import Benchmark, Row, argument_parser, start
from benchmarks.common.search import algorithm_class, build_search, search_settings
from benchmarks.scheduling.response_surface import KINDS, SimulatedTraining, Surface
from benchmarks.scheduling.simulated_tune import Controller
from results.analysis.statistics import holm, interval, paired_p
from results.tracking.tracker import Tracker
from search.algorithms.base import SearchResult
from search.config.sections import SearchConfig
from search.execution.callbacks import SweepCallback
from search.execution.journal import Journal
from search.execution.progress import ProgressReporter
from search.execution.trials import JournalCallback, outcome, trial_config
from spaces import Phase, Space
from trainables import Recipe, Task
from trainables.data import load

SEARCHES: dict[str, dict[str, str]] = {
    "pbt": {"algorithm": "pbt"},
    "pb2": {"algorithm": "pb2"},
    "tpe_asha": {"algorithm": "tpe", "early_stopping": "asha"},
    "random": {"algorithm": "random"},
}
"""Settings of each search besides its size."""

SMALL = Space(operations=("Rotate", "ShearX", "Color", "Posterize"), copies=1)
"""Search space of the regret: 8 numbers."""

MEMORY_INTERVAL = 64
"""Reports between two readings of the memory."""


@dataclass(frozen=True)
class Setting:
    """Size of the benchmark.

    Args:
        sizes: Population sizes for the driver's cost.
        epochs: Epochs of every member.
        interval: Epochs between perturbations, and up to the first rung.
        members: Size of the population whose budget all searches have.
        seeds: Surfaces of each kind. Each search runs once on each.
    """

    sizes: tuple[int, ...]
    epochs: int
    interval: int
    members: int
    seeds: int


SIZES = (64, 256, 1024)
FULL = Setting(sizes=SIZES, epochs=60, interval=3, members=16, seeds=20)
QUICK = Setting(sizes=(4, 8, 16), epochs=6, interval=2, members=4, seeds=2)


def main() -> None:
    """Measure the driver's cost and the regret."""
    benchmark = start(__file__, argument_parser(__doc__))
    logging.getLogger("ray.tune").setLevel(logging.WARNING)  # it logs every copy
    setting = QUICK if benchmark.quick else FULL
    driver(QUICK.sizes[0], QUICK, benchmark.seed, 0.0)  # imports and compiles, which no report should pay for
    before = memory()
    rows = [driver(size, setting, benchmark.seed, before) for size in setting.sizes]
    regret_rows = [row for kind in KINDS for row in regrets(kind, setting, benchmark)]
    keys = {"driver_ms": "driver_ms_per_report", "tracking_ms": "tracking_ms_per_report", "memory_mb": "memory_mb"}
    keys |= {"mlflow_rows_per_s": "mlflow_rows_per_s"}
    summary = {
        f"{key}_{size}": row[column] for column, key in keys.items() for size, row in zip(SIZES, rows, strict=True)
    }
    benchmark.finish([*rows, *regret_rows], summary | summarize(regret_rows), peers=("ray", "mlflow", "optuna"))


class SurfaceSearch:
    """Search of a surface by a real search algorithm, run by the simulated controller.

    Args:
        settings: Settings of the search.
        surface: Surface in place of training.
        seed: Seed of the search.
        callback: Callback of the journal.
        slots: Trials that run at once.
        on_report: Called after each report.
    """

    def __init__(
        self,
        settings: SearchConfig,
        surface: Surface,
        seed: int,
        callback: JournalCallback,
        slots: int,
        on_report: Callable[[], None] = lambda: None,
    ) -> None:
        """Build the search and its controller."""
        self._journal, interval = callback.journal, settings.interval
        data = load("digits", train=100, validation=100)
        task = Task("teacher", "mlp", data, Recipe(), surface.epochs, data.validation, interval)
        name = f"teacher-{settings.algorithm}"
        self.search = build_search(name, settings, task, callback, seed=seed, space=surface.space)
        callback.begin(task, self.search.members)
        searcher = self.search.searcher(())
        members = () if searcher else self.search.members
        self.controller = Controller(
            SimulatedTraining(surface, interval),
            self.search.scheduler() or FIFOScheduler(),
            callback,
            self._journal.trials / self.search.name,
            slots=slots,
            epochs=surface.epochs,
            configs=[{"member": trial_config(member, self._journal, interval)} for member in members],
            searcher=searcher,
            seed=seed,
            on_report=on_report,
        )

    def run(self) -> SearchResult:
        """Run all trials and return the result."""
        self.controller.run()
        progress = [self._journal.progress(member.name) for member in self.search.members]
        return self.search.result([outcome(each, self.search.search.interval) for each in progress], {})


# The driver -----------------------------------------------------------------------------------------------------------


def driver(size: int, setting: Setting, seed: int, before: float) -> Row:
    """Return the driver's cost for a population of that size; `before` is the memory before the first run, in MB."""
    surface = Surface.sample("moving", Space(), setting.epochs, seed)
    peak = [before]
    with TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        tracker = Tracker.open(folder, "scale", f"sqlite:///{folder / 'mlflow.db'}")
        with Journal(folder) as journal, tracker.follow(journal):
            tracker.start("scale")
            tracker.flush()
            callback = SweepCallback(journal, ProgressReporter(None, 0))

            def read_memory() -> None:
                if search.controller.reports % MEMORY_INTERVAL == 0:
                    peak[0] = max(peak[0], memory())

            settings = search_settings("pbt", size=size, epochs=setting.epochs, interval=setting.interval)
            search = SurfaceSearch(settings, surface, seed, callback, max(1, size // 4), read_memory)
            wall, main_thread, process = time.perf_counter(), time.thread_time(), time.process_time()
            search.run()
            main_thread = time.thread_time() - main_thread - search.controller.worker_s
            ended, received = time.perf_counter() - wall, count_metrics(folder)
            tracker.flush(3600)
            flushed = time.perf_counter() - wall
            process = time.process_time() - process - search.controller.worker_s
            total = count_metrics(folder)
    reports = search.controller.reports
    return {
        "what": "driver",
        "trials": size,
        "reports": reports,
        "driver_ms": 1000 * main_thread / reports,
        "tracking_ms": 1000 * (process - main_thread) / reports,
        "seconds": ended,
        "seconds_until_flushed": flushed,
        "memory_mb": peak[0] - before,
        "mlflow_rows": total,
        "rows_waiting": total - received,
        "mlflow_rows_per_s": total / flushed,
    }


def memory() -> float:
    """Return the resident memory of this process in MB."""
    pages = int(Path("/proc/self/statm").read_text("utf-8").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def count_metrics(folder: Path) -> int:
    """Return the number of metrics in MLflow's store."""
    with sqlite3.connect(folder / "mlflow.db") as store:
        return int(store.execute("SELECT count(*) FROM metrics").fetchone()[0])


# Regret ---------------------------------------------------------------------------------------------------------------


def regrets(kind: str, setting: Setting, benchmark: Benchmark) -> list[Row]:
    """Return the regret of each search and of the best constant genome on surfaces of one kind."""
    by_seed: dict[str, list[float]] = {name: [] for name in (*SEARCHES, "best_slices", "best_constant")}
    spent: dict[str, list[int]] = {name: [] for name in SEARCHES}
    for number in range(setting.seeds):
        seed = 1000 * benchmark.seed + number
        surface = Surface.sample(kind, SMALL, setting.epochs, seed)
        best = surface.final_skill(surface.best_phases(1))
        for name, interval_ in (("best_slices", setting.interval), ("best_constant", setting.epochs)):
            by_seed[name].append(best - surface.final_skill(surface.best_phases(interval_)))
        for name, options in SEARCHES.items():
            phases, epochs = search_within_budget(options, surface, setting, seed)
            by_seed[name].append(best - surface.final_skill(phases))
            spent[name].append(epochs)
    rows = []
    for name, values in by_seed.items():
        mean, half = interval(values)
        row: Row = {"what": "regret", "surface": kind, "search": name, "regret": mean, "half_width_95": half}
        row |= {"epochs": float(np.mean(spent[name]))} if name in spent else {}
        rows.append(row | {"regret_by_seed": values})
    return rows


def search_within_budget(
    options: Mapping[str, str], surface: Surface, setting: Setting, seed: int
) -> tuple[Sequence[Phase], int]:
    """Search with as many members as the budget allows, and return the schedule's phases and the epochs used.

    With ASHA the number of members that continue is known only at the end. If the budget is exceeded, the search is
    repeated with fewer members.

    Args:
        options: Settings of the search besides its size: a value of `SEARCHES`.
        surface: Surface in place of training.
        setting: Size of the benchmark.
        seed: Seed of the search.
    """
    size, whole = setting.members, setting.members * setting.epochs

    def settings() -> SearchConfig:
        return search_settings(**options, size=size, epochs=setting.epochs, interval=setting.interval)

    algorithm = algorithm_class(settings())
    while algorithm.stops_early and algorithm.budget(settings(), surface.space) < whole:
        size += 1
    while True:
        with TemporaryDirectory(ignore_cleanup_errors=True) as folder, Journal(Path(folder)) as journal:
            search = SurfaceSearch(settings(), surface, seed, JournalCallback(journal), setting.members)
            result, spent = search.run(), search.controller.reports
        if spent <= whole or size == 2:
            return result.schedule.phases, spent
        size = max(2, min(size - 1, size * whole // spent))


def summarize(rows: Sequence[Row]) -> dict[str, Any]:
    """Return the regrets by search on both kinds of surface, and the p of PBT against each other search."""
    values = {(row["surface"], row["search"]): row["regret_by_seed"] for row in rows}
    summary: dict[str, Any] = {}
    for (kind, name), by_seed in values.items():
        summary[f"regret_{name}" if kind == "moving" else f"regret_{kind}_{name}"] = float(np.mean(by_seed))
    pairs = [(kind, name) for kind in KINDS for name in SEARCHES if name != "pbt"]
    p = holm([paired_p(values[kind, "pbt"], values[kind, name]) for kind, name in pairs])
    return summary | {f"p_{kind}_pbt_minus_{name}": one for (kind, name), one in zip(pairs, p, strict=True)}


if __name__ == "__main__":
    main()
