"""What may be chosen: operations, genomes, schedules. Needs torch, and neither Ray nor MLflow."""

from spaces.base import BaseAugmentation
from spaces.errors import RequestError, RoletuneError, WorkError
from spaces.genome import Entry, Genome, Space
from spaces.operations import OPERATIONS, Operation
from spaces.schedule import ImageSpec, Phase, Schedule
from spaces.transform import Parameters, Transform, apply, sample

__all__ = [
    "OPERATIONS",
    "BaseAugmentation",
    "Entry",
    "Genome",
    "ImageSpec",
    "Operation",
    "Parameters",
    "Phase",
    "RequestError",
    "RoletuneError",
    "Schedule",
    "Space",
    "Transform",
    "WorkError",
    "apply",
    "sample",
]
