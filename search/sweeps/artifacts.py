"""What a sweep leaves: its files in its folder, and all of them in MLflow as well."""

from __future__ import annotations

import importlib.metadata
import json
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from results.analysis.choices import MemberChoices, choices_markdown, describe_choices, varying_choices
from results.analysis.pareto import Candidate, pareto_front, pareto_markdown
from results.analysis.summary import POLICY, RoleResult, SweepResult
from results.runlog.history import History
from results.tracking.model_registry import EXAMPLES, describe, save_model, sha256
from results.tracking.policy_tables import ONE, TABLE, policies, policy, table_tag
from results.tracking.store import one_line
from results.tracking.tracker import Run, Tracker
from search.algorithms.base import SearchAlgorithm
from search.config.schema import COPYING, SweepConfig
from search.execution.trials import Outcome
from search.sweeps.run_description import about
from search.sweeps.sample_images import samples
from spaces import Genome, Schedule
from spaces.core.io import write_atomic
from spaces.schedule.schedule import weights_file
from trainables.checkpoints import save_weights
from trainables.data import DataSet
from trainables.export import portable
from trainables.quantization import size_in_bits
from trainables.task import Task

_log = logging.getLogger("roletune.report")


class Records:
    """A sweep's folder, and its run in MLflow, which is the parent of all others.

    Args:
        config: the sweep.
        folder: with the resolved sweep file in it.
        tracker: to MLflow.
        what: the sweep does, in a word or two.
    """

    def __init__(self, config: SweepConfig, folder: Path, tracker: Tracker, what: str) -> None:
        """Open the sweep's run."""
        self.config, self.folder, self.tracker = config, folder, tracker
        self._what = what
        self._schedules: dict[tuple[str, str], Schedule] = {}
        self._models: dict[str, str] = {}
        self._exported: dict[str, tuple[Path, tuple[int, ...]]] = {}
        tags = {"stage": "sweep", "folder": folder.name}
        # Where it runs is not what it is: storage and tracking would differ from machine to machine.
        parameters = json.loads(config.model_dump_json(by_alias=True, exclude={"storage", "tracking"}))
        self.parent = tracker.start(folder.name, tags=tags, params=parameters, description=about(config, what))
        self.artifacts(folder / "sweep.yaml")

    def artifacts(self, *paths: Path) -> None:
        """Keep files with the sweep's run."""
        for path in paths:
            self.tracker.artifact(self.parent, path)

    def policy_file(self, role: str) -> Path:
        """Where the role's schedule is written."""
        return self.folder / f"policy.{role}.json"

    def schedule(self, schedule: Schedule) -> None:
        """Write a policy and its picture as soon as they are known."""
        from results.plots.schedule import (
            plot_schedule,  # here, as below: nobody should wait for Matplotlib before a search
        )

        policy = schedule.save(self.policy_file(schedule.role))
        picture = plot_schedule(schedule, self.folder / "report" / f"schedule.{schedule.role}.png")
        self.artifacts(policy, *((weights_file(policy),) if schedule.weights else ()), picture)

    def family(self, stage: SearchAlgorithm) -> None:
        """Draw who copied whom, where members do."""
        if stage.kind in COPYING:
            from results.plots.lineage import plot_lineage

            family = History.read(self.folder).stage(stage.name).family()
            self.artifacts(plot_lineage(family, self.folder / "report" / f"lineage.{stage.task.role}.png"))

    def arms(self, role: str, schedules: Mapping[str, Schedule], runs: Mapping[str, Run]) -> None:
        """What the full trainings of a role saw, in tables: each in its run, and all of the sweep's side by side.

        Args:
            role: whose.
            schedules: by arm.
            runs: of the arms' first trainings, by arm.
        """
        self._schedules |= {(role, arm): schedule for arm, schedule in schedules.items()}
        self._table(self.parent, TABLE, policies(self._schedules))
        for arm, run in runs.items():
            self._table(run, ONE, policy(schedules[arm]))

    def _table(self, run: Run, name: str, table: str) -> None:
        self.tracker.text(run, table, name)
        self.tracker.tag(run, table_tag(name))

    def network(self, task: Task, weights: Mapping[str, Any]) -> None:
        """Write a trained network, as anybody can load it."""
        save_weights(self.folder / "models" / f"{task.role}.safetensors", task.exported(weights))

    def export(self, task: Task, weights: Mapping[str, Tensor], policy: Schedule) -> None:
        """Write a trained network as MLflow's own model, to be registered by `model`.

        Args:
            task: that it was trained on.
            weights: as the learner had them.
            policy: that it was trained with.

        Raises:
            WorkError: PyTorch cannot export the network.
        """
        images, _ = next(iter(task.data.train.batches(EXAMPLES)))
        example = (images.float() / 255).cpu().numpy()
        folder = save_model(
            self.folder / "models" / task.role, portable(task, weights), example, task.data.classes, policy
        )
        self._exported[task.role] = folder, example.shape[1:]

    def model(self, task: Task, run: Run, tested: Mapping[str, Any] | None) -> None:
        """Make the exported network, if there is one, a version of the registered model of its role.

        Args:
            task: that it was trained on.
            run: of the training, which the version is linked to.
            tested: what the journal noted of its test.
        """
        if task.role not in self._exported:
            return
        name, (folder, shape) = f"{self.config.name}-{task.role}", self._exported[task.role]
        score, at = (tested["score"], tested["at"]) if tested else ({}, 0)
        tags = {
            "sweep": self.folder.name,
            "role": task.role,
            "run": run.name,
            **({"accuracy": f"{score['accuracy']:.4f}"} if score else {}),
            "size_in_bits": str(size_in_bits(task.network())),
            "policy_sha256": sha256(self.policy_file(task.role)),
        }
        metrics = [(f"final_test_{key}", value, at, task.epochs) for key, value in score.items()]
        self.tracker.model(run, folder, name, tags, describe(name, tags, shape), metrics)
        self._models[task.role] = name

    def choices(self, stage: SearchAlgorithm, outcomes: Sequence[Outcome]) -> None:
        """What suits this pair, where members kept a genome from end to end and these differ in more than policies."""
        scores = {outcome.name: outcome.score for outcome in outcomes if not outcome.error}
        fixed = {member.name: member.source for member in stage.members if not member.evolves}
        rows = [
            MemberChoices(name, scores[name], describe_choices(genome))
            for name, genome in fixed.items()
            if isinstance(genome, Genome) and math.isfinite(scores.get(name, math.nan))
        ]
        if not varying_choices(rows):
            return
        report = self.folder / "report"
        stem = f"choices.{stage.task.role}"
        self._members(f"{stem}.json", rows)
        text = write_atomic(report / f"{stem}.md", f"# {stage.name}\n\n{choices_markdown(rows)}")
        from results.plots.choices import plot_choices

        self.artifacts(text, plot_choices(rows, report / f"{stem}.png"))

    def front(self, stage: SearchAlgorithm, outcomes: Sequence[Outcome], task: Task) -> tuple[Candidate, ...]:
        """The members that no other beats in accuracy and size together, the smallest first, in two files.

        There are none, and no files, where size is no objective, and of a teacher, which has no bits to choose.
        """
        if "size" not in self.config.search.objective or task.role == "teacher":
            return ()
        scores = {outcome.name: outcome.score for outcome in outcomes if not outcome.error}
        rows = [
            Candidate(
                member.name,
                scores[member.name],
                task.size_in_bits(member.source),
                describe_choices(member.source),
            )
            for member in stage.members
            if isinstance(member.source, Genome) and math.isfinite(scores.get(member.name, math.nan))
        ]
        if not rows:
            return ()
        report = self.folder / "report"
        stem = f"pareto.{task.role}"
        self._members(f"{stem}.json", rows)
        text = write_atomic(report / f"{stem}.md", f"# {stage.name}\n\n{pareto_markdown(rows)}")
        from results.plots.pareto import plot_pareto

        self.artifacts(text, plot_pareto(rows, report / f"{stem}.png"))
        return pareto_front(rows)

    def _members(self, name: str, rows: Sequence[MemberChoices] | Sequence[Candidate]) -> None:
        """Write the members of a table as data, which the report reads."""
        write_atomic(self.folder / "report" / name, json.dumps([row.to_json() for row in rows], indent=2) + "\n")

    def games(self, outcomes: Sequence[Outcome], runs: Mapping[str, Run]) -> None:
        """Where HARD was played: what the augmentors did, in each run's artifacts."""
        for outcome in outcomes:
            game = None if outcome.error else outcome.state().get("game")
            if game is not None:
                from results.plots.hard import plot_game

                for picture in plot_game(game, self.folder / "report" / "hard" / outcome.name):
                    self.tracker.artifact(runs[outcome.name], picture)

    def provenance(self, task: Task) -> dict[str, Any]:
        """What a policy file says of its origin: the same for the same sweep, so without dates, paths or run ids."""
        data, teacher = self.config.data, self.config.teacher
        if task.role == "teacher" and teacher is not None and teacher.data is not None:
            data = teacher.data
        parts = {"train": len(task.data.train), "validation": len(task.data.validation)}
        return {
            "sweep": self.config.name,
            "metric": "validation_accuracy",
            "seed": self.config.search.seed,
            "data": {"name": data.name, **parts},
            "versions": {name: importlib.metadata.version(name) for name in ("roletune", "torch", "ray")},
        }

    def page(self, data: DataSet) -> None:
        """Draw the report. A sweep that has found its answer does not fail over a picture: it is noted, and told."""
        from results.reporting.html import write_report

        try:
            self.artifacts(write_report(self.folder, images=samples(data), own=self.config.space.own))
        except Exception as error:  # from a full disk to a user's own data that cannot be read any more
            why = one_line(f"{type(error).__name__}: {error}", 500)
            self.tracker.tag(self.parent, {"report.error": why})
            _log.warning("the report could not be drawn (%s); roletune report %s tries again", why, self.folder)

    def close(
        self, roles: tuple[RoleResult, ...], failed: Mapping[str, str], seconds: float, data: DataSet
    ) -> SweepResult:
        """Write the summary and the report, which shows some images of `data`, and close the sweep's run."""
        result = SweepResult(
            name=self.config.name,
            folder=str(self.folder),
            report=str(self.folder / "report"),
            tracking_uri=self.tracker.uri,
            experiment=self.config.name,
            seconds=round(seconds, 2),
            failed=failed,
            roles=roles,
        )
        summary = write_atomic(self.folder / "report" / "summary.md", f"# {self.folder.name}\n\n{result.markdown()}")
        figures = write_atomic(self.folder / "result.json", json.dumps(result.to_json(), indent=2) + "\n")
        self.artifacts(summary, figures)
        self.page(data)
        self.tracker.tag(self.parent, {"mlflow.note.content": about(self.config, self._what, result, self._models)})
        self.tracker.log(self.parent, {"seconds": seconds, "failed_trials": float(len(failed)), **_figures(roles)})
        self.tracker.finish(self.parent)
        return result


def _figures(roles: Sequence[RoleResult]) -> dict[str, float]:
    """The sweep's own metrics in MLflow; the last role's also under the names that its trainings have."""
    figures: dict[str, float] = {}
    for role in roles:
        if not math.isnan(role.best_validation):
            figures[f"best_{role.role}_validation_accuracy"] = role.best_validation
        figures[f"final_{role.role}_size_in_bits"] = float(role.size_in_bits)
        for arm in role.test:
            if (accuracy := role.accuracy(arm)) is not None:
                figures[f"final_{role.role}_test_accuracy/{arm}"] = accuracy[0]
    if roles and (headline := roles[-1].accuracy(POLICY)) is not None:
        figures["final_test_accuracy"] = headline[0]
    if roles and not math.isnan(roles[-1].best_validation):
        figures["best_validation_accuracy"] = roles[-1].best_validation
    return figures
