"""Format of the policy file: schema, validation, text."""

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
VERSION = 2
"""Newest version: 2 has scaled policies, in the field `scaled` of a genome in place of `policy`."""

_OLD_OPTIONS = {"normalisation": "normalization"}


@cache
def policy_schema() -> Mapping[str, Any]:
    """Return the JSON Schema of the policy file, `spaces/schedule/policy.schema.json`.

    Example:
        >>> from spaces.schedule.serialization import policy_schema
        >>> policy_schema()["properties"]["role"]
        {'enum': ['teacher', 'student']}
    """
    schema: dict[str, Any] = json.loads((Path(__file__).parent / "policy.schema.json").read_text("utf-8"))
    return MappingProxyType(schema)


def validate_policy(document: Any) -> None:
    """Validate the content of a policy file.

    Raises:
        RequestError: `document` is not a policy file, has a newer version, violates the schema (the message names the
            first violation), or cannot be written as JSON: an infinite number, half a surrogate pair, deep nesting.
    """
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise RequestError(f'a policy file must be an object with "format": "{FORMAT}"', value=document)
    version = document.get("version")
    if isinstance(version, int) and version > VERSION:
        raise RequestError(
            f"the version of a policy file must be <= {VERSION} for this roletune",
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
        raise RequestError(f"a policy file must be plain JSON: {fault}") from fault
    raise RequestError(f"policy file, at {error.json_path}: {error.message[:200]}")


def dump(document: dict[str, Any]) -> str:
    """Return the text of a policy file: one entry per line, keys in a fixed order.

    Raises:
        RequestError: The content is invalid, see `validate_policy`.
    """
    validate_policy(document)
    return _canonical(document) + "\n"


def parse(content: str, source: str) -> Any:
    """Parse the text of a policy file, without validation.

    Args:
        content: Text of the file.
        source: Name of the file in messages.

    Raises:
        RequestError: The text is not JSON, or an object has a key twice.
    """
    try:
        return json.loads(content, parse_constant=_no_constant, object_pairs_hook=_no_duplicate_key)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"{source} must be a policy file: {error}", hint="is the JSON complete?") from error


def upgrade_genome(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a genome of a policy file in today's spelling; older ones spell a loss option `normalisation`.

    Options of custom losses, whose names are dotted, are left unchanged.
    """
    distill = content.get("distill")
    if not isinstance(distill, Mapping) or "loss" not in distill:
        return content
    return {**content, "distill": {**distill, "loss": _upgrade_loss(distill["loss"])}}


def _upgrade_loss(loss: Any) -> Any:
    if isinstance(loss, list):
        return [_upgrade_loss(item) for item in loss]
    if not isinstance(loss, Mapping):
        return loss
    return {
        name: {_OLD_OPTIONS.get(key, key): value for key, value in options.items()}
        if isinstance(options, Mapping) and not {".", ":"} & set(name)
        else options
        for name, options in loss.items()
    }


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _no_duplicate_key(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document: dict[str, Any] = {}
    for key, value in pairs:
        if key in document:
            raise ValueError(f"the key {key!r} occurs twice")
        document[key] = value
    return document


def _canonical(document: Mapping[str, Any]) -> str:
    """Return JSON with one policy entry per line, for readers and `git diff`."""

    def flat(value: Any) -> str:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)

    def phase(item: Mapping[str, Any]) -> str:
        genome = item["genome"]
        kind = "scaled" if "scaled" in genome else "policy"
        entries = genome[kind]["entries"] if kind == "scaled" else genome[kind]
        lines = ",\n      ".join(flat(entry) for entry in entries)
        policy = f"[\n      {lines}\n    ]" if entries else "[]"
        if kind == "scaled":
            numbers = "".join(f'"{key}": {flat(value)}, ' for key, value in genome[kind].items() if key != "entries")
            policy = f'{{{numbers}"entries": {policy}}}'
        rest = "".join(f', "{key}": {flat(value)}' for key, value in genome.items() if key != kind)
        return f'    {{"epochs": {item["epochs"]}, "genome": {{"{kind}": {policy}{rest}}}}}'

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
