"""Files that are either whole or not there."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from spaces.errors import RequestError


def write_atomic(path: Path | str, content: str | bytes) -> Path:
    """Write `content` to `path` so that a reader sees the old file or the new one, never a part.

    Text is written as UTF-8. Missing parent folders are made.

    Raises:
        RequestError: the place cannot be written to.
    """
    path = Path(path)
    data = content.encode() if isinstance(content, str) else content
    temporary = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        mask = os.umask(0)
        os.umask(mask)
        Path(temporary).chmod(0o666 & ~mask)
        Path(temporary).replace(path)
    except OSError as error:
        if temporary:
            with contextlib.suppress(OSError):
                Path(temporary).unlink()
        raise RequestError(f"cannot write {path}: {error.strerror or error}", mend="choose another place") from error
    return path


def read_text(path: Path | str, kind: str) -> str:
    """The UTF-8 text of the file at `path`; `kind` names what it should be, for the error.

    Raises:
        RequestError: there is no such file, or it is not UTF-8 text.
    """
    try:
        return Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise RequestError(f"a {kind} is UTF-8 text", got=str(path), mend="is this the right file?") from error
    except OSError as error:
        raise RequestError(
            f"cannot read the {kind} {path}: {error.strerror or error}", mend="check the path"
        ) from error
