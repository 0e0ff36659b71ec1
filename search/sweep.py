"""A whole sweep: each role's search, its full training beside the baselines, and the test at the very end."""

from __future__ import annotations

import importlib.metadata
import json
import math
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError
from rich.console import Console
from rich.markup import escape
from torch import Tensor

from results.plots import plot_schedule
from results.summary import POLICY, RoleResult, SweepResult
from results.tracking import Run, Tracker
from search.cluster import connected, slots
from search.config import RoleConfig, StudentConfig, SweepConfig
from search.plan import checked_data, new_folder, planned_epochs, scored_images, searches
from search.progress import Ticker
from search.stage import Found, Stage, member_seed
from search.trials import Member, Outcome, run_trials, worker
from search.watch import Watch
from spaces import Phase, RequestError, Schedule, WorkError
from spaces.files import write_atomic
from trainables.data import DataSet
from trainables.ray_trial import Worker
from trainables.task import Task, TrainedTeacher, test_score
from trainables.weights import load_weights, save_weights

Scores = dict[str, list[dict[str, float] | None]]
"""Arm → what each of its trainings scored on the test set, one entry a seed, None where one failed."""


def run(config: SweepConfig, *, address: str | None = None, console: Console | None = None) -> SweepResult:
    """Run the sweep that `config` describes.

    Args:
        config: the sweep.
        address: of a Ray cluster; None: RAY_ADDRESS, or this machine.
        console: shows progress; None keeps quiet.

    Returns:
        Figures and paths; everything else lies in the sweep's folder and in MLflow.

    Raises:
        RequestError: the data, a model, the cluster or the tracking server is not as the sweep needs it.
        WorkError: every member of a search failed, or every training of the teacher that the student needs.
    """
    with _started(config, config.name, planned_epochs(config), address, console) as sweep:
        return sweep.run()


def replay(
    config: SweepConfig,
    schedules: Sequence[Schedule],
    *,
    address: str | None = None,
    console: Console | None = None,
) -> SweepResult:
    """Train the roles of `schedules` in full, each on its schedule stretched to the epochs that `config` asks for.

    A student needs a teacher: `teacher.weights` in the sweep, or the teacher's schedule among `schedules`.

    Raises:
        RequestError: as `run`, or a schedule's role is not in the sweep or comes twice, or a student has no teacher.
        WorkError: every training of the teacher that the student needs failed.
    """
    by_role = {schedule.role: schedule for schedule in schedules}
    if len(by_role) < len(schedules):
        raise RequestError("at most one policy a role", got=[schedule.role for schedule in schedules])
    for role in by_role:
        if role not in config.roles:
            raise RequestError(f"the sweep trains {', '.join(config.roles)}", got=f"a policy for the {role}")
    if "student" in by_role and "teacher" not in by_role and config.teacher.weights is None:
        mend = (
            "add --policy policy.teacher.json, or --set teacher.weights=FILE (a sweep keeps models/teacher.safetensors)"
        )
        raise RequestError("a student's policy needs a trained teacher", mend=mend)
    total = planned_epochs(config, by_role)
    with _started(config, f"{config.name}-train", total, address, console, by_role) as sweep:
        return sweep.run()


@contextmanager
def _started(
    config: SweepConfig,
    name: str,
    total: int,
    address: str | None,
    console: Console | None,
    replayed: dict[str, Schedule] | None = None,
) -> Iterator[_Sweep]:
    """Everything that a sweep needs, checked one by one: a refusal leaves no folder behind."""
    data = checked_data(config)
    for schedule in (replayed or {}).values():
        if schedule.image.channels != data.channels:
            rule = f"the {schedule.role}'s policy is for images of {schedule.image.channels} channels"
            raise RequestError(rule, got=data.channels, mend="choose other data")
    with connected(address):
        fits = slots(config.resources)
        folder = new_folder(Path(config.storage), name)
        try:
            write_atomic(folder / "sweep.yaml", config.to_yaml())
            tracker = Tracker.open(folder, config.name, config.tracking.uri)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        with tracker, Ticker(console, total) as ticker:
            ticker.say(f"{escape(str(folder))}  ·  {fits} trial{'s' if fits != 1 else ''} at once")
            yield _Sweep(config, data, folder, tracker, ticker, replayed or {})


@dataclass
class _Trained:
    """A role's full trainings: weights by arm, one entry a seed, None where one failed."""

    task: Task
    found: Found | None
    schedule: Schedule
    weights: dict[str, list[dict[str, Tensor] | None]]
    runs: dict[str, Run]

    def policy_weights(self) -> dict[str, Tensor] | None:
        """Of the first training with the policy that did not fail."""
        return next((weights for weights in self.weights[POLICY] if weights is not None), None)


@dataclass
class _Sweep:
    config: SweepConfig
    data: DataSet
    folder: Path
    tracker: Tracker
    ticker: Ticker
    replayed: dict[str, Schedule]
    failed: dict[str, str] = field(default_factory=dict)

    def run(self) -> SweepResult:
        started = time.perf_counter()
        self.parent = self._open()
        trained: dict[str, _Trained] = {}
        for role, settings in self.config.roles.items():
            if self.replayed and role not in self.replayed:
                continue
            teacher = self._teacher(trained) if role == "student" else None
            trained[role] = self._role(role, settings, teacher)
            if weights := trained[role].policy_weights():
                save_weights(self.folder / "models" / f"{role}.safetensors", weights)
        self.ticker.stage("test")
        results = tuple(self._tested(role, result) for role, result in trained.items())
        return self._close(results, time.perf_counter() - started)

    # One role -------------------------------------------------------------------------------------------------------

    def _role(self, role: str, config: RoleConfig, teacher: TrainedTeacher | None) -> _Trained:
        task = self._task(role, config, teacher)
        found = None
        if self.replayed:
            arms = {POLICY: self.replayed[role]}
            self._keep(self.replayed[role])
        else:
            found, arms = self._search(task, config)
        full = replace(task, data=replace(self.data, train=self.data.full), validation=None, epochs=config.full_epochs)
        return self._full(full, config.full.seeds, arms, found)

    def _search(self, task: Task, config: RoleConfig) -> tuple[Found, dict[str, Schedule]]:
        """The search, and the random control beside it, which runs in the gaps that the population leaves.

        Returns:
            What the search found, and the schedule of each arm of the full training.
        """
        watch = Watch(self.tracker, self.parent, task.role, self.ticker, task.epochs)
        stages = [
            Stage(
                f"{task.role}-{kind}",
                kind,
                task,
                config.stage,
                self.config.search,
                self.config.space,
                self.folder,
                on_exploit=watch.exploited,
                on_generation=watch.generation,
            )
            for kind in searches(self.config)
        ]
        self.ticker.stage(f"{task.role} search" + (" and random control" if len(stages) > 1 else ""))
        members = [member for stage in stages for member in stage.members]
        name, scheduler = f"{task.role}-search", stages[0].scheduler()
        outcomes = self._trials(members, task, name, watch, config.stage.interval, scheduler)
        found = stages[0].found(outcomes, self._provenance())
        self._keep(found.schedule)
        arms = {POLICY: found.schedule}
        if "none" in self.config.baselines:
            arms["none"] = replace(found.schedule, phases=(Phase(1, self.config.space.zero()),), provenance={})
        for control in stages[1:]:
            try:
                arms["random"] = control.found(outcomes, self._provenance()).schedule
            except WorkError as error:  # its members stand in `failed`, and nothing else needs it
                self.ticker.say(f"  [red]no random control[/red]: {escape(str(error))}")
        return found, arms

    def _full(self, task: Task, seeds: int, arms: dict[str, Schedule], found: Found | None) -> _Trained:
        watch = Watch(self.tracker, self.parent, task.role, self.ticker, task.epochs)
        places = [(seed, arm) for seed in range(seeds) for arm in arms]
        members = [
            Member(
                name=full_name(task.role, arm, seed),
                index=index,
                seed=member_seed(self.config.search.seed, task.role, 1, seed),
                mover=arms[arm].stretch(task.epochs),
                stage="full training",
            )
            for index, (seed, arm) in enumerate(places)
        ]
        self.ticker.stage(f"{task.role} full training")
        outcomes = self._trials(members, task, f"{task.role}-full", watch, max(1, task.epochs // 10))
        by_name = {outcome.name: None if outcome.error else outcome.state()["model"] for outcome in outcomes}
        weights = {arm: [by_name[full_name(task.role, arm, seed)] for seed in range(seeds)] for arm in arms}
        return _Trained(task, found, arms[POLICY], weights, watch.runs)

    def _trials(
        self,
        members: Sequence[Member],
        task: Task,
        name: str,
        watch: Watch,
        save_every: int,
        scheduler: Any = None,
    ) -> list[Outcome]:
        outcomes = run_trials(
            members,
            task,
            self.config.resources,
            folder=self.folder.resolve() / "trials",
            name=name,
            save_every=save_every,
            scheduler=scheduler,
            callbacks=[watch],
        )
        self.failed |= {outcome.name: outcome.error for outcome in outcomes if outcome.error}
        return outcomes

    def _teacher(self, trained: dict[str, _Trained]) -> TrainedTeacher:
        """The one that the sweep was given, or the one that it trained."""
        given = self.config.teacher
        if given.weights is not None:
            schedule = Schedule.load(given.policy) if given.policy else None
            return TrainedTeacher(given.model, load_weights(given.weights), schedule)
        weights = trained["teacher"].policy_weights()
        if weights is None:
            why = next(why for name, why in self.failed.items() if name.startswith(f"teacher-full-{POLICY}-"))
            raise WorkError(f"every full training of the teacher with its policy failed; the first: {why}")
        return TrainedTeacher(given.model, weights, trained["teacher"].schedule)

    # The test -------------------------------------------------------------------------------------------------------

    def _tested(self, role: str, trained: _Trained) -> RoleResult:
        """Open the test set, once for each training, after everything was chosen."""
        scores = self._test_scores(role, trained)
        for arm, by_seed in scores.items():
            for seed, score in enumerate(by_seed):
                if score is not None:
                    final = {f"final_test_{key}": value for key, value in score.items()}
                    self.tracker.log(trained.runs[full_name(role, arm, seed)], final, trained.task.epochs)
        return RoleResult(
            role=role,
            best_validation=trained.found.best.score if trained.found else math.nan,
            test={arm: tuple(s["accuracy"] if s else None for s in by_seed) for arm, by_seed in scores.items()},
            exploits=len(trained.found.exploits) if trained.found else 0,
            policy_file=str(self._policy_file(role)),
        )

    def _test_scores(self, role: str, trained: _Trained) -> Scores:
        resources = self.config.resources
        remote = ray.remote(num_cpus=resources.cpus_per_trial, num_gpus=resources.gpus_per_trial)(_remote_test)
        task, here = ray.put(trained.task), worker(resources)
        pending = {
            arm: [remote.remote(task, weights, here) if weights else None for weights in by_seed]
            for arm, by_seed in trained.weights.items()
        }
        return {
            arm: [self._test_score(full_name(role, arm, seed), answer) for seed, answer in enumerate(answers)]
            for arm, answers in pending.items()
        }

    def _test_score(self, name: str, answer: Any) -> dict[str, float] | None:
        try:
            return ray.get(answer) if answer else None
        except RayError as error:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            self.failed[f"{name} on the test set"] = lines[-1][:300] if lines else type(error).__name__
            return None

    # What is kept ---------------------------------------------------------------------------------------------------

    def _keep(self, schedule: Schedule) -> None:
        """Write a policy and its picture as soon as they are known."""
        policy = schedule.save(self._policy_file(schedule.role))
        picture = plot_schedule(schedule, self.folder / "report" / f"schedule.{schedule.role}.png")
        for path in (policy, picture):
            self.tracker.artifact(self.parent, path)

    def _policy_file(self, role: str) -> Path:
        return self.folder / f"policy.{role}.json"

    def _open(self) -> Run:
        what = "Replay" if self.replayed else f"Search {self.config.search.kind}"
        about = f"{what}, seed {self.config.search.seed}, on {self.config.data.name}."
        tags = {"stage": "sweep", "folder": self.folder.name}
        # Where it runs is not what it is: storage and tracking would differ from machine to machine.
        parameters = json.loads(self.config.model_dump_json(by_alias=True, exclude={"storage", "tracking"}))
        parent = self.tracker.start(self.folder.name, tags=tags, params=parameters, description=about)
        self.tracker.artifact(parent, self.folder / "sweep.yaml")
        return parent

    def _close(self, roles: tuple[RoleResult, ...], seconds: float) -> SweepResult:
        result = SweepResult(
            name=self.config.name,
            folder=str(self.folder),
            report=str(self.folder / "report"),
            tracking_uri=self.tracker.uri,
            experiment=self.config.name,
            seconds=round(seconds, 2),
            failed=self.failed,
            roles=roles,
        )
        summary = write_atomic(self.folder / "report" / "summary.md", f"# {self.folder.name}\n\n{result.markdown()}")
        data = write_atomic(self.folder / "result.json", json.dumps(result.to_json(), indent=2) + "\n")
        for path in (summary, data):
            self.tracker.artifact(self.parent, path)
        self.tracker.log(self.parent, {"seconds": seconds, "failed_trials": float(len(self.failed)), **_figures(roles)})
        self.tracker.finish(self.parent)
        return result

    # Small things ---------------------------------------------------------------------------------------------------

    def _task(self, role: str, config: RoleConfig, teacher: TrainedTeacher | None) -> Task:
        task = Task(
            role="teacher" if role == "teacher" else "student",
            model=config.model,
            data=self.data,
            recipe=config.recipe,
            epochs=config.stage.epochs,
            validation=scored_images(self.config, self.data),
            validate_every=config.stage.interval if self.config.validate_.every == "slice" else 1,
            teacher=teacher,
        )
        return replace(task, distill=config.distill) if isinstance(config, StudentConfig) else task

    def _provenance(self) -> dict[str, Any]:
        """What a policy file says of its origin: the same for the same sweep, so without dates, paths or run ids."""
        parts = {"train": len(self.data.train), "validation": len(self.data.validation)}
        return {
            "sweep": self.config.name,
            "metric": "validation_accuracy",
            "seed": self.config.search.seed,
            "data": {"name": self.config.data.name, **parts},
            "versions": {name: importlib.metadata.version(name) for name in ("roletune", "torch", "ray")},
        }


def full_name(role: str, arm: str, seed: int) -> str:
    """What a full training is called, everywhere."""
    return f"{role}-full-{arm}-{seed}"


def _figures(roles: Sequence[RoleResult]) -> dict[str, float]:
    """The sweep's own metrics in MLflow."""
    figures = {}
    for role in roles:
        if not math.isnan(role.best_validation):
            figures[f"best_{role.role}_validation_accuracy"] = role.best_validation
        for arm in role.test:
            if (accuracy := role.accuracy(arm)) is not None:
                figures[f"final_{role.role}_test_accuracy/{arm}"] = accuracy[0]
    return figures


def _remote_test(task: Task, weights: dict[str, Tensor], here: Worker) -> dict[str, float]:
    return test_score(task, weights, here.enter())
