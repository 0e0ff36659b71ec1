"""Is a policy better than what costs no search? Policies and baselines, trained alike, tested once, compared."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from results.analysis.evaluation import Arm, Evaluation
from results.runlog.history import History
from results.tracking.policy_tables import TABLE, policies, table_tag
from results.tracking.tracker import Run, Tracker
from search.algorithms.base import member_seed
from search.config.schema import StudentConfig, SweepConfig
from search.execution.callbacks import SweepCallback
from search.execution.cluster import connected, slots
from search.execution.journal import Journal
from search.execution.preflight import preflight
from search.execution.progress import ProgressReporter
from search.execution.scoring import Tested, score_once
from search.execution.trials import Member, run_trials
from search.sweeps.plan import checked_data, full_images, given_teacher, teacher_data
from spaces import Genome, Phase, RequestError, Schedule, WorkError
from spaces.augmentations import Augmentation, augmentation
from spaces.core.errors import unknown
from spaces.core.io import write_atomic
from spaces.core.weights import Learned
from spaces.schedule.schedule import ROLES
from trainables.task import Task, TrainedTeacher

NONE = "none"
SHOWN = ("crop_flip", "randaugment", "trivialaugment", "flip", "cutout", "autoaugment")
"""Baselines that take the policy's place: student and teacher both see what they make, where the view is shared."""

VIEWS = ("cutmix", "cutmixpick", "mixup")
"""Baselines that are a second view beside no policy, which the teacher's answers are the target of."""

CONTROLS = ("shuffled", "mean")
"""Made of a policy's own genomes: in another order, drawn anew for each seed; or their mean over time."""

BASELINES = (NONE, *SHOWN, *VIEWS, *CONTROLS)
USUAL = (NONE, "crop_flip", "randaugment", "trivialaugment", "cutmix", "cutmixpick", "shuffled", "mean")
"""What is compared with where nothing is said; second views are left out where there is no teacher to answer."""

ABOUT = {
    NONE: "the data set's own augmentation alone",
    "shuffled": "the policy's phases in another order, drawn for each seed",
    "mean": "the policy's mean over time",
} | {name: "on both roles, in place of a policy" for name in SHOWN}


def evaluate(
    config: SweepConfig,
    policies: Mapping[str, Schedule],
    *,
    baselines: Sequence[str] | None = None,
    seeds: int = 5,
    home: Path | str | None = None,
    address: str | None = None,
    console: Console | None = None,
) -> Evaluation:
    """Train policies and baselines for the same epochs from the same seeds, test each once, and compare.

    All policies are of one role. Every training is that of the sweep's own full training: as many epochs, on training
    and validation images. What an earlier call has measured in `home` under the same settings is not measured again,
    and what one was in the midst of goes on from its last checkpoint.

    Args:
        config: the sweep; a student's teacher is given by `teacher.weights`, see `with_teacher`.
        policies: by the names that they are to have; stretched to the epochs of the full training.
        baselines: names of `BASELINES`; None: `USUAL`.
        seeds: trainings of each arm, 1 or more; two or more give an interval.
        home: folder that the results go to; None: `<storage>/<name>-evaluate`.
        address: of a Ray cluster; None: RAY_ADDRESS, or this machine.
        console: shows progress; None keeps quiet.

    Returns:
        The evaluation; it is also written to `<home>/evaluation.<role>.json`, as table and picture to
        `<home>/report`, and to MLflow.

    Raises:
        RequestError: an unknown baseline, policies of two roles or of other images, a student without a teacher; or as
            `search.run`.
        WorkError: every training failed.
    """
    role = _role(config, policies)
    if seeds < 1:
        raise RequestError("an evaluation has one seed or more", value=seeds)
    task = _task(config, role, policies)
    names, left_out = _chosen(baselines, task)
    arms = [arm for name, schedule in policies.items() for arm in _own(name, schedule.stretch(task.epochs), names)]
    arms += [_baseline(name, task) for name in names if name not in CONTROLS]
    home = Path(home or Path(config.storage) / f"{config.name}-evaluate")
    with connected(address):
        fits = slots(config.resources)
        preflight(config, home if home.is_dir() else Path(config.storage))
        folder = home / f"evaluation.{role}"
        folder.mkdir(parents=True, exist_ok=True)
        total = len(arms) * seeds * task.epochs
        with (
            Tracker.open(home, config.name, config.tracking.uri) as tracker,
            Journal(folder) as journal,
            ProgressReporter(console, total) as ticker,
        ):
            name = f"{home.name}-evaluation-{role}"
            tracker.recall(journal.ticket, name)
            ticker.say(f"{escape(str(home))}  ·  {fits} trial{'s' if fits != 1 else ''} at once")
            if left_out:
                ticker.say(f"left out, for want of a teacher of the same classes: {', '.join(left_out)}")
            work = _Work(config, task, arms, seeds, home, journal, tracker, ticker)
            return work.run(tracker.start(name, tags={"stage": "evaluation", "role": role}))


def named(folder: Path | None, files: Sequence[Path], role: str = "student") -> dict[str, Path]:
    """Policy files by the names that they are told by: a sweep's own by its folder, others by the file's.

    Args:
        folder: of a sweep, whose policy for `role` comes first; None: of none.
        files: other policy files.
        role: `teacher` or `student`.

    Raises:
        RequestError: the sweep has no such policy, or two files would be called the same.
    """
    usual = {f"policy.{each}.json" for each in ROLES}
    own = [folder.resolve() / f"policy.{role}.json"] if folder is not None else []
    if own and not own[0].is_file():
        rule = f"{folder} has no policy for the {role}"
        raise RequestError(rule, hint="see its report/summary.md; or --resume the sweep, if it was not finished")
    found: dict[str, Path] = {}
    for path in (*own, *files):
        name = path.resolve().parent.name if path.name in usual else path.name.removesuffix(".json")
        if found.setdefault(name, path) != path:
            raise RequestError(f"two policies would be called {name}", value=str(path), hint="rename one of the files")
    return found


def with_teacher(config: SweepConfig, folders: Sequence[Path]) -> SweepConfig:
    """The same sweep with a teacher that is given: its own, or the one that a sweep has left in one of `folders`.

    Raises:
        RequestError: there is none.
    """
    teacher = config.teacher
    if teacher is None or teacher.given:
        return config
    for folder in folders:
        weights, policy = folder / "models" / "teacher.safetensors", folder / "policy.teacher.json"
        if weights.is_file():
            given = {"weights": str(weights), "policy": str(policy) if policy.is_file() else None}
            return config.model_copy(update={"teacher": teacher.model_copy(update=given)})
    hint = "--set teacher.weights=FILE (a sweep keeps models/teacher.safetensors beside its policies)"
    raise RequestError("a student's policy needs a trained teacher", hint=hint)


@dataclass(frozen=True)
class _Arm:
    """How to train: what replays in each seed, what is shown before it, and how it is told of."""

    name: str
    kind: str
    source: Callable[[int], Schedule]
    about: str = ""
    shown: Augmentation | None = None


@dataclass
class _Work:
    """An evaluation, as it goes."""

    config: SweepConfig
    task: Task
    arms: Sequence[_Arm]
    seeds: int
    home: Path
    journal: Journal
    tracker: Tracker
    ticker: ProgressReporter
    failed: dict[str, str] = field(default_factory=dict)

    def run(self, parent: Run) -> Evaluation:
        role, resources = self.task.role, self.config.resources
        self._origin = _origin(self.config, self.task)
        members = {(arm.name, seed): self._member(arm, seed) for seed in range(self.seeds) for arm in self.arms}
        watch = SweepCallback(
            self.journal, self.tracker, parent, role, self.ticker, self.task.epochs, resources.epoch_limit
        )
        self.ticker.stage(f"{role}: {len(self.arms)} arms, {self.seeds} seed{'s' if self.seeds > 1 else ''}")
        for member in members.values():  # what failed is tried again
            self.journal.forgive([member.name])
        done = sum(self.journal.progress(each.name).over(self.task.epochs) for each in members.values())
        if done:
            self.ticker.say(f"  {done} of {len(members)} trainings were measured before")
        watch.recall(members.values())
        every = max(1, self.task.epochs // 10)
        outcomes = run_trials(
            list(members.values()), self.task, resources, watch, name=f"{role}-evaluation", save_every=every
        )
        self.failed = {outcome.name: outcome.error for outcome in outcomes if outcome.error}
        self.ticker.stage("test")
        bits = {each.name: self.task.under(each.source).bits for each in members.values()}
        tested, untested = score_once(self.journal, self.task, outcomes, bits, resources)
        self.failed |= {f"{name} on the test set": why for name, why in untested.items()}
        for name, each in tested.items():
            final = {f"final_test_{key}": value for key, value in each.score.items()}
            self.tracker.log(watch.runs[name], final, self.task.epochs, at=each.at)
        for outcome in outcomes:  # what was tested is not needed again
            if outcome.name in tested and outcome.checkpoint is not None:
                shutil.rmtree(outcome.checkpoint, ignore_errors=True)
        return self._record(parent, {place: each.name for place, each in members.items()}, tested)

    def _member(self, arm: _Arm, seed: int) -> Member:
        """The training of an arm from a seed; its name says which settings it was done under."""
        source, shown = arm.source(seed), None if arm.shown is None else arm.shown.to_json()
        what = json.dumps({**self._origin, "mover": _phases(source), "shown": shown}, sort_keys=True)
        settings = hashlib.sha256(what.encode()).hexdigest()[:8]
        return Member(
            name=f"{self.task.role}-{arm.name.replace('/', '.')}-{settings}-{seed}",
            index=seed,
            seed=member_seed(self.config.search.seed, self.task.role, 1, seed),
            source=source,
            stage="evaluation",
            arm=arm.name,
            shown=shown,
        )

    def _record(self, parent: Run, names: Mapping[tuple[str, int], str], tested: Mapping[str, Tested]) -> Evaluation:
        """The result, in files and in MLflow.

        Raises:
            WorkError: there is none.
        """
        if not tested:
            why = next(iter(self.failed.values()), "nothing was trained")
            raise WorkError(f"every training failed; the first: {why}")
        history = History.read(self.journal.folder)
        spent = {
            member.name: sum(report.metrics.get("seconds/train", 0.0) for report in member.reports)
            for stage in history.stages.values()
            for member in stage.members.values()
        }
        seeds, scores = range(self.seeds), {name: each.score for name, each in tested.items()}
        arms = tuple(
            Arm(
                arm.name,
                arm.kind,
                tuple(known["accuracy"] if (known := scores.get(names[arm.name, seed])) else None for seed in seeds),
                tuple(spent[name] if (name := names[arm.name, seed]) in scores else None for seed in seeds),
                arm.about,
            )
            for arm in self.arms
        )
        evaluation = Evaluation(
            name=self.config.name,
            role=self.task.role,
            epochs=self.task.epochs,
            arms=arms,
            seconds=round(sum((life.heard - life.started) / 1000 for life in history.lives), 2),
            failed=self.failed,
            settings=_settings(self.config, self.task),
            folder=str(self.home),
            tracking_uri=self.tracker.uri,
        )
        self._write(parent, evaluation)
        return evaluation

    def _write(self, parent: Run, evaluation: Evaluation) -> None:
        from results.plots.evaluation import evaluation_png

        report, stem = self.home / "report", f"evaluation.{evaluation.role}"
        title = f"# {self.home.name}: the {evaluation.role}'s policies and baselines\n\n"
        text = title + evaluation.markdown()
        for path in (
            write_atomic(self.home / f"{stem}.json", json.dumps(evaluation.to_json(), indent=2) + "\n"),
            write_atomic(report / f"{stem}.md", text),
            write_atomic(report / f"{stem}.png", evaluation_png(evaluation)),
        ):
            self.tracker.artifact(parent, path)
        seen = {(evaluation.role, arm.name): arm.source(0) for arm in self.arms if arm.kind != "baseline"}
        self.tracker.text(parent, policies(seen), TABLE)
        self.tracker.tag(parent, table_tag(TABLE))
        means = {f"accuracy/{arm.name}": arm.mean for arm in evaluation.arms if arm.mean == arm.mean}
        self.tracker.log(parent, {**means, "seconds": evaluation.seconds, "failed_trials": float(len(self.failed))})
        self.tracker.tag(parent, {"mlflow.note.content": text})
        self.tracker.finish(parent)


def _role(config: SweepConfig, policies: Mapping[str, Schedule]) -> str:
    """The one role of all policies."""
    if not policies:
        raise RequestError("an evaluation has one policy or more", hint="give --policy P.json, or a sweep's folder")
    roles = sorted({schedule.role for schedule in policies.values()})
    if len(roles) > 1:
        raise RequestError("the policies of one evaluation are of one role", value=roles, hint="evaluate one by one")
    if roles[0] not in config.roles:
        raise RequestError(f"the sweep trains {', '.join(config.roles)}", value=f"a policy for the {roles[0]}")
    return roles[0]


def _task(config: SweepConfig, role: str, policies: Mapping[str, Schedule]) -> Task:
    """What every arm is trained on: the sweep's own full training."""
    data = checked_data(config)
    if role == "teacher":
        data = teacher_data(config, data)
    for name, schedule in policies.items():
        if schedule.image.channels != data.channels:
            rule = f"{name} is for images of {schedule.image.channels} channels"
            raise RequestError(rule, value=data.channels, hint="choose other data")
    settings = config.roles[role]
    teacher: TrainedTeacher | None = None
    if role == "student" and config.teacher is not None and (teacher := given_teacher(config, data)) is None:
        with_teacher(config, [])  # refuses
    task = Task(
        role="teacher" if role == "teacher" else "student",
        model=settings.model,
        data=replace(data, train=full_images(config, role, data)),
        recipe=settings.recipe,
        epochs=settings.full_epochs,
        teacher=teacher,
    )
    if isinstance(settings, StudentConfig):
        task = replace(task, distill=settings.distill, bits=settings.bits)
    learned = {key: part for schedule in policies.values() for key, part in schedule.weights.items()}
    task = replace(task, weights=learned)
    tasks = {name: task.under(schedule) for name, schedule in policies.items()}
    if len({each.bits for each in tasks.values()}) > 1:
        got = {name: vars(each.bits) for name, each in tasks.items()}
        raise RequestError("policies of one evaluation choose the same bits", value=got, hint="evaluate one by one")
    return next(iter(tasks.values()))


def _chosen(baselines: Sequence[str] | None, task: Task) -> tuple[list[str], list[str]]:
    """The baselines, each once, and those of the usual ones that this task cannot have."""
    names = list(dict.fromkeys(USUAL if baselines is None else baselines))
    for name in names:
        if name not in BASELINES:
            raise unknown("baseline", name, BASELINES)
    classes = task.teacher.classes if task.teacher is not None else None
    answered = task.teacher is not None and classes in (None, task.data.classes)
    impossible = [] if answered else [name for name in names if name in VIEWS]
    if impossible and baselines is not None:
        rule = "a second view needs a teacher of the student's own classes"
        raise RequestError(rule, value=impossible[0], hint="leave it out")
    return [name for name in names if name not in impossible], impossible


def _own(name: str, schedule: Schedule, baselines: Sequence[str]) -> list[_Arm]:
    """The policy, and the controls that are made of it; those that would be the policy itself are left out."""
    arms = [_Arm(name, "policy", lambda seed: schedule, f"{len(schedule.phases)} phases")]
    if "shuffled" in baselines and len(set(schedule.phases)) > 1:
        arms.append(_Arm(f"{name}/shuffled", "control", schedule.shuffled, ABOUT["shuffled"]))
    if "mean" in baselines and len({phase.genome for phase in schedule.phases}) > 1:
        mean = schedule.mean()
        arms.append(_Arm(f"{name}/mean", "control", lambda seed: mean, ABOUT["mean"]))
    return arms


def _baseline(name: str, task: Task) -> _Arm:
    shown = augmentation(name) if name in SHOWN else None
    genome = Genome(augment=augmentation(name)) if name in VIEWS else Genome()
    schedule = Schedule((Phase(task.epochs, genome),), task.role, task.image)
    return _Arm(name, "baseline", lambda seed: schedule, ABOUT.get(name, "a second view of the student's"), shown)


def _origin(config: SweepConfig, task: Task) -> dict[str, Any]:
    """What all trainings of an evaluation follow from, as plain data, but their seeds and what they are shown."""
    own = config.teacher.data if config.teacher is not None and task.role == "teacher" else None
    teacher = task.teacher
    return {
        "data": (own or config.data).model_dump(exclude={"root", "download", "workers"}),
        "role": [task.role, task.model, task.epochs, str(task.recipe), str(task.distill), str(task.bits)],
        "teacher": [teacher.model, Learned.of(teacher.weights).sha256, _phases(teacher.schedule)] if teacher else None,
        "seed": config.search.seed,
    }


def _phases(schedule: Schedule | None) -> Any:
    return None if schedule is None else schedule.to_json()["schedule"]


def _settings(config: SweepConfig, task: Task) -> dict[str, Any]:
    """What it takes to do it again, without paths."""
    parts = {"train": len(task.data.train), "test": len(task.data.test)}
    versions = {name: importlib.metadata.version(name) for name in ("roletune", "torch", "ray")}
    data = {"name": config.data.name, "seed": config.data.seed, **parts}
    return {"data": data, "model": task.model, "seed": config.search.seed, "versions": versions}
