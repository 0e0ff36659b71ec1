"""What a machine or a cluster offers, and whether a sweep can run on it."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from results.store import check_store, mask
from search.cluster import connected, slots
from search.config import SweepConfig
from search.plan import checked_data, planned_epochs
from search.population import RAY_CHECKED
from spaces import RoletuneError, WorkError

PACKAGES = ("torch", "torchvision", "ray", "optuna", "mlflow", "numpy")


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Args:
        name: what.
        ok: whether the sweep can run as far as this goes.
        finding: what was found, or the rule that is broken and the mend.
    """

    name: str
    ok: bool
    finding: str


def examine(config: SweepConfig, address: str | None = None) -> list[Check]:
    """Look at everything that a sweep needs; nothing of the sweep is run."""
    look = {
        "packages": _packages,
        "data": lambda: _data(config),
        "storage": lambda: _storage(Path(config.storage)),
        "tracking": lambda: _tracking(config),
        "cluster": lambda: _cluster(config, address),
        "plan": lambda: f"{planned_epochs(config)} epochs of training over all trials",
    }
    return [_check(name, finding) for name, finding in look.items()]


def _check(name: str, look: Callable[[], str]) -> Check:
    try:
        return Check(name, True, look())
    except RoletuneError as error:
        return Check(name, False, str(error))


def _packages() -> str:
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    text = ", ".join(f"{name} {version}" for name, version in versions.items())
    if not versions["ray"].startswith(RAY_CHECKED + "."):
        text += f" (the guards of the population scheduler were checked against Ray {RAY_CHECKED})"
    return text


def _data(config: SweepConfig) -> str:
    data = checked_data(config)
    counts = ", ".join(f"{len(getattr(data, part))} {part}" for part in ("train", "validation", "test"))
    models = ", ".join(f"{role} {settings.model}" for role, settings in config.roles.items())
    return f"{data.name}: {counts}; {data.classes} classes, {data.channels}×{data.size}×{data.size}; fits {models}"


def _storage(storage: Path) -> str:
    place = next(parent for parent in (storage.resolve(), *storage.resolve().parents) if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise WorkError(f"cannot write to {place}: {error.strerror}; choose another --storage") from error
    return f"{storage.resolve()}, {shutil.disk_usage(place).free / 2**30:.0f} GiB free"


def _tracking(config: SweepConfig) -> str:
    uri = config.tracking.uri or os.environ.get("MLFLOW_TRACKING_URI")
    if not uri:
        return "a store in the sweep's own folder"
    check_store(uri)
    return f"{mask(uri)} answers"


def _cluster(config: SweepConfig, address: str | None) -> str:
    import ray

    with connected(address):
        have = ray.cluster_resources()
        nodes = sum(bool(node["Alive"]) for node in ray.nodes())
        return (
            f"{nodes} node{'s' if nodes != 1 else ''}, {have.get('CPU', 0):g} CPUs, {have.get('GPU', 0):g} GPUs: "
            f"{slots(config.resources)} trials at once"
        )
