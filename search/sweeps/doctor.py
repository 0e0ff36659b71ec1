"""What a machine or a cluster offers, and whether a sweep can run on it."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from search.algorithms.pbt import RAY_CHECKED
from search.config.schema import SweepConfig
from search.execution import preflight
from search.execution.cluster import connected
from search.sweeps.plan import checked_data, planned_epochs
from spaces import RequestError, RoletuneError

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
    found = [
        _check("packages", _packages),
        _check("data", lambda: _data(config)),
        _check("plan", lambda: f"{planned_epochs(config)} epochs of training over all trials"),
    ]
    try:
        with connected(address):
            looked = [_check(*look) for look in preflight.checks(config, Path(config.storage)).items()]
            told = {check.finding: check for check in reversed(looked)}  # what stops several checks is told once
            found += [check for check in looked if check.ok or told[check.finding] is check]
    except RequestError as error:  # nobody to ask about the rest
        found.append(Check("cluster", False, str(error)))
    return found


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
