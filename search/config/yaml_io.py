"""Sweep files as text: YAML, overrides, and the one line that refuses what a sweep file cannot hold."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml
from pydantic import ValidationError

from search.config.sections import ONE, SEVERAL
from spaces.core.errors import RequestError, unknown

RENAMED_ROLE_KEYS = {"stage": "search", "full": "final"}
RENAMED_SEARCH_KEYS = {"kind": "algorithm", "synch": "synchronous", "repeats": "replicates"}
RENAMED_DISTILL_KEYS = {"view": "teacher_view"}
RENAMED_ALGORITHMS = {
    "asha": "algorithm: successive_halving",
    "tpe+asha": "algorithm: tpe with early_stopping: asha",
    "choice": "algorithm: grid",
}
"""Keys and values of sweep files of older versions, and what they are called now."""

_UNKNOWN_KEY = ("extra_forbidden", "unexpected_keyword_argument")


class _Loader(yaml.SafeLoader):
    """YAML as people write it: `1e-3` is a number, a duplicate key is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for index, key in enumerate(keys):
            if key in keys[:index]:
                line = node.value[index][0].start_mark.line + 1
                raise RequestError("a key must be unique in its section", value=key, hint=f"see line {line}")
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?([0-9][0-9_]*(\.[0-9_]*)?|\.[0-9_]+)[eE][-+]?[0-9]+$"),
    list("-+0123456789."),
)


def parse_yaml(text: str, source: str) -> Any:
    """Return the plain data in YAML text.

    Args:
        text: YAML text.
        source: Name of the text, which messages begin with.

    Raises:
        RequestError: The text is not YAML; the message names the line.

    Example:
        >>> parse_yaml("lr: 1e-3", "example")
        {'lr': 0.001}
    """
    try:
        return yaml.load(text, _Loader)
    except RequestError as error:
        raise RequestError(f"{source}: {error}") from error
    except (yaml.YAMLError, ValueError, RecursionError, TypeError) as error:
        raise RequestError(f"{source} must be YAML: {error}") from error


def apply_override(content: dict[str, Any], override: str) -> None:
    """Set one value of a sweep file, as `--set` does.

    Args:
        content: Sweep file as plain data, changed in place.
        override: `key.path=value`, the value in YAML.

    Raises:
        RequestError: The override has another form, or passes through a value that is no section.

    Example:
        >>> content = {"teacher": {"model": "resnet8"}}
        >>> apply_override(content, "teacher.search.epochs=6")
        >>> content
        {'teacher': {'model': 'resnet8', 'search': {'epochs': 6}}}
        >>> content = {"student": {"search": [{"algorithm": "factorial"}, {"algorithm": "pbt"}]}}
        >>> apply_override(content, "student.search.1.epochs=6")
        >>> content["student"]["search"][1]
        {'algorithm': 'pbt', 'epochs': 6}
    """
    key, equals, value = override.partition("=")
    if not equals or not key:
        hint = "for example --set student.search.epochs=6"
        raise RequestError("--set must be given as KEY=VALUE", value=override, hint=hint)
    *parents, last = key.split(".")
    place: Any = content
    for parent in parents:
        if isinstance(place, list):
            place = _item(place, parent, override)
            continue
        if place.get(parent) is None:
            place[parent] = {}
        place = place[parent]
        if not isinstance(place, dict | list):
            raise RequestError(f"--set {override}: {parent} must be a section", value=place)
    if isinstance(place, list):
        _item(place, last, override)
        place[int(last)] = parse_yaml(value, f"--set {override}")
    else:
        place[last] = parse_yaml(value, f"--set {override}")


def _item(items: list[Any], index: str, override: str) -> Any:
    if not index.isdecimal() or int(index) >= len(items):
        raise RequestError(f"--set {override}: the place in a list must be 0 to {len(items) - 1}", value=index)
    return items[int(index)]


def check_renamed(content: Mapping[str, Any], source: str) -> None:
    """Refuse the first key or value of an older version, and name the one to write instead.

    Raises:
        RequestError: There is one.
    """
    for old, new in _renamed(content):
        raise RequestError(f"{source}: {old} must be written as {new}")


def is_earlier_version(content: Any) -> bool:
    """Return True for the content of a sweep file of an older version."""
    return isinstance(content, Mapping) and any(True for _ in _renamed(content))


def _renamed(content: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield each old key with its place, and the new one."""
    if "search" in content:
        search = content["search"]
        if isinstance(search, Mapping) and set(search) == {"seed"}:
            yield "search.seed", "seed"
        seed = ", and its seed as seed" if isinstance(search, Mapping) and "seed" in search else ""
        yield "search", f"teacher.search and student.search{seed}"
    for role in ("teacher", "student"):
        section = content.get(role)
        if not isinstance(section, Mapping):
            continue
        for old, new in RENAMED_ROLE_KEYS.items():
            if old in section:
                yield f"{role}.{old}", f"{role}.{new}"
        searches = section.get("search")
        for search in searches if isinstance(searches, list | tuple) else [searches]:
            if isinstance(search, Mapping):
                yield from _renamed_search(f"{role}.search", search)
        if isinstance(distill := section.get("distill"), Mapping):
            for old, new in RENAMED_DISTILL_KEYS.items():
                if old in distill:
                    yield f"{role}.distill.{old}", f"{role}.distill.{new}"
    yield from _renamed_normalization(content)


def _renamed_search(place: str, search: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key in ("algorithm", "kind"):
        if isinstance(name := search.get(key), str) and name in RENAMED_ALGORITHMS:
            yield f"{place}.{key}: {name}", RENAMED_ALGORITHMS[name]
    for old, new in RENAMED_SEARCH_KEYS.items():
        if old in search:
            yield f"{place}.{old}", f"{place}.{new}"
    if "seed" in search:
        yield f"{place}.seed", "seed"


def _renamed_normalization(content: Any, place: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(content, Mapping):
        for key, value in content.items():
            inner = f"{place}.{key}" if place else str(key)
            if key == "normalisation":
                yield inner, f"{inner.removesuffix('normalisation')}normalization"
            yield from _renamed_normalization(value, inner)
    elif isinstance(content, list | tuple):
        for index, value in enumerate(content):
            yield from _renamed_normalization(value, f"{place}[{index}]")


def refusal(error: ValidationError, source: str, schema: Mapping[str, Any]) -> RequestError:
    """Return the first fault of a sweep file as one line.

    Unknown keys come first, since they are most often why something else is missing.

    Args:
        error: What pydantic found.
        source: Name of the sweep file, which the message begins with.
        schema: JSON Schema of a sweep file, which knows the keys of each section.
    """
    faults = sorted(error.errors(), key=lambda fault: fault["type"] not in _UNKNOWN_KEY)
    fault = faults[0]
    place = [part for part in fault["loc"] if part not in (ONE, SEVERAL)]
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).removeprefix(".")
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    if fault["type"] in _UNKNOWN_KEY:
        text = str(unknown("key", where.rpartition(".")[2], _keys(place[:-1], schema)))
        return RequestError(f"{source}: {text.replace('unknown key', f'unknown key at {where}:', 1)}{more}")
    rule = fault["msg"].removeprefix("Value error, ")
    line = f"{source}: {where}: {rule}" if where else f"{source}: {rule}"
    if fault["type"] == "missing":
        return RequestError(f"{source}: {where} must be given{more}")
    if fault["type"] == "value_error":
        return RequestError(line + more)
    return RequestError(line + more, value=fault["input"])


def _keys(place: Sequence[int | str], schema: Mapping[str, Any]) -> list[str]:
    """Return the keys of the section at `place`."""
    node: Mapping[str, Any] = schema
    for part in place:
        if not isinstance(part, int):  # the items of a list of sections have the keys that its first item has
            node = _resolve(node.get("properties", {}).get(part, {}), schema)
    return list(node.get("properties", {}))


def _resolve(node: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the first section that a schema refers to, or the schema itself."""
    if "$ref" in node:
        found: Mapping[str, Any] = schema["$defs"][node["$ref"].rpartition("/")[2]]
        return found
    for choice in (each for key in ("anyOf", "oneOf", "allOf") for each in node.get(key, ())):
        if (inner := _resolve(choice, schema)) is not choice:
            return inner
    return node
