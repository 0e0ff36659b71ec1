"""What may be chosen: operations, genomes, schedules. Needs torch, and neither Ray nor MLflow."""

from spaces.base import BaseAugmentation
from spaces.engine import apply
from spaces.errors import RequestError, RoletuneError, WorkError
from spaces.genome import Genome
from spaces.image_transform import ImageTransform
from spaces.operations import OPERATIONS, Operation
from spaces.parameters import Parameters, sample
from spaces.policy import Entry, Policy
from spaces.schedule import ImageSpec, Phase, Schedule
from spaces.space import Space
from spaces.transform import SecondView, Transform

__all__ = [
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
    "Schedule",
    "SecondView",
    "Space",
    "Transform",
    "WorkError",
    "apply",
    "sample",
]
