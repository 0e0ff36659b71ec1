"""The plan of a sweep: everything that follows from its file, resolved and checked before anything is started."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from search.algorithms.base import SearchAlgorithm
from search.config import registry
from search.config.schema import SweepConfig
from search.config.sections import ResourceConfig, RoleConfig, SearchConfig, StudentConfig
from search.execution.callbacks import SweepCallback
from search.execution.journal import Journal
from search.execution.preflight import Requirements
from search.sweeps.data_plan import SweepData, check_networks, scored_images
from search.sweeps.screen_plan import ScreenPlan, rankable
from spaces import RequestError, Schedule, Space
from spaces.augmentations import Identity
from trainables.data import DataSet
from trainables.screening.ranking import check_request
from trainables.task import Task, TrainedTeacher


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
    """

    name: str
    algorithm: type[SearchAlgorithm]
    settings: SearchConfig
    members: int
    epochs: int
    seed: int

    def start(
        self, task: Task, space: Space, journal: Journal, callback: SweepCallback | None = None
    ) -> SearchAlgorithm:
        """Draw the members of the search."""
        return self.algorithm(self.name, task, self.settings, space, journal, seed=self.seed, callback=callback)


@dataclass(frozen=True)
class RolePlan:
    """Everything about one role.

    Args:
        task: Task of the search; a student's teacher is in it where it is given.
        space: Space of genomes of this role.
        search: Search of its policy; None where nothing is searched.
        control: Random control of the same budget; None where there is none.
        final_images: Images of the final training: `train`, or `full` for training and validation images together.
        final_epochs: Epochs of the final training.
        seeds: Number of final trainings of each arm.
        provenance: Origin that policy files carry.
        data_settings: `data` section of this role, without paths.
        schedule: Schedule to replay in place of a search.
    """

    task: Task
    space: Space
    search: SearchPlan | None
    control: SearchPlan | None
    final_images: Literal["train", "full"]
    final_epochs: int
    seeds: int
    provenance: Mapping[str, Any]
    data_settings: Mapping[str, Any]
    schedule: Schedule | None = None

    @property
    def searches(self) -> tuple[SearchPlan, ...]:
        """The search and its control, where there are any."""
        return tuple(plan for plan in (self.search, self.control) if plan is not None)

    def final_task(self, teacher: TrainedTeacher | None) -> Task:
        """Return the task of the final training."""
        data = replace(self.task.data, train=getattr(self.task.data, self.final_images))
        return replace(self.task, data=data, validation=None, epochs=self.final_epochs, teacher=teacher)

    def total_epochs(self, baselines: tuple[str, ...]) -> int:
        """Return the epochs of training over all trials of this role."""
        arms = 1 + (self.control is not None) + (self.search is not None and "none" in baselines)
        return sum(plan.epochs for plan in self.searches) + arms * self.seeds * self.final_epochs


@dataclass(frozen=True)
class SweepPlan:
    """Everything that follows from a sweep file.

    Data are loaded once, a given teacher is built once, and every check that needs no cluster has passed. Whoever has
    the plan needs the sweep file no more.

    Args:
        name: Name of the sweep, and of its MLflow experiment.
        seed: Seed of genomes, weights and batches.
        data: The student's data; the teacher's, where there is no student.
        data_settings: `data` section of the sweep file, without paths.
        teacher: Given teacher, from a file or random; None where it is trained, or there is none.
        teacher_task: Task of the teacher, given or trained; None where there is none.
        roles: Plans of the roles that are trained, in order.
        baselines: Baselines of the final trainings.
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
    baselines: tuple[str, ...]
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
        algorithms = {role: _algorithm(config, role, settings) for role, settings in config.roles.items()}
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
            baselines=config.baselines,
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
        found = dict.fromkeys(registry.label(r.search.settings.algorithm) for r in self.roles.values() if r.search)
        return f"Search {' and '.join(found)}" if found else "Training"

    @property
    def total_epochs(self) -> int:
        """Epochs of training over all trials."""
        return sum(role.total_epochs(self.baselines) for role in self.roles.values())

    def check_screening(self) -> None:
        """Check that the augmentations to screen can be ranked.

        Raises:
            RequestError: They cannot, or a mean needs more images than there are.
        """
        if self.screen.drop:
            images = len(self.data.train) + len(self.data.validation)
            check_request(self.screen.contestants(), self.screen.precision, images)

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
            role: replace(plan, search=None, control=None, schedule=schedules[role])
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


def _algorithm(config: SweepConfig, role: str, settings: RoleConfig) -> type[SearchAlgorithm] | None:
    """Import the algorithm of a role's search; the settings of a user's own are checked now that it is known."""
    if (search := settings.search) is None:
        return None
    algorithm = registry.capabilities(search.algorithm)
    if not issubclass(algorithm, SearchAlgorithm):
        hint = "derive it from search.algorithms.base.SearchAlgorithm"
        raise RequestError(f"{role}.search.algorithm must be a search algorithm", value=search.algorithm, hint=hint)
    if registry.is_custom(search.algorithm):
        try:
            search.check_algorithm(algorithm)
            config.check_search(role, search, algorithm.variant(search))
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
    algorithm: type[SearchAlgorithm] | None,
) -> RolePlan:
    own, space, search = data.of(role), role_space(config.space, role), settings.search
    interval = search.interval if search else SearchConfig().interval
    task = Task(
        role="teacher" if role == "teacher" else "student",
        model=settings.model,
        data=own,
        recipe=settings.recipe,
        epochs=search.epochs if search else settings.final_epochs,
        validation=scored_images(config, own),
        validate_every=interval if config.validate_.every == "slice" else 1,
        teacher=teacher if role == "student" else None,
    )
    if isinstance(settings, StudentConfig):
        task = replace(task, distill=settings.distill, bits=settings.bits)
    plan, control = _searches(config, role, search, space, algorithm)
    # Else students would begin with weights that have seen what they are scored on while they are searched.
    starts = role == "teacher" and config.student is not None and config.student.distill.init == "teacher"
    section = config.teacher.data if role == "teacher" and config.teacher and config.teacher.data else config.data
    return RolePlan(
        task=task,
        space=space,
        search=plan,
        control=control,
        final_images="train" if starts else "full",
        final_epochs=settings.final_epochs,
        seeds=settings.final.seeds,
        provenance=_provenance(config, section.name, own),
        data_settings=section.model_dump(exclude={"root", "download", "workers"}),
    )


def _searches(
    config: SweepConfig,
    role: str,
    search: SearchConfig | None,
    space: Space,
    algorithm: type[SearchAlgorithm] | None,
) -> tuple[SearchPlan | None, SearchPlan | None]:
    """Return a role's search, and the random control of the same budget."""
    if search is None or algorithm is None or (space.is_constant and algorithm.random_control):
        return None, None
    members, epochs = algorithm.member_count(search, space), algorithm.budget(search, space)
    name = f"{role}-{registry.label(search.algorithm)}"
    plan = SearchPlan(name, algorithm, search, members, epochs, config.seed)
    if "random" not in config.baselines or not algorithm.random_control:
        return plan, None
    # The control of a search that stops members early has as many members as that search has epochs for.
    trials = max(2, round(epochs / search.epochs)) if algorithm.stops_early else members
    settings = SearchConfig(
        algorithm="random",
        trials=trials,
        epochs=search.epochs,
        interval=search.interval,
        objective=search.objective,
    )
    random = registry.capabilities("random")
    assert issubclass(random, SearchAlgorithm)
    return plan, SearchPlan(f"{role}-random", random, settings, trials, trials * search.epochs, config.seed)


def _provenance(config: SweepConfig, data: str, own: DataSet) -> dict[str, Any]:
    """Return the origin of a policy: the same for the same sweep, so without dates, paths or run ids."""
    parts = {"train": len(own.train), "validation": len(own.validation)}
    return {
        "sweep": config.name,
        "metric": "validation_accuracy",
        "seed": config.seed,
        "data": {"name": data, **parts},
        "versions": {name: importlib.metadata.version(name) for name in ("roletune", "torch", "ray")},
    }
