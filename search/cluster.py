"""Ray: connecting to it, and saying at once whether trials can ever be placed there."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

import ray

from search.config import ResourceConfig
from search.trials import ENVIRONMENT
from spaces import RequestError


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """A Ray to work on: the one at `address` or RAY_ADDRESS, the one already connected to, or a new one here.

    Only what was started or connected here is let go of at the end.

    Raises:
        RequestError: nobody answers at `address`.
    """
    os.environ.update({key: os.environ.get(key, value) for key, value in ENVIRONMENT.items()})
    if ray.is_initialized():
        yield
        return
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    try:
        ray.init(
            address=address,
            include_dashboard=False if address == "local" else None,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        mend = "start a cluster, or leave --address and RAY_ADDRESS out to use this machine"
        raise RequestError(f"no Ray cluster answers at {address}: {error}", mend=mend) from error
    try:
        yield
    finally:
        ray.shutdown()


def slots(resources: ResourceConfig) -> int:
    """How many trials fit at once on the connected cluster.

    Raises:
        RequestError: not even one, on any node.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    cpus, gpus = resources.cpus_per_trial, resources.gpus_per_trial
    fits = sum(_fits(node.get("CPU", 0), node.get("GPU", 0), cpus, gpus) for node in nodes)
    if fits:
        return fits
    most_cpus = max((node.get("CPU", 0) for node in nodes), default=0)
    most_gpus = max((node.get("GPU", 0) for node in nodes), default=0)
    if gpus > most_gpus:
        rule = f"a trial asks for {gpus:g} GPU and no node has more than {most_gpus:g}"
        raise RequestError(rule, mend="set resources.gpus_per_trial, or use a cluster that has GPUs (--address)")
    rule = f"a trial asks for {cpus} CPUs and no node has more than {most_cpus:g} beside {gpus:g} GPU"
    raise RequestError(rule, mend="set resources.cpus_per_trial, or use a larger cluster (--address)")


def _fits(cpus: float, gpus: float, cpus_each: int, gpus_each: float) -> int:
    by_cpu = int(cpus // cpus_each)
    if not gpus_each:
        return by_cpu
    # A fraction is a part of one GPU: three trials of 0.4 do not fit on one, nor six on two.
    by_gpu = int(gpus) * int(1 / gpus_each + 1e-9) if gpus_each < 1 else int(gpus // gpus_each)
    return min(by_cpu, by_gpu)
