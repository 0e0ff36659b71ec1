"""The description of a sweep's run on MLflow's page, in Markdown."""

from __future__ import annotations

from collections.abc import Mapping

from results.analysis.summary import SweepResult
from results.tracking.policy_tables import POLICIES_FILE
from search.sweeps.plan import RolePlan, SweepPlan


def describe_run(plan: SweepPlan, result: SweepResult | None = None, models: Mapping[str, str] | None = None) -> str:
    """Return the description of a sweep's run.

    Args:
        plan: Plan of the sweep.
        result: Result of a sweep that is finished; None before.
        models: Registered models by role.
    """
    data = plan.data_settings
    parts = f"{data['train'] or 'all'} training images, {data['validation'] or 'the rest'} for validation"
    rows = {"data": f"{data['name']}: {parts}", **{role: _role(each) for role, each in plan.roles.items()}}
    lines = [f"{plan.what}, seed {plan.seed}, on {data['name']}.", ""]
    if result is None:
        lines += ["No result yet: the sweep is running, or was stopped.", ""]
    else:
        files = [f"`policy.{role.role}.json`" for role in result.roles]
        lines += ["Accuracy in %:", "", result.markdown()]
        lines += [f"- policies: {', '.join(files)} in the artifacts, side by side in `{POLICIES_FILE}`"]
        lines += ["- pictures of the schedules: `schedule.….png`; all results: `result.json`"]
        lines += [f"- {role}: model `{name}` in the registry" for role, name in (models or {}).items()]
        lines += [""]
    lines += ["| | |", "|---|---|", *(f"| **{name}** | {value} |" for name, value in rows.items()), ""]
    return "\n".join([*lines, f"To repeat it, with `sweep.yaml` from the artifacts: {_command(plan)}", ""])


def _role(plan: RolePlan) -> str:
    text = plan.task.model
    if plan.search is not None:
        text += f"; search: {plan.search.members} members × {plan.search.settings.epochs} epochs"
    text += f"; final training: {plan.final_epochs} epochs × {plan.seeds} seeds"
    bits = plan.task.bits
    return text if bits.is_full else f"{text}; {bits.weights}-bit weights, {bits.activations}-bit activations"


def _command(plan: SweepPlan) -> str:
    replay = any(role.schedule for role in plan.roles.values())
    return "`roletune train sweep.yaml --policy policy.….json`" if replay else "`roletune search sweep.yaml`"
