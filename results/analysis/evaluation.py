"""An evaluation: policies and baselines trained from the same seeds, and the claims that the results support."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from results.analysis.statistics import holm, interval, paired_difference, paired_p
from results.analysis.tables import TextTable, format_percent
from spaces.core.errors import RequestError
from spaces.core.io import read_text

if TYPE_CHECKING:  # only a terminal needs rich
    from rich.table import Table

FORMAT, VERSION = "roletune.evaluation", 1

LEVEL = 0.05
"""Significance level of the p-values after Holm's correction."""


@dataclass(frozen=True)
class Arm:
    """One way to train, over all seeds.

    Args:
        name: Name of the policy's file or of the baseline; a control is named `POLICY/shuffled` or `POLICY/mean`.
        kind: `policy`; `baseline`, which needs no search; or `control`, made of a policy's own genomes.
        accuracy: Test accuracy by seed, 0 to 1; None for a training that failed. Arms are paired by seed.
        seconds: Training time by seed; None for a training that failed.
        about: Short description.
    """

    name: str
    kind: str
    accuracy: tuple[float | None, ...]
    seconds: tuple[float | None, ...]
    about: str = ""

    @property
    def mean(self) -> float:
        """Mean test accuracy over the seeds whose training succeeded; NaN if all failed."""
        return fmean(scores) if (scores := self.scores) else math.nan

    @property
    def scores(self) -> list[float]:
        """Test accuracies of the seeds whose training succeeded."""
        return _known(self.accuracy)


@dataclass(frozen=True)
class Comparison:
    """A policy against another arm, paired by seed.

    Args:
        policy: Name of the policy.
        other: Name of the other arm.
        gain: Mean difference in test accuracy, -1 to 1.
        half_width: Half width of its 95 % confidence interval; None for a single pair.
        p: p-value of the paired t test; NaN for a single pair.
        holm: The p-value after Holm's correction over all comparisons of the evaluation.
    """

    policy: str
    other: str
    gain: float
    half_width: float | None
    p: float
    holm: float

    @property
    def verdict(self) -> int:
        """1 if the policy is significantly better, -1 if significantly worse, 0 without a significant difference."""
        return 0 if not self.holm < LEVEL else int(math.copysign(1, self.gain))

    def __str__(self) -> str:
        """Return the gain in percentage points with its interval."""
        points = f"{100 * self.gain:+.2f}"
        return points if self.half_width is None else f"{points} ± {100 * self.half_width:.2f}"


@dataclass(frozen=True)
class Evaluation:
    """Arms trained for the same epochs from the same seeds, and tested once each.

    Args:
        name: Name of the sweep.
        role: Role that was trained.
        epochs: Epochs of each training.
        arms: Policies, baselines and controls, in the order of the request.
        seconds: Duration of the evaluation, over all its runs.
        failed: Trainings that failed, name to reason.
        settings: Data, model and versions: the rest of what it takes to repeat the evaluation.
        folder: Folder with the results.
        tracking_uri: MLflow's store, without credentials.

    Example:
        >>> policy = Arm("mine", "policy", (0.91, 0.93, 0.92), (1.0, 1.0, 1.0))
        >>> baseline = Arm("none", "baseline", (0.80, 0.82, 0.82), (1.0, 1.0, 1.0))
        >>> evaluation = Evaluation("digits", "student", 60, (policy, baseline))
        >>> print(evaluation.claims()[0])
        mine is significantly better than every baseline; over the best, none: +10.67 ± 1.43 points (p < 0.001).
    """

    name: str
    role: str
    epochs: int
    arms: tuple[Arm, ...]
    seconds: float = math.nan
    failed: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    folder: str = ""
    tracking_uri: str = ""

    @property
    def seeds(self) -> int:
        """Number of seeds of an arm."""
        return max((len(arm.accuracy) for arm in self.arms), default=0)

    @property
    def policies(self) -> tuple[Arm, ...]:
        """Arms that are evaluated."""
        return tuple(arm for arm in self.arms if arm.kind == "policy")

    @property
    def ranked(self) -> list[Arm]:
        """Arms by mean test accuracy, the best first; failed ones last."""
        return sorted(self.arms, key=lambda arm: -math.inf if math.isnan(arm.mean) else arm.mean, reverse=True)

    @property
    def best_baseline(self) -> Arm | None:
        """Baseline with the highest mean test accuracy; selected on the test set, which favors the baselines."""
        known = [arm for arm in self.arms if arm.kind == "baseline" and not math.isnan(arm.mean)]
        return max(known, key=lambda arm: arm.mean, default=None)

    def comparisons(self) -> tuple[Comparison, ...]:
        """Compare every policy with every baseline and with its own controls."""
        pairs = [
            (policy, other, _paired(policy, other))
            for policy in self.policies
            for other in self.arms
            if _is_compared(policy, other)
        ]
        pairs = [(policy, other, both) for policy, other, both in pairs if both[0]]
        p = [paired_p(*both) for _, _, both in pairs]
        return tuple(
            Comparison(policy.name, other.name, *paired_difference(*both), raw, corrected)
            for (policy, other, both), raw, corrected in zip(pairs, p, holm(p), strict=True)
        )

    def claims(self) -> list[str]:
        """Return one sentence for each policy: the claim that the results support."""
        comparisons = self.comparisons()
        return [self._claim(policy, [c for c in comparisons if c.policy == policy.name]) for policy in self.policies]

    def notes(self) -> list[str]:
        """Return the claims, the findings of the controls, the method and the failures."""
        notes = [*self.claims(), *self._control_findings()]
        if self.seeds > 1:
            notes.append(
                f"95 % confidence intervals over {self.seeds} seeds; p-values of paired t tests, Holm's correction "
                f"over {len(self.comparisons())} comparisons; {self.epochs} epochs of training each; each network was "
                "tested once."
            )
        return notes + [f"{name} failed: {why}" for name, why in self.failed.items()]

    def to_json(self) -> dict[str, Any]:
        """Return the evaluation as plain data, which `from_json` reads."""
        arms = []
        for arm in self.arms:
            mean, half_width = interval(arm.scores) if arm.scores else (None, None)
            lists = {"accuracy": list(arm.accuracy), "seconds": list(arm.seconds)}
            arms.append({**vars(arm), **lists, "mean": mean, "half_width_95": half_width})
        best = self.best_baseline
        return {
            "format": FORMAT,
            "version": VERSION,
            **{key: value for key, value in vars(self).items() if key != "arms"},
            "seconds": _finite(self.seconds),
            "arms": arms,
            "best_baseline": best.name if best else None,
            "comparisons": [{**vars(c), "p": _finite(c.p), "holm": _finite(c.holm)} for c in self.comparisons()],
            "notes": self.notes(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Evaluation:
        """Return the evaluation that `to_json` wrote.

        Raises:
            RequestError: These are other data, or data of another version.
        """
        if data.get("format") != FORMAT or data.get("version") != VERSION:
            found = {key: data.get(key) for key in ("format", "version")}
            rule = f"an evaluation must be of format {FORMAT}, version {VERSION}"
            raise RequestError(rule, value=found, hint="give a file that `roletune evaluate` wrote")
        arms = tuple(
            Arm(arm["name"], arm["kind"], tuple(arm["accuracy"]), tuple(arm["seconds"]), arm["about"])
            for arm in data["arms"]
        )
        seconds = math.nan if data["seconds"] is None else data["seconds"]
        rest = {key: data[key] for key in ("name", "role", "epochs", "failed", "settings", "folder", "tracking_uri")}
        return cls(arms=arms, seconds=seconds, **rest)

    @classmethod
    def load(cls, path: Path | str) -> Evaluation:
        """Read a file that `roletune evaluate` wrote.

        Raises:
            RequestError: The file cannot be read, or is not an evaluation.
        """
        try:
            return cls.from_json(json.loads(read_text(path, "evaluation")))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if isinstance(error, RequestError):
                raise
            raise RequestError(
                f"{path} is not an evaluation: {type(error).__name__} {error}",
                hint="give a file that `roletune evaluate` wrote",
            ) from error

    def text_table(self) -> TextTable:
        """Return one row for each arm, the best first."""
        known = {(each.policy, each.other): each for each in self.comparisons()}
        headings = ["arm", "test, %", *(f"{policy.name} - arm, p" for policy in self.policies), "s each"]
        rows = []
        for arm in self.ranked:
            differences = [_difference(known.get((policy.name, arm.name))) for policy in self.policies]
            seconds = f"{fmean(spent):.1f}" if (spent := _known(arm.seconds)) else "–"
            accuracy = format_percent(*interval(arm.scores)) if arm.scores else "failed"
            rows.append([arm.name, accuracy, *differences, seconds])
        return TextTable(headings, rows)

    def table(self) -> Table:
        """Return the table for a terminal, policies in bold."""
        return self.text_table().for_terminal(["bold" if arm.kind == "policy" else "" for arm in self.ranked])

    def markdown(self) -> str:
        """Return the table and the notes as Markdown."""
        return "\n".join([self.text_table().markdown(), "", *(f"- {note}" for note in self.notes())]) + "\n"

    def _claim(self, policy: Arm, comparisons: Sequence[Comparison]) -> str:
        kinds = {arm.name: arm.kind for arm in self.arms}
        baselines = [each for each in comparisons if kinds[each.other] == "baseline"]
        best = self.best_baseline
        if not baselines or best is None:
            return f"{policy.name}: no result to compare it with."
        if math.isnan(baselines[0].holm):
            return f"{policy.name}: one seed, so no confidence interval and no claim; use --seeds 5 for one."
        main = next((each for each in baselines if each.other == best.name), baselines[0])
        result = f"{main} points (p {_p_value(main.holm)})"
        better = [each.other for each in baselines if each.verdict > 0]
        worse = [each.other for each in baselines if each.verdict < 0]
        if main.verdict > 0:
            rest = [each.other for each in baselines if each.verdict <= 0]
            every = "every baseline" if not rest else f"{_join(better)}, but not than {_join(rest)}"
            return f"{policy.name} is significantly better than {every}; over the best, {best.name}: {result}."
        if main.verdict < 0:
            return f"{policy.name} is significantly worse than {_join(worse)}; against the best, {best.name}: {result}."
        lead = f"{policy.name} is significantly better than {_join(better)}, but " if better else f"{policy.name}: "
        return f"{lead}no significant difference from the best baseline, {best.name}: {result}."

    def _control_findings(self) -> list[str]:
        """Return what the controls show: does the order of the phases help, does changing over time help?"""
        tested = {"shuffled": "the order of its phases", "mean": "changing over time"}
        notes = []
        for each in self.comparisons():
            what = tested.get(each.other.removeprefix(f"{each.policy}/"))
            if what is None or math.isnan(each.holm):
                continue
            effect = {1: "helps significantly", 0: "makes no significant difference", -1: "hurts significantly"}
            notes.append(f"{each.policy}: {what} {effect[each.verdict]}: {each} points (p {_p_value(each.holm)}).")
        return notes


def _is_compared(policy: Arm, other: Arm) -> bool:
    return other.kind == "baseline" or (other.kind == "control" and other.name.startswith(f"{policy.name}/"))


def _paired(ours: Arm, theirs: Arm) -> tuple[list[float], list[float]]:
    """Return the accuracies of the seeds at which neither training failed."""
    pairs = zip(ours.accuracy, theirs.accuracy, strict=False)
    whole = [(a, b) for a, b in pairs if a is not None and b is not None]
    return [a for a, _ in whole], [b for _, b in whole]


def _known(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _difference(comparison: Comparison | None) -> str:
    if comparison is None:
        return "–"
    corrected = comparison.holm
    return str(comparison) if math.isnan(corrected) else f"{comparison}, {_p_value(corrected).removeprefix('= ')}"


def _p_value(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"= {value:.3f}" if value < 0.1 else f"= {value:.2f}"


def _join(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
