"""The best policy of a sweep, from its folder or from MLflow, finished or not."""

from __future__ import annotations

import math
import os
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from results.runlog.events import JOURNAL_FILE
from results.runlog.history import History
from results.runlog.lineage import ancestry
from results.runlog.members import StageHistory, is_loss
from results.tracking.store import find_artifact
from spaces import ImageSpec, Phase, RequestError, Schedule
from spaces.augmentations.hard_weights import without_pretraining
from spaces.core.errors import unknown
from spaces.schedule.schedule import ROLES, merge


def export_policy(run: str, role: str, tracking_uri: str | None = None, own: Collection[str] = ()) -> Schedule:
    """Return the best schedule of one role.

    Args:
        run: Folder of a sweep, or id of its run in MLflow.
        role: `teacher` or `student`.
        tracking_uri: MLflow store that knows the run id; None for MLFLOW_TRACKING_URI.
        own: Dotted names of augmentations that the policy may hold; they are imported when it is used.

    Raises:
        RequestError: If there is no such sweep, or it has nothing for this role yet.

    Example:
        >>> import tempfile
        >>> from spaces import Genome, ImageSpec, Phase, Schedule
        >>> folder = tempfile.mkdtemp()
        >>> schedule = Schedule((Phase(10, Genome()),), "student", ImageSpec(32, 1, (0,)))
        >>> _ = schedule.save(f"{folder}/policy.student.json")  # as a sweep leaves it
        >>> export_policy(folder, "student").epochs
        10
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


def unfinished_search(history: History, role: str) -> StageHistory | None:
    """Return the search of a role that has compared its trials at least once; None if there is none.

    The random control is left out: it is no answer.
    """
    stages = [stage for stage in history.searches if stage.role == role and stage.kind != "random"]
    return next((stage for stage in stages if stage.standings), None)


def _from_folder(folder: Path, role: str, own: Collection[str]) -> Schedule:
    policy = folder / f"policy.{role}.json"
    if policy.is_file():
        return Schedule.load(policy, own)
    history = History.read(folder) if (folder / JOURNAL_FILE).is_file() else None
    stage = unfinished_search(history, role) if history else None
    if stage is None:
        hint = "a policy is there from the first perturbation on"
        raise RequestError(f"{folder} holds no policy for the {role}", hint=hint)
    try:
        return _unfinished(stage, own)
    except (KeyError, TypeError, AttributeError) as error:
        raise RequestError(f"the journal of {folder} lacks the start of a trial: {error!r}") from error


def _unfinished(stage: StageHistory, own: Collection[str]) -> Schedule:
    """Return the schedule of the best trial at the last perturbation of a search that has not ended."""
    standings = {name: stage.standings[name] for name in stage.members if name in stage.standings}
    scored = [name for name, (_, score) in standings.items() if not math.isnan(score)]
    if not scored:
        raise RequestError(f"no trial of {stage.name} was scored yet")
    best = max(scored, key=lambda name: standings[name][1])
    epoch, score = standings[best]
    line = ancestry(best, epoch, stage.starts(), stage.exploits)
    started = stage.members[best].started
    if started is None:
        raise KeyError(best)
    image = started.image
    provenance = {
        "run": best,
        "metric": "validation_loss" if is_loss(score) else "validation_accuracy",
        "value": abs(score),
        "parents": list(line.members[:-1]),
        "unfinished": True,
    }
    spec = ImageSpec(image["size"], image["channels"], tuple(image["fill"]))
    # What HARD's game has learned so far is in a checkpoint; the policy says which game to play.
    phases = [
        Phase(phase.epochs, replace(phase.genome, augment=without_pretraining(phase.genome.augment)))
        for phase in line.phases
    ]
    return Schedule.from_json(Schedule(merge(phases), started.role, spec, provenance).to_json(), own)
