"""What MLflow's page says of a sweep's run: a description in Markdown."""

from __future__ import annotations

from collections.abc import Mapping

from results.analysis.summary import SweepResult
from results.tracking.policy_tables import TABLE
from search.config.schema import RoleConfig, StudentConfig, SweepConfig


def about(
    config: SweepConfig, what: str, result: SweepResult | None = None, models: Mapping[str, str] | None = None
) -> str:
    """The description of the sweep's run.

    Args:
        config: the sweep.
        what: it does, in a word or two.
        result: of a sweep that is through.
        models: role → registered model, of what was registered.
    """
    data = config.data
    parts = f"{data.train or 'all'} to search on, {data.validation or 'the rest'} to score on"
    rows = {"data": f"{data.name}: {parts}", **{role: _role(settings) for role, settings in config.roles.items()}}
    told = [f"{what}, seed {config.search.seed}, on {data.name}.", ""]
    if result is None:
        told += ["It is running, or was stopped before its end: no result yet.", ""]
    else:
        files = [f"`policy.{role.role}.json`" for role in result.roles]
        told += ["Accuracy in %:", "", result.markdown()]
        told += [f"- policies: {', '.join(files)} in the artifacts, side by side in `{TABLE}`"]
        told += ["- pictures of the schedules: `schedule.….png`; every figure: `result.json`"]
        told += [f"- {role}: model `{name}` in the registry" for role, name in (models or {}).items()]
        told += [""]
    told += ["| | |", "|---|---|", *(f"| **{name}** | {value} |" for name, value in rows.items()), ""]
    return "\n".join([*told, f"The same again, with `sweep.yaml` from the artifacts: {_command(what)}", ""])


def _role(settings: RoleConfig) -> str:
    stage, full = settings.stage, settings.full
    told = f"{settings.model}; search: {stage.population} members × {stage.epochs} epochs"
    told += f"; full: {settings.full_epochs} epochs × {full.seeds} seeds"
    if isinstance(settings, StudentConfig) and not settings.bits.is_full:
        told += f"; {settings.bits.weights}-bit weights, {settings.bits.activations}-bit activations"
    return told


def _command(what: str) -> str:
    replay = " --policy policy.….json" if what == "Replay" else ""
    return f"`roletune {'train' if replay else 'search'} sweep.yaml{replay}`"
