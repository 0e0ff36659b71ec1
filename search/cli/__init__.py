"""The command line: each command is one call in Python.

Exit status: 0 done, 1 the work failed, 2 the request was wrong, 130 interrupted by Ctrl-C.
"""

from __future__ import annotations

import sys
from pathlib import Path

from search.cli import run_commands, view_commands  # noqa: F401  # each command registers itself
from search.cli.application import app

__all__ = ["app", "main"]


def main() -> None:
    """Run a command; a user's mistake is one line, never a traceback."""
    # A user's own modules are in the working directory, which is not on the path of an installed script.
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    app()
