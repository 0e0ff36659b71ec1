"""Checks of a machine or a cluster, and of whether a sweep can run on it."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from search.algorithms.pbt_scheduler import RAY_CHECKED
from search.config.schema import SweepConfig
from search.execution import preflight
from search.execution.cluster import connected
from search.sweeps.plan import SweepPlan
from spaces import RequestError, RoletuneError

PACKAGES = ("torch", "torchvision", "ray", "optuna", "mlflow", "numpy")


@dataclass(frozen=True)
class Check:
    """One check.

    Args:
        name: Name of the check.
        ok: True where it passed.
        finding: What was found; where it failed, the rule that is broken and a hint.
    """

    name: str
    ok: bool
    finding: str


def examine(config: SweepConfig, address: str | None = None) -> list[Check]:
    """Check everything that a sweep needs, without running anything of it.

    Args:
        config: Sweep.
        address: Address of a Ray cluster, HOST:PORT; None for RAY_ADDRESS, or this machine.

    Returns:
        The checks; what makes several of them fail is reported once.

    Example:
        >>> checks = examine(SweepConfig.load("examples/digits.yaml"))  # doctest: +SKIP
        >>> [check.name for check in checks if not check.ok]  # doctest: +SKIP
        []
    """
    found = [_check("packages", _packages)]
    plans: list[SweepPlan] = []
    found.append(_check("data", lambda: _data(config, plans)))
    if plans:
        found.append(Check("plan", True, f"{plans[0].total_epochs} epochs of training over all trials"))
    try:
        with connected(address):
            needs = preflight.Requirements.resolve(config)
            results = [_check(*each) for each in preflight.checks(needs, Path(config.storage)).items()]
            first = {check.finding: check for check in reversed(results)}
            found += [check for check in results if check.ok or first[check.finding] is check]
    except RequestError as error:  # without a cluster there is nothing else to check
        found.append(Check("cluster", False, str(error)))
    return found


def _check(name: str, check: Callable[[], str]) -> Check:
    try:
        return Check(name, True, check())
    except RoletuneError as error:
        return Check(name, False, str(error))


def _packages() -> str:
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    text = ", ".join(f"{name} {version}" for name, version in versions.items())
    if not versions["ray"].startswith(RAY_CHECKED + "."):
        text += f" (the PBT scheduler was checked against Ray {RAY_CHECKED})"
    return text


def _data(config: SweepConfig, plans: list[SweepPlan]) -> str:
    plan = SweepPlan.resolve(config)
    plans.append(plan)
    data = plan.data
    counts = ", ".join(f"{len(getattr(data, part))} {part}" for part in ("train", "validation", "test"))
    models = ", ".join(f"{role} {each.task.model}" for role, each in plan.roles.items())
    return f"{data.name}: {counts}; {data.classes} classes, {data.channels}×{data.size}×{data.size}; fits {models}"
