"""Policies and baselines, trained alike, tested once and compared."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from results.analysis.evaluation import Arm, Evaluation
from results.runlog.history import History
from results.tracking.policy_tables import POLICIES_FILE, policies_table, table_tag
from results.tracking.tracker import Tracker
from search.algorithms.base import member_seed
from search.config.schema import SweepConfig
from search.execution.journal import Progress
from search.execution.members import Member, Outcome
from search.execution.scoring import Tested
from search.sweeps.plan import RolePlan, SweepPlan, check_channels
from search.sweeps.session import SweepSession, open_session
from spaces import BASELINES as FREE_POLICIES
from spaces import Genome, Phase, RequestError, Schedule, WorkError
from spaces.augmentations import Augmentation, augmentation
from spaces.core.errors import unknown
from spaces.core.io import write_atomic
from spaces.core.weights import Learned
from spaces.schedule.schedule import ROLES
from trainables.task import Task

NONE, LONGER = "none", "longer"
TIMES = 2
"""Epochs of `longer` in those of the others: a second view doubles the images that a student is trained on."""

SHOWN = ("crop_flip", "randaugment", "trivialaugment", "flip", "cutout", "autoaugment")
"""Baselines that take the policy's place: student and teacher both see the augmented images, with a shared view."""

SCALED = {"uniform": "uniform", "scaled_trivialaugment": "trivialaugment", "scaled_randaugment": "randaugment"}
"""Baselines that are policies, in ranges that scale with the image, by their names in a sweep.

`trivialaugment` and `randaugment` are torchvision's, which translate by up to 32 and 30 pixels of any image.
"""

VIEWS = ("cutmix", "cutmixpick", "mixup")
"""Baselines that are a second view without a policy, with the teacher's answers as the target."""

CONTROLS = ("shuffled", "mean")
"""Baselines made of a policy's own genomes: in another order, drawn for each seed; or their mean over time."""

BASELINES = (NONE, LONGER, *SHOWN, *SCALED, *VIEWS, *CONTROLS)
USUAL = (NONE, "crop_flip", *SCALED, LONGER, "cutmix", "cutmixpick", "shuffled", "mean")
"""Default baselines; second views, and `longer` with them, are left out where no teacher can answer."""

ABOUT = {
    NONE: "the data set's own augmentation alone",
    LONGER: f"the same for {TIMES} times the epochs, the cost of a second view",
    "shuffled": "the policy's phases in another order, drawn for each seed",
    "mean": "the policy's mean over time",
    "uniform": "a policy with every operation alike, without a search",
    "scaled_trivialaugment": "TrivialAugment as a policy, scaled to the image",
    "scaled_randaugment": "RandAugment as a policy, scaled to the image",
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

    All policies are of one role. Every training is the final training of the sweep: as many epochs, on training and
    validation images, or on training images alone where `data.validation_from` is set. What an earlier call has
    measured in `home` under the same settings is not measured again, and a training that was cut off goes on from its
    last checkpoint.

    Args:
        config: Sweep; a student's teacher is given by `teacher.weights`, see `with_teacher`.
        policies: Policies by name; stretched to the epochs of the final training.
        baselines: Names in `BASELINES`; None for `USUAL`.
        seeds: Trainings of each arm, >= 1; two or more give a confidence interval.
        home: Folder of the results; None for `<storage>/<name>-evaluate`.
        address: Address of a Ray cluster, HOST:PORT; None for RAY_ADDRESS, or this machine.
        console: Console that shows progress; None for none.

    Returns:
        The evaluation; it is also written to `<home>/evaluation.<role>.json`, as table and picture to
        `<home>/report`, and to MLflow.

    Raises:
        RequestError: A baseline is unknown, the policies are of two roles or for other images, a student has no
            teacher; or as `search.run`.
        WorkError: Every training failed.

    Example:
        >>> policy = Schedule.load("runs/digits-001/policy.student.json")  # doctest: +SKIP
        >>> config = with_teacher(SweepConfig.load("examples/digits.yaml"), ["runs/digits-001"])  # doctest: +SKIP
        >>> print(evaluate(config, {"mine": policy}, baselines=["none"]).markdown())  # doctest: +SKIP
    """
    role = _role_of(config, policies)
    if seeds < 1:
        raise RequestError("seeds must be >= 1", value=seeds)
    if role == "student" and config.teacher is not None and not config.teacher.given:
        with_teacher(config, [])  # raises
    plan = SweepPlan.resolve(config)
    task = _task(plan, role, policies)
    names, left_out = _baselines(baselines, task)
    arms = [arm for name, schedule in policies.items() for arm in _arms(name, schedule.stretch(task.epochs), names)]
    arms += [_baseline(name, task) for name in names if name not in CONTROLS]
    place = Path(home or plan.storage / f"{plan.name}-evaluate")
    folder = f"evaluation.{role}"

    def open_place() -> tuple[Path, Tracker]:
        (place / folder).mkdir(parents=True, exist_ok=True)
        return place, Tracker.open(place, plan.name, plan.tracking_uri)

    with open_session(
        plan,
        open_place,
        checked=place if place.is_dir() else plan.storage,
        total=sum(arm.epochs(task) for arm in arms) * seeds,
        address=address,
        console=console,
        journal_folder=folder,
    ) as session:
        if left_out:
            session.progress.say(f"left out, without a teacher of the same classes: {', '.join(left_out)}")
        parent = session.tracker.start(f"{place.name}-evaluation-{role}", tags={"stage": "evaluation", "role": role})
        return _Evaluation(plan, plan.roles[role], task, arms, seeds, session, parent).run()


def named_policies(folder: Path | None, files: Sequence[Path], role: str = "student") -> dict[str, Path]:
    """Return policy files by name: a sweep's own by its folder's, others by the file's.

    Args:
        folder: Folder of a sweep, whose policy for `role` comes first; None for none.
        files: Other policy files.
        role: `teacher` or `student`.

    Raises:
        RequestError: The sweep has no such policy, or two files have the same name.

    Example:
        >>> list(named_policies(None, [Path("runs/digits-001/policy.student.json"), Path("best.json")]))
        ['digits-001', 'best']
    """
    usual = {f"policy.{each}.json" for each in ROLES}
    own = [folder.resolve() / f"policy.{role}.json"] if folder is not None else []
    if own and not own[0].is_file():
        rule = f"{folder} must have a policy for the {role}, but has none"
        raise RequestError(rule, hint="see its report/summary.md; or --resume the sweep, if it was not finished")
    found: dict[str, Path] = {}
    for path in (*own, *files):
        name = path.resolve().parent.name if path.name in usual else path.name.removesuffix(".json")
        if found.setdefault(name, path) != path:
            rule = f"policies must have different names; two are called {name}"
            raise RequestError(rule, value=str(path), hint="rename one of the files")
    return found


def with_teacher(config: SweepConfig, folders: Sequence[Path | str]) -> SweepConfig:
    """Return the sweep with a given teacher: its own, or the one that a sweep has left in one of `folders`.

    Args:
        config: Sweep.
        folders: Folders of sweeps, which keep their teacher in `models/teacher.safetensors`.

    Raises:
        RequestError: There is none.

    Example:
        >>> config = SweepConfig.load("examples/digits.yaml")  # doctest: +SKIP
        >>> with_teacher(config, ["runs/digits-001"]).teacher.weights  # doctest: +SKIP
        'runs/digits-001/models/teacher.safetensors'
    """
    teacher = config.teacher
    if teacher is None or teacher.given:
        return config
    for folder in map(Path, folders):
        weights, policy = folder / "models" / "teacher.safetensors", folder / "policy.teacher.json"
        if weights.is_file():
            given = {"weights": str(weights), "policy": str(policy) if policy.is_file() else None}
            return config.model_copy(update={"teacher": teacher.model_copy(update=given)})
    hint = "--set teacher.weights=FILE (a sweep keeps models/teacher.safetensors beside its policies)"
    raise RequestError("a student's policy must have a trained teacher", hint=hint)


@dataclass(frozen=True)
class _Arm:
    """One way to train: the schedule of each seed, and an augmentation that is applied before it."""

    name: str
    kind: str
    source: Callable[[int], Schedule]
    about: str = ""
    shown: Augmentation | None = None
    times: int = 1

    def epochs(self, task: Task) -> int:
        """Return the epochs of each training."""
        return self.times * task.epochs


@dataclass
class _Evaluation:
    plan: SweepPlan
    role: RolePlan
    task: Task
    arms: Sequence[_Arm]
    seeds: int
    session: SweepSession
    parent: str

    def run(self) -> Evaluation:
        session, role, journal = self.session, self.task.role, self.session.journal
        self._origin = _origin(self.plan, self.role, self.task)
        members = {(arm.name, seed): self._member(arm, seed) for seed in range(self.seeds) for arm in self.arms}
        callback = session.callback()
        session.progress.stage(f"{role}: {len(self.arms)} arms, {self.seeds} seed{'s' if self.seeds > 1 else ''}")
        epochs = {
            members[arm.name, seed].name: arm.epochs(self.task) for arm in self.arms for seed in range(self.seeds)
        }
        trials = list(members.values())
        if done := sum(_finished(journal.progress(name), count) for name, count in epochs.items()):
            session.progress.say(f"  {done} of {len(trials)} trainings were measured before")
        outcomes: list[Outcome] = []
        for count in dict.fromkeys(epochs.values()):
            stage = f"{role}-evaluation" if count == self.task.epochs else f"{role}-evaluation-{LONGER}"
            alike = [each for each in trials if epochs[each.name] == count]
            task = replace(self.task, epochs=count)
            outcomes += session.run_stage(callback, stage, task, alike, max(1, count // 10), retry_each=True)
        session.progress.stage("test")
        bits = {each.name: self.task.with_bits_of(each.source).bits for each in trials}
        tested = session.score_tests(self.task, outcomes, bits)
        for outcome in outcomes:  # what was tested is not needed again
            if outcome.name in tested and outcome.checkpoint is not None:
                shutil.rmtree(outcome.checkpoint, ignore_errors=True)
        return self._record({place: each.name for place, each in members.items()}, tested)

    def _member(self, arm: _Arm, seed: int) -> Member:
        """Return the training of an arm from a seed; its name holds a hash of its settings."""
        source, shown = arm.source(seed), None if arm.shown is None else arm.shown.to_json()
        what = json.dumps({**self._origin, "source": _phases(source), "shown": shown}, sort_keys=True)
        settings = hashlib.sha256(what.encode()).hexdigest()[:8]
        return Member(
            name=f"{self.task.role}-{arm.name.replace('/', '.')}-{settings}-{seed}",
            index=seed,
            seed=member_seed(self.plan.seed, self.task.role, 1, seed),
            source=source,
            stage="evaluation",
            arm=arm.name,
            shown=shown,
        )

    def _record(self, names: Mapping[tuple[str, int], str], tested: Mapping[str, Tested]) -> Evaluation:
        """Return the result, and write it to files and to MLflow.

        Raises:
            WorkError: There is none.
        """
        session = self.session
        if not tested:
            why = next(iter(session.failed.values()), "nothing was trained")
            raise WorkError(f"every training failed; the first: {why}")
        history = History.read(session.journal.folder)
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
            name=self.plan.name,
            role=self.task.role,
            epochs=self.task.epochs,
            arms=arms,
            seconds=round(sum((each.last_event - each.started) / 1000 for each in history.sessions), 2),
            failed=session.failed,
            settings=_settings(self.plan, self.task),
            folder=str(session.folder),
            tracking_uri=session.tracker.uri,
        )
        self._write(evaluation)
        return evaluation

    def _write(self, evaluation: Evaluation) -> None:
        from results.plots.evaluation import evaluation_png  # Matplotlib, which nothing before needs

        home, tracker, parent = self.session.folder, self.session.tracker, self.parent
        report, stem = home / "report", f"evaluation.{evaluation.role}"
        title = f"# {home.name}: the {evaluation.role}'s policies and baselines\n\n"
        text = title + evaluation.markdown()
        for path in (
            write_atomic(home / f"{stem}.json", json.dumps(evaluation.to_json(), indent=2) + "\n"),
            write_atomic(report / f"{stem}.md", text),
            write_atomic(report / f"{stem}.png", evaluation_png(evaluation)),
        ):
            tracker.artifact(parent, path)
        seen = {(evaluation.role, arm.name): arm.source(0) for arm in self.arms if arm.kind != "baseline"}
        tracker.text(parent, policies_table(seen), POLICIES_FILE)
        tracker.tag(parent, table_tag(POLICIES_FILE))
        means = {f"accuracy/{arm.name}": arm.mean for arm in evaluation.arms if arm.mean == arm.mean}
        failed = float(len(evaluation.failed))
        tracker.log(parent, {**means, "seconds": evaluation.seconds, "failed_trials": failed})
        tracker.tag(parent, {"mlflow.note.content": text})
        tracker.finish(parent)


def _finished(progress: Progress, epochs: int) -> bool:
    """Return True for a training that is through; one that failed is tried again."""
    return progress.over(epochs) and not progress.error


def _role_of(config: SweepConfig, policies: Mapping[str, Schedule]) -> str:
    """Return the one role of all policies."""
    if not policies:
        raise RequestError("policies must not be empty", hint="give --policy P.json, or a sweep's folder")
    roles = sorted({schedule.role for schedule in policies.values()})
    if len(roles) > 1:
        raise RequestError(
            "the policies of one evaluation must be of one role", value=roles, hint="evaluate one by one"
        )
    if roles[0] not in config.roles:
        rule = f"a policy must be for a role that the sweep trains: {', '.join(config.roles)}"
        raise RequestError(rule, value=f"a policy for the {roles[0]}")
    return roles[0]


def _task(plan: SweepPlan, role: str, policies: Mapping[str, Schedule]) -> Task:
    """Return the task of every arm: the sweep's own final training."""
    own = plan.roles[role]
    for name, schedule in policies.items():
        check_channels(name, schedule, own.task.data)
    task = own.final_task(plan.teacher if role == "student" else None)
    learned = {key: part for schedule in policies.values() for key, part in schedule.weights.items()}
    task = replace(task, weights=learned)
    tasks = {name: task.with_bits_of(schedule) for name, schedule in policies.items()}
    if len({each.bits for each in tasks.values()}) > 1:
        value = {name: vars(each.bits) for name, each in tasks.items()}
        rule = "the policies of one evaluation must choose the same bits"
        raise RequestError(rule, value=value, hint="evaluate one by one")
    return next(iter(tasks.values()))


def _baselines(baselines: Sequence[str] | None, task: Task) -> tuple[list[str], list[str]]:
    """Return the baselines, each once, and those of the usual ones that this task cannot have."""
    names = list(dict.fromkeys(USUAL if baselines is None else baselines))
    for name in names:
        if name not in BASELINES:
            raise unknown("baseline", name, BASELINES)
    classes = task.teacher.classes if task.teacher is not None else None
    answered = task.teacher is not None and classes in (None, task.data.classes)
    impossible = [] if answered else [name for name in names if name in VIEWS]
    if impossible and baselines is not None:
        rule = "a second view must have a teacher of the student's own classes"
        raise RequestError(rule, value=impossible[0], hint="leave it out")
    if impossible:  # what costs as much as a second view is of no use without one
        names.remove(LONGER)
    return [name for name in names if name not in impossible], impossible


def _arms(name: str, schedule: Schedule, baselines: Sequence[str]) -> list[_Arm]:
    """Return the policy and its controls, without those that would be the policy itself."""
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
    if name in SCALED:
        genome = Genome(FREE_POLICIES[SCALED[name]])
    times = TIMES if name == LONGER else 1
    schedule = Schedule((Phase(times * task.epochs, genome),), task.role, task.image)
    about = ABOUT.get(name, "a second view of the student's")
    return _Arm(name, "baseline", lambda seed: schedule, about, shown, times)


def _origin(plan: SweepPlan, role: RolePlan, task: Task) -> dict[str, Any]:
    """Return what all trainings of an evaluation follow from, but their seeds and what they are shown."""
    teacher = task.teacher
    return {
        "data": role.data_settings,
        "role": [task.role, task.model, task.epochs, str(task.recipe), str(task.distill), str(task.bits)],
        "teacher": [teacher.model, Learned.of(teacher.weights).sha256, _phases(teacher.schedule)] if teacher else None,
        "seed": plan.seed,
    }


def _phases(schedule: Schedule | None) -> Any:
    return None if schedule is None else schedule.to_json()["schedule"]


def _settings(plan: SweepPlan, task: Task) -> dict[str, Any]:
    """Return what it takes to repeat the evaluation, without paths."""
    parts = {"train": len(task.data.train), "test": len(task.data.test)}
    versions = {name: importlib.metadata.version(name) for name in ("roletune", "torch", "ray")}
    data = {"name": plan.data_settings["name"], "seed": plan.data_settings["seed"], **parts}
    return {"data": data, "model": task.model, "seed": plan.seed, "versions": versions}
