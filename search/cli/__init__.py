"""The command line: each command is one call in Python, told in words, with an exit status.

0 done, 1 the work failed, 2 the request was wrong, 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import sys
from pathlib import Path

from search.cli import run_commands, view_commands  # noqa: F401  # each command registers itself
from search.cli.application import app

__all__ = ["app", "main"]


def main() -> None:
    """Run a command; a user's mistake is one line, never a traceback."""
    # A user's own models lie where they work, and the command's script would hide that folder.
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    app()
