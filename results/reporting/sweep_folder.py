"""The content of a sweep's folder as data: settings, result, history, schedules, evaluations and choices."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

from results.analysis.choices import MemberChoices
from results.analysis.effects import EFFECTS_FILE, EffectsReport
from results.analysis.evaluation import Evaluation
from results.analysis.pareto import Candidate
from results.analysis.screening import ScreeningResult
from results.analysis.summary import RoleResult, SweepResult
from results.runlog.events import JOURNAL_FILE
from results.runlog.export import export_policy, unfinished_search
from results.runlog.history import History
from results.runlog.members import StageHistory
from spaces import RequestError, Schedule
from spaces.core.io import read_text
from spaces.schedule.schedule import ROLES

T = TypeVar("T")

SETTINGS, RESULT, SCREENING = "sweep.yaml", "result.json", "screening.json"


@dataclass(frozen=True)
class SweepFolder:
    """The content of a sweep's folder, finished or not.

    Args:
        path: The folder.
        text: Resolved sweep file.
        settings: The same as plain data.
        result: Result; None if the sweep is unfinished.
        history: History; None without a journal.
        schedules: Schedule by role; of an unfinished search the best at its last perturbation.
        refused: By role, the reason why its policy file cannot be read.
        evaluations: Evaluation against baselines by role; empty without one.
        choices: Members of a search with their choices, by role; empty if all members have the same.
        candidates: Members of a search for accuracy and size, by role; empty if size was not an objective.
        screening: Ranking of augmentations before the search; None without one.
        effects: Effects of a factorial search; None without one.
    """

    path: Path
    text: str
    settings: Mapping[str, Any]
    result: SweepResult | None
    history: History | None
    schedules: Mapping[str, Schedule]
    refused: Mapping[str, str]
    evaluations: Mapping[str, Evaluation]
    choices: Mapping[str, Sequence[MemberChoices]]
    candidates: Mapping[str, Sequence[Candidate]]
    screening: ScreeningResult | None
    effects: EffectsReport | None

    @classmethod
    def read(cls, path: Path | str, own: Collection[str] = ()) -> SweepFolder:
        """Read a sweep's folder as it is now.

        Args:
            path: Folder of a sweep.
            own: Dotted names of custom augmentations and losses in its policies.

        Raises:
            RequestError: The folder is not that of a sweep, contains no results yet, or contains a damaged file.
        """
        path = Path(path)
        text, settings = _settings(path)
        result = SweepResult.from_json(_json(path / RESULT, "result")) if (path / RESULT).is_file() else None
        history = History.read(path) if (path / JOURNAL_FILE).is_file() else None
        if result is None and (history is None or not history.stages):
            raise RequestError(f"{path} has no results yet", hint="wait for the first epoch, then try again")
        schedules, refused = _schedules(path, history, own)
        evaluations = {role: path / f"evaluation.{role}.json" for role in ROLES}
        screening = path / SCREENING
        return cls(
            path=path,
            text=text,
            settings=settings,
            result=result,
            history=history,
            schedules=schedules,
            refused=refused,
            evaluations={role: Evaluation.load(file) for role, file in evaluations.items() if file.is_file()},
            choices=_members(path, "choices", MemberChoices.from_json),
            candidates=_members(path, "pareto", Candidate.from_json),
            screening=ScreeningResult.from_json(_json(screening, "screening")) if screening.is_file() else None,
            effects=EffectsReport.load(path / EFFECTS_FILE) if (path / EFFECTS_FILE).is_file() else None,
        )

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.path.resolve().name

    @property
    def roles(self) -> list[str]:
        """Roles with results, in order."""
        return [role for role in ROLES if self.outcome(role) or self.searches(role) or role in self.schedules]

    def outcome(self, role: str) -> RoleResult | None:
        """Return the result of a role; None without one."""
        return next((each for each in self.result.roles if each.role == role), None) if self.result else None

    def searches(self, role: str) -> list[StageHistory]:
        """Return the searches of a role, the random control last."""
        found = [stage for stage in self.history.searches if stage.role == role] if self.history else []
        return sorted(found, key=lambda stage: stage.kind == "random")

    def setting(self, key: str, default: Any = None) -> Any:
        """Return the setting with a dotted name; `default` if it is missing or null."""
        found: Any = self.settings
        for part in key.split("."):
            if not isinstance(found, Mapping) or part not in found:
                return default
            found = found[part]
        return default if found is None else found

    def failures(self) -> Iterator[tuple[str, str]]:
        """Yield failed trials and their errors."""
        known = dict(self.result.failed) if self.result else {}
        for stage in self.history.stages.values() if self.history else ():
            known |= {member.name: member.error for member in stage.members.values() if member.error}
        yield from sorted(known.items())


def _settings(path: Path) -> tuple[str, Mapping[str, Any]]:
    """Read the resolved sweep file as text and as data."""
    hint = "give a sweep's folder, such as runs/digits-001"
    if not (path / SETTINGS).is_file():
        raise RequestError(f"{path} is not a sweep's folder: it has no {SETTINGS}", hint=hint)
    text = read_text(path / SETTINGS, "sweep file")
    try:
        settings = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise RequestError(f"{path / SETTINGS} is not YAML: {error}") from error
    if not isinstance(settings, dict):
        raise RequestError(f"{path / SETTINGS} must be a mapping of settings", value=settings, hint=hint)
    return text, settings


def _json(path: Path, kind: str) -> Any:
    try:
        return json.loads(read_text(path, kind))
    except RequestError:
        raise
    except (ValueError, RecursionError) as error:
        raise RequestError(f"{path} is not JSON: {error}") from error


def _schedules(path: Path, history: History | None, own: Collection[str]) -> tuple[dict[str, Schedule], dict[str, str]]:
    """Return the schedules by role, and the errors of those that cannot be read."""
    schedules, refused = {}, {}
    for role in ROLES:
        if any(path.glob(f"policy.{role}.json")) or (history is not None and unfinished_search(history, role)):
            try:
                schedules[role] = export_policy(str(path), role, own=own)
            except RequestError as error:
                refused[role] = str(error)
    return schedules, refused


def _members(path: Path, kind: str, from_json: Callable[[Mapping[str, Any]], T]) -> dict[str, Sequence[T]]:
    """Read the members that the sweep listed in `report/KIND.ROLE.json`, by role."""
    members: dict[str, Sequence[T]] = {}
    for role in ROLES:
        file = path / "report" / f"{kind}.{role}.json"
        if file.is_file():
            try:
                members[role] = [from_json(each) for each in _json(file, kind)]
            except (KeyError, TypeError) as error:
                raise RequestError(f"{file} must be a list of members: {error!r}") from error
    return members
