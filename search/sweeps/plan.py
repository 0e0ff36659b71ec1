"""The plan of a sweep: everything that follows from its file, resolved and checked before anything is started."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

from search.algorithms.base import SearchAlgorithm
from search.algorithms.policy_files import load_genome
from search.algorithms.rejects import trainings
from search.config import registry
from search.config.schema import SweepConfig
from search.config.sections import STARTS, DataConfig, ResourceConfig, RoleConfig, SearchConfig, StudentConfig
from search.execution.callbacks import SweepCallback
from search.execution.journal import Journal
from search.execution.preflight import Requirements
from search.sweeps.data_plan import MIN_SCORED, SweepData, check_networks, scored_images
from search.sweeps.screen_plan import ScreenPlan, rankable
from spaces import BASELINES, Genome, RequestError, Schedule, Space
from spaces.augmentations import Identity
from trainables.data import DataSet
from trainables.screening.ranking import check_request
from trainables.task import Task, TrainedTeacher

Score: TypeAlias = Literal["accuracy", "cross_entropy"]

HEADROOM_SEEDS = 3
"""Seeds of the headroom of a role with a list of searches, where the sweep file says nothing."""


@dataclass(frozen=True)
class SearchPlan:
    """One search.

    Args:
        name: Name of the search; its members are called `<name>-00`, …
        algorithm: Class that carries it out.
        settings: Settings of the search.
        members: Number of members, before screening.
        epochs: Epochs of training over all members, where none fails.
        seed: Seed of all draws.
        first: Genome of a policy file to start from; None where it starts from a rule or from another search.
        continues: Index of the search whose result it starts from; None where it starts from a rule or a file.
        score: What its members are selected by.
    """

    name: str
    algorithm: type[SearchAlgorithm]
    settings: SearchConfig
    members: int
    epochs: int
    seed: int
    first: Genome | None = None
    continues: int | None = None
    score: Score = "accuracy"

    def task(self, task: Task) -> Task:
        """Return the task of the search's members: `task` for its epochs, scored as often, by its score."""
        every = 1 if task.validate_every == 1 else self.settings.interval
        return replace(task, epochs=self.settings.epochs, validate_every=every, score=self.score)

    def start(
        self,
        task: Task,
        space: Space,
        journal: Journal,
        callback: SweepCallback | None = None,
        first: Genome | None = None,
    ) -> SearchAlgorithm:
        """Draw the members of the search; `first` is the genome that they start from."""
        return self.algorithm(
            self.name, task, self.settings, space, journal, seed=self.seed, callback=callback, start=first
        )


@dataclass(frozen=True)
class RolePlan:
    """Everything about one role.

    Args:
        task: Task of the search; a student's teacher is in it where it is given.
        space: Space of genomes of this role.
        stages: Searches of its policy, in order; empty where nothing is searched.
        control: Random control of the same budget; None where there is none.
        blind: Control without selection, of the same settings as the last search that copies; None where there is none.
        final_images: Images of the final training: `full` for training and validation images together; `train` where
            validation images are of a target domain, or students start from the teacher's weights.
        final_epochs: Epochs of the final training.
        seeds: Number of final trainings of each arm.
        provenance: Origin that policy files carry.
        data_settings: `data` section of this role, without root, download and workers.
        seed: Seed of genomes, weights and batches.
        baselines: Free baselines of the final trainings.
        headroom_seeds: Seeds of the measurement before the search; 0 for none.
        headroom_report: True to search even where there is nothing to gain.
        confirm_seeds: Seeds of the last round of the confirmation; 0 for none.
        own_policies: The user's own policies in the confirmation, by name.
        final_score: Score of finished trainings, in headroom and confirmation.
        trains_search_teacher: True for a teacher whose final training has the validation images that students are
            scored on while they are searched: one more is trained without them, which teaches these students.
        schedule: Schedule to replay in place of a search.
    """

    task: Task
    space: Space
    stages: tuple[SearchPlan, ...]
    control: SearchPlan | None
    blind: SearchPlan | None
    final_images: Literal["train", "full"]
    final_epochs: int
    seeds: int
    provenance: Mapping[str, Any]
    data_settings: Mapping[str, Any]
    seed: int
    baselines: tuple[str, ...] = ()
    headroom_seeds: int = 0
    headroom_report: bool = False
    confirm_seeds: int = 0
    own_policies: Mapping[str, Schedule] = field(default_factory=dict)
    final_score: Score = "accuracy"
    trains_search_teacher: bool = False
    schedule: Schedule | None = None

    @property
    def search(self) -> SearchPlan | None:
        """Last search; None where nothing is searched."""
        return self.stages[-1] if self.stages else None

    @property
    def searches(self) -> tuple[SearchPlan, ...]:
        """The searches and their controls, where there are any."""
        return (*self.stages, *(plan for plan in (self.control, self.blind) if plan is not None))

    def final_task(self, teacher: TrainedTeacher | None) -> Task:
        """Return the task of the final training."""
        data = replace(self.task.data, train=getattr(self.task.data, self.final_images))
        return replace(self.task, data=data, validation=None, epochs=self.final_epochs, teacher=teacher)

    @property
    def total_epochs(self) -> int:
        """Epochs of training over all trials of this role, at most."""
        trained = self.seeds * (1 + (self.control is not None) + (self.blind is not None)) + self.trains_search_teacher
        if self.stages:
            confirmed = trainings(len(BASELINES) + 2 + len(self.own_policies), self.confirm_seeds)
            free = {*self.baselines, *(["the strongest"] if self.confirm_seeds else [])}
            trained += self.seeds * len(free) + 2 * self.headroom_seeds + confirmed * (self.confirm_seeds > 0)
        return sum(plan.epochs for plan in self.searches) + trained * self.final_epochs


@dataclass(frozen=True)
class SweepPlan:
    """Everything that follows from a sweep file.

    Data are loaded once, a given teacher is built once, and every check that needs no cluster has passed. Whoever has
    the plan needs the sweep file no more.

    Args:
        name: Name of the sweep, and of its MLflow experiment.
        seed: Seed of genomes, weights and batches.
        data: The student's data; the teacher's, where there is no student.
        data_settings: `data` section of the sweep file, without root, download and workers.
        teacher: Given teacher, from a file or random; None where it is trained, or there is none.
        teacher_task: Task of the teacher, given or trained; None where there is none.
        roles: Plans of the roles that are trained, in order.
        screen: Settings of a screening.
        resources: Resources of one trial.
        requirements: What the cluster must offer.
        storage: Folder of the sweeps' folders.
        tracking_uri: Address of MLflow; None for its default.
        text: Resolved sweep file.
        parameters: Resolved sweep file as plain data, without storage and tracking.
        own: Dotted names of the user's own augmentations.

    Example:
        >>> config = SweepConfig.from_mapping({
        ...     "data": {"name": "digits", "train": 40, "validation": 60},
        ...     "teacher": {"model": "mlp", "search": {"epochs": 6}},
        ...     "student": {"model": "mlp", "search": None, "final": {"epochs": 5}},
        ...     "confirm": {"seeds": 0},
        ... })
        >>> plan = SweepPlan.resolve(config)
        >>> plan.roles["teacher"].search.name, plan.roles["student"].search
        ('teacher-pbt', None)
        >>> plan.total_epochs  # two searches of 4 members, three arms; and one final training of the student
        71
    """

    name: str
    seed: int
    data: DataSet
    data_settings: Mapping[str, Any]
    teacher: TrainedTeacher | None
    teacher_task: Task | None
    roles: Mapping[str, RolePlan]
    screen: ScreenPlan
    resources: ResourceConfig
    requirements: Requirements
    storage: Path
    tracking_uri: str | None
    text: str
    parameters: Mapping[str, Any]
    own: tuple[str, ...]

    @classmethod
    def resolve(cls, config: SweepConfig) -> SweepPlan:
        """Resolve a sweep file, and check all that can be checked without a cluster.

        Raises:
            RequestError: An algorithm cannot be imported; the data are unknown, missing, or too small for the splits; a
                model does not fit them; weights do not fit their model; a loss does not fit the networks.
        """
        algorithms = {
            role: [_algorithm(config, role, search, first=n == 0) for n, search in enumerate(settings.searches)]
            for role, settings in config.roles.items()
        }
        data = SweepData.load(config)
        teacher = check_networks(config, data)
        return cls(
            name=config.name,
            seed=config.seed,
            data=data.student,
            data_settings=config.data.model_dump(exclude={"root", "download", "workers"}),
            teacher=teacher,
            teacher_task=_teacher_task(config, data),
            roles={
                role: _role(config, role, settings, data, teacher, algorithms[role])
                for role, settings in config.roles.items()
            },
            screen=ScreenPlan.resolve(config),
            resources=config.resources,
            requirements=Requirements.resolve(config),
            storage=Path(config.storage),
            tracking_uri=config.tracking.uri,
            text=config.to_yaml(),
            parameters=json.loads(config.model_dump_json(by_alias=True, exclude={"storage", "tracking"})),
            own=tuple(config.space.custom_names),
        )

    @property
    def what(self) -> str:
        """Purpose of the sweep in a few words."""
        if any(role.schedule for role in self.roles.values()):
            return "Replay"
        stages = (stage for role in self.roles.values() for stage in role.stages)
        found = dict.fromkeys(registry.label(stage.settings.algorithm) for stage in stages)
        return f"Search {' and '.join(found)}" if found else "Training"

    @property
    def total_epochs(self) -> int:
        """Epochs of training over all trials."""
        return sum(role.total_epochs for role in self.roles.values())

    def check_screening(self) -> None:
        """Check that the augmentations to screen can be ranked.

        Raises:
            RequestError: They cannot, or a mean needs more images than there are.
        """
        if self.screen.drop:
            check_request(self.screen.contestants(), self.screen.precision, len(self.data.full))

    @property
    def screens(self) -> bool:
        """True where the student's augmentations are screened before its search."""
        return bool(self.screen.drop) and len(rankable(self.screen.space)) > 1

    def replaying(self, schedules: Mapping[str, Schedule]) -> SweepPlan:
        """Return the plan of a replay of `schedules`, by role.

        Raises:
            RequestError: A schedule is for images of other channels.
        """
        for role, schedule in schedules.items():
            check_channels(f"the {role}'s policy", schedule, self.data)
        roles = {
            role: replace(
                plan, stages=(), control=None, blind=None, trains_search_teacher=False, schedule=schedules[role]
            )
            for role, plan in self.roles.items()
            if role in schedules
        }
        return replace(self, roles=roles)


def check_channels(name: str, schedule: Schedule, data: DataSet) -> None:
    """Check that a schedule is for images such as `data`.

    Raises:
        RequestError: It is for images of other channels.
    """
    if schedule.image.channels != data.channels:
        rule = f"{name} must be for images of {data.channels} channels"
        raise RequestError(rule, value=schedule.image.channels, hint="choose other data")


def role_space(space: Space, role: str) -> Space:
    """Return the space of a role: second views, distillation and bits are the student's."""
    return space if role == "student" else replace(space, augment=(Identity.kind,), distill={}, bits={})


def _algorithm(config: SweepConfig, role: str, search: SearchConfig, *, first: bool) -> type[SearchAlgorithm]:
    """Import the algorithm of a search; the settings of a user's own are checked now that it is known."""
    algorithm = registry.capabilities(search.algorithm)
    if not issubclass(algorithm, SearchAlgorithm):
        hint = "derive it from search.algorithms.base.SearchAlgorithm"
        raise RequestError(f"{role}.search.algorithm must be a search algorithm", value=search.algorithm, hint=hint)
    if registry.is_custom(search.algorithm):
        try:
            search.check_algorithm(algorithm)
            config.check_search(role, search, algorithm.variant(search), first=first)
        except ValueError as error:
            raise RequestError(f"{role}.search: {error}") from error
    return algorithm.variant(search)


def _teacher_task(config: SweepConfig, data: SweepData) -> Task | None:
    teacher = config.teacher
    if teacher is None:
        return None
    return Task("teacher", teacher.model, data.teacher, teacher.recipe, teacher.final_epochs)


def _role(
    config: SweepConfig,
    role: str,
    settings: RoleConfig,
    data: SweepData,
    teacher: TrainedTeacher | None,
    algorithms: Sequence[type[SearchAlgorithm]],
) -> RolePlan:
    own, space, searches = data.of(role), role_space(config.space, role), settings.searches
    interval = searches[0].interval if searches else SearchConfig().interval
    task = Task(
        role="teacher" if role == "teacher" else "student",
        model=settings.model,
        data=own,
        recipe=settings.recipe,
        epochs=searches[0].epochs if searches else settings.final_epochs,
        validation=scored_images(config, own),
        validate_every=interval if config.validate_.every == "slice" else 1,
        teacher=teacher if role == "student" else None,
    )
    images = len(task.validation or ())
    final_score = _score(config, images)
    task = replace(task, score=final_score)
    if isinstance(settings, StudentConfig):
        task = replace(task, distill=settings.distill, bits=settings.bits)
    stages = tuple(
        replace(stage, score=_score(config, images, stage.algorithm))
        for stage in _stages(config, role, searches, space, algorithms)
    )
    control, blind = _controls(config, role, stages, space)
    headroom = HEADROOM_SEEDS * (len(stages) > 1) if config.headroom.seeds is None else config.headroom.seeds
    # Else students would begin with weights that have seen what they are scored on while they are searched.
    starts = role == "teacher" and config.student is not None and config.student.distill.init == "teacher"
    section = config.teacher.data if role == "teacher" and config.teacher and config.teacher.data else config.data
    final_images: Literal["train", "full"] = "train" if starts or own.target_validation else "full"
    return RolePlan(
        task=task,
        space=space,
        stages=stages,
        control=control,
        blind=blind,
        final_images=final_images,
        final_epochs=settings.final_epochs,
        seeds=settings.final.seeds,
        provenance=_provenance(config, section, own, stages[-1].score if stages else final_score),
        data_settings=section.model_dump(exclude={"root", "download", "workers"}),
        seed=config.seed,
        baselines=tuple(name for name in config.baselines if name in BASELINES),
        headroom_seeds=headroom,
        headroom_report=config.headroom.report,
        confirm_seeds=config.confirm.seeds,
        own_policies=_own_policies(config, role, own) if stages else {},
        final_score=final_score,
        trains_search_teacher=role == "teacher" and final_images == "full" and _scores_on_validation(config),
    )


def _score(config: SweepConfig, images: int, algorithm: type[SearchAlgorithm] | None = None) -> Score:
    """Return what the members of a search are selected by, or finished trainings are compared by.

    Cross-entropy is less noisy than accuracy on few images and in the middle of a training.
    """
    if config.validate_.score != "auto":
        return config.validate_.score
    early = algorithm is not None and (algorithm.copies_weights or algorithm.stops_early)
    return "cross_entropy" if early or images < MIN_SCORED else "accuracy"


def _scores_on_validation(config: SweepConfig) -> bool:
    """Return True if students are scored, while they are searched, on images that the teacher could be trained on."""
    searched = config.student is not None and config.student.searches
    if not searched or config.teacher is None:
        return False
    own = config.teacher.data
    return own is None or (own.name, own.root) == (config.data.name, config.data.root)


def _stages(
    config: SweepConfig,
    role: str,
    searches: Sequence[SearchConfig],
    space: Space,
    algorithms: Sequence[type[SearchAlgorithm]],
) -> tuple[SearchPlan, ...]:
    """Return a role's searches, each with where it starts."""
    stages: list[SearchPlan] = []
    for search, algorithm in zip(searches, algorithms, strict=True):
        if space.is_constant and algorithm.random_control:
            continue
        label = registry.label(search.algorithm)
        same = sum(registry.label(stage.settings.algorithm) == label for stage in stages)
        name = f"{role}-{label}_{same + 1}" if same else f"{role}-{label}"
        first, continues = None, len(stages) - 1 if stages else None
        if search.start in STARTS:
            continues = None
        elif search.start == "factorial":
            continues = max(number for number, stage in enumerate(stages) if stage.settings.algorithm == "factorial")
        elif search.start is not None:
            first, continues = load_genome(search.start, role, space, f"{role}.search.start"), None
        algorithm.check_files(search, role, space)
        members, epochs = algorithm.member_count(search, space), algorithm.budget(search, space)
        stages.append(SearchPlan(name, algorithm, search, members, epochs, config.seed, first, continues))
    return tuple(stages)


def _controls(
    config: SweepConfig, role: str, stages: Sequence[SearchPlan], space: Space
) -> tuple[SearchPlan | None, SearchPlan | None]:
    """Return the random control of the same budget as all searches, and the control without selection."""
    control = blind = None
    if stages and "random" in config.baselines and all(stage.algorithm.random_control for stage in stages):
        last, epochs = stages[-1], sum(stage.epochs for stage in stages)
        # The control of a search that stops members early has as many members as that search has epochs for.
        exact = len(stages) == 1 and not last.algorithm.stops_early
        trials = last.members if exact else max(2, round(epochs / last.settings.epochs))
        control = replace(_control(config, role, "random", last.settings, {"trials": trials}, space), score=last.score)
    # A search that selects by nothing is its own control.
    copying = [stage for stage in stages if stage.algorithm.copies_weights and stage.algorithm.random_control]
    if copying and "blind" in config.baselines:
        last = copying[-1]
        kept = ("population", "start", "growth", "synchronous", "quantile")
        settings = {name: getattr(last.settings, name) for name in kept}
        blind = _control(config, role, "blind", last.settings, settings, space)
        blind = replace(blind, first=last.first, continues=last.continues, score=last.score)
    return control, blind


def _control(
    config: SweepConfig, role: str, algorithm: str, like: SearchConfig, own: Mapping[str, Any], space: Space
) -> SearchPlan:
    settings = SearchConfig(
        algorithm=algorithm, epochs=like.epochs, interval=like.interval, objective=like.objective, **own
    )
    kind = registry.capabilities(algorithm)
    assert issubclass(kind, SearchAlgorithm)
    members, epochs = kind.member_count(settings, space), kind.budget(settings, space)
    return SearchPlan(f"{role}-{algorithm}", kind, settings, members, epochs, config.seed)


def _own_policies(config: SweepConfig, role: str, data: DataSet) -> dict[str, Schedule]:
    """Return the user's own policies of a role that take part in the confirmation.

    Raises:
        RequestError: A file is no policy, two have the same name, or one is for images of other channels.
    """
    found: dict[str, Schedule] = {}
    for path in config.confirm.policies:
        schedule, name = Schedule.load(path, custom=config.space.custom_names), Path(path).stem
        check_channels(f"confirm.policies ({path})", schedule, data)
        if schedule.role == role and name in (*found, *BASELINES, "policy", "policy mean"):
            raise RequestError("confirm.policies must have different names", value=name, hint="rename the file")
        if schedule.role == role:
            found[name] = schedule
    return found


def _provenance(config: SweepConfig, data: DataConfig, own: DataSet, score: Score) -> dict[str, Any]:
    """Return the origin of a policy: the same for the same sweep, so without dates, paths or run ids."""
    parts = {"train": len(own.train), "validation": len(own.validation)}
    targets = {"validation_from": data.validation_from, "test_from": data.test_from}
    domain = {key: Path(value).name for key, value in targets.items() if value is not None}
    return {
        "sweep": config.name,
        "metric": "validation_accuracy" if score == "accuracy" else "validation_loss",
        "seed": config.seed,
        "data": {"name": data.name, **parts, **domain},
        "versions": {name: importlib.metadata.version(name) for name in ("roletune", "torch", "ray")},
    }
