"""Resuming a sweep: which one, and whether its file still describes the same."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from search.config.schema import SweepConfig
from search.config.yaml_io import is_earlier_version, parse_yaml
from search.sweeps.folders import SWEEP_FILE, numbered
from spaces import RequestError
from spaces.core.io import read_text
from spaces.schedule.schedule import ROLES

MORE = ("epochs", "population", "trials", "seeds", "replicates")
"""Settings that may be raised before a sweep is resumed, until the part that they belong to is finished."""

DESIGNED = ("factorial", "race")
"""Algorithms whose first members depend on the number of trials."""

ANY = ("resources.", "storage")
"""Settings that may change: they say where and how fast, not what."""


def newest(config: SweepConfig) -> Path:
    """Return the folder of the newest sweep of this name.

    Raises:
        RequestError: There is none.
    """
    storage = Path(config.storage)
    folders = numbered(storage, config.name) if storage.is_dir() else {}
    started = {number: path for number, path in folders.items() if (path / SWEEP_FILE).is_file()}
    if not started:
        rule = f"{storage} must hold a sweep {config.name} to resume, but holds none"
        raise RequestError(rule, hint="leave --resume out, or give the --storage that it was started with")
    return started[max(started)]


def check_unchanged(config: SweepConfig, folder: Path) -> None:
    """Check that the sweep is still the one that was started in `folder`.

    Raises:
        RequestError: A setting differs that must not, each of which is named; or an earlier version started the sweep.
    """
    text = read_text(folder / SWEEP_FILE, "sweep file")
    if is_earlier_version(parse_yaml(text, str(folder / SWEEP_FILE))):
        rule = f"{folder} must be started by this version of roletune to be resumed; an earlier one started it"
        raise RequestError(rule, hint="start a new sweep, without --resume")
    before = dict(_flat(_plain(SweepConfig.load(folder / SWEEP_FILE))))
    now = dict(_flat(_plain(config)))
    changed = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    refused = [key for key in changed if not _may_change(key, before, now, folder)]
    if refused:
        shown = "; ".join(f"{key}: {_shown(before, key)} → {_shown(now, key)}" for key in refused)
        hint = "undo the changes, or start a new sweep without --resume"
        raise RequestError(f"the settings of {folder} must not change ({shown})", hint=hint)


def _may_change(key: str, before: Mapping[str, Any], now: Mapping[str, Any], folder: Path) -> bool:
    if key.startswith(ANY):
        return True
    section, _, setting = key.rpartition(".")
    old, new = before.get(key), now.get(key)
    if setting not in MORE or not isinstance(new, int) or (isinstance(old, int) and new < old):
        return False
    role, _, part = section.partition(".")
    if role not in ROLES:
        return False
    if not part.startswith("search"):
        return setting == "seeds" or not (folder / "models" / f"{role}.safetensors").exists()
    if setting == "trials" and now.get(f"{section}.algorithm") in DESIGNED:
        return False
    searches = [place for place in now if place.startswith(f"{role}.search") and place.endswith(".algorithm")]
    is_last = searches[-1:] == [f"{section}.algorithm"]  # what follows an earlier one of a list started from its result
    return is_last and not (folder / f"policy.{role}.json").exists()  # until the result of the search is known


def _plain(config: SweepConfig) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(config.model_dump_json(by_alias=True))
    return plain


def _flat(content: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every value with its place; lists are values, but for those of mappings."""
    if isinstance(content, Mapping) and content:
        for key, value in content.items():
            yield from _flat(value, f"{place}.{key}" if place else str(key))
    elif isinstance(content, list) and content and all(isinstance(item, Mapping) for item in content):
        for number, item in enumerate(content):
            yield from _flat(item, f"{place}[{number}]")
    else:
        yield place, content


def _shown(content: Mapping[str, Any], key: str) -> str:
    return json.dumps(content[key], ensure_ascii=False) if key in content else "nothing"
