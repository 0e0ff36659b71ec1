"""Options that several commands share, and how results are printed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

if TYPE_CHECKING:
    from results.analysis.evaluation import Evaluation
    from results.analysis.screening import ScreeningResult
    from results.analysis.summary import SweepResult
    from search.config.schema import SweepConfig

SweepFile = Annotated[Path, typer.Argument(metavar="SWEEP.yaml", help="sweep file")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="override one value, such as student.search.epochs=6; may be repeated"
    ),
]
Own = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME", help="dotted name of your own augmentation in the policy; may be repeated"),
]
Address = Annotated[
    str | None, typer.Option(metavar="HOST:PORT", help="head of a Ray cluster; default: RAY_ADDRESS, else this machine")
]
Storage = Annotated[str | None, typer.Option(help="folder of the sweeps' folders")]
Json = Annotated[bool, typer.Option("--json", help="print one JSON object on standard output")]


def read_config(path: Path, overrides: list[str] | None, storage: str | None) -> SweepConfig:
    """Read a sweep file with the overrides of the command line."""
    from search.config.schema import SweepConfig

    extra = [f"storage={json.dumps(storage)}"] if storage is not None else []
    return SweepConfig.load(path, [*(overrides or []), *extra])


def show_table(result: SweepResult | ScreeningResult | Evaluation, as_json: bool) -> Console:
    """Print a result's table and notes; with `--json` one object, and return a silent console."""
    if as_json:
        typer.echo(json.dumps(result.to_json()))
        return Console(quiet=True)
    console = Console()
    console.print()
    console.print(result.table())
    console.print()
    for note in result.notes():
        console.print(escape(note), highlight=False, soft_wrap=True)
    return console
