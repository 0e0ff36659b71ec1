"""The result of a sweep: one row for each role, as data, as a table and as Markdown."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from results.analysis.pareto import BITS_PER_KILOBYTE, Candidate, describe_front
from results.analysis.statistics import interval, paired_difference
from results.analysis.tables import TextTable, format_percent
from spaces.core.errors import RequestError

if TYPE_CHECKING:  # only a terminal needs rich
    from rich.table import Table

POLICY = "policy"
"""The arm trained with the searched schedule; the others are baselines."""

_ARM_NAMES = {POLICY: "with policy", "none": "no augmentation", "random": "random control"}


def arm_name(arm: str) -> str:
    """Return the name of an arm as shown to people."""
    return _ARM_NAMES.get(arm, arm)


@dataclass(frozen=True)
class Gain:
    """The test accuracy of the policy minus that of another arm, paired by seed.

    Args:
        role: Role that was trained.
        arm: Name of the other arm as shown to people.
        mean: Mean difference, -1 to 1.
        half_width: Half width of its 95 % confidence interval; None for a single seed.
    """

    role: str
    arm: str
    mean: float
    half_width: float | None

    @property
    def outcome(self) -> str:
        """`better`, `worse`, or `open` if the interval contains 0 or there is none."""
        if self.half_width is None or abs(self.mean) <= self.half_width:
            return "open"
        return "better" if self.mean > 0 else "worse"

    @property
    def points(self) -> str:
        """The difference in percentage points, with its interval."""
        mean = f"{100 * self.mean:+.2f}"
        return f"{mean} points" if self.half_width is None else f"{mean} ± {100 * self.half_width:.2f} points"

    @property
    def verdict(self) -> str:
        """The claim that the interval supports."""
        if self.half_width is None:
            return "one seed, so no confidence interval; use 3 or more seeds"
        if self.outcome == "open":
            return "no significant difference (the 95 % confidence interval contains 0)"
        return f"significantly {self.outcome} (95 % confidence interval)"

    def __str__(self) -> str:
        """Return the difference and the claim as one sentence."""
        return f"{self.role}: policy − {self.arm} = {self.points}: {self.verdict}."


@dataclass(frozen=True)
class RoleResult:
    """The result of one role.

    Args:
        role: `teacher` or `student`.
        best_validation: Validation accuracy of the best member at the end of its search, 0 to 1; NaN without a search.
        test: Test accuracy by arm and seed, 0 to 1; None for a training that failed. Arms are paired by seed.
        exploits: Number of copies made during the search.
        policy_file: File with the schedule.
        size_in_bits: Size of the exported network; 0 if unknown.
        pareto: Members that no other beats in both accuracy and size, the smallest first; empty if size was not an
            objective.
        confirmation: Outcome of the confirmation in one sentence; empty without one.
        in_domain: Test accuracy where the training images are from, by arm and seed, if `test` is of a target domain;
            empty otherwise.

    Example:
        >>> test = {"policy": (0.90, 0.92, 0.94), "none": (0.86, 0.87, 0.90)}
        >>> result = RoleResult("student", 0.93, test, exploits=4, policy_file="policy.student.json")
        >>> print(result.comparisons()[0])
        student: policy − no augmentation = +4.33 ± 1.43 points: significantly better (95 % confidence interval).
    """

    role: str
    best_validation: float
    test: Mapping[str, tuple[float | None, ...]]
    exploits: int
    policy_file: str
    size_in_bits: int = 0
    pareto: tuple[Candidate, ...] = ()
    confirmation: str = ""
    in_domain: Mapping[str, tuple[float | None, ...]] = field(default_factory=dict)

    def in_domain_accuracy(self, arm: str) -> tuple[float, float | None] | None:
        """Return mean and half width of an arm's in-domain accuracy; None where there is none."""
        values = [value for value in self.in_domain.get(arm, ()) if value is not None]
        return interval(values) if values else None

    def accuracy(self, arm: str) -> tuple[float, float | None] | None:
        """Return mean and half width of an arm's test accuracy; None if all its trainings failed."""
        values = [value for value in self.test.get(arm, ()) if value is not None]
        return interval(values) if values else None

    def gain(self, arm: str) -> tuple[float, float | None] | None:
        """Return mean and half width of the policy's test accuracy minus the arm's; None without a common seed."""
        pairs = zip(self.test.get(POLICY, ()), self.test.get(arm, ()), strict=False)
        whole = [(ours, theirs) for ours, theirs in pairs if ours is not None and theirs is not None]
        return paired_difference(*zip(*whole, strict=True)) if whole else None

    def comparisons(self) -> list[Gain]:
        """Compare the policy with every other arm that shares a seed with it."""
        gains = {arm: self.gain(arm) for arm in self.test if arm != POLICY}
        return [Gain(self.role, arm_name(arm), *gain) for arm, gain in gains.items() if gain is not None]

    @classmethod
    def from_json(cls, role: str, data: Mapping[str, Any]) -> RoleResult:
        """Return the result that `SweepResult.to_json` wrote; fields of later versions keep their defaults."""
        best = data["best_validation"]
        return cls(
            role=role,
            best_validation=math.nan if best is None else float(best),
            test={arm: tuple(each["by_seed"]) for arm, each in data["test"].items()},
            exploits=data["exploits"],
            policy_file=data["policy_file"],
            size_in_bits=data.get("size_in_bits", 0),
            pareto=tuple(Candidate.from_json(each) for each in data.get("pareto", ())),
            confirmation=data.get("confirmation", ""),
            in_domain={arm: tuple(values) for arm, values in data.get("in_domain", {}).items()},
        )


@dataclass(frozen=True)
class SweepResult:
    """The result of a finished sweep.

    Args:
        name: Name of the sweep.
        folder: Folder with everything that the sweep wrote.
        report: Folder with plots and summary.
        tracking_uri: MLflow's store, without credentials.
        experiment: Name of MLflow's experiment.
        seconds: Duration.
        failed: Trials that failed, name to reason.
        roles: One entry for each role.

    Example:
        >>> role = RoleResult("student", 0.93, {"policy": (0.92,)}, exploits=4, policy_file="policy.student.json")
        >>> result = SweepResult("digits", "runs/digits-001", "runs/digits-001/report", "sqlite:///x", "digits", 75.0,
        ...                      roles=(role,))
        >>> print(result.text_table().markdown())
        | role | trained | test accuracy, % | policy − it, points |
        | --- | --- | ---: | ---: |
        | student | with policy | 92.00 | – |
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
        """Return the result as plain data, which `from_json` reads."""
        roles = {}
        for role in self.roles:
            arms = {arm: _arm(role, arm) for arm in role.test}
            best = None if math.isnan(role.best_validation) else role.best_validation
            front = [candidate.to_json() for candidate in role.pareto]
            own = {arm: list(values) for arm, values in role.in_domain.items()}
            roles[role.role] = {
                **asdict(role),
                "best_validation": best,
                "test": arms,
                "pareto": front,
                "in_domain": own,
            }
            del roles[role.role]["role"]
        return {**asdict(self), "roles": roles}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> SweepResult:
        """Return the result that `to_json` wrote.

        Raises:
            RequestError: These are other data.
        """
        try:
            plain = {key: data[key] for key in ("name", "folder", "report", "tracking_uri", "experiment", "seconds")}
            roles = tuple(RoleResult.from_json(role, each) for role, each in data["roles"].items())
            return cls(**plain, failed=dict(data["failed"]), roles=roles)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            rule = f"the result of a sweep must hold its name, folder and roles: {error!r}"
            raise RequestError(rule, hint="give the whole result.json") from error

    def text_table(self) -> TextTable:
        """Return one row for each role and arm."""
        in_domain = any(role.in_domain for role in self.roles)
        target = ["target accuracy, %", "in domain, %"] if in_domain else ["test accuracy, %"]
        rows = []
        for role in self.roles:
            for arm in role.test:
                own = [_cell(role.in_domain_accuracy(arm), "–")] if in_domain else []
                gain = role.gain(arm) if arm != POLICY else None
                minus = "–" if gain is None else Gain(role.role, arm, *gain).points.removesuffix(" points")
                rows.append([role.role, arm_name(arm), _cell(role.accuracy(arm)), *own, minus])
        return TextTable(["role", "trained", *target, "policy − it, points"], rows, numbers=range(2, 4 + in_domain))

    def table(self) -> Table:
        """Return the table for a terminal."""
        return self.text_table().for_terminal()

    def markdown(self) -> str:
        """Return the table and the notes as Markdown."""
        return "\n".join([self.text_table().markdown(), "", *(f"- {note}" for note in self.notes())]) + "\n"

    def notes(self) -> list[str]:
        """Return the confirmations, comparisons, sizes, Pareto fronts and failures, one sentence each."""
        notes = [f"{role.role}: {role.confirmation}." for role in self.roles if role.confirmation]
        notes += [str(gain) for role in self.roles for gain in role.comparisons()]
        notes += [note for role in self.roles if (note := _network(role))]
        notes += front_notes(self.roles)
        return notes + [f"{name} failed: {why}" for name, why in self.failed.items()]


def front_notes(roles: tuple[RoleResult, ...]) -> list[str]:
    """Return one sentence for each point of each role's Pareto front."""
    return [f"{role.role}, Pareto front: {line}." for role in roles for line in describe_front(role.pareto)]


def _arm(role: RoleResult, arm: str) -> dict[str, Any]:
    mean, half_width = role.accuracy(arm) or (None, None)
    return {"mean": mean, "half_width_95": half_width, "by_seed": list(role.test[arm])}


def _network(role: RoleResult) -> str:
    """Return the best validation accuracy and the size of the exported network in words."""
    parts = [] if math.isnan(role.best_validation) else [f"best validation {format_percent(role.best_validation)} %"]
    parts += [f"exported network {role.size_in_bits / BITS_PER_KILOBYTE:.1f} kB"] if role.size_in_bits else []
    return f"{role.role}: {', '.join(parts)}." if parts else ""


def _cell(accuracy: tuple[float, float | None] | None, missing: str = "failed") -> str:
    return missing if accuracy is None else format_percent(*accuracy)
