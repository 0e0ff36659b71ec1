"""Share of the slots' time that a search spends on training, and the time until it starts.

There are two slots. Every epoch takes 1, 5 or 20 seconds, most of which it sleeps
(`benchmarks.scheduling.sleep_trainable`). So everything around the training is measured: actors, checkpoints, waiting
for the scheduler, the journal, MLflow on SQLite.

`utilisation` is members × epochs × seconds per epoch ÷ (slots × wall time), from the start of the first epoch to the
end of the last. `idle_s_a_turn` is the remaining time per turn of a member on a slot, one for each interval of each
member: the time to put one member away and to restore the next. If the interval is the whole training, it is the cost
of a trial. Populations are multiples of the slots.

- `ours`: a population as `roletune search` runs it.
- `bare loop`: the same members one after another in one process and one slot, without anything around their epochs.
- `ray function`: Ray Tune's own population based training of a function, as in its guide: asynchronous, with a new
  actor whenever a member continues.

**Start.** `startup_s` is the time from the command `roletune search examples/digits.yaml` to the start of its first
step. `help_s` is that of `roletune --help`. Both are medians.

Cases with epochs of 5 and 20 seconds run several at a time, each in its own processes with its own Ray. Sleeping needs
no processor, but everything around it then shares two cores, so these figures are conservative. Sixteen members with
epochs of 20 seconds train for two epochs at interval 1, the harder interval. No GPU and no second machine is used, so
the cost of a network is not included.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.common.results_file import ROOT, Row, argument_parser, start
from benchmarks.scheduling.sleep_trainable import Case, read_reports

POPULATIONS, INTERVALS = (16, 8, 4), (1, 3)

START_TIMEOUT = 300.0
"""Seconds until the first report of a sweep."""


def main() -> None:
    """Measure utilization and start."""
    benchmark = start(__file__, argument_parser(__doc__))
    seed = benchmark.seed
    repeats = 1 if benchmark.quick else 3
    startup = [startup_seconds(seed) for _ in range(repeats)]
    help_ = [help_seconds() for _ in range(repeats)]
    start_rows = [
        {"runner": "roletune search", "what": "to the first step", "seconds": startup},
        {"runner": "roletune --help", "what": "to its end", "seconds": help_},
    ]
    rows = [row for cases, at_once in plan(seed, quick=benchmark.quick) for row in measure(cases, at_once)]
    summary = summarize(rows) | {"startup_s": median(startup), "help_s": median(help_)}
    benchmark.finish([*rows, *start_rows], summary, peers=("ray", "mlflow"))


def plan(seed: int, *, quick: bool) -> list[tuple[list[Case], int]]:
    """Return the cases in groups, each with the number of cases that run at once."""
    if quick:
        return [([Case(runner, 2, 1, 0.2, 2, seed) for runner in ("ours", "bare loop", "ray function")], 1)]

    def ours(seconds: float, epochs: int) -> list[Case]:
        return [Case("ours", size, every, seconds, epochs, seed) for size in POPULATIONS for every in INTERVALS]

    whole = Case("ours", 16, 6, 1.0, 6, seed)
    others = [Case("ray function", 8, every, seconds, 6, seed) for seconds in (1.0, 5.0) for every in INTERVALS]
    bare = [Case("bare loop", 4, 3, seconds, 6, seed) for seconds in (1.0, 5.0)]
    return [
        ([*ours(1.0, 6), whole, others[0], others[1], bare[0]], 1),
        ([*ours(5.0, 6), *others[2:], bare[1]], 5),
        ([Case("ours", 16, 1, 20.0, 2, seed), *(case for case in ours(20.0, 4) if case.population < 16)], 5),
    ]


def measure(cases: Sequence[Case], at_once: int) -> list[Row]:
    """Return one row per case, each from a new process."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(at_once, mp_context=spawn, max_tasks_per_child=1) as pool:
        return list(pool.map(Case.row, cases))


def summarize(rows: Sequence[Row]) -> dict[str, Any]:
    """Return the lowest utilization for each duration of an epoch, and the ratio to the bare loop for 5 s.

    A duration that was not measured has None.
    """

    def of(runner: str, seconds: float) -> list[float]:
        return [row["utilisation"] for row in rows if (row["runner"], row["epoch_s"]) == (runner, seconds)]

    summary: dict[str, Any] = {}
    # Keys keep the spelling of the committed result file.
    durations = {"utilisation": (1.0, 5.0, 20.0), "ray_function_utilisation": (1.0, 5.0)}
    for (name, each), runner in zip(durations.items(), ("ours", "ray function"), strict=True):
        summary |= {f"{name}_{seconds:g}s": min(of(runner, seconds), default=None) for seconds in each}
    ours, bare = of("ours", 5.0), of("bare loop", 5.0)
    # Ratio of the time of a member's epoch on one slot.
    return summary | {"over_bare_loop_5s": min(bare) / min(ours) if ours and bare else None}


def startup_seconds(seed: int) -> float:
    """Return the seconds from the command to the start of the first step, and stop the sweep."""
    with TemporaryDirectory(ignore_cleanup_errors=True) as storage:
        command = [sys.executable, "-m", "search.cli", "search", "examples/digits.yaml", "--storage", storage]
        started = time.time()
        child = subprocess.Popen(
            [*command, "--set", f"seed={seed}"],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"RAY_ADDRESS": ""},
        )
        try:
            while time.time() < started + START_TIMEOUT and child.poll() is None:
                if reports := read_reports(Path(storage, "digits-001")):
                    first = reports[0]
                    seconds = first.metrics["seconds/train"] + first.metrics.get("seconds/validate", 0.0)
                    return first.at / 1000 - seconds - started
                time.sleep(0.05)
            raise SystemExit("the sweep did not report an epoch in time")
        finally:
            child.terminate()
            child.wait(60)


def help_seconds() -> float:
    """Return the seconds of `roletune --help`."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "search.cli", "--help"], cwd=ROOT, capture_output=True, check=True)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
