"""How fast a batch is augmented: roletune beside Pillow, torchvision, kornia and albumentations, in one process.

RGB uint8 images of 32 and 224 px, two random operations for each image out of PBA's 15 or what is nearest to them.
Ours is timed as a user pays for it, parameters drawn and applied; Pillow's from Pillow image to Pillow image, without
a conversion, and a second time from arrays to a batch, which is what training needs. Contestants take turns, round
after round.

Two threads: our kernel and kornia take them. What goes image by image in Python has one thread, and a user gives it
more cores by more processes; so in ratios at two threads its one-thread figure counts twice, as if that cost nothing.

`ratio_pillow`: images/s over those of the leaner Pillow row. `ratio_best_peer`: over the fastest library in which, too,
every image gets two operations of its own (Pillow's bare loop is no library, and TrivialAugment does one operation).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from benchmarks.augmentation.cases import Case, Contestant
from benchmarks.augmentation.peers import PACKAGES, peers
from benchmarks.augmentation.roletune_cpu import OURS, ours
from benchmarks.augmentation.roletune_gpu import on_gpu
from benchmarks.common.results_file import Row, argument_parser, start, usable_cores
from benchmarks.common.timing import interleaved, spread


def main() -> None:
    """Measure every case, on the GPU too if there is one."""
    benchmark = start(__file__, argument_parser(__doc__))
    quick = benchmark.quick
    pace: dict[str, Any] = {"rounds": 1, "seconds": 0.0} if quick else {"rounds": 21, "seconds": 0.1}
    torch.manual_seed(benchmark.seed)  # torchvision and kornia draw from the global state
    shapes = [(32, 8, 16), (224, 2, 4)] if quick else [(32, 128, 1024), (32, 512, 1024), (224, 32, 96)]
    rows: list[Row] = []
    for size, batch, pool in shapes:
        rows += of_case(Case(size, batch, pool, benchmark.seed), pace)
    gpu = torch.cuda.is_available()
    if gpu:
        torch.set_num_threads(1)  # of the host, which draws
        large = (64,) if quick else (1024, 4096)
        rows += [row for batch in large for row in on_gpu(Case(32, batch, 2 * batch, benchmark.seed), **pace)]
    small, big = ((size, batch) for size, batch, _ in (shapes[0], shapes[-1]))
    benchmark.finish(rows, summary(rows, small, big), peers=PACKAGES, gpu=gpu)


def of_case(case: Case, pace: dict[str, Any]) -> list[Row]:
    """The rows of one case, at one thread and, if there are as many cores, at two."""
    contestants = [*ours(case), *peers(case)]
    rows: list[Row] = []
    for threads in (1, 2)[: usable_cores()]:
        entered = [one for one in contestants if one.threaded or threads == 1]
        torch.set_num_threads(threads)
        figures = interleaved({one.name: one.run for one in entered}, **pace, seed=case.seed)
        rows += [_row(case, threads, one, figures[one.name]) for one in entered]
    kinds = {one.name: one.kind for one in contestants}
    singles = {one.name for one in contestants if not one.threaded}
    return [row | ratios(row, rows, kinds, singles) for row in rows]


def _row(case: Case, threads: int, one: Contestant, seconds: Sequence[float]) -> Row:
    rate = spread([case.batch / taken for taken in seconds])
    return {
        "device": "CPU",
        "threads": threads,
        "size": case.size,
        "batch": case.batch,
        "contestant": one.name,
        "works_on": one.works_on,
        "operations": one.operations,
        "images_per_s": rate.median,
        "lowest": rate.low,
        "highest": rate.high,
        "rounds": len(seconds),
    }


def ratios(row: Row, rows: Sequence[Row], kinds: dict[str, str], singles: set[str]) -> Row:
    """This row over the lean Pillow loop, and over the fastest library, at as many threads.

    Args:
        row: of one contestant.
        rows: of all contestants of the same case.
        kinds: each contestant's kind.
        singles: the contestants that have one thread only.
    """
    rates: dict[str, float] = {}
    for other in rows:
        name = other["contestant"]
        if name in singles:
            rates[name] = other["images_per_s"] * row["threads"]
        elif other["threads"] == row["threads"]:
            rates[name] = other["images_per_s"]
    pillow = max(rate for name, rate in rates.items() if kinds[name] == "lean")
    found = {name: rate for name, rate in rates.items() if kinds[name] == "peer"}
    best = max(found, key=found.__getitem__, default=None)
    return {
        "ratio_pillow": row["images_per_s"] / pillow,
        "ratio_best_peer": row["images_per_s"] / found[best] if best else None,
    }


def summary(rows: Sequence[Row], small: tuple[int, int], big: tuple[int, int]) -> dict[str, Any]:
    """What others read: our first row at one thread, at the smaller and the bigger size, as (size, batch)."""
    found: dict[str, Any] = {}
    for name, shape in (("32", small), ("224", big)):
        (row,) = (
            row
            for row in rows
            if row["contestant"] == OURS and row["threads"] == 1 and (row["size"], row["batch"]) == shape
        )
        found |= {f"{key}_{name}": row[key] for key in ("ratio_pillow", "ratio_best_peer", "images_per_s")}
    drawn = [row["images_per_s"] for row in rows if row["device"] == "GPU" and "alone" not in row["contestant"]]
    return found | {"gpu_images_per_s_32": max(drawn, default=None)}


if __name__ == "__main__":
    main()
