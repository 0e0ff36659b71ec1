"""A sweep's folder as data: its settings, its result, its history and its schedules, as far as there are any."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from results.analysis.evaluation import Evaluation
from results.analysis.summary import RoleResult, SweepResult
from results.runlog.events import JOURNAL_FILE
from results.runlog.export import export_policy, unfinished_search
from results.runlog.history import History
from results.runlog.members import StageHistory
from spaces import RequestError, Schedule
from spaces.core.io import read_text
from spaces.schedule.schedule import ROLES

SETTINGS, RESULT = "sweep.yaml", "result.json"


@dataclass(frozen=True)
class SweepFolder:
    """What a sweep has left so far.

    Args:
        path: of the folder.
        text: of its sweep file, resolved.
        settings: the same as plain data; whatever a file can hold.
        result: None: it has not ended.
        history: None: it keeps no journal.
        schedules: by role, the found one; of a search that is not through, the best at its last boundary.
        refused: by role, why a schedule that is there cannot be read.
        evaluations: by role, what its policies reached beside baselines; empty where nobody has asked.
    """

    path: Path
    text: str
    settings: Mapping[str, Any]
    result: SweepResult | None
    history: History | None
    schedules: Mapping[str, Schedule]
    refused: Mapping[str, str]
    evaluations: Mapping[str, Evaluation]

    @classmethod
    def read(cls, path: Path | str, own: Collection[str] = ()) -> SweepFolder:
        """What is in `path` by now.

        Args:
            path: of the folder.
            own: dotted names of augmentations and losses that its policies may hold.

        Raises:
            RequestError: it is no sweep's folder, nothing has happened in it yet, or a file of it is damaged.
        """
        path = Path(path)
        hint = "give a sweep's folder, such as runs/digits-001"
        if not (path / SETTINGS).is_file():
            raise RequestError(f"{path} is no sweep's folder: it has no {SETTINGS}", hint=hint)
        text = read_text(path / SETTINGS, "sweep file")
        try:
            settings = yaml.safe_load(text)
        except (yaml.YAMLError, RecursionError) as error:
            raise RequestError(f"{path / SETTINGS} is no YAML: {error}") from error
        if not isinstance(settings, dict):
            raise RequestError(f"{path / SETTINGS} holds settings by name", value=settings, hint=hint)
        result = _result(path / RESULT) if (path / RESULT).is_file() else None
        history = History.read(path) if (path / JOURNAL_FILE).is_file() else None
        if result is None and (history is None or not history.stages):
            raise RequestError(f"nothing has happened in {path} yet", hint="wait for the first epoch, then ask again")
        schedules, refused = {}, {}
        for role in ROLES:
            if (path / f"policy.{role}.json").is_file() or (history and unfinished_search(history, role)):
                try:
                    schedules[role] = export_policy(str(path), role, own=own)
                except RequestError as error:
                    refused[role] = str(error)
        found = {role: path / f"evaluation.{role}.json" for role in ROLES}
        evaluations = {role: Evaluation.load(file) for role, file in found.items() if file.is_file()}
        return cls(path, text, settings, result, history, schedules, refused, evaluations)

    @property
    def name(self) -> str:
        """The folder's."""
        return self.path.resolve().name

    @property
    def roles(self) -> list[str]:
        """Those that the sweep trains, in order."""
        return [role for role in ROLES if self.outcome(role) or self.searches(role) or role in self.schedules]

    def outcome(self, role: str) -> RoleResult | None:
        """What came out for a role; None: nothing yet."""
        return next((each for each in self.result.roles if each.role == role), None) if self.result else None

    def searches(self, role: str) -> list[StageHistory]:
        """A role's searches, the random control last."""
        found = [stage for stage in self.history.searches if stage.role == role] if self.history else []
        return sorted(found, key=lambda stage: stage.kind == "random")

    def setting(self, key: str, default: Any = None) -> Any:
        """The setting of this dotted name; `default` where there is none."""
        found: Any = self.settings
        for part in key.split("."):
            if not isinstance(found, Mapping) or part not in found:
                return default
            found = found[part]
        return default if found is None else found

    def failures(self) -> Iterator[tuple[str, str]]:
        """Trials that failed, and why."""
        known = dict(self.result.failed) if self.result else {}
        for stage in self.history.stages.values() if self.history else ():
            known |= {member.name: member.error for member in stage.members.values() if member.error}
        yield from sorted(known.items())


def _result(path: Path) -> SweepResult:
    text = read_text(path, "result")
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"{path} is no JSON: {error}") from error
    return SweepResult.from_json(content)
