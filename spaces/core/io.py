"""Atomic file writes, and reads whose errors name the file."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

from spaces.core.errors import RequestError


def write_atomic(path: Path | str, content: str | bytes) -> Path:
    """Write a file atomically: a reader sees the old content or the new one, never a part.

    Args:
        path: Path of the file; missing parent folders are created.
        content: Bytes, or text that is written as UTF-8.

    Returns:
        The path.

    Raises:
        RequestError: The path cannot be written.

    Example:
        >>> import tempfile
        >>> from spaces.core.io import read_text, write_atomic
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     read_text(write_atomic(f"{folder}/a/b.txt", "text"), "note")
        'text'
    """
    path = Path(path)
    data = content.encode() if isinstance(content, str) else content
    temporary = path.parent / f".{secrets.token_hex(8)}.tmp"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:  # unlike `tempfile`, this leaves the permissions to the umask
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise RequestError(f"cannot write {path}: {_reason(error)}", hint="choose another path") from error
    finally:  # also after Ctrl-C; after a success there is nothing to remove
        with contextlib.suppress(OSError, ValueError):
            temporary.unlink()
    return path


def read_text(path: Path | str, kind: str) -> str:
    """Read a UTF-8 text file.

    Args:
        path: Path of the file.
        kind: Noun for the file in messages, such as `policy file`.

    Raises:
        RequestError: The file cannot be read, or is not UTF-8 text.
    """
    try:
        return Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise RequestError(f"a {kind} must be UTF-8 text", value=str(path), hint="is this the right file?") from error
    except (OSError, ValueError) as error:
        raise RequestError(f"cannot read the {kind} {path}: {_reason(error)}", hint="check the path") from error


def read_bytes(path: Path | str, kind: str) -> bytes:
    """Read a binary file.

    Args:
        path: Path of the file.
        kind: Noun for the file in messages, such as `weights file`.

    Raises:
        RequestError: The file cannot be read.
    """
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:
        raise RequestError(f"cannot read the {kind} {path}: {_reason(error)}", hint="check the path") from error


def _reason(error: OSError | ValueError) -> str:
    return getattr(error, "strerror", None) or str(error)
