"""The sentences of a report: what was searched, the results, and how to reproduce them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

from results.analysis.cost import duration
from results.analysis.summary import POLICY, Gain, RoleResult, arm_name
from results.reporting.sweep_folder import SweepFolder
from results.runlog.events import PolicyConfirmed
from spaces.core.redaction import mask
from spaces.schedule.schedule import ROLES

FULL_PRECISION = 32

NO_BREAK = "\N{NO-BREAK SPACE}"

WITH_ARTICLE = ("random control",)
"""Arms whose names need an article in a sentence."""

OUTCOMES = (
    ("better", "better than", " and "),
    ("worse", "worse than", " and "),
    ("open", "no significant difference from", " or "),
)
"""Outcome of a comparison, its words, and the conjunction between arms."""


@dataclass(frozen=True)
class RoleSummary:
    """The result of one role in words.

    Args:
        role: `teacher` or `student`.
        headline: Result in a few words.
        sentence: Accuracy with its confidence interval.
        comparisons: Comparisons with the other arms of the sweep.
        caution: A limit of the result; empty without one.
        claims: Claims supported by an evaluation against baselines.
    """

    role: str
    headline: str
    sentence: str
    comparisons: tuple[Gain, ...] = ()
    caution: str = ""
    claims: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reproduction:
    """How to repeat a sweep.

    Args:
        command: Command to type in the folder of the sweep file.
        text: Sweep file, without passwords.
        seed: Seed of the search.
        versions: Versions of the libraries, by name.
    """

    command: str
    text: str
    seed: str
    versions: Mapping[str, str]


def date(milliseconds: int) -> str:
    """Return a time in milliseconds since 1970 as a date.

    Example:
        >>> date(1_700_000_000_000)
        '14 November 2023, 22:13 UTC'
    """
    return f"{datetime.fromtimestamp(milliseconds / 1000, UTC):%d %B %Y, %H:%M} UTC".removeprefix("0")


def subtitle(sweep: SweepFolder) -> str:
    """Return one sentence on the networks, the data and the kind of work."""
    data = sweep.setting("data.name", "custom data")
    replay = _is_replay(sweep)
    roles = [role for role in ROLES if (role in sweep.roles if replay else _is_searched(sweep, role))]
    networks = " and ".join(f"the {role} ({_describe_network(sweep, role)})" for role in roles)
    if replay:
        return f"Final training with given augmentation schedules of {networks} on {data}."
    sentence = f"Search of augmentation schedules for {networks or 'no role'} on {data}"
    if "student" not in roles or sweep.settings.get("teacher") is None:
        return f"{sentence}."
    return f"{sentence}. Distillation loss: {_describe_loss(sweep.setting('student.distill.loss', 'kd'))}."


def facts(sweep: SweepFolder) -> list[tuple[str, str]]:
    """Return the main settings, duration and start as pairs of name and value."""
    found = [("search", _describe_algorithms(sweep)), ("seed", str(sweep.setting("seed", "–")))]
    counts = [f"{sweep.setting(f'data.{part}', 'all')} {part}" for part in ("train", "validation")]
    found.append(("images", ", ".join(counts)))
    for role in sweep.roles:
        searched = " + ".join(str(search["epochs"]) for search in _searches(sweep, role) if "epochs" in search)
        epochs = searched or sweep.setting(f"{role}.final.epochs") or "–"
        stages = [f"{len(stage.members)} {stage.kind}" for stage in sweep.searches(role)]
        found.append((role, f"{epochs} epochs" + (f", {' + '.join(stages)}" if stages else "")))
    if sweep.result:
        found.append(("duration", duration(sweep.result.seconds)))
    if sweep.history and sweep.history.started:
        found.append(("started", date(sweep.history.started)))
    return found


def summaries(sweep: SweepFolder) -> list[RoleSummary]:
    """Return the result of each tested role in words."""
    replay, found = _is_replay(sweep), []
    for result in sweep.result.roles if sweep.result else ():
        evaluation = sweep.evaluations.get(result.role)
        claims = tuple(evaluation.claims()) if evaluation else ()
        scheduled = replay or _is_searched(sweep, result.role)
        confirmed = sweep.history.confirmations.get(result.role) if sweep.history else None
        found.append(_summarize(result, scheduled, replay, claims, confirmed))
    return found


def reproduction(sweep: SweepFolder) -> Reproduction:
    """Return command, sweep file, seed and versions."""
    command = "roletune search sweep.yaml"
    if _is_replay(sweep):
        command = "roletune train sweep.yaml" + "".join(f" --policy policy.{role}.json" for role in sweep.schedules)
    versions: dict[str, str] = {}
    for schedule in sweep.schedules.values():
        known = schedule.provenance.get("versions")
        versions |= {str(k): str(v) for k, v in known.items()} if isinstance(known, Mapping) else {}
    return Reproduction(command, mask(sweep.text), str(sweep.setting("seed", "–")), versions)


def _is_replay(sweep: SweepFolder) -> bool:
    """Return True if the sweep only trained given policies."""
    return sweep.name.startswith(f"{sweep.setting('name')}-train-") and not any(map(sweep.searches, ROLES))


def _is_searched(sweep: SweepFolder, role: str) -> bool:
    """Return True if a role is searched: by its result, or by the settings of an unfinished sweep."""
    result = sweep.outcome(role)
    if result is not None:
        return not math.isnan(result.best_validation)
    given = sweep.setting(f"{role}.weights") or not sweep.setting(f"{role}.pretrained", True)
    return bool(sweep.searches(role)) or (sweep.setting(f"{role}.search") is not None and not given)


def _searches(sweep: SweepFolder, role: str) -> list[Mapping[str, Any]]:
    """Return the settings of a role's searches, in order."""
    given = sweep.setting(f"{role}.search") or []
    return [given] if isinstance(given, Mapping) else list(given)


def _describe_algorithms(sweep: SweepFolder) -> str:
    """Return the search algorithm of each searched role; one name where all roles have the same."""
    if _is_replay(sweep):
        return "none, given schedules"
    names = {}
    for role in filter(partial(_is_searched, sweep), ROLES):
        names[role] = ", then ".join(str(search.get("algorithm", "–")) for search in _searches(sweep, role)) or "–"
    if len(set(names.values())) > 1:
        return ", ".join(f"{name} ({role})" for role, name in names.items())
    return next(iter(names.values()), "none")


def _summarize(
    result: RoleResult, scheduled: bool, replay: bool, claims: tuple[str, ...], confirmed: PolicyConfirmed | None
) -> RoleSummary:
    comparisons = tuple(result.comparisons())
    accuracy = result.accuracy(POLICY)
    if accuracy is None:
        return RoleSummary(result.role, "no result", "Every final training failed.", comparisons, claims=claims)
    schedule = f" with the {'given' if replay else 'searched'} schedule" if scheduled else ""
    if confirmed is not None and confirmed.free:
        schedule = f" with {arm_name(confirmed.winner)}, which the search did not beat"
    return RoleSummary(
        role=result.role,
        headline=_headline(comparisons) if scheduled else "not searched",
        sentence=f"{_describe_test(result, schedule, accuracy)}.",
        comparisons=comparisons,
        caution=_caution(comparisons),
        claims=claims,
    )


def _describe_test(result: RoleResult, schedule: str, accuracy: tuple[float, float | None]) -> str:
    """Return the test accuracy in words, with that in domain where the test images are of a target domain."""
    own, text = result.in_domain_accuracy(POLICY), _describe_accuracy(result.test[POLICY], *accuracy)
    if own is None:
        return f"Test accuracy after final training{schedule}: {text}"
    home = _describe_accuracy(result.in_domain[POLICY], *own)
    return f"Accuracy in the target domain after final training{schedule}: {text}; in domain: {home}"


def _describe_accuracy(values: Sequence[float | None], mean: float, half_width: float | None) -> str:
    if half_width is None:
        text = f"{100 * mean:.2f} % (one seed, no confidence interval)"
    else:
        seeds = sum(value is not None for value in values)
        text = f"{100 * mean:.2f} ± {100 * half_width:.2f} % (mean and 95 % confidence interval over {seeds} seeds)"
    return re.sub(r" (?=[±%])|(?<=±) ", NO_BREAK, text)


def _headline(comparisons: tuple[Gain, ...]) -> str:
    if not comparisons:
        return "no baseline to compare with"
    parts = []
    for outcome, words, conjunction in OUTCOMES:
        arms = [_with_article(each.arm) for each in comparisons if each.outcome == outcome]
        if arms:
            parts.append(f"{words} {conjunction.join(arms)}")
    return "; ".join(parts)


def _with_article(arm: str) -> str:
    return f"the {arm}" if arm in WITH_ARTICLE else arm


def _caution(comparisons: tuple[Gain, ...]) -> str:
    if any(each.arm == "random control" and each.outcome == "open" for each in comparisons):
        return "The search is not significantly better than the best of as many fixed random genomes."
    return ""


def _describe_network(sweep: SweepFolder, role: str) -> str:
    bits = [(sweep.setting(f"{role}.bits.{part}", FULL_PRECISION), part) for part in ("weights", "activations")]
    few = [f"{number}-bit {part}" for number, part in bits if number != FULL_PRECISION]
    return ", ".join([str(sweep.setting(f"{role}.model", "–")), *few])


def _describe_loss(loss: object) -> str:
    return " + ".join(map(str, loss)) if isinstance(loss, Mapping) else str(loss)
