"""Which sweep is gone on with, and whether its file still asks for the same."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from search.config.schema import SweepConfig
from search.sweeps.plan import SWEEP_FILE, numbered
from spaces import RequestError

MORE = ("epochs", "population", "seeds", "repeats")
"""Settings that may be raised between two lives of a sweep, as long as what they belong to is not finished."""

ANY = ("resources.", "storage")
"""Settings that may change: they say where and how fast, not what."""


def newest(config: SweepConfig) -> Path:
    """The folder of the newest sweep of this name.

    Raises:
        RequestError: there is none.
    """
    storage = Path(config.storage)
    folders = numbered(storage, config.name) if storage.is_dir() else {}
    started = {number: path for number, path in folders.items() if (path / SWEEP_FILE).is_file()}
    if not started:
        rule = f"{storage} holds no sweep {config.name} to go on with"
        raise RequestError(rule, hint="leave --resume out, or give the --storage that it was started with")
    return started[max(started)]


def check_unchanged(config: SweepConfig, folder: Path) -> None:
    """Refuse a sweep that is no longer the one that was started in `folder`.

    Raises:
        RequestError: a setting differs that may not; every difference is told.
    """
    before = dict(_flat(_plain(SweepConfig.load(folder / SWEEP_FILE))))
    now = dict(_flat(_plain(config)))
    changed = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    refused = [key for key in changed if not _may_change(key, before.get(key), now.get(key), folder)]
    if refused:
        shown = "; ".join(f"{key}: {_told(before, key)} → {_told(now, key)}" for key in refused)
        hint = "undo it, or start anew without --resume"
        raise RequestError(f"{folder} was started with other settings ({shown})", hint=hint)


def _may_change(key: str, before: Any, now: Any, folder: Path) -> bool:
    if key.startswith(ANY):
        return True
    section, _, setting = key.rpartition(".")
    if setting not in MORE or not isinstance(now, int) or (isinstance(before, int) and now < before):
        return False
    role, _, part = section.partition(".")
    if part == "stage" or setting == "repeats":  # until what the search found is known
        roles = ("student",) if setting == "repeats" else (role,)
        return not any((folder / f"policy.{each}.json").exists() for each in roles)
    return setting == "seeds" or not (folder / "models" / f"{role}.safetensors").exists()


def _plain(config: SweepConfig) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(config.model_dump_json(by_alias=True))
    return plain


def _flat(content: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Every value with its place; lists are values."""
    if isinstance(content, Mapping) and content:
        for key, value in content.items():
            yield from _flat(value, f"{place}.{key}" if place else str(key))
    else:
        yield place, content


def _told(content: Mapping[str, Any], key: str) -> str:
    return json.dumps(content[key], ensure_ascii=False) if key in content else "nothing"
