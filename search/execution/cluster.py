"""Ray: connecting to it, and saying at once whether trials can ever be placed there."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import ray
from ray._private import ray_constants
from ray._private.node import Node

from search.config.schema import ResourceConfig
from spaces import RequestError

# Tune's own loggers, its reporter and its directory change are in the way of ours.
ENVIRONMENT = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a score is due at boundaries, not at every epoch
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C is ours to report
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",  # so are failures: one line each, and the traceback is in MLflow
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}

WARM = {
    "RAY_preload_python_modules": "trainables.ray_trainable",
    "RAY_num_workers_soft_limit": str(os.cpu_count() or 1),
}
"""Workers import what a trial needs before they are given one, where it can be found. Those that Ray starts ahead, one
a CPU, are kept: else they are ended as soon as trials reserve their CPUs, and others are started for these."""

SPARED = ("start_monitor", "start_log_monitor", "start_api_server")
"""Ray's autoscaler, its reader of logs and its dashboard: seconds of processor time, and no use to one sweep."""

ANSWER = 10.0
"""Seconds that a cluster's head may take to accept a connection."""


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """A Ray to work on: the one at `address` or RAY_ADDRESS, the one already connected to, or a new one here.

    A new one listens on loopback alone. Only what was started or connected here is let go of at the end.

    Raises:
        RequestError: nobody answers at `address`, or it is no address of a cluster's head.
    """
    os.environ.update({key: os.environ.get(key, value) for key, value in ENVIRONMENT.items()})
    if ray.is_initialized():
        yield
        return
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    try:
        if address == "local":
            with _alone():
                ray.init(address=address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        else:
            _knock(address)
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except RequestError:
        raise
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise _nobody(address, error) from error
    try:
        yield
    finally:
        ray.shutdown()


def started_here() -> bool:
    """Whether this process has started the Ray that it is connected to, so that its workers are of one installation."""
    node = ray._private.worker._global_node
    return node is not None and bool(node.is_head())


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
        raise RequestError(rule, hint="set resources.gpus_per_trial, or use a cluster that has GPUs (--address)")
    rule = f"a trial asks for {cpus} CPUs and no node has more than {most_cpus:g} beside {gpus:g} GPU"
    raise RequestError(rule, hint="set resources.cpus_per_trial, or use a larger cluster (--address)")


@contextmanager
def _alone() -> Iterator[None]:
    """A Ray that is started in this block can be reached from this machine alone, and does without what is `SPARED`.

    Ray's `_node_ip_address="127.0.0.1"` is replaced by the machine's own address, and its servers then listen on all
    interfaces. On macOS and Windows Ray keeps to loopback, by a switch that it reads from the environment
    (RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER) when it is imported, which was long ago; so the switch itself is turned.
    """
    with ExitStack() as stack:
        stack.enter_context(patch.object(ray_constants, "ENABLE_RAY_CLUSTER", False))
        stack.enter_context(patch.dict(os.environ, WARM | dict(os.environ)))
        for name in SPARED:
            if hasattr(Node, name):
                stack.enter_context(patch.object(Node, name, _nothing))
        yield


def _nothing(*_: Any, **__: Any) -> None:
    """In place of what is spared."""


def _knock(address: str) -> None:
    """Ask the head for a connection: Ray itself would try for two minutes, and then end the process.

    Raises:
        RequestError: nobody answers, or `address` is that of another of Ray's servers.
    """
    if "://" in address:
        hint = (
            "run on a node of the cluster with --address HEAD:6379, or by `ray job submit --address http://HEAD:8265`"
        )
        raise RequestError("a cluster's address is HOST:PORT of its head, or auto", value=address, hint=hint)
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal():
        return  # `auto`, or something that Ray has a word for
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER).close()
    except (OSError, OverflowError) as error:
        raise _nobody(address, error) from error


def _nobody(address: str, error: Exception) -> RequestError:
    hint = "start a cluster, or leave --address and RAY_ADDRESS out to use this machine"
    return RequestError(f"no Ray cluster answers at {address}: {error}", hint=hint)


def _fits(cpus: float, gpus: float, cpus_each: int, gpus_each: float) -> int:
    by_cpu = int(cpus // cpus_each)
    if not gpus_each:
        return by_cpu
    # A fraction is a part of one GPU: three trials of 0.4 do not fit on one, nor six on two.
    by_gpu = int(gpus) * int(1 / gpus_each + 1e-9) if gpus_each < 1 else int(gpus // gpus_each)
    return min(by_cpu, by_gpu)
