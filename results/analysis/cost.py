"""The cost of a sweep: trials, epochs, seconds by part of the work, and utilization."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from results.analysis.tables import TextTable
from results.runlog.history import History
from results.runlog.members import StageHistory

PARTS = {"train": "training step", "augment": "augmentation", "validate": "validation"}
"""Parts of the work that trials report seconds for, with their names here; `train` includes `augment`."""


@dataclass(frozen=True)
class StageCost:
    """The cost of one stage.

    Args:
        name: Name of the stage.
        trials: Number of trials started.
        epochs: Number of epochs trained, repeated ones included.
        seconds: Work of all its trials.
    """

    name: str
    trials: int
    epochs: int
    seconds: float


@dataclass(frozen=True)
class Cost:
    """The cost of a sweep.

    Args:
        stages: Cost by stage, in the order of their start.
        seconds: Work of all trials by part; the parts do not overlap.
        wall: Seconds from start to end, over all sessions of the sweep.
        capacity: Slots for trials times `wall`, in seconds; None if the number of slots was not recorded.
    """

    stages: tuple[StageCost, ...]
    seconds: Mapping[str, float]
    wall: float
    capacity: float | None

    @classmethod
    def of(cls, history: History) -> Cost:
        """Sum up a sweep's history, finished or not."""
        seconds = dict.fromkeys(PARTS, 0.0)
        for stage in history.stages.values():
            for part, value in _seconds(stage).items():
                if part in seconds:
                    seconds[part] += value
        seconds["train"] = max(0.0, seconds["train"] - seconds["augment"])
        walls = [max(0, each.last_event - each.started) / 1000 for each in history.sessions]
        slots = [each.slots for each in history.sessions]
        capacity = None if None in slots else sum(n * wall for n, wall in zip(slots, walls, strict=True) if n)
        return cls(tuple(map(_stage, history.stages.values())), seconds, sum(walls), capacity)

    @property
    def trials(self) -> int:
        """Number of trials of all stages."""
        return sum(stage.trials for stage in self.stages)

    @property
    def epochs(self) -> int:
        """Number of epochs of all stages."""
        return sum(stage.epochs for stage in self.stages)

    @property
    def busy(self) -> float:
        """Work of all trials, in seconds."""
        return sum(self.seconds.values())

    @property
    def utilization(self) -> float | None:
        """`busy` divided by `capacity`, 0 to 1; None if unknown."""
        return min(1.0, self.busy / self.capacity) if self.capacity else None

    @property
    def shares(self) -> list[tuple[str, float, float]]:
        """Name, seconds and share of each part: the share of `capacity`, or of `busy` where that is unknown."""
        parts = [(name, self.seconds[part]) for part, name in PARTS.items()]
        if self.capacity:
            parts.append(("other", max(0.0, self.capacity - self.busy)))
        whole = sum(seconds for _, seconds in parts) or 1.0
        return [(name, seconds, seconds / whole) for name, seconds in parts]

    @property
    def table(self) -> TextTable:
        """One row for each stage."""
        rows = [[each.name, f"{each.trials:,}", f"{each.epochs:,}", duration(each.seconds)] for each in self.stages]
        return TextTable(["stage", "trials", "epochs", "work"], rows)


def duration(seconds: float) -> str:
    """Return a duration for people.

    Example:
        >>> duration(4.2), duration(151), duration(7500)
        ('4.2 s', '2 min 31 s', '2 h 5 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60:,} h {minutes % 60} min"


def _stage(stage: StageHistory) -> StageCost:
    members, seconds = stage.members.values(), _seconds(stage)
    epochs = sum(len(member.reports) for member in members)
    return StageCost(stage.name, len(members), epochs, seconds.get("train", 0.0) + seconds.get("validate", 0.0))


def _seconds(stage: StageHistory) -> dict[str, float]:
    total: dict[str, float] = {}
    for member in stage.members.values():
        for part, value in member.seconds.items():
            total[part] = total.get(part, 0.0) + value
    return total
