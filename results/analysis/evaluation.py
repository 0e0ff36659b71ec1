"""What an evaluation found: policies and baselines over the same seeds, and what may be claimed of them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from results.analysis.statistics import holm, interval, paired_difference, paired_p
from spaces.core.errors import RequestError
from spaces.core.io import read_text

if TYPE_CHECKING:  # tables and pictures are made where they are wanted
    from rich.table import Table

LEVEL = 0.05
"""A difference is shown where its p, after Holm, is below this."""

POLICY_COLOR, BASELINE_COLOR = "#0072b2", "#8c8c8c"


@dataclass(frozen=True)
class Arm:
    """One way to train, over all seeds.

    Args:
        name: of the policy's file, or of the baseline; a control is called `POLICY/shuffled`.
        kind: `policy`; `baseline`, which costs no search; or `control`, made of a policy's own genomes.
        accuracy: on the test images, 0 … 1, by seed; arms are paired by seed, None where a training failed.
        seconds: that the training took, by seed.
        about: what it is, in a few words.
    """

    name: str
    kind: str
    accuracy: tuple[float | None, ...]
    seconds: tuple[float | None, ...]
    about: str = ""

    @property
    def mean(self) -> float:
        """Mean test accuracy over the seeds that did not fail; NaN where all did."""
        return fmean(known) if (known := _known(self.accuracy)) else math.nan


@dataclass(frozen=True)
class Comparison:
    """A policy against another arm, paired by seed.

    Args:
        policy: its name.
        other: the other arm's.
        gain: mean difference in accuracy, −1 … 1.
        half_width: of its 95 % interval; None for a single pair.
        p: of Student's paired t test, NaN for a single pair.
        holm: the same after Holm's correction over all comparisons of the evaluation.
    """

    policy: str
    other: str
    gain: float
    half_width: float | None
    p: float
    holm: float

    @property
    def verdict(self) -> int:
        """1: the policy is shown to be better; −1: to be worse; 0: no difference is shown."""
        return 0 if not self.holm < LEVEL else int(math.copysign(1, self.gain))

    def __str__(self) -> str:
        """The gain in points with its interval."""
        points = f"{100 * self.gain:+.2f}"
        return points if self.half_width is None else f"{points} ± {100 * self.half_width:.2f}"


@dataclass(frozen=True)
class Evaluation:
    """Arms that were trained for the same epochs from the same seeds, and tested once each.

    Args:
        name: of the sweep.
        role: that was trained.
        epochs: of every training.
        arms: policies, baselines and controls, in the order in which they were asked for.
        seconds: that the evaluation took, over all its starts.
        failed: trainings that failed, name → reason.
        settings: what else it takes to do it again: data, model, versions.
        folder: that it was written to.
        tracking_uri: MLflow's store, without credentials.
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
        """How many trainings an arm has."""
        return max((len(arm.accuracy) for arm in self.arms), default=0)

    @property
    def policies(self) -> tuple[Arm, ...]:
        """What is evaluated."""
        return tuple(arm for arm in self.arms if arm.kind == "policy")

    @property
    def best_baseline(self) -> Arm | None:
        """The baseline of the highest mean; it was chosen on the test set, which speaks against the policies."""
        known = [arm for arm in self.arms if arm.kind == "baseline" and not math.isnan(arm.mean)]
        return max(known, key=lambda arm: arm.mean, default=None)

    def comparisons(self) -> tuple[Comparison, ...]:
        """Every policy against every baseline and each of its own controls."""
        pairs = [(p, o, _paired(p, o)) for p in self.policies for o in self.arms if _is_rival(o, p)]
        pairs = [(policy, other, both) for policy, other, both in pairs if both[0]]
        p = [paired_p(*both) for _, _, both in pairs]
        return tuple(
            Comparison(policy.name, other.name, *paired_difference(*both), raw, corrected)
            for (policy, other, both), raw, corrected in zip(pairs, p, holm(p), strict=True)
        )

    def claims(self) -> list[str]:
        """For each policy, in one sentence, what may be said of it."""
        comparisons = self.comparisons()
        return [self._claim(policy, [c for c in comparisons if c.policy == policy.name]) for policy in self.policies]

    def notes(self) -> list[str]:
        """The claims, then what else the figures do and do not say."""
        notes = [*self.claims(), *self._orders()]
        if self.seeds > 1:
            notes.append(
                f"95 % intervals over {self.seeds} seeds; p from paired t tests, after Holm over "
                f"{len(self.comparisons())} comparisons; {self.epochs} epochs each; the test set was opened once for "
                "each training."
            )
        return notes + [f"{name} failed: {why}" for name, why in self.failed.items()]

    # As data ----------------------------------------------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        """Plain data for programs; `from_json` gives it back."""
        arms = []
        for arm in self.arms:
            mean, half = interval(known) if (known := _known(arm.accuracy)) else (None, None)
            figures = {"mean": mean, "half_width_95": half}
            arms.append({**vars(arm), "accuracy": list(arm.accuracy), "seconds": list(arm.seconds), **figures})
        best = self.best_baseline
        return {
            "format": "roletune.evaluation",
            "version": 1,
            **{key: value for key, value in vars(self).items() if key != "arms"},
            "seconds": _number(self.seconds),
            "arms": arms,
            "best_baseline": best.name if best else None,
            "comparisons": [{**vars(c), "p": _number(c.p), "holm": _number(c.holm)} for c in self.comparisons()],
            "notes": self.notes(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Evaluation:
        """The evaluation that `to_json` wrote.

        Raises:
            RequestError: it is none, or of a newer version.
        """
        if data.get("format") != "roletune.evaluation" or data.get("version") != 1:
            got = {key: data.get(key) for key in ("format", "version")}
            raise RequestError("this is no evaluation that this roletune reads", value=got)
        arms = tuple(
            Arm(arm["name"], arm["kind"], tuple(arm["accuracy"]), tuple(arm["seconds"]), arm["about"])
            for arm in data["arms"]
        )
        seconds = math.nan if data["seconds"] is None else data["seconds"]
        rest = {key: data[key] for key in ("name", "role", "epochs", "failed", "settings", "folder", "tracking_uri")}
        return cls(arms=arms, seconds=seconds, **rest)

    @classmethod
    def load(cls, path: Path | str) -> Evaluation:
        """Read the file that `roletune evaluate` wrote.

        Raises:
            RequestError: it cannot be read, or is no evaluation.
        """
        try:
            return cls.from_json(json.loads(read_text(path, "evaluation")))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if isinstance(error, RequestError):
                raise
            raise RequestError(f"{path} is no evaluation: {type(error).__name__} {error}") from error

    # For people -------------------------------------------------------------------------------------------------------

    def table(self) -> Table:
        """One row an arm, the best first, for a terminal."""
        from rich.table import Table

        headings, *rows = self._cells()
        table = Table(header_style="bold", show_edge=False, pad_edge=False)
        for index, heading in enumerate(headings):
            table.add_column(heading, justify="right" if index else "left", overflow="fold")
        for arm, row in zip(self._ranked(), rows, strict=True):
            table.add_row(*row, style="bold" if arm.kind == "policy" else "")
        return table

    def markdown(self) -> str:
        """The table, then the notes."""
        headings, *rows = self._cells()
        lines = [headings, ["---"] + ["---:"] * (len(headings) - 1), *rows]
        table = ["| " + " | ".join(line) + " |" for line in lines]
        return "\n".join([*table, "", *(f"- {note}" for note in self.notes())]) + "\n"

    def _ranked(self) -> list[Arm]:
        return sorted(self.arms, key=lambda arm: -math.inf if math.isnan(arm.mean) else arm.mean, reverse=True)

    def _cells(self) -> list[list[str]]:
        """Headings and rows."""
        known = {(c.policy, c.other): c for c in self.comparisons()}
        rows = [["arm", "test, %", *(f"{policy.name} minus it, p" for policy in self.policies), "s each"]]
        for arm in self._ranked():
            against = [_against(known.get((policy.name, arm.name))) for policy in self.policies]
            seconds = f"{fmean(spent):.1f}" if (spent := _known(arm.seconds)) else "–"
            rows.append([arm.name, _accuracy(arm), *against, seconds])
        return rows

    def _claim(self, policy: Arm, found: Sequence[Comparison]) -> str:
        kinds = {arm.name: arm.kind for arm in self.arms}
        found = [each for each in found if kinds[each.other] == "baseline"]
        best = self.best_baseline
        if not found or best is None:
            return f"{policy.name}: nothing was measured that it could be compared with."
        if math.isnan(found[0].holm):
            return f"{policy.name}: one seed, so nothing may be claimed; --seeds 5 gives an interval."
        count = len(self.comparisons())
        most = next((each for each in found if each.other == best.name), found[0])
        told = f"{most} points, p = {_p(most.holm)}, Holm over {count}"
        better = [each.other for each in found if each.verdict > 0]
        worse = [each.other for each in found if each.verdict < 0]
        if most.verdict > 0:
            rest = [each.other for each in found if each.verdict <= 0]
            every = "than every baseline" if not rest else f"than {_listed(better)}, not than {_listed(rest)}"
            return f"{policy.name} is shown to be better {every}; over the best, {best.name}: {told}."
        if most.verdict < 0:
            return f"{policy.name} is shown to be worse than {_listed(worse)}; against the best, {best.name}: {told}."
        lead = f"{policy.name} is shown to be better than {_listed(better)}, but " if better else f"{policy.name}: "
        return f"{lead}no difference to the best baseline, {best.name}, is shown ({told})."

    def _orders(self) -> list[str]:
        """What the controls say of a policy: whether its order in time matters, and whether it need change at all."""
        meaning = {"shuffled": "the order of its phases", "mean": "changing over time"}
        notes = []
        for each in self.comparisons():
            what = meaning.get(each.other.removeprefix(f"{each.policy}/"))
            if what is None or math.isnan(each.holm):
                continue
            shown = {1: "is shown to help", 0: "is not shown to matter", -1: "is shown to hurt"}[each.verdict]
            notes.append(f"{each.policy}: {what} {shown} ({each} points, p = {_p(each.holm)}).")
        return notes


def evaluation_png(evaluation: Evaluation) -> bytes:
    """Every arm's test accuracy, the best at the top: a dot a seed, the mean with its 95 % interval.

    Policies are blue, baselines gray, controls gray and hollow; the dashed line is the best baseline's mean. The same
    evaluation gives the same bytes.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    arms = [arm for arm in evaluation._ranked() if not math.isnan(arm.mean)]
    figure = Figure(figsize=(7.5, 1.2 + 0.36 * max(2, len(arms))), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for place, arm in enumerate(arms):
        known = _known(arm.accuracy)
        mean, half = interval(known)
        color = POLICY_COLOR if arm.kind == "policy" else BASELINE_COLOR
        axes.scatter([100 * value for value in known], [place] * len(known), s=14, color=color, alpha=0.45, lw=0)
        axes.errorbar(
            100 * mean, place, xerr=100 * half if half else None, fmt="o", color=color, capsize=3, markersize=7,
            markerfacecolor="white" if arm.kind == "control" else color,
        )  # fmt: skip
    if (best := evaluation.best_baseline) is not None:
        axes.axvline(100 * best.mean, color=BASELINE_COLOR, ls="--", lw=1, zorder=0)
    seen = [100 * value for arm in arms for value in _known(arm.accuracy)]
    if seen:  # a wide interval must not hide how far the arms are apart, nor reach beyond what there can be
        room = max(1.0, 0.35 * (max(seen) - min(seen)))
        axes.set_xlim(max(0.0, min(seen) - room), min(100.0, max(seen) + room))
    axes.set_yticks(range(len(arms)), [arm.name for arm in arms])
    axes.invert_yaxis()
    axes.set_xlabel(f"test accuracy, %  (mean, 95 % interval, {evaluation.seeds} seeds)")
    axes.set_title(f"The {evaluation.role} under each, {evaluation.epochs} epochs", loc="left", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=120, metadata={"Software": None})
    return buffer.getvalue()


def _is_rival(other: Arm, policy: Arm) -> bool:
    return other.kind == "baseline" or (other.kind == "control" and other.name.startswith(f"{policy.name}/"))


def _paired(ours: Arm, theirs: Arm) -> tuple[list[float], list[float]]:
    """The accuracies of those seeds that neither failed at."""
    whole = [(a, b) for a, b in zip(ours.accuracy, theirs.accuracy, strict=False) if a is not None and b is not None]
    return [a for a, _ in whole], [b for _, b in whole]


def _known(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _accuracy(arm: Arm) -> str:
    if not (known := _known(arm.accuracy)):
        return "failed"
    mean, half = interval(known)
    return f"{100 * mean:.2f}" if half is None else f"{100 * mean:.2f} ± {100 * half:.2f}"


def _against(comparison: Comparison | None) -> str:
    if comparison is None:
        return "–"
    return str(comparison) if math.isnan(comparison.holm) else f"{comparison}, {_p(comparison.holm)}"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}" if value < 0.1 else f"{value:.2f}"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
