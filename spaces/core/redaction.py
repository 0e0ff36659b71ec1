"""Removal of passwords and tokens from addresses and messages."""

from __future__ import annotations

import os
import re

__all__ = ["mask", "strip_credentials"]

_NAMES = r"(password|passwd|pwd|token|secret|api_?key|sig|signature)"
_SHOWN = [
    (re.compile(r"(://[^/@\s:]*:)\S*@"), r"\1***@"),  # also a password with a slash that should be %2F
    (re.compile(r"://[^/@\s:]+@"), "://***@"),
    (re.compile(rf"(?i)\b{_NAMES}=[^&;,\s'\"]+"), r"\1=***"),
    (re.compile(r"(?i)\b(bearer|basic) +[\w.~+/=-]{8,}"), r"\1 ***"),
]
_BARE = [
    (re.compile(r"(?i)^(https?://)\S*@"), r"\1"),  # the user name of a server may be a token
    (re.compile(r"^(\w[\w+.-]*://[^/@\s:]*):\S*@"), r"\1@"),  # a database URI keeps its user name
    (re.compile(rf"(?i)(?<=[?&]){_NAMES}=[^&]*(&|$)"), ""),
    (re.compile(r"[?&]$"), ""),
]


def mask(text: str) -> str:
    """Replace credentials in `text` by `***`: those in addresses, and those of MLflow's environment variables.

    Example:
        >>> from spaces.core.redaction import mask
        >>> mask("postgres://user:secret@host/db")
        'postgres://user:***@host/db'
    """
    for pattern, instead in _SHOWN:
        text = pattern.sub(instead, text)
    for name in ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"):
        if len(secret := os.environ.get(name, "")) > 3:  # a shorter one would match inside ordinary words
            text = text.replace(secret, "***")
    return text


def strip_credentials(uri: str) -> str:
    """Remove the credentials from an address, which stays a valid address of the same resource.

    Example:
        >>> from spaces.core.redaction import strip_credentials
        >>> strip_credentials("https://user:secret@host/path?token=abc")
        'https://host/path'
    """
    for pattern, instead in _BARE:
        uri = pattern.sub(instead, uri)
    return uri
