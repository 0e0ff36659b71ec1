"""Files that are either whole or not there."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

from spaces.core.errors import RequestError


def write_atomic(path: Path | str, content: str | bytes) -> Path:
    """Write `content` to `path` so that a reader sees the old file or the new one, never a part.

    Text is written as UTF-8. Missing parent folders are made.

    Raises:
        RequestError: the place cannot be written to.
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
        raise RequestError(f"cannot write {path}: {_reason(error)}", hint="choose another place") from error
    finally:  # also after Ctrl-C; where all went well there is nothing left to remove
        with contextlib.suppress(OSError, ValueError):
            temporary.unlink()
    return path


def read_text(path: Path | str, kind: str) -> str:
    """The UTF-8 text of the file at `path`; `kind` names what it should be, for the error.

    Raises:
        RequestError: there is no such file, or it is not UTF-8 text.
    """
    try:
        return Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise RequestError(f"a {kind} is UTF-8 text", value=str(path), hint="is this the right file?") from error
    except (OSError, ValueError) as error:
        raise RequestError(f"cannot read the {kind} {path}: {_reason(error)}", hint="check the path") from error


def read_bytes(path: Path | str, kind: str) -> bytes:
    """The content of the file at `path`; `kind` names what it should be, for the error.

    Raises:
        RequestError: there is no such file.
    """
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:
        raise RequestError(f"cannot read the {kind} {path}: {_reason(error)}", hint="check the path") from error


def _reason(error: OSError | ValueError) -> str:
    return getattr(error, "strerror", None) or str(error)
