"""Operations, genomes, schedules and their search space; depends on torch, not on Ray or MLflow."""

from spaces.augmentations.crop_flip import BaseAugmentation
from spaces.core.errors import RequestError, RoletuneError, WorkError
from spaces.engine import apply
from spaces.operations import OPERATIONS, Operation
from spaces.policy.baselines import BASELINES
from spaces.policy.policy import Entry, Policy
from spaces.policy.sampling import Parameters, sample
from spaces.policy.scaled import ScaledEntry, ScaledPolicy
from spaces.schedule.batch_transform import SecondView, Transform
from spaces.schedule.genome import Genome
from spaces.schedule.image_spec import ImageSpec
from spaces.schedule.image_transform import ImageTransform
from spaces.schedule.schedule import Phase, Schedule
from spaces.search_space.space import Space

__all__ = [
    "BASELINES",
    "OPERATIONS",
    "BaseAugmentation",
    "Entry",
    "Genome",
    "ImageSpec",
    "ImageTransform",
    "Operation",
    "Parameters",
    "Phase",
    "Policy",
    "RequestError",
    "RoletuneError",
    "ScaledEntry",
    "ScaledPolicy",
    "Schedule",
    "SecondView",
    "Space",
    "Transform",
    "WorkError",
    "apply",
    "sample",
]
