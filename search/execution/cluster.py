"""Connection to Ray, and the number of trials that fit on a cluster."""

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

from search.config.sections import ResourceConfig
from spaces import RequestError

# Tune's own loggers, reporter and change of directory get in the way of roletune's.
ENVIRONMENT = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a score is due at boundaries, not at every epoch
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # the command line reports Ctrl-C
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",  # so are failures: one line each, and the traceback is in MLflow
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}

WORKER_ENVIRONMENT = {
    "RAY_preload_python_modules": "trainables.ray_trainable",
    "RAY_num_workers_soft_limit": str(os.cpu_count() or 1),
}
"""Workers import what a trial needs ahead of time. Those that Ray starts ahead, one a CPU, are kept: else they are
ended as soon as trials reserve their CPUs, and others are started for these."""

UNUSED_SERVICES = ("start_monitor", "start_log_monitor", "start_api_server")
"""Parts of Ray that a sweep on one machine does not need: autoscaler, log monitor, dashboard."""

CONNECT_TIMEOUT = 10.0
"""Timeout of a connection to a cluster's head, in s."""


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Connect to Ray: the one already connected to, the one at `address` or RAY_ADDRESS, or a new one on this machine.

    A new one listens on loopback alone. At the end it is shut down, unless it was connected before.

    Args:
        address: Address of a cluster's head, HOST:PORT, or `auto`; None for RAY_ADDRESS, or this machine.

    Raises:
        RequestError: No cluster answers at `address`, or it is not the address of a cluster's head.
    """
    os.environ.update({key: os.environ.get(key, value) for key, value in ENVIRONMENT.items()})
    if ray.is_initialized():
        yield
        return
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    try:
        if address == "local":
            with _local_ray():
                ray.init(address=address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        else:
            _check_reachable(address)
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except RequestError:
        raise
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise _unreachable(address, error) from error
    try:
        yield
    finally:
        ray.shutdown()


def started_here() -> bool:
    """Return True where this process has started Ray, so that all workers have one installation."""
    node = ray._private.worker._global_node
    return node is not None and bool(node.is_head())


def slots(resources: ResourceConfig) -> int:
    """Return the number of trials that fit at once on the connected cluster.

    Raises:
        RequestError: No node has room for one.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    cpus, gpus = resources.cpus_per_trial, resources.gpus_per_trial
    fits = sum(_trials_on(node.get("CPU", 0), node.get("GPU", 0), cpus, gpus) for node in nodes)
    if fits:
        return fits
    most_cpus = max((node.get("CPU", 0) for node in nodes), default=0)
    most_gpus = max((node.get("GPU", 0) for node in nodes), default=0)
    if gpus > most_gpus:
        rule = f"resources.gpus_per_trial must be <= {most_gpus:g}, the GPUs of the largest node"
        raise RequestError(rule, value=gpus, hint="lower it, or use a cluster that has GPUs (--address)")
    rule = f"resources.cpus_per_trial must be <= {most_cpus:g}, the CPUs of the largest node, beside {gpus:g} GPU"
    raise RequestError(rule, value=cpus, hint="lower it, or use a larger cluster (--address)")


@contextmanager
def _local_ray() -> Iterator[None]:
    """Start Ray so that it can be reached from this machine alone, and without what is `UNUSED_SERVICES`.

    Ray's `_node_ip_address="127.0.0.1"` is replaced by the machine's own address, and its servers then listen on all
    interfaces. On macOS and Windows Ray keeps to loopback, by a switch that it reads from the environment
    (RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER) when it is imported, which was long ago; so the switch itself is turned.
    """
    with ExitStack() as stack:
        stack.enter_context(patch.object(ray_constants, "ENABLE_RAY_CLUSTER", False))
        stack.enter_context(patch.dict(os.environ, WORKER_ENVIRONMENT | dict(os.environ)))
        for name in UNUSED_SERVICES:
            if hasattr(Node, name):
                stack.enter_context(patch.object(Node, name, _do_nothing))
        yield


def _do_nothing(*_: Any, **__: Any) -> None:
    """Do nothing, in place of what is spared."""


def _check_reachable(address: str) -> None:
    """Check that the head accepts a connection: Ray would try for two minutes, and then end the process.

    Raises:
        RequestError: No cluster answers, or `address` is that of another of Ray's servers.
    """
    if "://" in address:
        hint = (
            "run on a node of the cluster with --address HEAD:6379, or by `ray job submit --address http://HEAD:8265`"
        )
        raise RequestError("--address must be HOST:PORT of a cluster's head, or auto", value=address, hint=hint)
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal():
        return  # `auto`, or something that Ray has a word for
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_TIMEOUT).close()
    except (OSError, OverflowError) as error:
        raise _unreachable(address, error) from error


def _unreachable(address: str, error: Exception) -> RequestError:
    hint = "start a cluster, or leave --address and RAY_ADDRESS out to use this machine"
    return RequestError(
        f"--address must be that of a running Ray cluster; none answers at {address}: {error}", hint=hint
    )


def _trials_on(cpus: float, gpus: float, cpus_each: int, gpus_each: float) -> int:
    by_cpu = int(cpus // cpus_each)
    if not gpus_each:
        return by_cpu
    # A fraction is a part of one GPU: three trials of 0.4 do not fit on one, nor six on two.
    by_gpu = int(gpus) * int(1 / gpus_each + 1e-9) if gpus_each < 1 else int(gpus // gpus_each)
    return min(by_cpu, by_gpu)
