"""The files of a sweep, in its folder and in MLflow."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from results.analysis.choices import MemberChoices, choices_markdown, describe_choices, varying_choices
from results.analysis.effects import EFFECTS_FILE, EffectsReport
from results.analysis.pareto import Candidate, pareto_front, pareto_markdown
from results.analysis.summary import POLICY, RoleResult, SweepResult
from results.runlog.events import TrialTested
from results.runlog.history import History
from results.tracking.model_registry import EXAMPLES, describe, save_model, sha256
from results.tracking.policy_tables import POLICIES_FILE, POLICY_FILE, policies_table, policy_table, table_tag
from results.tracking.store import one_line
from results.tracking.tracker import Tracker
from search.algorithms.base import SearchAlgorithm
from search.execution.members import Outcome
from search.sweeps.folders import SWEEP_FILE
from search.sweeps.plan import RolePlan, SweepPlan
from search.sweeps.sample_images import samples
from spaces import Genome, Schedule
from spaces.core.io import write_atomic
from spaces.schedule.weights_file import weights_path
from trainables.checkpoints import save_weights
from trainables.export import export_classifier
from trainables.quantization import size_in_bits
from trainables.task import Task

_log = logging.getLogger("roletune.report")


class Records:
    """The folder of a sweep, and its run in MLflow, which is the parent of all others.

    Args:
        plan: Plan of the sweep.
        folder: Folder of the sweep, with the resolved sweep file in it.
        tracker: Connection to MLflow.
    """

    def __init__(self, plan: SweepPlan, folder: Path, tracker: Tracker) -> None:
        """Open the sweep's run."""
        self.plan, self.folder, self.tracker = plan, folder, tracker
        self._schedules: dict[tuple[str, str], Schedule] = {}
        self._models: dict[str, str] = {}
        self._exported: dict[str, tuple[Path, tuple[int, ...]]] = {}
        tags = {"stage": "sweep", "folder": folder.name}
        description = describe_run(plan)
        self.parent = tracker.start(folder.name, tags=tags, params=plan.parameters, description=description)
        self.artifacts(folder / SWEEP_FILE)

    def artifacts(self, *paths: Path) -> None:
        """Log files to the sweep's run."""
        for path in paths:
            self.tracker.artifact(self.parent, path)

    def policy_file(self, role: str) -> Path:
        """Return the path of the role's policy file."""
        return self.folder / f"policy.{role}.json"

    def schedule(self, schedule: Schedule) -> None:
        """Write a policy and its picture as soon as they are known."""
        from results.plots.schedule import (
            plot_schedule,  # here, as below: Matplotlib takes a second to import
        )

        policy = schedule.save(self.policy_file(schedule.role))
        picture = plot_schedule(schedule, self.folder / "report" / f"schedule.{schedule.role}.png")
        self.artifacts(policy, *((weights_path(policy),) if schedule.weights else ()), picture)

    def lineage(self, search: SearchAlgorithm) -> None:
        """Draw the lineage of the members, where they copy each other."""
        if search.copies_weights:
            from results.plots.lineage import plot_lineage

            lineage = History.read(self.folder).stage(search.name).lineage()
            self.artifacts(plot_lineage(lineage, self.folder / "report" / f"lineage.{search.task.role}.png"))

    def arms(self, role: str, schedules: Mapping[str, Schedule], runs: Mapping[str, str]) -> None:
        """Log the schedules of a role's final trainings as tables: each in its run, and all in the sweep's.

        Args:
            role: Role of the trainings.
            schedules: Schedules by arm.
            runs: Names of the arms' first trainings, by arm.
        """
        self._schedules |= {(role, arm): schedule for arm, schedule in schedules.items()}
        self._table(self.parent, POLICIES_FILE, policies_table(self._schedules))
        for arm, run in runs.items():
            self._table(run, POLICY_FILE, policy_table(schedules[arm]))

    def _table(self, run: str, name: str, table: str) -> None:
        self.tracker.text(run, table, name)
        self.tracker.tag(run, table_tag(name))

    def network(self, task: Task, weights: Mapping[str, Any]) -> None:
        """Write the weights of a trained network as safetensors."""
        save_weights(self.folder / "models" / f"{task.role}.safetensors", task.exported_weights(weights))

    def export(self, task: Task, weights: Mapping[str, Tensor], policy: Schedule) -> None:
        """Write a trained network as an MLflow model, to be registered by `model`.

        Args:
            task: Task that it was trained on.
            weights: Weights as the learner had them.
            policy: Policy that it was trained with.

        Raises:
            WorkError: PyTorch cannot export the network.
        """
        images, _ = next(iter(task.data.train.batches(EXAMPLES)))
        example = (images.float() / 255).cpu().numpy()
        folder = save_model(
            self.folder / "models" / task.role, export_classifier(task, weights), example, task.data.classes, policy
        )
        self._exported[task.role] = folder, example.shape[1:]

    def model(self, task: Task, run: str, tested: TrialTested | None) -> None:
        """Register the exported network, if there is one, as a version of its role's model.

        Args:
            task: Task that it was trained on.
            run: Name of the training, which the version is linked to.
            tested: Test score as the journal holds it.
        """
        if task.role not in self._exported:
            return
        name, (folder, shape) = f"{self.plan.name}-{task.role}", self._exported[task.role]
        score, at = (tested.scores, tested.at) if tested else ({}, 0)
        tags = {
            "sweep": self.folder.name,
            "role": task.role,
            "run": run,
            **({"accuracy": f"{score['accuracy']:.4f}"} if score else {}),
            "size_in_bits": str(size_in_bits(task.network())),
            "policy_sha256": sha256(self.policy_file(task.role)),
        }
        metrics = [(f"final_test_{key}", value, at, task.epochs) for key, value in score.items()]
        self.tracker.model(run, folder, name, tags, describe(name, tags, shape), metrics)
        self._models[task.role] = name

    def choices(self, search: SearchAlgorithm, outcomes: Sequence[Outcome]) -> None:
        """Write the table of choices, where genomes are constant and differ in more than policies."""
        if not search.constant_genomes:
            return
        rows = [
            MemberChoices(name, score, describe_choices(genome)) for name, genome, score in _scored(search, outcomes)
        ]
        if not varying_choices(rows):
            return
        from results.plots.choices import plot_choices

        report, stem = self.folder / "report", f"choices.{search.task.role}"
        self._rows(f"{stem}.json", rows)
        text = write_atomic(report / f"{stem}.md", f"# {search.name}\n\n{choices_markdown(rows)}")
        self.artifacts(text, plot_choices(rows, report / f"{stem}.png"))

    def effects(self, search: SearchAlgorithm, outcomes: Sequence[Outcome]) -> EffectsReport | None:
        """Write the effects of a search that estimates them, beside those of the other role, and return them all."""
        if (found := search.effects(outcomes)) is None:
            return None
        from results.plots.effects import plot_effects

        path, report = self.folder / EFFECTS_FILE, self.folder / "report"
        effects = (EffectsReport.load(path) if path.is_file() else EffectsReport({})).with_role(found)
        text = write_atomic(report / "effects.md", f"# {self.folder.name}\n\n{effects.markdown()}")
        self.artifacts(effects.save(path), text, plot_effects(effects, report / "effects.png"))
        return effects

    def front(self, search: SearchAlgorithm, outcomes: Sequence[Outcome], task: Task) -> tuple[Candidate, ...]:
        """Write the Pareto front of accuracy and size, and return it, the smallest member first.

        It is empty, without files, where size is no objective, and of a teacher, which has no bits to choose.
        """
        if "size" not in search.search.objective or task.role == "teacher":
            return ()
        rows = [
            Candidate(name, score, task.size_in_bits(genome), describe_choices(genome))
            for name, genome, score in _scored(search, outcomes)
        ]
        if not rows:
            return ()
        from results.plots.pareto import plot_pareto

        report, stem = self.folder / "report", f"pareto.{task.role}"
        self._rows(f"{stem}.json", rows)
        text = write_atomic(report / f"{stem}.md", f"# {search.name}\n\n{pareto_markdown(rows)}")
        self.artifacts(text, plot_pareto(rows, report / f"{stem}.png"))
        return pareto_front(rows)

    def _rows(self, name: str, rows: Sequence[MemberChoices] | Sequence[Candidate]) -> None:
        """Write the rows of a table as data, which the report reads."""
        write_atomic(self.folder / "report" / name, json.dumps([row.to_json() for row in rows], indent=2) + "\n")

    def games(self, outcomes: Sequence[Outcome]) -> None:
        """Draw what the augmentors of HARD did, in each run's artifacts."""
        for outcome in outcomes:
            game = None if outcome.error else outcome.state().get("game")
            if game is not None:
                from results.plots.hard import plot_game

                for picture in plot_game(game, self.folder / "report" / "hard" / outcome.name):
                    self.tracker.artifact(outcome.name, picture)

    def page(self) -> None:
        """Draw the report; a failure is logged, since a sweep with a result must not fail over a picture."""
        from results.reporting.html import write_report

        try:
            self.artifacts(write_report(self.folder, images=samples(self.plan.data), own=self.plan.own))
        except Exception as error:  # from a full disk to a user's own data that cannot be read any more
            why = one_line(f"{type(error).__name__}: {error}", 500)
            self.tracker.tag(self.parent, {"report.error": why})
            _log.warning("the report could not be drawn (%s); roletune report %s tries again", why, self.folder)

    def close(self, roles: tuple[RoleResult, ...], failed: Mapping[str, str], seconds: float) -> SweepResult:
        """Write the summary and the report, and close the sweep's run."""
        result = SweepResult(
            name=self.plan.name,
            folder=str(self.folder),
            report=str(self.folder / "report"),
            tracking_uri=self.tracker.uri,
            experiment=self.plan.name,
            seconds=round(seconds, 2),
            failed=failed,
            roles=roles,
        )
        summary = write_atomic(self.folder / "report" / "summary.md", f"# {self.folder.name}\n\n{result.markdown()}")
        figures = write_atomic(self.folder / "result.json", json.dumps(result.to_json(), indent=2) + "\n")
        self.artifacts(summary, figures)
        self.page()
        self.tracker.tag(self.parent, {"mlflow.note.content": describe_run(self.plan, result, self._models)})
        self.tracker.log(self.parent, {"seconds": seconds, "failed_trials": float(len(failed)), **_metrics(roles)})
        self.tracker.finish(self.parent)
        return result


def _scored(search: SearchAlgorithm, outcomes: Sequence[Outcome]) -> Iterator[tuple[str, Genome, float]]:
    """Yield the name, the genome and the validation accuracy of every member that was scored."""
    scores = {each.name: each.accuracy for each in outcomes if not each.error and math.isfinite(each.score)}
    for member in search.members:
        score = scores.get(member.name, math.nan)
        if isinstance(member.source, Genome) and math.isfinite(score):
            yield member.name, member.source, score


def _metrics(roles: Sequence[RoleResult]) -> dict[str, float]:
    """Return the sweep's own metrics in MLflow; the last role's also under the names that its trainings have."""
    figures: dict[str, float] = {}
    for role in roles:
        if not math.isnan(role.best_validation):
            figures[f"best_{role.role}_validation_accuracy"] = role.best_validation
        figures[f"final_{role.role}_size_in_bits"] = float(role.size_in_bits)
        for arm in role.test:
            if (accuracy := role.accuracy(arm)) is not None:
                figures[f"final_{role.role}_test_accuracy/{arm}"] = accuracy[0]
            if (own := role.in_domain_accuracy(arm)) is not None:
                figures[f"final_{role.role}_in_domain_accuracy/{arm}"] = own[0]
    if roles and (headline := roles[-1].accuracy(POLICY)) is not None:
        figures["final_test_accuracy"] = headline[0]
    if roles and not math.isnan(roles[-1].best_validation):
        figures["best_validation_accuracy"] = roles[-1].best_validation
    return figures


def describe_run(plan: SweepPlan, result: SweepResult | None = None, models: Mapping[str, str] | None = None) -> str:
    """Return the description of a sweep's run.

    Args:
        plan: Plan of the sweep.
        result: Result of a sweep that is finished; None before.
        models: Registered models by role.
    """
    data = plan.data_settings
    parts = f"{data['train'] or 'all'} training images, {data['validation'] or 'the rest'} for validation"
    targets = {"validated": data["validation_from"], "tested": data["test_from"]}
    parts += "".join(f"; {done} on {name}" for done, name in targets.items() if name is not None)
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
