"""roletune's dense plan on a CUDA device: whole batches, kernel by kernel and as a captured graph."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from benchmarks.augmentation.cases import FILL, Case
from benchmarks.augmentation.roletune_cpu import OURS, policies, two_always
from benchmarks.common.results_file import Row
from benchmarks.common.timing import Run, interleaved, spread
from spaces import Parameters, apply, sample
from spaces.engine import dense
from spaces.operations import LEVELS
from spaces.policy.sampling import seeded

TURNS = 20
"""Batches that are sent off before the host waits for the device."""


def on_gpu(case: Case, *, rounds: int, seconds: float) -> list[Row]:
    """One row for each way to augment batches that lie on the device already, two operations an image.

    As on the CPU a turn draws parameters and applies others, in which every image has two operations. `waits` says
    whether the host waited for the device in a turn, by torch's own check.
    """
    ways = _ways(case)
    waits = {name: _waits(run) for name, run in ways.items()}
    runs = {name: _many(run) for name, run in ways.items()}
    figures = interleaved(runs, rounds=rounds, seconds=seconds, seed=case.seed)
    rows: list[Row] = []
    for name in ways:
        rate = spread([TURNS * case.batch / taken for taken in figures[name]])
        where = {"device": "GPU", "threads": torch.get_num_threads(), "size": case.size, "batch": case.batch}
        speed = {"images_per_s": rate.median, "lowest": rate.low, "highest": rate.high}
        what = {"contestant": name, "works_on": "uint8 batch", "operations": 2}
        rows.append(where | what | speed | {"rounds": rounds, "waits": waits[name]})
    return rows


def _ways(case: Case) -> dict[str, Run]:
    """Name → the work on one batch."""
    images = case.images.cuda()
    each, generator = policies(), seeded(case.seed)
    there = torch.Generator("cuda").manual_seed(case.seed)
    always = [two_always(policy, case.batch, generator) for policy in each]
    resident = [parameters.to("cuda") for parameters in always]
    replay = _captured(images[: case.batch], resident[0])

    def eager(turn: int) -> Tensor:
        sample(each[turn % LEVELS], case.batch, generator)
        return apply(images[case.rows(turn)], always[turn % LEVELS], FILL)

    def drawn_there(turn: int) -> Tensor:
        sample(each[turn % LEVELS], case.batch, there)
        return apply(images[case.rows(turn)], resident[turn % LEVELS], FILL)

    def as_graph(turn: int) -> Tensor:
        sample(each[turn % LEVELS], case.batch, generator)
        return replay(images[case.rows(turn)], always[turn % LEVELS])

    def graph_alone(turn: int) -> Tensor:
        return replay(images[case.rows(turn)], resident[turn % LEVELS])

    return {
        f"{OURS} on CUDA": eager,
        f"{OURS} on CUDA, drawn there": drawn_there,
        f"{OURS} on CUDA, as a graph": as_graph,
        f"{OURS} on CUDA, graph, apply alone": graph_alone,
    }


def _captured(images: Tensor, parameters: Parameters) -> Callable[[Tensor, Parameters], Tensor]:
    """The dense plan as a CUDA graph for batches of this shape; the answer lies in the graph's own memory."""
    color = torch.tensor(FILL, dtype=torch.uint8).cuda()
    pixels, given = images.clone(), parameters[torch.arange(len(images), device="cuda")]
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # what is made once, such as the engine's constants, is made before the capture
        for _ in range(3):
            dense.apply(pixels, given, color)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = dense.apply(pixels, given, color)

    def replay(batch: Tensor, drawn: Parameters) -> Tensor:
        pixels.copy_(batch)
        for name in ("operations", "levels", "signs", "positions"):
            getattr(given, name).copy_(getattr(drawn, name), non_blocking=True)
        graph.replay()
        return result

    return replay


def _many(run: Run) -> Run:
    turns = itertools.count()

    def work(_turn: int) -> None:
        for turn in itertools.islice(turns, TURNS):
            run(turn)
        torch.cuda.synchronize()

    return work


def _waits(run: Run) -> bool:
    """Whether the host waits for the device in a turn, once everything is warm."""
    for turn in range(LEVELS):
        run(turn)
    torch.cuda.synchronize()
    try:
        with _waiting_is_an_error():
            run(LEVELS)
    except RuntimeError as error:
        if "synchroniz" not in str(error):
            raise
        return True
    return False


@contextmanager
def _waiting_is_an_error() -> Iterator[None]:
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")
