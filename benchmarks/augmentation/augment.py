"""Augmentation speed of roletune, Pillow, torchvision, kornia and albumentations, measured in one process.

The images are RGB uint8 of 32 and 224 px. Each image gets two random operations of PBA's 15, or of their nearest
counterparts. roletune is timed with drawing and applying the parameters, as in training. Pillow is timed twice: from
PIL image to PIL image without a conversion, and from arrays to a batch, which is what training needs. The contestants
are measured in turn, round after round.

With two threads, roletune's kernel and kornia use both. Libraries that loop over images in Python use one thread, and a
user would run several processes. Ratios at two threads therefore count their one-thread speed twice, as if the second
process were free.

Summary:

- `ratio_pillow`: images/s divided by those of the faster Pillow row.
- `ratio_best_peer`: images/s divided by those of the fastest library that draws two operations for each image. Pillow's
  bare loop is not a library, and TrivialAugment applies one operation, so neither counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from benchmarks.augmentation.cases import Case, Contestant
from benchmarks.augmentation.peers import PACKAGES, peers
from benchmarks.augmentation.roletune_cpu import ROLETUNE, roletune_contestants
from benchmarks.augmentation.roletune_gpu import measure_gpu
from benchmarks.common.results_file import Row, argument_parser, start, usable_cores
from benchmarks.common.timing import interleaved, spread


def main() -> None:
    """Measure all cases on the CPU and, if there is one, on the GPU."""
    benchmark = start(__file__, argument_parser(__doc__))
    quick = benchmark.quick
    pace: dict[str, Any] = {"rounds": 1, "seconds": 0.0} if quick else {"rounds": 21, "seconds": 0.1}
    torch.manual_seed(benchmark.seed)  # torchvision and kornia draw from the global state
    shapes = [(32, 8, 16), (224, 2, 4)] if quick else [(32, 128, 1024), (32, 512, 1024), (224, 32, 96)]
    rows: list[Row] = []
    for size, batch, pool in shapes:
        rows += measure_case(Case(size, batch, pool, benchmark.seed), pace)
    gpu = torch.cuda.is_available()
    if gpu:
        torch.set_num_threads(1)  # the host draws the parameters
        large = (64,) if quick else (1024, 4096)
        rows += [row for batch in large for row in measure_gpu(Case(32, batch, 2 * batch, benchmark.seed), **pace)]
    small, big = ((size, batch) for size, batch, _ in (shapes[0], shapes[-1]))
    benchmark.finish(rows, summary(rows, small, big), peers=PACKAGES, gpu=gpu)


def measure_case(case: Case, pace: dict[str, Any]) -> list[Row]:
    """Return the rows of one case, at one thread and, if two cores are usable, at two."""
    contestants = [*roletune_contestants(case), *peers(case)]
    rows: list[Row] = []
    for threads in (1, 2)[: usable_cores()]:
        measured = [one for one in contestants if one.threaded or threads == 1]
        torch.set_num_threads(threads)
        seconds = interleaved({one.name: one.run for one in measured}, **pace, seed=case.seed)
        rows += [_row(case, threads, one, seconds[one.name]) for one in measured]
    kinds = {one.name: one.kind for one in contestants}
    singles = {one.name for one in contestants if not one.threaded}
    return [row | ratios(row, rows, kinds, singles) for row in rows]


def _row(case: Case, threads: int, contestant: Contestant, seconds: Sequence[float]) -> Row:
    rate = spread([case.batch / value for value in seconds])
    return {
        "device": "CPU",
        "threads": threads,
        "size": case.size,
        "batch": case.batch,
        "contestant": contestant.name,
        "works_on": contestant.works_on,
        "operations": contestant.operations,
        "images_per_s": rate.median,
        "lowest": rate.low,
        "highest": rate.high,
        "rounds": len(seconds),
    }


def ratios(row: Row, rows: Sequence[Row], kinds: dict[str, str], singles: set[str]) -> Row:
    """Return the speed of `row` relative to the lean Pillow loop and to the fastest library, at the same thread count.

    Args:
        row: Row of one contestant.
        rows: Rows of all contestants of the case.
        kinds: Kind by contestant, see `Contestant`.
        singles: Contestants that use one thread only.
    """
    rates: dict[str, float] = {}
    for other in rows:
        name = other["contestant"]
        if name in singles:
            rates[name] = other["images_per_s"] * row["threads"]
        elif other["threads"] == row["threads"]:
            rates[name] = other["images_per_s"]
    pillow = max(rate for name, rate in rates.items() if kinds[name] == "lean")
    peer_rates = [rate for name, rate in rates.items() if kinds[name] == "peer"]
    return {
        "ratio_pillow": row["images_per_s"] / pillow,
        "ratio_best_peer": row["images_per_s"] / max(peer_rates) if peer_rates else None,
    }


def summary(rows: Sequence[Row], small: tuple[int, int], big: tuple[int, int]) -> dict[str, Any]:
    """Return the key figures of roletune at one thread, for the shapes `small` and `big`, each as (size, batch)."""
    figures: dict[str, Any] = {}
    for name, shape in (("32", small), ("224", big)):
        (row,) = (
            row
            for row in rows
            if row["contestant"] == ROLETUNE and row["threads"] == 1 and (row["size"], row["batch"]) == shape
        )
        figures |= {f"{key}_{name}": row[key] for key in ("ratio_pillow", "ratio_best_peer", "images_per_s")}
    gpu_rates = [row["images_per_s"] for row in rows if row["device"] == "GPU" and "alone" not in row["contestant"]]
    return figures | {"gpu_images_per_s_32": max(gpu_rates, default=None)}


if __name__ == "__main__":
    main()
