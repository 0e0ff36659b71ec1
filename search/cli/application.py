"""The Typer application, which reports errors as one line and an exit status."""

from __future__ import annotations

import sys
from typing import Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from typer.core import TyperGroup


class _Commands(TyperGroup):
    """Group of commands that reports errors as one line and an exit status."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            _fail("stopped; continue with roletune search --resume; roletune export writes the best policy so far", 130)
        except (ValueError, RuntimeError) as error:
            from spaces.core.errors import RequestError, WorkError  # `--help` should not wait for torch

            if isinstance(error, RequestError):
                _fail(str(error), 2)
            if isinstance(error, WorkError):
                _fail(str(error), 1)
            raise


app = typer.Typer(
    cls=_Commands,
    help="What should each role see? Searches one augmentation schedule for the teacher and one for the student.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)


def _fail(line: str, status: int) -> NoReturn:
    Console(stderr=True).print(f"[red]roletune:[/red] {escape(line)}", highlight=False, soft_wrap=True)
    sys.exit(status)
