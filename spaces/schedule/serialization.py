"""The policy file: its schema, its text, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jsonschema

from spaces.core.errors import RequestError

FORMAT = "roletune.policy"
VERSION = 1


@cache
def policy_schema() -> Mapping[str, Any]:
    """The JSON Schema of the policy file, as it stands in `spaces/schedule/policy.schema.json`."""
    schema: dict[str, Any] = json.loads((Path(__file__).parent / "policy.schema.json").read_text("utf-8"))
    return MappingProxyType(schema)


def validate_policy(document: Any) -> None:
    """Hold `document` against the policy file's schema.

    Raises:
        RequestError: it is no policy file, a newer version, or breaks the schema (the first fault is named), or
            holds what cannot be written as JSON: an infinite number, half a surrogate pair, lists too deep.
    """
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise RequestError(f'a policy file is an object with "format": "{FORMAT}"', value=document)
    version = document.get("version")
    if isinstance(version, int) and version > VERSION:
        raise RequestError(
            f"this roletune reads policy files up to version {VERSION}",
            value=version,
            hint="install a newer roletune",
        )
    validator = jsonschema.Draft202012Validator(dict(policy_schema()))
    try:
        error = jsonschema.exceptions.best_match(validator.iter_errors(document))
        if error is None:
            _canonical(document).encode()
            return
    except (TypeError, ValueError, RecursionError) as fault:
        raise RequestError(f"a policy file is plain JSON: {fault}") from fault
    raise RequestError(f"policy file, at {error.json_path}: {error.message[:200]}")


def text(document: dict[str, Any]) -> str:
    """The policy file with this content: one entry a line, keys in a fixed order.

    Raises:
        RequestError: as `validate_policy`.
    """
    validate_policy(document)
    return _canonical(document) + "\n"


def parse(content: str, source: str) -> Any:
    """The plain data in a policy file's text; `source` names the file, for errors.

    Raises:
        RequestError: it is no JSON, or a key stands twice.
    """
    try:
        return json.loads(content, parse_constant=_no_constant, object_pairs_hook=_no_key_twice)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"{source} is no policy file: {error}", hint="is it whole JSON?") from error


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document: dict[str, Any] = {}
    for key, value in pairs:
        if key in document:
            raise ValueError(f"the key {key!r} stands twice")
        document[key] = value
    return document


def _canonical(document: Mapping[str, Any]) -> str:
    """JSON with one line per policy entry, which is what a person reads and what `git diff` compares."""

    def flat(value: Any) -> str:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)

    def phase(item: Mapping[str, Any]) -> str:
        genome = item["genome"]
        entries = ",\n      ".join(flat(entry) for entry in genome["policy"])
        policy = f"[\n      {entries}\n    ]" if genome["policy"] else "[]"
        rest = "".join(f', "{key}": {flat(value)}' for key, value in genome.items() if key != "policy")
        return f'    {{"epochs": {item["epochs"]}, "genome": {{"policy": {policy}{rest}}}}}'

    lines = []
    for key, value in document.items():
        if key == "schedule":
            lines.append(f'  "{key}": [\n' + ",\n".join(phase(item) for item in value) + "\n  ]")
        elif key == "provenance":
            text = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=2, sort_keys=True)
            lines.append(f'  "{key}": ' + text.replace("\n", "\n  "))
        else:
            lines.append(f'  "{key}": {flat(value)}')
    return "{\n" + ",\n".join(lines) + "\n}"
