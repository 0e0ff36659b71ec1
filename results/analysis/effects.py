"""Effects of a screening experiment: how much each factor changes the score, by role, and where the roles differ.

The model and its intervals are those of `results.analysis.bayesian_regression`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

from results.analysis.bayesian_regression import CoefficientPosterior
from results.analysis.contrasts import Array, ContrastMatrix, Factor, Levels
from results.analysis.statistics import holm
from results.analysis.tables import TextTable
from spaces.core.errors import RequestError
from spaces.core.io import read_text, write_atomic
from spaces.schedule.schedule import ROLES

EFFECTS_FILE = "effects.json"
"""Name of the file in a sweep's folder."""

FORMAT, VERSION = "roletune.effects", 1

MIN_SCORES = 3
"""Smallest number of scores that effects are estimated from."""

MIDDLE = "middle"
"""Choice between two levels of which neither is shown to be better."""

SIGNIFICANT = 0.05
"""Level of the corrected p-value from which on the roles differ."""

Score: TypeAlias = Literal["accuracy", "cross_entropy"]

UNITS: Mapping[str, str] = {"accuracy": "accuracy in points", "cross_entropy": "−log cross-entropy"}
"""Scale of the effects, by score."""

_LARGEST_Z = 8.0


@dataclass(frozen=True)
class Effect:
    """Effect of one factor on the score.

    Args:
        factor: Name of the factor.
        kind: `operation`, `level`, `choice` or `setting`.
        levels: Two levels, of which the second is compared with the first; or one, compared with the mean of all.
        estimate: Mean of the posterior.
        low: Lower bound of the central 95 % interval.
        high: Upper bound.
        probability: Posterior probability that the effect is positive.
        z: Standard normal quantile of `probability`, from -8 to 8.
    """

    factor: str
    kind: str
    levels: tuple[Any, ...]
    estimate: float
    low: float
    high: float
    probability: float
    z: float

    @property
    def label(self) -> str:
        """The factor, with the levels that are compared where they are not off and on."""
        if self.kind == "operation":
            return self.factor
        if len(self.levels) == 1:
            return f"{self.factor}: {self.levels[0]}"
        return f"{self.factor}: {self.levels[1]} vs {self.levels[0]}"


@dataclass(frozen=True)
class RoleEffects:
    """Effects of one role's experiment.

    Args:
        role: `teacher` or `student`.
        score: Score of the trials, which says the scale of the effects, see `UNITS`.
        trials: Number of trials with a score.
        sigma: Estimated standard deviation of a trial's score.
        effects: Effects in the order of the factors.
        policy: Chosen level of each factor by its name; `middle` where none of two is shown to be better.
        notes: Cautions, such as that the trials cannot tell the factors apart.
    """

    role: str
    score: Score
    trials: int
    sigma: float
    effects: tuple[Effect, ...]
    policy: Mapping[str, Any] = field(default_factory=dict, hash=False)
    notes: tuple[str, ...] = ()

    def kept(self, effect: Effect) -> bool:
        """Return True if the policy has the level that the effect is of: `on`, or the last of those compared."""
        return bool(self.policy.get(effect.factor) == effect.levels[-1])

    def strength_of(self, op: str) -> str:
        """Return the chosen strength of an operation: `low`, `high` or `middle`; empty if it is off or has none."""
        strengths = {effect.factor for effect in self.effects if effect.kind == "level"}
        name = strength_name(op)
        return str(self.policy.get(name, "")) if name in strengths else ""

    def text_table(self, *, strengths: bool = True) -> TextTable:
        """Return one row for each effect, the largest first.

        Args:
            strengths: True for rows of the strengths, too; else the chosen one is beside its operation.
        """
        rows = []
        for effect in sorted(self.effects, key=lambda effect: -effect.estimate):
            if effect.kind == "level" and not strengths:
                continue
            chosen = str(self.policy.get(effect.factor, "–"))
            if not strengths and (strength := self.strength_of(effect.factor)):
                chosen += f", {strength}"
            interval = f"{effect.low:+.3f} … {effect.high:+.3f}".replace("-", "−")
            numbers = f"{effect.estimate:+.3f}".replace("-", "−"), interval, f"{effect.probability:.3f}"
            rows.append([effect.label, *numbers, chosen])
        return TextTable(["effect", "estimate", "95 % interval", "P(> 0)", "policy"], rows, numbers=(1, 2, 3))


@dataclass(frozen=True)
class RoleDifference:
    """Difference between the roles in one effect.

    Args:
        factor: Name of the factor.
        kind: Kind of the factor.
        levels: Levels that are compared, see `Effect`.
        difference: Effect for the student minus that for the teacher.
        low: Lower bound of its 95 % interval.
        high: Upper bound.
        p: Two-sided p-value.
        p_holm: The same, corrected by Holm over all operations; NaN for other factors.
    """

    factor: str
    kind: str
    levels: tuple[Any, ...]
    difference: float
    low: float
    high: float
    p: float
    p_holm: float

    @property
    def significant(self) -> bool:
        """True if the roles differ after the correction."""
        return self.p_holm < SIGNIFICANT


def strength_name(op: str) -> str:
    """Return the name of the factor of an operation's strength."""
    return f"{op} strength"


def transform_scores(scores: Iterable[float]) -> tuple[Score, Array]:
    """Return the kind of scores, and the scale that effects are estimated on.

    Args:
        scores: One a trial, higher is better: accuracies in [0, 1], or negative cross-entropies; NaN for
            none.

    Returns:
        `accuracy` with the scores in percent, or `cross_entropy` with -log(cross-entropy).

    Example:
        >>> transform_scores([0.9, 0.95])[1].tolist()
        [90.0, 95.0]
        >>> kind, values = transform_scores([-1.0, -0.5])
        >>> kind, round(float(values[1]), 3)
        ('cross_entropy', 0.693)
    """
    values = np.array(list(scores), dtype=float)
    if np.nanmin(values, initial=0.0) >= 0:
        return "accuracy", 100 * values
    return "cross_entropy", -np.log(np.maximum(-values, 1e-12))


def estimate_effects(
    role: str,
    factors: Sequence[Factor],
    trials: Sequence[Levels],
    scores: Sequence[float],
    *,
    notes: Sequence[str] = (),
) -> RoleEffects:
    """Estimate the effects of all factors.

    Args:
        role: `teacher` or `student`.
        factors: Factors of the experiment.
        trials: Levels of each trial.
        scores: Score of each trial, see `transform_scores`; those that are NaN are left out.
        notes: Cautions to keep with the effects.

    Raises:
        RequestError: There are fewer scores than `MIN_SCORES`.

    Example:
        >>> factor = Factor("Rotate", "operation", ("off", "on"))
        >>> trials = [{"Rotate": index % 2} for index in range(8)]
        >>> found = estimate_effects("teacher", [factor], trials, [0.80, 0.91, 0.81, 0.90, 0.80, 0.92, 0.81, 0.91])
        >>> effect = found.effects[0]
        >>> round(effect.estimate), effect.probability > 0.99, effect.low < 10 < effect.high
        (10, True, True)
    """
    there = [index for index, score in enumerate(scores) if math.isfinite(score)]
    if len(there) < MIN_SCORES:
        raise RequestError(f"effects must be estimated from at least {MIN_SCORES} scores", value=len(there))
    score, values = transform_scores(scores[index] for index in there)
    matrix = ContrastMatrix.of(factors, [trials[index] for index in there])
    posterior = CoefficientPosterior.fit(matrix, values)
    effects: list[Effect] = []
    for factor in factors:
        rows = np.zeros((len(factor.levels), len(matrix.factors)))
        rows[:, matrix.columns(factor)] = factor.contrasts
        two = len(factor.levels) == 2
        compared = (
            [(factor.levels, rows[1] - rows[0])]
            if two
            else [((name,), row) for name, row in zip(factor.levels, rows, strict=True)]
        )
        effects += [_effect(factor, levels, posterior, combination) for levels, combination in compared]
    return RoleEffects(role, score, len(there), float(f"{posterior.sigma:.6g}"), tuple(effects), notes=tuple(notes))


def role_differences(teacher: RoleEffects, student: RoleEffects) -> tuple[RoleDifference, ...]:
    """Return the differences of the effects that both roles have, student minus teacher, in the teacher's order.

    Both posteriors are taken as t distributions, with as many degrees of freedom as Welch and Satterthwaite give their
    difference. Holm's correction is over the operations that both roles have.

    Raises:
        RequestError: The effects of one role are on another scale than those of the other.
    """
    from scipy import stats

    if teacher.score != student.score:
        rule = "the roles must have effects of one score"
        hint = "search both with the same validate.score"
        raise RequestError(rule, value=[teacher.score, student.score], hint=hint)
    known = {(effect.factor, effect.levels): effect for effect in student.effects}
    found = []
    for one in teacher.effects:
        if (other := known.get((one.factor, one.levels))) is None:
            continue
        freedom = teacher.trials - 1, student.trials - 1
        parts = [
            ((effect.high - effect.low) / 2 / float(stats.t.ppf(0.975, number))) ** 2
            for effect, number in zip((one, other), freedom, strict=True)
        ]
        joint = sum(parts) ** 2 / sum(part**2 / number for part, number in zip(parts, freedom, strict=True))
        error, difference = math.sqrt(sum(parts)), other.estimate - one.estimate
        half = float(stats.t.ppf(0.975, joint)) * error
        p = float(2 * stats.t.sf(abs(difference) / error, joint))
        bounds = difference, difference - half, difference + half
        found.append(RoleDifference(one.factor, one.kind, one.levels, *bounds, p, math.nan))
    operations = [index for index, each in enumerate(found) if each.kind == "operation"]
    for index, corrected in zip(operations, holm([found[index].p for index in operations]), strict=True):
        found[index] = replace(found[index], p_holm=corrected)
    return tuple(found)


@dataclass(frozen=True)
class EffectsReport:
    """Effects of all roles, as the file `effects.json` holds them.

    Args:
        roles: Effects by role.
        differences: Differences between the roles; empty with one role, or if their scores differ.
    """

    roles: Mapping[str, RoleEffects]
    differences: tuple[RoleDifference, ...] = ()

    def with_role(self, effects: RoleEffects) -> EffectsReport:
        """Return the report with the effects of one more role, or with others for a role that it has."""
        roles = {**self.roles, effects.role: effects}
        roles = {role: roles[role] for role in ROLES if role in roles}
        scores = {each.score for each in roles.values()}
        comparable = len(roles) == 2 and len(scores) == 1
        return EffectsReport(roles, role_differences(roles["teacher"], roles["student"]) if comparable else ())

    @property
    def different(self) -> tuple[RoleDifference, ...]:
        """Operations whose effects differ between the roles after Holm's correction."""
        return tuple(each for each in self.differences if each.significant)

    def text_table(self) -> TextTable:
        """Return the rows of all roles, with the role before each where there are two."""
        tables = {role: each.text_table() for role, each in self.roles.items()}
        if len(tables) == 1:
            return next(iter(tables.values()))
        headings = ["role", *next(iter(tables.values())).headings] if tables else ["role"]
        rows = [[role, *row] for role, table in tables.items() for row in table.rows]
        return TextTable(headings, rows, numbers=(2, 3, 4))

    def describe(self) -> list[str]:
        """Return sentences on the scale of the effects, what they were estimated from, and where the roles differ."""
        lines = [
            f"{role}: {each.trials} trials, effects on {UNITS[each.score]}, noise of one trial {each.sigma:.3g}"
            for role, each in self.roles.items()
        ]
        lines += [f"{role}: {note}" for role, each in self.roles.items() for note in each.notes]
        if self.differences:
            named = ", ".join(f"{each.factor} (p = {each.p_holm:.2g})" for each in self.different)
            lines.append(f"operations that suit the roles differently (Holm): {named or 'none shown'}")
        elif len(self.roles) == 2:
            lines.append("the roles were scored differently, so their effects are not compared")
        return lines

    def markdown(self) -> str:
        """Return all tables as Markdown."""
        parts = [f"## {role.capitalize()}\n\n{each.text_table().markdown()}\n" for role, each in self.roles.items()]
        return "\n".join([*parts, *(f"- {line}" for line in self.describe()), ""])

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain data; a p-value that there is none of is null."""
        roles = {
            role: {
                "score": each.score,
                "trials": each.trials,
                "sigma": each.sigma,
                "effects": [{**asdict(effect), "levels": list(effect.levels)} for effect in each.effects],
                "policy": dict(each.policy),
                "notes": list(each.notes),
            }
            for role, each in self.roles.items()
        }
        differences = [
            {**asdict(each), "levels": list(each.levels), "p_holm": None if math.isnan(each.p_holm) else each.p_holm}
            for each in self.differences
        ]
        return {"format": FORMAT, "version": VERSION, "roles": roles, "differences": differences}

    @classmethod
    def from_json(cls, data: Any) -> EffectsReport:
        """Return the report that `to_json` wrote.

        Raises:
            RequestError: These are other data, or of a newer version.
        """
        if not isinstance(data, Mapping) or data.get("format") != FORMAT:
            raise RequestError(f"effects must be an object with format: {FORMAT}", value=data)
        if data.get("version") != VERSION:
            rule = f"the version of effects must be {VERSION}"
            raise RequestError(rule, value=data.get("version"), hint="update roletune")
        try:
            roles = {role: _role_effects(role, content) for role, content in data["roles"].items()}
            differences = [RoleDifference(**_with_numbers(each)) for each in data["differences"]]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise RequestError(f"effects must hold every field of every role: {error!r}") from error
        return cls(roles, tuple(differences))

    def save(self, path: Path | str) -> Path:
        """Write the report as JSON, atomically.

        Raises:
            RequestError: The file cannot be written.
        """
        return write_atomic(path, json.dumps(self.to_json(), indent=2, ensure_ascii=False) + "\n")

    @classmethod
    def load(cls, path: Path | str) -> EffectsReport:
        """Read the file that `save` wrote.

        Raises:
            RequestError: The file cannot be read, or does not hold effects.

        Example:
            >>> import tempfile
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     EffectsReport.load(EffectsReport({}).save(f"{folder}/effects.json"))
            EffectsReport(roles={}, differences=())
        """
        try:
            data = json.loads(read_text(path, "file of effects"))
        except RequestError:
            raise
        except (ValueError, RecursionError) as error:
            raise RequestError(f"{path} is not JSON: {error}") from error
        return cls.from_json(data)


def holds_effects(path: Path | str) -> bool:
    """Return True if a file is JSON in the format of effects, of whatever version."""
    try:
        data = json.loads(read_text(path, "file of effects"))
    except (ValueError, RecursionError):  # RequestError is a ValueError; the reader of policies says what is wrong
        return False
    return isinstance(data, Mapping) and data.get("format") == FORMAT


def _role_effects(role: str, content: Mapping[str, Any]) -> RoleEffects:
    if role not in ROLES or content["score"] not in UNITS:
        raise RequestError("effects must be those of a role and of a score", value=[role, content["score"]])
    effects = tuple(Effect(**_with_numbers(each)) for each in content["effects"])
    numbers = int(content["trials"]), float(content["sigma"])
    return RoleEffects(role, content["score"], *numbers, effects, dict(content["policy"]), tuple(content["notes"]))


def _with_numbers(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of an effect with numbers where there must be some; a null is NaN."""
    text = {key: str(content[key]) for key in ("factor", "kind")}
    rest = {key: math.nan if content[key] is None else float(content[key]) for key in set(content) - {*text, "levels"}}
    return {**text, "levels": tuple(content["levels"]), **rest}


def _effect(factor: Factor, levels: tuple[Any, ...], posterior: CoefficientPosterior, combination: Array) -> Effect:
    from scipy import special

    estimate, low, high, probability = posterior.marginal(combination)
    z = float(np.clip(special.ndtri(probability), -_LARGEST_Z, _LARGEST_Z))
    numbers = (float(f"{number:.6g}") for number in (estimate, low, high, probability, z))
    return Effect(factor.name, factor.kind, tuple(levels), *numbers)
