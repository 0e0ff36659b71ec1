"""How much of the slots' time a search spends on training, and how long it takes to begin.

Two slots; every epoch takes 1, 5 or 20 seconds, most of which it sleeps (`benchmarks.scheduling.sleep_trainable`). So what is measured is
what stands around the training: actors, checkpoints, the scheduler's waiting, the journal, MLflow on SQLite.

`utilization` is members × epochs × seconds an epoch ÷ (slots × wall), from the beginning of the first epoch to the end
of the last. `idle_s_a_turn` is the rest, shared out over the turns that members have on a slot, one for each interval
of each member: what it costs to put one member away and to take up the next. Where the interval is the whole training
it is what a trial costs. Populations are multiples of the slots, as anybody would choose them.

- `ours`: a population as `roletune search` runs it.
- `bare loop`: the same members one after another in one process, with nothing around their epochs; one slot.
- `ray function`: Ray Tune's own population based training of a function, as its guide has it: asynchronous, a new actor
  whenever a member is taken up again.

**Start.** `startup_s` is the time from the command `roletune search examples/digits.yaml` to the beginning of its first
step; `help_s` is that of `roletune --help`. Both are medians.

Epochs of 5 and 20 seconds run several cases at a time, each in processes of its own with a Ray of its own: to sleep
costs no processor, yet what stands around it then shares two cores, so these figures are on the safe side. Sixteen
members are trained for two epochs of 20 seconds, at interval 1, which is the harder one. No GPU takes part, and no slot
is on another machine: what a network adds is not in these figures.
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
from benchmarks.scheduling.sleep_trainable import Case, events

POPULATIONS, INTERVALS = (16, 8, 4), (1, 3)

PATIENCE = 300.0
"""Seconds that a sweep may take to begin."""


def main() -> None:
    """Measure."""
    benchmark = start(__file__, argument_parser(__doc__))
    seed = benchmark.seed
    times = 1 if benchmark.quick else 3
    began = [startup(seed) for _ in range(times)]
    helped = [helps() for _ in range(times)]
    begins = [
        {"runner": "roletune search", "what": "to the first step", "seconds": began},
        {"runner": "roletune --help", "what": "to its end", "seconds": helped},
    ]
    rows = [row for cases, at_once in plan(seed, quick=benchmark.quick) for row in measured(cases, at_once)]
    figures = utilizations(rows) | {"startup_s": median(began), "help_s": median(helped)}
    benchmark.finish([*rows, *begins], figures, peers=("ray", "mlflow"))


def plan(seed: int, *, quick: bool) -> list[tuple[list[Case], int]]:
    """The cases, in groups, and how many of each group run at once."""
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


def measured(cases: Sequence[Case], at_once: int) -> list[Row]:
    """One row a case, each from a fresh process."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(at_once, mp_context=spawn, max_tasks_per_child=1) as pool:
        return list(pool.map(Case.row, cases))


def utilizations(rows: Sequence[Row]) -> dict[str, Any]:
    """The lowest utilization of ours for each length of an epoch; and our time for 5 s over the bare loop's.

    Where a length was not measured, the figure is None.
    """

    def of(runner: str, seconds: float) -> list[float]:
        return [row["utilization"] for row in rows if (row["runner"], row["epoch_s"]) == (runner, seconds)]

    found: dict[str, Any] = {}
    lengths = {"utilization": (1.0, 5.0, 20.0), "ray_function_utilization": (1.0, 5.0)}
    for (name, each), runner in zip(lengths.items(), ("ours", "ray function"), strict=True):
        found |= {f"{name}_{seconds:g}s": min(of(runner, seconds), default=None) for seconds in each}
    ours, bare = of("ours", 5.0), of("bare loop", 5.0)
    # A member's epoch on one slot: what it takes with us over what it takes in the loop.
    return found | {"over_bare_loop_5s": min(bare) / min(ours) if ours and bare else None}


def startup(seed: int) -> float:
    """Seconds from the command to the beginning of the first step; the sweep is then stopped."""
    with TemporaryDirectory(ignore_cleanup_errors=True) as storage:
        command = [sys.executable, "-m", "search.cli", "search", "examples/digits.yaml", "--storage", storage]
        began = time.time()
        child = subprocess.Popen(
            [*command, "--set", f"search.seed={seed}"],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"RAY_ADDRESS": ""},
        )
        try:
            while time.time() < began + PATIENCE and child.poll() is None:
                heard = events(Path(storage, "digits-001"))
                first = next((event for event in heard if event["event"] == "reported"), None)
                if first is not None:
                    taken = first["metrics"]["seconds/train"] + first["metrics"].get("seconds/validate", 0.0)
                    return float(first["at"] / 1000 - taken - began)
                time.sleep(0.05)
            raise SystemExit("the sweep did not begin")
        finally:
            child.terminate()
            child.wait(60)


def helps() -> float:
    """Seconds that `roletune --help` takes."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "search.cli", "--help"], cwd=ROOT, capture_output=True, check=True)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
