"""Public API of roletune: augmentation policies for knowledge distillation, searched for each role.

Every name is imported when it is first used, so that `import roletune` is fast and needs neither Ray nor MLflow.

Example:
    >>> import roletune
    >>> policy = roletune.Policy((roletune.Entry("Rotate", probability=5, magnitude=3),))
    >>> phase = roletune.Phase(epochs=10, genome=roletune.Genome(policy))
    >>> image = roletune.ImageSpec(size=28, channels=1, fill=(33,))
    >>> schedule = roletune.Schedule((phase,), role="student", image=image)
    >>> schedule.epochs
    10
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from results.analysis.evaluation import Evaluation as Evaluation
    from results.analysis.summary import RoleResult as RoleResult
    from results.analysis.summary import SweepResult as SweepResult
    from results.runlog.history import History as History
    from search.config.schema import SweepConfig as SweepConfig
    from search.sweeps.evaluation import evaluate as evaluate
    from search.sweeps.runner import replay as replay
    from search.sweeps.runner import run as run
    from search.sweeps.screening import screen as screen
    from spaces.augmentations import Augmentation as Augmentation
    from spaces.augmentations import augmentation as augmentation
    from spaces.augmentations.crop_flip import BaseAugmentation as BaseAugmentation
    from spaces.core.errors import RequestError as RequestError
    from spaces.core.errors import RoletuneError as RoletuneError
    from spaces.core.errors import WorkError as WorkError
    from spaces.engine import apply as apply
    from spaces.importers import read_schedule as read_schedule
    from spaces.operations import OPERATIONS as OPERATIONS
    from spaces.operations import Operation as Operation
    from spaces.policy.baselines import BASELINES as BASELINES
    from spaces.policy.policy import Entry as Entry
    from spaces.policy.policy import Policy as Policy
    from spaces.policy.sampling import Parameters as Parameters
    from spaces.policy.sampling import sample as sample
    from spaces.policy.scaled import ScaledEntry as ScaledEntry
    from spaces.policy.scaled import ScaledPolicy as ScaledPolicy
    from spaces.schedule.agent import Agent as Agent
    from spaces.schedule.batch_transform import SecondView as SecondView
    from spaces.schedule.batch_transform import Transform as Transform
    from spaces.schedule.genome import Genome as Genome
    from spaces.schedule.image_spec import ImageSpec as ImageSpec
    from spaces.schedule.image_transform import ImageTransform as ImageTransform
    from spaces.schedule.schedule import Phase as Phase
    from spaces.schedule.schedule import Schedule as Schedule
    from spaces.search_space.space import Space as Space
    from trainables.distillation.objective import Distill as Distill
    from trainables.distillation.student import Student as Student
    from trainables.models import build_model as build_model
    from trainables.quantization import Bits as Bits
    from trainables.quantization import quantize as quantize
    from trainables.task import Task as Task
    from trainables.task import TrainedTeacher as TrainedTeacher
    from trainables.training.frozen_teacher import FrozenTeacher as FrozenTeacher
    from trainables.training.learner import Learner as Learner
    from trainables.training.learner import Teacher as Teacher
    from trainables.training.recipe import Recipe as Recipe

_MODULES = {
    "results.analysis.evaluation": ("Evaluation",),
    "results.analysis.summary": ("RoleResult", "SweepResult"),
    "results.runlog.history": ("History",),
    "search.config.schema": ("SweepConfig",),
    "search.sweeps.evaluation": ("evaluate",),
    "search.sweeps.runner": ("replay", "run"),
    "search.sweeps.screening": ("screen",),
    "spaces.augmentations": ("Augmentation", "augmentation"),
    "spaces.augmentations.crop_flip": ("BaseAugmentation",),
    "spaces.core.errors": ("RequestError", "RoletuneError", "WorkError"),
    "spaces.engine": ("apply",),
    "spaces.importers": ("read_schedule",),
    "spaces.operations": ("OPERATIONS", "Operation"),
    "spaces.policy.baselines": ("BASELINES",),
    "spaces.policy.policy": ("Entry", "Policy"),
    "spaces.policy.sampling": ("Parameters", "sample"),
    "spaces.policy.scaled": ("ScaledEntry", "ScaledPolicy"),
    "spaces.schedule.agent": ("Agent",),
    "spaces.schedule.batch_transform": ("SecondView", "Transform"),
    "spaces.schedule.genome": ("Genome",),
    "spaces.schedule.image_transform": ("ImageTransform",),
    "spaces.schedule.image_spec": ("ImageSpec",),
    "spaces.schedule.schedule": ("Phase", "Schedule"),
    "spaces.search_space.space": ("Space",),
    "trainables.distillation.objective": ("Distill",),
    "trainables.distillation.student": ("Student",),
    "trainables.models": ("build_model",),
    "trainables.quantization": ("Bits", "quantize"),
    "trainables.task": ("Task", "TrainedTeacher"),
    "trainables.training.frozen_teacher": ("FrozenTeacher",),
    "trainables.training.learner": ("Learner", "Teacher"),
    "trainables.training.recipe": ("Recipe",),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    """Import the public name `name`."""
    if name not in _HOMES:
        raise AttributeError(f"module 'roletune' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, imported or not."""
    return sorted({*globals(), *__all__})
