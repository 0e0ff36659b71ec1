"""Registry of readers for schedules of other projects."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias

from spaces.core.errors import RequestError, unknown
from spaces.core.validation import check_integer
from spaces.importers import autoaugment, pba, ray_tune
from spaces.schedule.image_spec import ImageSpec
from spaces.schedule.schedule import ROLES, Phase, Schedule

Reader: TypeAlias = Callable[
    [Path | str, int, ImageSpec, Sequence[str] | None], tuple[tuple[Phase, ...], dict[str, Any]]
]
"""(source, epochs, image, operations) → (phases that cover the epochs, provenance)."""

READERS: Mapping[str, Reader] = MappingProxyType(
    {"autoaugment": autoaugment.read, "pba": pba.read, "ray": ray_tune.read}
)
"""Readers by name."""

IMAGE = ImageSpec(32, 3, (125, 123, 114))
"""Default image specification, 32 px and the mean color of CIFAR-10, since no source names its images."""


def read_schedule(
    kind: str,
    source: Path | str,
    *,
    epochs: int,
    role: str = "student",
    image: ImageSpec = IMAGE,
    operations: Sequence[str] | None = None,
) -> Schedule:
    """Read a schedule of another project.

    Args:
        kind: Name in `READERS`: `autoaugment`, `pba` or `ray`.
        source: Path of the file; for `autoaugment` the name of the table.
        epochs: Number of epochs of the schedule, which no source contains; the last genome is used until then.
        role: `teacher` or `student`.
        image: Images that the schedule is for.
        operations: Names of the operations in the order of the numbers in the file; None for the order of
            `spaces.OPERATIONS`.

    Raises:
        RequestError: The kind, table or role is unknown, the file is missing or invalid, or it has more epochs than
            `epochs`.

    Example:
        >>> from spaces.importers import read_schedule
        >>> schedule = read_schedule("autoaugment", "svhn", epochs=60)
        >>> schedule.epochs, len(schedule.at(0).policy)
        (60, 50)
    """
    if kind not in READERS:
        raise unknown("reader", kind, READERS)
    if role not in ROLES:
        raise unknown("role", role, ROLES)
    check_integer("the epochs of a schedule", epochs, 1)
    phases, provenance = READERS[kind](source, epochs, image, operations)
    schedule = Schedule(phases, role, image, {"reader": kind, **provenance})
    try:
        return Schedule.from_json(schedule.to_json())  # refuses what a policy file may not hold
    except RequestError as error:
        raise RequestError(f"{source}: {error}") from error
