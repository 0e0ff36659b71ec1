"""What a sweep found: one row a role, as data, as a table, as Markdown."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.table import Table

from results.analysis.pareto import Candidate, lines
from results.analysis.statistics import interval, paired_difference
from spaces.core.errors import RequestError

POLICY = "policy"
"""The arm that was trained with the schedule found; the others are baselines."""

_HEADINGS = {POLICY: "with policy", "none": "no augmentation", "random": "random control"}


def heading(arm: str) -> str:
    """What an arm is called."""
    return _HEADINGS.get(arm, arm)


@dataclass(frozen=True)
class Gain:
    """The policy minus another arm in test accuracy, paired by seed.

    Args:
        role: whose.
        arm: the other, as it is called.
        mean: of the differences, −1 … 1.
        half: half width of its 95 % interval; None: there is one seed.
    """

    role: str
    arm: str
    mean: float
    half: float | None

    @property
    def shown(self) -> str:
        """What the interval shows: `better`, `worse`, or `open`."""
        if self.half is None or abs(self.mean) <= self.half:
            return "open"
        return "better" if self.mean > 0 else "worse"

    @property
    def points(self) -> str:
        """The difference in points of a hundred."""
        mean = f"{100 * self.mean:+.2f}"
        return f"{mean} points" if self.half is None else f"{mean} ± {100 * self.half:.2f} points"

    @property
    def verdict(self) -> str:
        """What may be claimed."""
        if self.half is None:
            return "one seed, so no interval; set full.seeds to 3 or more"
        if self.shown == "open":
            return "the 95 % interval holds 0, so no difference is shown"
        return f"{self.shown}, by the 95 % interval"

    def __str__(self) -> str:
        """In a sentence."""
        return f"{self.role}: policy − {self.arm} = {self.points}: {self.verdict}."


@dataclass(frozen=True)
class RoleResult:
    """One role's outcome.

    Args:
        role: `teacher` or `student`.
        best_validation: accuracy, 0 … 1, of the best member at the end of its search; NaN where nothing was searched.
        test: arm → test accuracy, 0 … 1, by seed; arms are paired by seed, None where a training failed.
        exploits: copies made during the search.
        policy_file: where the schedule was written.
        size_in_bits: of the exported network; 0: not known.
        pareto: the members of the search that no other beats in accuracy and size together, the smallest first; empty
            where size was no objective.
    """

    role: str
    best_validation: float
    test: Mapping[str, tuple[float | None, ...]]
    exploits: int
    policy_file: str
    size_in_bits: int = 0
    pareto: tuple[Candidate, ...] = ()

    def accuracy(self, arm: str) -> tuple[float, float | None] | None:
        """Mean and half width of the arm's test accuracy, or None if every one of its trainings failed."""
        values = [value for value in self.test.get(arm, ()) if value is not None]
        return interval(values) if values else None

    def gain(self, arm: str) -> tuple[float, float | None] | None:
        """The policy's test accuracy minus the arm's, paired by seed."""
        pairs = zip(self.test.get(POLICY, ()), self.test.get(arm, ()), strict=False)
        whole = [(ours, theirs) for ours, theirs in pairs if ours is not None and theirs is not None]
        return paired_difference(*zip(*whole, strict=True)) if whole else None

    def comparisons(self) -> list[Gain]:
        """The policy against every other arm whose trainings have a partner."""
        gains = {arm: self.gain(arm) for arm in self.test if arm != POLICY}
        return [Gain(self.role, heading(arm), *gain) for arm, gain in gains.items() if gain is not None]

    @classmethod
    def from_json(cls, role: str, data: Mapping[str, Any]) -> RoleResult:
        """The result that `to_json` of its sweep wrote; what an older version did not write keeps its default."""
        best = data["best_validation"]
        return cls(
            role=role,
            best_validation=math.nan if best is None else float(best),
            test={arm: tuple(each["by_seed"]) for arm, each in data["test"].items()},
            exploits=data["exploits"],
            policy_file=data["policy_file"],
            size_in_bits=data.get("size_in_bits", 0),
            pareto=tuple(Candidate.from_json(each) for each in data.get("pareto", ())),
        )


@dataclass(frozen=True)
class SweepResult:
    """A finished sweep.

    Args:
        name: of the sweep.
        folder: everything that the sweep wrote.
        report: plots and summary.
        tracking_uri: MLflow's store, without credentials.
        experiment: MLflow's experiment.
        seconds: from start to end.
        failed: trials that raised, name → reason.
        roles: one entry for each role that was searched.
    """

    name: str
    folder: str
    report: str
    tracking_uri: str
    experiment: str
    seconds: float
    failed: Mapping[str, str] = field(default_factory=dict)
    roles: tuple[RoleResult, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain data for programs: figures and paths."""
        roles = {}
        for role in self.roles:
            arms = {arm: _arm(role, arm) for arm in role.test}
            best = None if math.isnan(role.best_validation) else role.best_validation
            front = [candidate.to_json() for candidate in role.pareto]
            roles[role.role] = {**asdict(role), "best_validation": best, "test": arms, "pareto": front}
            del roles[role.role]["role"]
        return {**asdict(self), "roles": roles}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> SweepResult:
        """The result that `to_json` wrote.

        Raises:
            RequestError: these are other data.
        """
        try:
            plain = {key: data[key] for key in ("name", "folder", "report", "tracking_uri", "experiment", "seconds")}
            roles = tuple(RoleResult.from_json(role, each) for role, each in data["roles"].items())
            return cls(**plain, failed=dict(data["failed"]), roles=roles)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise RequestError(f"this is no result of a sweep: {error!r}", hint="is it a whole result.json?") from error

    def table(self) -> Table:
        """The summary for a terminal."""
        table = Table(header_style="bold", show_edge=False, pad_edge=False)
        for index, name in enumerate(self.headings()):
            table.add_column(name, justify="right" if index else "left")
        for row in self.rows():
            table.add_row(*row)
        return table

    def markdown(self) -> str:
        """The summary as a Markdown table, with what it may be taken for."""
        headings = self.headings()
        lines = [headings, ["---"] + ["---:"] * (len(headings) - 1), *self.rows()]
        table = ["| " + " | ".join(line) + " |" for line in lines]
        return "\n".join([*table, "", *(f"- {note}" for note in self.notes())]) + "\n"

    def notes(self) -> list[str]:
        """What the figures do and do not say."""
        notes = [str(each) for role in self.roles for each in role.comparisons()]
        notes += [f"{role.role}, best of its size: {line}." for role in self.roles for line in lines(role.pareto)]
        notes += [f"{name} failed: {why}" for name, why in self.failed.items()]
        return notes

    def _arms(self) -> list[str]:
        return list(dict.fromkeys(arm for role in self.roles for arm in role.test))

    def _sizes(self, cell: str) -> list[str]:
        """`cell` in a column of its own, where any size is known."""
        return [cell] if any(role.size_in_bits for role in self.roles) else []

    def headings(self) -> list[str]:
        """Of the table."""
        return [
            "role",
            *self._sizes("size, kB"),
            "best validation",
            *(f"test, {heading(arm)}" for arm in self._arms()),
        ]

    def rows(self) -> list[list[str]]:
        """Of the table, one a role."""
        rows = []
        for role in self.roles:
            best = "–" if math.isnan(role.best_validation) else f"{100 * role.best_validation:.2f}"
            cells = (_cell(role.accuracy(arm)) if arm in role.test else "–" for arm in self._arms())
            size = f"{role.size_in_bits / 8000:.1f}" if role.size_in_bits else "–"
            rows.append([role.role, *self._sizes(size), best, *cells])
        return rows


def _arm(role: RoleResult, arm: str) -> dict[str, Any]:
    mean, half = role.accuracy(arm) or (None, None)
    return {"mean": mean, "half_width_95": half, "by_seed": list(role.test[arm])}


def _cell(value: tuple[float, float | None] | None) -> str:
    if value is None:
        return "failed"
    mean, half = value
    return f"{100 * mean:.2f}" if half is None else f"{100 * mean:.2f} ± {100 * half:.2f}"
