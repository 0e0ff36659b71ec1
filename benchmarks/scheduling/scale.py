"""Sweeps of many trials, without training: what a report costs the driver, and which search finds the best schedule.

Nothing is trained and no Ray is started: `benchmarks.scheduling.simulated_tune` calls what it is given as Ray Tune's controller would,
and `benchmarks.scheduling.response_surface` answers in place of a training. Everything between is what a sweep has: the stage and its
scheduler, the searcher, the journal on disk, the listener, and MLflow on SQLite.

**Driver.** A population of 64, 256 and 1,024 trials, a quarter of them at once, reports 60 epochs each, as fast as the
driver takes them; PBA's space, so 60 numbers a genome, perturbed every third epoch. `driver_ms` is processor time of
the main thread for each report, which keeps trials waiting; `tracking_ms` that of all other threads, which is the one
that tells MLflow, in the background. What workers would have done is not counted, and neither is what Ray itself does.
`memory_mb` is what the process had at most, beyond what it had before the first run. `rows_waiting` are metrics that
MLflow had not taken yet when the last trial ended: nothing but the length of the sweep bounds them, and memory holds
them. `mlflow_rows_per_s` counts the metrics that arrived, from the first report until the last one was there. Journal
and store lie in the folder for temporary files; that of the committed figures was in memory, so no disk is measured.

**Regret.** On a surface of 8 numbers each search has the same budget in epochs: that of 16 members of 60. TPE with ASHA
begins with as many members as spend no more than that; `epochs` says how much it was: since later members are better,
more of them go on than one in three. What a search returns is trained by the surface without noise; its regret is the
skill that the best schedule has there minus that. `moving` is a surface where the best genome changes over a training,
`still` one where it does not: the best constant's regret on either says what schedules can win. Seeds are paired: the
same surface for all. p is Student's paired t test of PBT against each other search, after Holm over both surfaces. What
the surface can show, and what not, stands in `benchmarks.scheduling.response_surface`; with other widths, budgets or noise the order may be
another.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from ray.tune.schedulers import FIFOScheduler

from benchmarks.common.results_file import Benchmark, Row, argument_parser, start
from benchmarks.scheduling.response_surface import KINDS, Surface, Training
from benchmarks.scheduling.simulated_tune import Controller
from results.analysis.statistics import holm, interval, paired_p
from results.tracking.tracker import Tracker
from search.algorithms.base import Kind, SearchResult
from search.algorithms.successive_halving import budget
from search.algorithms.tpe import Suggestions, TPESearch
from search.config.schema import SearchConfig, StageConfig
from search.execution.callbacks import SweepCallback
from search.execution.journal import Journal
from search.execution.progress import ProgressReporter
from search.execution.trials import JournalCallback, outcome, trial_config
from search.sweeps.runner import stage_class
from spaces import Phase, Space
from trainables import Recipe, Task
from trainables.data import load

SEARCHES: dict[str, Kind] = {"pbt": "pbt", "pb2": "pb2", "tpe_asha": "tpe+asha", "random": "random"}

SMALL = Space(operations=("Rotate", "ShearX", "Color", "Posterize"), copies=1)
"""Where regret is compared: 8 numbers."""

EVERY = 64
"""Reports from one look at the memory to the next."""


@dataclass(frozen=True)
class Setting:
    """How much there is to do.

    Args:
        sizes: of the populations that the driver's cost is measured with.
        epochs: of every member.
        interval: epochs between perturbations, and to the first rung.
        members: of the population whose budget all searches have.
        seeds: surfaces of each kind, each searched once by each search.
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
    """Measure both, and compare."""
    benchmark = start(__file__, argument_parser(__doc__))
    logging.getLogger("ray.tune").setLevel(logging.WARNING)  # it tells of every copy
    setting = QUICK if benchmark.quick else FULL
    driver(QUICK.sizes[0], QUICK, benchmark.seed, 0.0)  # what is imported and compiled once is no report's
    before = memory()
    rows = [driver(size, setting, benchmark.seed, before) for size in setting.sizes]
    compared = [row for kind in KINDS for row in regrets(kind, setting, benchmark)]
    told = {"driver_ms": "driver_ms_per_report", "tracking_ms": "tracking_ms_per_report", "memory_mb": "memory_mb"}
    told |= {"mlflow_rows_per_s": "mlflow_rows_per_s"}
    summary = {f"{key}_{size}": row[part] for part, key in told.items() for size, row in zip(SIZES, rows, strict=True)}
    benchmark.finish([*rows, *compared], summary | figures(compared), peers=("ray", "mlflow", "optuna"))


class Search:
    """One search of a surface by a real stage, with what moves it, and the stand-in that runs it.

    Args:
        kind: of the search.
        size: members.
        surface: that they are trained on.
        every: epochs between perturbations, and to the first rung.
        seed: of the search.
        keeper: of the journal.
        slots: trials that run at once.
        look: is called after each report.
    """

    def __init__(
        self,
        kind: Kind,
        size: int,
        surface: Surface,
        every: int,
        seed: int,
        keeper: JournalCallback,
        slots: int,
        **look: Any,
    ) -> None:
        """Nothing has started."""
        journal, self._every = keeper.journal, every
        data = load("digits", train=100, validation=100)
        task = Task("teacher", "mlp", data, Recipe(), surface.epochs, data.validation, every)
        self.stage = stage_class(kind)(
            f"teacher-{kind}",
            kind,
            task,
            StageConfig(epochs=surface.epochs, population=size, interval=every),
            SearchConfig(kind=kind, seed=seed),
            surface.space,
            journal,
            keeper if isinstance(keeper, SweepCallback) else None,
        )
        searcher = Suggestions(self.stage, (), journal) if isinstance(self.stage, TPESearch) else None
        known = () if searcher else self.stage.members
        self._journal = journal
        self.controller = Controller(
            Training(surface, every),
            self.stage.scheduler() or FIFOScheduler(),
            keeper,
            journal.trials / self.stage.name,
            slots=slots,
            epochs=surface.epochs,
            configs=[{"member": trial_config(member, journal, every)} for member in known],
            searcher=searcher,
            seed=seed,
            **look,
        )

    def run(self) -> SearchResult:
        """What it found."""
        self.controller.run()
        outcomes = [outcome(self._journal.progress(member.name), self._every) for member in self.stage.members]
        return self.stage.found(outcomes, {})


# The driver -----------------------------------------------------------------------------------------------------------


def driver(size: int, setting: Setting, seed: int, before: float) -> Row:
    """What a population of that size costs; `before`: memory of this process before the first of them."""
    surface = Surface.drawn("moving", Space(), setting.epochs, seed)
    most = [before]
    with TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        with Tracker.open(folder, "scale", f"sqlite:///{folder / 'mlflow.db'}") as tracker, Journal(folder) as journal:
            parent = tracker.start("scale")
            tracker.flush()
            watch = SweepCallback(journal, tracker, parent, "teacher", ProgressReporter(None, 0), setting.epochs)

            def look() -> None:
                if search.controller.reports % EVERY == 0:
                    most[0] = max(most[0], memory())

            search = Search("pbt", size, surface, setting.interval, seed, watch, max(1, size // 4), look=look)
            wall, main_thread, process = time.perf_counter(), time.thread_time(), time.process_time()
            search.run()
            main_thread = time.thread_time() - main_thread - search.controller.worker_s
            ended, arrived = time.perf_counter() - wall, metrics(folder)
            tracker.flush(3600)
            flushed = time.perf_counter() - wall
            process = time.process_time() - process - search.controller.worker_s
            every = metrics(folder)
    reports = search.controller.reports
    return {
        "what": "driver",
        "trials": size,
        "reports": reports,
        "driver_ms": 1000 * main_thread / reports,
        "tracking_ms": 1000 * (process - main_thread) / reports,
        "seconds": ended,
        "seconds_until_flushed": flushed,
        "memory_mb": most[0] - before,
        "mlflow_rows": every,
        "rows_waiting": every - arrived,
        "mlflow_rows_per_s": every / flushed,
    }


def memory() -> float:
    """What this process has in memory, in MB."""
    pages = int(Path("/proc/self/statm").read_text("utf-8").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def metrics(folder: Path) -> int:
    """Metrics that MLflow's store has."""
    with sqlite3.connect(folder / "mlflow.db") as store:
        return int(store.execute("SELECT count(*) FROM metrics").fetchone()[0])


# Regret ---------------------------------------------------------------------------------------------------------------


def regrets(kind: str, setting: Setting, benchmark: Benchmark) -> list[Row]:
    """What each search loses against the best schedule, on surfaces of one kind, and what the best constant does."""
    by_seed: dict[str, list[float]] = {name: [] for name in (*SEARCHES, "best_slices", "best_constant")}
    spent: dict[str, list[int]] = {name: [] for name in SEARCHES}
    for number in range(setting.seeds):
        seed = 1000 * benchmark.seed + number
        surface = Surface.drawn(kind, SMALL, setting.epochs, seed)
        best = surface.trained(surface.best_phases(1))
        for name, interval_ in (("best_slices", setting.interval), ("best_constant", setting.epochs)):
            by_seed[name].append(best - surface.trained(surface.best_phases(interval_)))
        for name, search in SEARCHES.items():
            phases, epochs = within_budget(search, surface, setting, seed)
            by_seed[name].append(best - surface.trained(phases))
            spent[name].append(epochs)
    rows = []
    for name, values in by_seed.items():
        mean, half = interval(values)
        row: Row = {"what": "regret", "surface": kind, "search": name, "regret": mean, "half_width_95": half}
        row |= {"epochs": float(np.mean(spent[name]))} if name in spent else {}
        rows.append(row | {"regret_by_seed": values})
    return rows


def within_budget(kind: Kind, surface: Surface, setting: Setting, seed: int) -> tuple[Sequence[Phase], int]:
    """What a search of as many members as there are epochs for finds, and the epochs that it spent.

    How many of the members go on to the end is only known at the end: where they spent too much, fewer begin again.
    """
    size, whole = setting.members, setting.members * setting.epochs
    while kind.endswith("asha") and budget(size, setting.interval, SearchConfig().reduction, setting.epochs) < whole:
        size += 1
    while True:
        with TemporaryDirectory(ignore_cleanup_errors=True) as folder, Journal(Path(folder)) as journal:
            search = Search(kind, size, surface, setting.interval, seed, JournalCallback(journal), setting.members)
            found, spent = search.run(), search.controller.reports
        if spent <= whole or size == 2:
            return found.schedule.phases, spent
        size = max(2, min(size - 1, size * whole // spent))


def figures(rows: Sequence[Row]) -> dict[str, Any]:
    """Regrets by search, on the surfaces that move and on those that do not, and PBT against each other search."""
    values = {(row["surface"], row["search"]): row["regret_by_seed"] for row in rows}
    found: dict[str, Any] = {}
    for (kind, name), by_seed in values.items():
        found[f"regret_{name}" if kind == "moving" else f"regret_{kind}_{name}"] = float(np.mean(by_seed))
    pairs = [(kind, name) for kind in KINDS for name in SEARCHES if name != "pbt"]
    p = holm([paired_p(values[kind, "pbt"], values[kind, name]) for kind, name in pairs])
    return found | {f"p_{kind}_pbt_minus_{name}": one for (kind, name), one in zip(pairs, p, strict=True)}


if __name__ == "__main__":
    main()
