"""Readers of schedules that were made elsewhere: PBA's and Ray Tune's files, and AutoAugment's published tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias

from spaces.core.errors import RequestError, unknown
from spaces.importers import autoaugment, pba, ray_tune
from spaces.schedule.schedule import ROLES, ImageSpec, Phase, Schedule

__all__ = ["IMAGE", "READERS", "read_schedule"]

Reader: TypeAlias = Callable[
    [Path | str, int, ImageSpec, Sequence[str] | None], tuple[tuple[Phase, ...], dict[str, Any]]
]
"""(source, epochs, image, operations) → (phases that cover the epochs, provenance)."""

READERS: Mapping[str, Reader] = MappingProxyType(
    {"autoaugment": autoaugment.read, "pba": pba.read, "ray": ray_tune.read}
)
"""What can be read, by name."""

IMAGE = ImageSpec(32, 3, (125, 123, 114))
"""None of the sources says which images it is for: 32 px and CIFAR-10's mean color, unless the caller knows better."""


def read_schedule(
    kind: str,
    source: Path | str,
    *,
    epochs: int,
    role: str = "student",
    image: ImageSpec = IMAGE,
    operations: Sequence[str] | None = None,
) -> Schedule:
    """A schedule that was made elsewhere.

    Args:
        kind: a name of `READERS`; its module says how the source is understood.
        source: the file; for `autoaugment` the table's name.
        epochs: how many epochs the schedule covers. No source says it: its last genome holds until then.
        role: `teacher` or `student`.
        image: the images that the schedule is for.
        operations: the operations' names in the order of the file's numbers; None: the order of `spaces.OPERATIONS`.

    Raises:
        RequestError: the kind, the table or the role is unknown, or the file is missing or broken, or goes on for
            longer than `epochs`.
    """
    if kind not in READERS:
        raise unknown("reader", kind, READERS)
    if role not in ROLES:
        raise unknown("role", role, ROLES)
    if isinstance(epochs, bool) or not isinstance(epochs, int) or epochs < 1:
        raise RequestError("a schedule covers one epoch or more", value=epochs)
    phases, provenance = READERS[kind](source, epochs, image, operations)
    schedule = Schedule(phases, role, image, {"reader": kind, **provenance})
    try:
        return Schedule.from_json(schedule.to_json())  # nothing comes in this way that a policy file may not hold
    except RequestError as error:
        raise RequestError(f"{source}: {error}") from error
