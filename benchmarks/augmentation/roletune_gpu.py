"""roletune's dense engine on a CUDA device: whole batches, kernel by kernel and as a captured graph."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from benchmarks.augmentation.cases import FILL, Case
from benchmarks.augmentation.roletune_cpu import ROLETUNE, policies, two_operation_parameters
from benchmarks.common.results_file import Row
from benchmarks.common.timing import Run, interleaved, spread
from spaces import Parameters, apply, sample
from spaces.core.seeding import seeded_generator
from spaces.engine import dense
from spaces.operations import LEVELS

QUEUED = 20
"""Batches queued before the host waits for the device."""


def measure_gpu(case: Case, *, rounds: int, seconds: float) -> list[Row]:
    """Return one row per contestant, for batches that already lie on the device and two operations per image.

    As on the CPU, a run draws parameters and applies others that have two operations for every image. The column
    `waits` is True if a run made the host wait for the device, according to torch's synchronization check.
    """
    runs = _runs(case)
    waits = {name: _synchronizes(run) for name, run in runs.items()}
    queued = {name: _queue_batches(run) for name, run in runs.items()}
    values = interleaved(queued, rounds=rounds, seconds=seconds, seed=case.seed)
    rows: list[Row] = []
    for name in runs:
        rate = spread([QUEUED * case.batch / value for value in values[name]])
        where = {"device": "GPU", "threads": torch.get_num_threads(), "size": case.size, "batch": case.batch}
        speed = {"images_per_s": rate.median, "lowest": rate.low, "highest": rate.high}
        what = {"contestant": name, "works_on": "uint8 batch", "operations": 2}
        rows.append(where | what | speed | {"rounds": rounds, "waits": waits[name]})
    return rows


def _runs(case: Case) -> dict[str, Run]:
    """Return the work on one batch by contestant."""
    images = case.images.cuda()
    every_policy, generator = policies(), seeded_generator(case.seed)
    device_generator = torch.Generator("cuda").manual_seed(case.seed)
    fixed = [two_operation_parameters(policy, case.batch, generator) for policy in every_policy]
    resident = [parameters.to("cuda") for parameters in fixed]
    replay = _capture(images[: case.batch], resident[0])

    def eager(number: int) -> Tensor:
        sample(every_policy[number % LEVELS], case.batch, generator)
        return apply(images[case.batch_slice(number)], fixed[number % LEVELS], FILL)

    def drawn_on_device(number: int) -> Tensor:
        sample(every_policy[number % LEVELS], case.batch, device_generator)
        return apply(images[case.batch_slice(number)], resident[number % LEVELS], FILL)

    def as_graph(number: int) -> Tensor:
        sample(every_policy[number % LEVELS], case.batch, generator)
        return replay(images[case.batch_slice(number)], fixed[number % LEVELS])

    def graph_alone(number: int) -> Tensor:
        return replay(images[case.batch_slice(number)], resident[number % LEVELS])

    return {
        f"{ROLETUNE} on CUDA": eager,
        f"{ROLETUNE} on CUDA, drawn there": drawn_on_device,
        f"{ROLETUNE} on CUDA, as a graph": as_graph,
        f"{ROLETUNE} on CUDA, graph, apply alone": graph_alone,
    }


def _capture(images: Tensor, parameters: Parameters) -> Callable[[Tensor, Parameters], Tensor]:
    """Capture the dense engine as a CUDA graph for batches of this shape; its result lies in the graph's own memory."""
    color = torch.tensor(FILL, dtype=torch.uint8).cuda()
    pixels, buffers = images.clone(), parameters[torch.arange(len(images), device="cuda")]
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # builds the engine's constants before the capture
        for _ in range(3):
            dense.apply(pixels, buffers, color)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = dense.apply(pixels, buffers, color)

    def replay(batch: Tensor, drawn: Parameters) -> Tensor:
        pixels.copy_(batch)
        for name in ("operations", "levels", "signs", "positions"):
            getattr(buffers, name).copy_(getattr(drawn, name), non_blocking=True)
        graph.replay()
        return result

    return replay


def _queue_batches(run: Run) -> Run:
    numbers = itertools.count()

    def work(_number: int) -> None:
        for number in itertools.islice(numbers, QUEUED):
            run(number)
        torch.cuda.synchronize()

    return work


def _synchronizes(run: Run) -> bool:
    """Return True if a run makes the host wait for the device after warm-up."""
    for number in range(LEVELS):
        run(number)
    torch.cuda.synchronize()
    try:
        with _synchronization_is_an_error():
            run(LEVELS)
    except RuntimeError as error:
        if "synchroniz" not in str(error):
            raise
        return True
    return False


@contextmanager
def _synchronization_is_an_error() -> Iterator[None]:
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")
