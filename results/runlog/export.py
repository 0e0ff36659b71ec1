"""The best policy of a sweep, from its folder or from MLflow, finished or not."""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

from results.runlog.lineage import Exploit, ancestry
from results.tracking.store import find_artifact
from spaces import Genome, ImageSpec, Phase, RequestError, Schedule
from spaces.augmentations.hard_weights import without_pretraining
from spaces.core.errors import unknown
from spaces.schedule.schedule import ROLES, merge


def export(run: str, role: str, tracking_uri: str | None = None, own: Collection[str] = ()) -> Schedule:
    """The best schedule of one role.

    Args:
        run: a sweep's folder, or the id of its run in MLflow.
        role: `teacher` or `student`.
        tracking_uri: where the run id is known; None: MLFLOW_TRACKING_URI.
        own: dotted names of augmentations that the policy may hold; they are imported when it is used.

    Raises:
        RequestError: there is no such sweep, or it has nothing for this role yet.
    """
    if role not in ROLES:
        raise unknown("role", role, ROLES)
    folder = Path(run)
    if folder.is_dir():
        return _from_folder(folder, role, own)
    uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
    if not uri:
        hint = "give a sweep's folder, or a run id with --tracking-uri"
        raise RequestError(f"no folder {run}, and no MLflow store to look for a run of that id", hint=hint)
    content = find_artifact(uri, run, f"policy.{role}.json")
    text, source = content.decode("utf-8", errors="replace"), f"policy.{role}.json of run {run}"
    return Schedule.loads(text, source, own, lambda name: find_artifact(uri, run, name))


def _from_folder(folder: Path, role: str, own: Collection[str]) -> Schedule:
    policy = folder / f"policy.{role}.json"
    if policy.is_file():
        return Schedule.load(policy, own)
    populations = sorted(folder.glob(f"{role}-*.population.json"))
    stages = [stage for stage in map(_population, populations) if stage["kind"] != "random"]
    if not stages:
        hint = "a policy is there from the first perturbation on"
        raise RequestError(f"{folder} holds no policy for the {role}", hint=hint)
    try:
        return _unfinished(folder, stages[0], own)
    except (KeyError, TypeError, AttributeError) as error:
        raise RequestError(f"{folder} holds a damaged record of the {role}'s search: {error!r}") from error


def _unfinished(folder: Path, stage: dict[str, Any], own: Collection[str]) -> Schedule:
    """The best at the last boundary of a search that did not end."""
    scored = [member for member in stage["members"] if member["score"] is not None]
    if not scored:
        raise RequestError(f"no member of {stage['name']} was scored yet")
    best = max(scored, key=lambda member: member["score"])
    starts = {member["name"]: Genome.from_json(member["start"]) for member in stage["members"]}
    line = ancestry(best["name"], best["epoch"], starts, read_lineage(folder / f"{stage['name']}.lineage.jsonl"))
    image = stage["image"]
    provenance = {
        "run": best["name"],
        "metric": "validation_accuracy",
        "value": best["score"],
        "parents": list(line.members[:-1]),
        "unfinished": True,
    }
    spec = ImageSpec(image["size"], image["channels"], tuple(image["fill"]))
    # What a game has learned so far lies in a checkpoint; the policy says which game to play.
    phases = [
        Phase(phase.epochs, replace(phase.genome, augment=without_pretraining(phase.genome.augment)))
        for phase in line.phases
    ]
    return Schedule.from_json(Schedule(merge(phases), stage["role"], spec, provenance).to_json(), own)


def read_lineage(path: Path) -> list[Exploit]:
    """The copies in a lineage file; a last line that was cut off by a crash is left out."""
    if not path.is_file():
        return []
    events = []
    for line in path.read_text("utf-8").splitlines():
        try:
            events.append(Exploit.from_json(json.loads(line)))
        except json.JSONDecodeError:
            break
    return events


def _population(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise RequestError(f"{path} is no population file: {error}") from error
    if not isinstance(content, dict) or "kind" not in content:
        raise RequestError(f"{path} is no population file", value=content)
    return content
