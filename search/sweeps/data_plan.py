"""The data and the networks of a sweep, loaded once and held against each other before anything is started."""

from __future__ import annotations

from dataclasses import dataclass

from search.algorithms.base import member_seed
from search.config.schema import SweepConfig
from search.config.sections import SearchConfig, StudentConfig, TeacherConfig
from spaces import Genome, RequestError, Schedule
from spaces.augmentations import Flip, Identity, resolve
from spaces.search_space.domain import example_values
from trainables import data as datasets
from trainables.checkpoints import check_weights, load_weights
from trainables.data import DataSet, Images
from trainables.data.splits import stratified_subset
from trainables.models import build_model, check_model
from trainables.task import Task, TrainedTeacher

MIN_SCORED, TRAINED_PER_SCORED = 2000, 6
"""`validate.images: auto`: at least so many, or one for so many images of training, a few percent of the time."""


@dataclass(frozen=True)
class SweepData:
    """The data sets of a sweep.

    Args:
        student: Data of the sweep, which students are trained on.
        teacher: Data of the teacher; the same object where it has none of its own.
    """

    student: DataSet
    teacher: DataSet

    @classmethod
    def load(cls, config: SweepConfig) -> SweepData:
        """Load each data set once, and check its size.

        Raises:
            RequestError: A set is unknown, missing, or too small for the splits, or the teacher's images have another
                shape than the student's.
        """
        data = datasets.load(**config.data.model_dump())
        scored_images(config, data)
        for choice in config.space.augmentations:
            resolve(choice)
        if config.student is not None:
            check_model(config.student.model, classes=data.classes, channels=data.channels, size=data.size)
        own = config.teacher.data if config.teacher is not None else None
        if own is None:
            return cls(data, data)
        teacher = datasets.load(**own.model_dump())
        if (teacher.channels, teacher.size) != (data.channels, data.size):
            rule = f"teacher.data must have the student's {data.channels} channels and {data.size} px"
            hint = "set teacher.data.size, or choose other data"
            raise RequestError(rule, value=(teacher.channels, teacher.size), hint=hint)
        scored_images(config, teacher)
        return cls(data, teacher)

    def of(self, role: str) -> DataSet:
        """Return the data of a role."""
        return self.teacher if role == "teacher" else self.student


def check_networks(config: SweepConfig, data: SweepData) -> TrainedTeacher | None:
    """Check that models, weights and losses fit the data and each other.

    Returns:
        The teacher that is given, from a file or random; None where it is trained, or there is none.

    Raises:
        RequestError: A model does not fit the data, or weights their model; a loss does not fit the networks; a second
            view has no teacher that could answer for it; the student has no layer for the bits that are free.
    """
    teacher = None
    if (settings := config.teacher) is not None:
        classes = settings.classes or data.teacher.classes
        check_model(settings.model, classes=classes, channels=data.student.channels, size=data.student.size)
        teacher = _given_teacher(settings, config.seed, data, classes)
    if config.student is not None:
        _check_student(config, config.student, data, teacher)
    return teacher


def _given_teacher(settings: TeacherConfig, seed: int, data: SweepData, classes: int) -> TrainedTeacher | None:
    """Return the teacher whose weights are a file's, or random; None where it is to be trained."""
    if not settings.given:
        return None
    shape = {"channels": data.student.channels, "size": data.student.size}
    statistics = (data.teacher.mean, data.teacher.std)
    if settings.weights is None:
        model = build_model(settings.model, seed=member_seed(seed, "teacher", 1, 0), classes=classes, **shape)
        return TrainedTeacher(settings.model, model.state_dict(), None, classes, statistics)
    weights = load_weights(settings.weights)
    model = build_model(settings.model, seed=0, classes=classes, **shape)
    check_weights(model, weights, f"teacher.weights ({settings.weights})")
    schedule = Schedule.load(settings.policy) if settings.policy else None
    return TrainedTeacher(settings.model, weights, schedule, classes, statistics)


def _check_student(
    config: SweepConfig, student: StudentConfig, data: SweepData, teacher: TrainedTeacher | None
) -> None:
    """Build every loss that the sweep may choose for its two networks, and the student with all bits it may have."""
    own = data.student
    if teacher is None and config.teacher is not None:
        classes = data.teacher.classes
        model = build_model(config.teacher.model, seed=0, classes=classes, channels=own.channels, size=own.size)
        teacher = TrainedTeacher(config.teacher.model, model.state_dict(), classes=classes)
    task = Task(
        "student",
        student.model,
        own,
        student.recipe,
        epochs=1,
        teacher=teacher,
        distill=student.distill,
        bits=student.bits,
    )
    any_view = Flip() if any(choice.kind != Identity.kind for choice in config.space.augmentations) else Identity()
    learner = task.learner(Genome(), seed=0)
    for example in example_values(config.space.distill):
        learner.set_genome(Genome(augment=any_view, distill=example))
        learner.begin_epoch(0)
    for bits in example_values(config.space.bits):
        task.with_bits_of(Genome(bits=bits)).network()


def scored_images(config: SweepConfig, data: DataSet) -> Images:
    """Return the validation images that members are scored on: balanced over the classes, the same for every member.

    More images are always a better choice (`benchmarks/training/validation.py`), so `auto` takes as many as cost
    little.

    Raises:
        RequestError: `validate.images` is less than one of each class.
    """
    most, held_out = config.validate_.images, data.validation
    if most == "auto":
        searches = [search for role in config.roles.values() for search in role.searches]
        interval = min((search.interval for search in searches), default=SearchConfig().interval)
        most = max(MIN_SCORED, interval * len(data.train) // TRAINED_PER_SCORED)
    if most is None or most >= len(held_out):
        return held_out
    if most < data.classes:
        raise RequestError(f"validate.images must be >= {data.classes}, one of each class", value=most)
    rows = stratified_subset(held_out.labels, classes=data.classes, size=most, seed=config.data.seed, part="validation")
    return held_out.subset(rows)
