"""What may be shown and written down of addresses that hold a password or a token."""

from __future__ import annotations

import os
import re

__all__ = ["bare", "mask"]

_NAMES = r"(password|passwd|pwd|token|secret|api_?key|sig|signature)"
_SHOWN = [
    (re.compile(r"(://[^/@\s:]*:)\S*@"), r"\1***@"),  # also a password with a slash that should be %2F
    (re.compile(r"://[^/@\s:]+@"), "://***@"),
    (re.compile(rf"(?i)\b{_NAMES}=[^&;,\s'\"]+"), r"\1=***"),
    (re.compile(r"(?i)\b(bearer|basic) +[\w.~+/=-]{8,}"), r"\1 ***"),
]
_BARE = [
    (re.compile(r"(?i)^(https?://)\S*@"), r"\1"),  # of a server's, the name before the @ may be a token
    (re.compile(r"^(\w[\w+.-]*://[^/@\s:]*):\S*@"), r"\1@"),  # a database is told by whom it is asked
    (re.compile(rf"(?i)(?<=[?&]){_NAMES}=[^&]*(&|$)"), ""),
    (re.compile(r"[?&]$"), ""),
]


def mask(text: str) -> str:
    """`text` without credentials: those in addresses, and those that MLflow reads from the environment."""
    for pattern, instead in _SHOWN:
        text = pattern.sub(instead, text)
    for name in ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"):
        if len(secret := os.environ.get(name, "")) > 3:  # a shorter one would be found in any word
            text = text.replace(secret, "***")
    return text


def bare(uri: str) -> str:
    """The address `uri` without credentials: still an address, of the same place."""
    for pattern, instead in _BARE:
        uri = pattern.sub(instead, uri)
    return uri
