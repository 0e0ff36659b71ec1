"""A whole sweep: each role's search, its full training beside the baselines, and the test at the very end."""

from __future__ import annotations

import importlib.metadata
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import ray
from rich.console import Console
from torch import Tensor

from results.plots import plot_schedule
from results.summary import POLICY, RoleResult, SweepResult
from results.tracking import Run, Tracker
from search.cluster import connected, slots
from search.config import RoleConfig, StudentConfig, SweepConfig
from search.progress import Ticker
from search.stage import Found, Kind, Stage, member_seed
from search.trials import Member, Outcome, error_line, run_trials
from search.watch import Watch
from spaces import Phase, RequestError, Schedule, WorkError
from spaces.files import write_atomic
from trainables import data as datasets
from trainables.data import DataSet, Images
from trainables.data.splits import chosen
from trainables.models import build_model, check_model
from trainables.task import Task, TrainedTeacher, test_score
from trainables.weights import check_weights, load_weights, save_weights


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
        WorkError: the work failed: every member of a search, or every training that something else builds on.
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
        WorkError: a training failed.
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
    data = load_data(config)
    for schedule in schedules:
        if schedule.image.channels != data.channels:
            rule = f"the {schedule.role}'s policy is for images of {schedule.image.channels} channels"
            raise RequestError(rule, got=data.channels, mend="choose other data")
    total = planned_epochs(config, by_role)
    with _started(config, f"{config.name}-train", total, address, console) as sweep:
        sweep.replayed = by_role
        return sweep.run()


@contextmanager
def _started(
    config: SweepConfig, name: str, total: int, address: str | None, console: Console | None
) -> Iterator[_Sweep]:
    """Everything that a sweep needs, checked before its folder is made: a refusal leaves nothing behind."""
    data = load_data(config)
    check_models(config, data)
    with connected(address):
        fits = slots(config.resources)
        folder = new_folder(Path(config.storage), name)
        write_atomic(folder / "sweep.yaml", config.to_yaml())
        with Tracker.open(folder, config.name, config.tracking.uri) as tracker, Ticker(console, total) as ticker:
            ticker.say(f"{folder}  ·  {fits} trial{'s' if fits != 1 else ''} at once")
            yield _Sweep(config, data, folder, tracker, ticker)


@dataclass
class _Trained:
    """A role's full trainings: weights by arm, one entry a seed, None where one failed."""

    task: Task
    found: Found | None
    schedule: Schedule
    weights: dict[str, list[dict[str, Tensor] | None]]
    runs: dict[str, Run]


@dataclass
class _Sweep:
    config: SweepConfig
    data: DataSet
    folder: Path
    tracker: Tracker
    ticker: Ticker
    replayed: dict[str, Schedule] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def run(self) -> SweepResult:
        started = time.perf_counter()
        self.parent = self._open()
        teacher = self._given_teacher()
        trained: dict[str, _Trained] = {}
        for role, role_config in self.config.roles.items():
            if self.replayed and role not in self.replayed:
                continue
            trained[role] = self._role(role, role_config, teacher)
            teacher = TrainedTeacher(role_config.model, self._kept_weights(trained[role]), trained[role].schedule)
        self.ticker.stage("test")
        results = tuple(self._tested(role, result) for role, result in trained.items())
        return self._close(results, time.perf_counter() - started)

    # One role -------------------------------------------------------------------------------------------------------

    def _role(self, role: str, config: RoleConfig, teacher: TrainedTeacher | None) -> _Trained:
        task = self._task(role, config, teacher)
        found = None
        arms: dict[str, Schedule] = {}
        if self.replayed:
            arms[POLICY] = self.replayed[role]
        else:
            found, *control = self._search(task, config)
            arms[POLICY] = found.schedule
            self._keep(found)
            if "none" in self.config.baselines:
                phases = (Phase(1, self.config.space.zero()),)
                arms["none"] = replace(found.schedule, phases=phases, provenance={})
            if control:
                arms["random"] = control[0].schedule
        full = replace(task, data=replace(self.data, train=self.data.full), validation=None, epochs=config.full_epochs)
        return self._full(full, config.full.seeds, arms, found)

    def _search(self, task: Task, config: RoleConfig) -> list[Found]:
        """The search, and the random control beside it, which runs in the gaps that the population leaves."""
        watch = self._watch(task.role, config.stage.epochs)
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
        outcomes = self._trials(members, task, f"{task.role}-search", watch, stages[0].scheduler())
        return [stage.found(outcomes, self._provenance()) for stage in stages]

    def _full(self, task: Task, seeds: int, arms: dict[str, Schedule], found: Found | None) -> _Trained:
        watch = self._watch(task.role, task.epochs)
        places = [(seed, arm) for seed in range(seeds) for arm in arms]
        members = [
            Member(
                name=f"{task.role}-full-{arm}-{seed}",
                index=index,
                seed=self._seed(task.role, seed),
                mover=arms[arm].stretch(task.epochs),
                stage="full training",
            )
            for index, (seed, arm) in enumerate(places)
        ]
        self.ticker.stage(f"{task.role} full training")
        outcomes = self._trials(members, task, f"{task.role}-full", watch, None)
        by_name = {outcome.name: None if outcome.error else outcome.state()["model"] for outcome in outcomes}
        weights = {arm: [by_name[f"{task.role}-full-{arm}-{seed}"] for seed in range(seeds)] for arm in arms}
        return _Trained(task, found, arms[POLICY], weights, watch.runs)

    def _trials(self, members: Sequence[Member], task: Task, name: str, watch: Watch, scheduler: Any) -> list[Outcome]:
        outcomes = run_trials(
            members,
            task,
            self.config.resources,
            folder=self.folder.resolve() / "trials",
            name=name,
            scheduler=scheduler,
            callbacks=[watch],
        )
        self.failed |= {outcome.name: outcome.error for outcome in outcomes if outcome.error}
        return outcomes

    def _kept_weights(self, trained: _Trained) -> dict[str, Tensor]:
        """The first training with the policy that did not fail: kept as a file, and what a student learns from."""
        role = trained.task.role
        weights = next((weights for weights in trained.weights[POLICY] if weights is not None), None)
        if weights is None:
            why = next(why for name, why in self.failed.items() if name.startswith(f"{role}-full-{POLICY}-"))
            raise WorkError(f"every full training of the {role} with its policy failed; the first: {why}")
        save_weights(self.folder / "models" / f"{role}.safetensors", weights)
        return weights

    def _given_teacher(self) -> TrainedTeacher | None:
        path = self.config.teacher.weights
        return TrainedTeacher(self.config.teacher.model, load_weights(path)) if path else None

    # The test -------------------------------------------------------------------------------------------------------

    def _tested(self, role: str, trained: _Trained) -> RoleResult:
        """Open the test set, once for each training, after everything was chosen."""
        scores = self._test_scores(trained)
        for arm, by_seed in scores.items():
            for seed, score in enumerate(by_seed):
                if score is not None:
                    run = trained.runs[f"{role}-full-{arm}-{seed}"]
                    self.tracker.log(
                        run, {f"final_test_{key}": value for key, value in score.items()}, trained.task.epochs
                    )
        accuracies = {arm: tuple(s["accuracy"] if s else None for s in by_seed) for arm, by_seed in scores.items()}
        return RoleResult(
            role=role,
            best_validation=trained.found.best.score if trained.found else float("nan"),
            test=accuracies,
            exploits=len(trained.found.exploits) if trained.found else 0,
            policy_file=str(self.folder / f"policy.{role}.json") if trained.found else "",
        )

    def _test_scores(self, trained: _Trained) -> dict[str, list[dict[str, float] | None]]:
        resources = self.config.resources
        remote = ray.remote(num_cpus=resources.cpus_per_trial, num_gpus=resources.gpus_per_trial)(_remote_test)
        task = ray.put(trained.task)
        pending = {
            arm: [remote.remote(task, weights, resources.cpus_per_trial) if weights else None for weights in by_seed]
            for arm, by_seed in trained.weights.items()
        }
        return {arm: [ray.get(ref) if ref else None for ref in refs] for arm, refs in pending.items()}

    # What is kept ---------------------------------------------------------------------------------------------------

    def _keep(self, found: Found) -> None:
        """Write the policy and its picture as soon as they are known."""
        role = found.schedule.role
        policy = found.schedule.save(self.folder / f"policy.{role}.json")
        picture = plot_schedule(found.schedule, self.folder / "report" / f"schedule.{role}.png")
        for path in (policy, picture):
            self.tracker.artifact(self.parent, path)

    def _open(self) -> Run:
        # No data set's folder, no cluster's address: what would differ from machine to machine stays out of the tags.
        about = f"Search {self.config.search.kind}, seed {self.config.search.seed}, on {self.config.data.name}."
        tags = {"stage": "sweep", "folder": self.folder.name}
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
        metrics = {"seconds": seconds, "failed_trials": float(len(self.failed))}
        for role in roles:
            metrics[f"best_{role.role}_validation_accuracy"] = role.best_validation
            for arm in role.test:
                if (cell := role.accuracy(arm)) is not None:
                    metrics[f"final_{role.role}_test_accuracy/{arm}"] = cell[0]
        self.tracker.log(self.parent, metrics)
        self.tracker.finish(self.parent)
        return result

    # Small things ---------------------------------------------------------------------------------------------------

    def _task(self, role: str, config: RoleConfig, teacher: TrainedTeacher | None) -> Task:
        validate = self.config.validate_
        task = Task(
            role="teacher" if role == "teacher" else "student",
            model=config.model,
            data=self.data,
            recipe=config.recipe,
            epochs=config.stage.epochs,
            validation=scored_images(self.data, validate.images, self.config.data.seed),
            validate_every=config.stage.interval if validate.every == "slice" else 1,
            teacher=teacher,
        )
        return replace(task, distill=config.distill) if isinstance(config, StudentConfig) else task

    def _watch(self, role: str, epochs: int) -> Watch:
        return Watch(self.tracker, self.parent, role, self.ticker, epochs, error_line)

    def _seed(self, role: str, number: int) -> int:
        return member_seed(self.config.search.seed, role, 1, number)

    def _provenance(self) -> dict[str, Any]:
        """What a policy file says of its origin: the same for the same sweep, so without dates, paths or run ids."""
        data = self.config.data
        versions = {name: importlib.metadata.version(name) for name in ("roletune", "torch", "ray")}
        return {
            "sweep": self.config.name,
            "metric": "validation_accuracy",
            "seed": self.config.search.seed,
            "data": {
                "name": data.name,
                "train": len(self.data.train),
                "validation": len(self.data.validation),
            },
            "versions": versions,
        }


def _remote_test(task: Task, weights: dict[str, Tensor], threads: int) -> dict[str, float]:
    import torch

    torch.set_num_threads(threads)
    return test_score(task, weights, "cuda" if torch.cuda.is_available() else "cpu")


def load_data(config: SweepConfig) -> DataSet:
    """The sweep's images, split.

    Raises:
        RequestError: the set is unknown, missing, or too small for the splits.
    """
    return datasets.load(**config.data.model_dump())


def check_models(config: SweepConfig, data: DataSet) -> None:
    """Refuse, before anything is started, models that do not fit the data and weights that do not fit the model.

    Raises:
        RequestError: the first misfit.
    """
    shape = {"classes": data.classes, "channels": data.channels, "size": data.size}
    for role in config.roles.values():
        check_model(role.model, **shape)
    if config.teacher.weights:
        model = build_model(config.teacher.model, seed=0, **shape)
        check_weights(model, load_weights(config.teacher.weights), f"teacher.weights ({config.teacher.weights})")


def scored_images(data: DataSet, most: int | None, seed: int) -> Images:
    """At most `most` of the validation images, balanced over the classes, the same ones for every member."""
    if most is None or most >= len(data.validation):
        return data.validation
    labels = data.validation.labels
    return data.validation.subset(chosen(labels, classes=data.classes, size=most, seed=seed, part="validation"))


def planned_epochs(config: SweepConfig, replayed: dict[str, Schedule] | None = None) -> int:
    """Epochs of training in the whole sweep, over all trials: what the progress is measured against."""
    total = 0
    for role, settings in config.roles.items():
        if replayed is None:
            arms = len(searches(config)) + ("none" in config.baselines)
            total += len(searches(config)) * settings.stage.population * settings.stage.epochs
        else:
            arms = 1 if role in replayed else 0
        total += arms * settings.full.seeds * settings.full_epochs
    return total


def searches(config: SweepConfig) -> list[Kind]:
    """The searches of each role: the one that is asked for, and its control."""
    control = "random" in config.baselines and config.search.kind != "random"
    return [config.search.kind, "random"] if control else [config.search.kind]


def new_folder(storage: Path, name: str) -> Path:
    """Make `storage/name-001`, or the next number that is free.

    Raises:
        RequestError: the place cannot be written to.
    """
    try:
        storage.mkdir(parents=True, exist_ok=True)
        taken = [
            int(path.name.rpartition("-")[2]) for path in storage.glob(f"{name}-[0-9][0-9][0-9]*") if path.is_dir()
        ]
        number = max(taken, default=0) + 1
        while True:
            folder = storage / f"{name}-{number:03d}"
            try:
                folder.mkdir()
            except FileExistsError:
                number += 1
            else:
                return folder
    except OSError as error:
        raise RequestError(
            f"cannot write to {storage}: {error.strerror or error}", mend="choose another --storage"
        ) from error
