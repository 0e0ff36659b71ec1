"""What a sweep cost: trials, epochs, seconds by part, and how much of its places was used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from results.runlog.history import History
from results.runlog.members import StageHistory

PARTS = {"train": "training step", "augment": "augmentation", "validate": "validation"}
"""What trials report of their seconds, `augment` as a part of `train`, and what they are called here."""


@dataclass(frozen=True)
class StageCost:
    """What one stage cost.

    Args:
        name: of the stage.
        trials: that were started.
        epochs: that they trained, those that came twice counted twice.
        seconds: that they worked, all together.
    """

    name: str
    trials: int
    epochs: int
    seconds: float


@dataclass(frozen=True)
class Cost:
    """What a sweep cost.

    Args:
        stages: in the order in which they began.
        seconds: by part, over all trials; the parts do not overlap.
        wall: seconds from start to end, all sessions of the sweep together.
        offered: seconds that there was room for a trial: trials at once × wall; None: it was not written down.
    """

    stages: tuple[StageCost, ...]
    seconds: Mapping[str, float]
    wall: float
    offered: float | None

    @classmethod
    def of(cls, history: History) -> Cost:
        """The cost so far."""
        seconds = dict.fromkeys(PARTS, 0.0)
        for stage in history.stages.values():
            for part, value in _seconds(stage).items():
                if part in seconds:
                    seconds[part] += value
        seconds["train"] = max(0.0, seconds["train"] - seconds["augment"])
        walls = [max(0, each.last_event - each.started) / 1000 for each in history.sessions]
        slots = [each.slots for each in history.sessions]
        offered = None if None in slots else sum(n * wall for n, wall in zip(slots, walls, strict=True) if n)
        return cls(tuple(map(_stage, history.stages.values())), seconds, sum(walls), offered)

    @property
    def trials(self) -> int:
        """Of all stages."""
        return sum(stage.trials for stage in self.stages)

    @property
    def epochs(self) -> int:
        """Of all stages."""
        return sum(stage.epochs for stage in self.stages)

    @property
    def busy(self) -> float:
        """Seconds that trials worked."""
        return sum(self.seconds.values())

    @property
    def utilization(self) -> float | None:
        """`busy` ÷ `offered`, 0 … 1; None: not known."""
        return min(1.0, self.busy / self.offered) if self.offered else None

    @property
    def shares(self) -> list[tuple[str, float, float]]:
        """Each part: its name, its seconds, and its share of all that there was room for, or of `busy`."""
        parts = [(called, self.seconds[part]) for part, called in PARTS.items()]
        if self.offered:
            parts.append(("the rest", max(0.0, self.offered - self.busy)))
        whole = sum(seconds for _, seconds in parts) or 1.0
        return [(called, seconds, seconds / whole) for called, seconds in parts]

    @property
    def rows(self) -> list[list[str]]:
        """A table: stage, trials, epochs, work."""
        return [[each.name, f"{each.trials:,}", f"{each.epochs:,}", duration(each.seconds)] for each in self.stages]


def duration(seconds: float) -> str:
    """`2 h 5 min`, `2 min 31 s`, `4.2 s`."""
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
