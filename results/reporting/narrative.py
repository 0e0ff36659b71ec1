"""What a report says in words: the question, the answer, where it came from."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from results.analysis.cost import duration
from results.analysis.pareto import lines
from results.analysis.summary import POLICY, Gain, RoleResult
from results.reporting.sweep_folder import SweepFolder
from spaces.core.redaction import mask
from spaces.schedule.schedule import ROLES

FULL_PRECISION = 32

NO_BREAK = "\N{NO-BREAK SPACE}"

DEFINITE = ("random control",)
"""The arms that take an article."""

VERDICTS = (
    ("better", "better than", " and "),
    ("worse", "worse than", " and "),
    ("open", "not shown to differ from", " or "),
)


@dataclass(frozen=True)
class Answer:
    """What came out for one role.

    Args:
        role: `teacher` or `student`.
        headline: in a few words.
        sentence: the accuracy, with its interval.
        comparisons: with the other arms.
        caution: what is to be kept in mind, or nothing.
        claims: what an evaluation against baselines says may be claimed.
    """

    role: str
    headline: str
    sentence: str
    comparisons: tuple[Gain, ...] = ()
    caution: str = ""
    claims: tuple[str, ...] = ()


@dataclass(frozen=True)
class Origin:
    """How to do it again.

    Args:
        command: the line to type, beside the sweep file.
        text: of the sweep file.
        seed: of the search.
        versions: of what made it, by name.
    """

    command: str
    text: str
    seed: str
    versions: Mapping[str, str]


def when(milliseconds: int) -> str:
    """A time since 1970 as a date."""
    return f"{datetime.fromtimestamp(milliseconds / 1000, UTC):%d %B %Y, %H:%M} UTC".removeprefix("0")


def replayed(sweep: SweepFolder) -> bool:
    """Whether policies were trained that somebody else had found."""
    return sweep.name.startswith(f"{sweep.setting('name')}-train-") and not any(map(sweep.searches, ROLES))


def question(sweep: SweepFolder) -> str:
    """What the sweep was started to find out."""
    data = sweep.setting("data.name", "its data")
    given = replayed(sweep)
    networks = {
        role: f"the {role} ({_network(sweep, role)})"
        for role in ROLES
        if (role in sweep.roles if given else _searched(sweep, role))
    }
    if given:
        return f"How good are the given schedules for {' and '.join(networks.values())} on {data}?"
    each = " each" if len(networks) > 1 else ""
    question_text = f"What should {' and '.join(networks.values()) or 'each role'}{each} see on {data}"
    if "student" not in networks or sweep.settings.get("teacher") is None:
        return f"{question_text}?"
    return f"{question_text}, when the student learns from the teacher by {_loss(sweep.setting('student.distill.loss', 'kd'))}?"


def facts(sweep: SweepFolder) -> list[tuple[str, str]]:
    """The sweep in a few figures, by name."""
    kind = "replay" if replayed(sweep) else _algorithms(sweep)
    found = [("search", kind), ("seed", str(sweep.setting("seed", "–")))]
    counts = [f"{sweep.setting(f'data.{part}', 'all')} {part}" for part in ("train", "validation")]
    found.append(("images", ", ".join(counts)))
    for role in sweep.roles:
        epochs = sweep.setting(f"{role}.search.epochs") or sweep.setting(f"{role}.final.epochs") or "–"
        stages = [f"{len(stage.members)} {stage.kind}" for stage in sweep.searches(role)]
        found.append((role, f"{epochs} epochs" + (f", {' + '.join(stages)}" if stages else "")))
    if sweep.result:
        found.append(("took", duration(sweep.result.seconds)))
    if sweep.history and sweep.history.started:
        found.append(("started", when(sweep.history.started)))
    return found


def _algorithms(sweep: SweepFolder) -> str:
    """Return the search algorithms of the roles."""
    names = [sweep.setting(f"{role}.search.algorithm") for role in ROLES]
    return ", ".join(dict.fromkeys(str(name) for name in names if name)) or "–"


def answers(sweep: SweepFolder) -> list[Answer]:
    """One for each role that has been tested."""
    given, found = replayed(sweep), []
    for each in sweep.result.roles if sweep.result else ():
        answer = _answer(each, given or _searched(sweep, each.role), given)
        evaluation = sweep.evaluations.get(each.role)
        found.append(replace(answer, claims=tuple(evaluation.claims())) if evaluation else answer)
    return found


def notes(sweep: SweepFolder) -> list[str]:
    """What else the result says."""
    roles = sweep.result.roles if sweep.result else ()
    return [f"{role.role}, best of its size: {line}." for role in roles for line in lines(role.pareto)]


def origin(sweep: SweepFolder) -> Origin:
    """How to do it again; passwords in addresses are left out."""
    command = "roletune search sweep.yaml"
    if replayed(sweep):
        command = "roletune train sweep.yaml" + "".join(f" --policy policy.{role}.json" for role in sweep.schedules)
    versions: dict[str, str] = {}
    for schedule in sweep.schedules.values():
        known = schedule.provenance.get("versions")
        versions |= {str(k): str(v) for k, v in known.items()} if isinstance(known, Mapping) else {}
    return Origin(command, mask(sweep.text), str(sweep.setting("seed", "–")), versions)


def _searched(sweep: SweepFolder, role: str) -> bool:
    """Whether anything is chosen for a role: of one that is not through, as its settings have it."""
    result = sweep.outcome(role)
    if result is not None:
        return not math.isnan(result.best_validation)
    given = sweep.setting(f"{role}.weights") or not sweep.setting(f"{role}.pretrained", True)
    return bool(sweep.searches(role)) or (sweep.setting(role) is not None and not given)


def _answer(result: RoleResult, scheduled: bool, given: bool) -> Answer:
    how = f"with the schedule {'given' if given else 'found'}" if scheduled else "as it is"
    comparisons = tuple(result.comparisons())
    accuracy = result.accuracy(POLICY)
    if accuracy is None:
        return Answer(result.role, "no answer", f"Every full training {how} failed.", comparisons)
    mean, half = accuracy
    seeds = sum(value is not None for value in result.test[POLICY])
    reached = f"{100 * mean:.2f} %" if half is None else f"{100 * mean:.2f} ± {100 * half:.2f} %"
    over = "one seed, so without an interval" if half is None else f"mean over {seeds} seeds with its 95 % interval"
    sentence = f"Trained in full {how}, it reaches {reached} on the test images ({over})."
    sentence = re.sub(r" (?=[±%])|(?<=±) ", NO_BREAK, sentence)
    return Answer(
        result.role,
        _headline(comparisons) if scheduled else "nothing was searched",
        sentence,
        comparisons,
        _caution(comparisons),
    )


def _headline(comparisons: tuple[Gain, ...]) -> str:
    if not comparisons:
        return "nothing to compare it with"
    said = []
    for shown, words, between in VERDICTS:
        names = [f"the {each.arm}" if each.arm in DEFINITE else each.arm for each in comparisons if each.shown == shown]
        if names:
            said.append(f"{words} {between.join(names)}")
    return "; ".join(said)


def _caution(comparisons: tuple[Gain, ...]) -> str:
    """A search that does not beat the random control has found nothing."""
    if any(each.arm == "random control" and each.shown == "open" for each in comparisons):
        return "Not shown: that the search beats the best of as many fixed random genomes."
    return ""


def _network(sweep: SweepFolder, role: str) -> str:
    bits = [(sweep.setting(f"{role}.bits.{part}", FULL_PRECISION), part) for part in ("weights", "activations")]
    few = [f"{number}-bit {part}" for number, part in bits if number != FULL_PRECISION]
    return ", ".join([str(sweep.setting(f"{role}.model", "–")), *few])


def _loss(loss: object) -> str:
    return " + ".join(map(str, loss)) if isinstance(loss, Mapping) else str(loss)
