"""Command-line arguments, result table and result file of a benchmark.

    python -m benchmarks.GROUP.NAME            measure, print a table and write benchmarks/results/NAME.json
    python -m benchmarks.GROUP.NAME --quick    smoke run of seconds; its numbers mean nothing and no file is written

A result file conforms to `results.schema.json`. It contains no path, user name or host name of the machine.
"""

from __future__ import annotations

import json
import os
import platform
import shlex
import subprocess
import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeAlias

import jsonschema
import torch
from rich.console import Console
from rich.table import Table

from spaces.core.io import write_atomic

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
SCHEMA = Path(__file__).with_name("results.schema.json")

PACKAGES = ("torch", "torchvision", "numpy", "numba", "pillow")
"""Packages whose versions every result file records."""

SIGNIFICANT_DIGITS = 5
"""Significant digits of the numbers in a result file."""

NO_COMMIT = "0" * 40
"""Commit of a quick run, which needs no checkout."""

Row: TypeAlias = dict[str, Any]
"""Column name to text, number, boolean, None or a list of numbers."""


def argument_parser(description: str | None) -> ArgumentParser:
    """Return a parser with the arguments that all benchmarks share."""
    parser = ArgumentParser(description=description, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smoke run of seconds that writes no file")
    parser.add_argument("--seed", type=int, default=0, help="seed of all random draws (default: 0)")
    return parser


@dataclass(frozen=True)
class Benchmark:
    """One run of a benchmark.

    Args:
        name: Name of the script and of its result file.
        command: Command that started the run, without paths of the machine.
        options: Parsed arguments.
        commit: Commit of the measured code, see `current_commit`; `NO_COMMIT` in a quick run.
    """

    name: str
    command: str
    options: Namespace
    commit: str

    @property
    def quick(self) -> bool:
        """True for a smoke run, which writes no file."""
        return bool(self.options.quick)

    @property
    def seed(self) -> int:
        """Seed of all random draws."""
        return int(self.options.seed)

    def finish(
        self, rows: Sequence[Row], summary: Mapping[str, Any], *, peers: Iterable[str] = (), gpu: bool = False
    ) -> None:
        """Print the table and, unless the run is a quick one, write the result file.

        Args:
            rows: Measurements.
            summary: Key figures that other documents cite.
            peers: Further packages whose versions are recorded.
            gpu: True if a GPU was measured; its name is recorded.

        Raises:
            jsonschema.ValidationError: The document does not conform to the schema.
        """
        print_table(f"{self.name}, quick run: the numbers mean nothing" if self.quick else self.name, rows)
        for key, value in summary.items():
            print(f"{key:>32}  {_format_cell(value)}")
        document = self.document(rows, summary, peers=peers, gpu=gpu)
        jsonschema.validate(document, json.loads(SCHEMA.read_text("utf-8")))
        if not self.quick:
            path = write_atomic(RESULTS / f"{self.name}.json", _to_json(document))
            print(f"wrote {path.relative_to(ROOT)}")

    def document(
        self, rows: Sequence[Row], summary: Mapping[str, Any], *, peers: Iterable[str] = (), gpu: bool = False
    ) -> dict[str, Any]:
        """Return the content of the result file."""
        return {
            "name": self.name,
            "command": self.command,
            "commit": self.commit,
            "versions": package_versions(peers),
            "device": describe_device(gpu=gpu),
            "seed": self.seed,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "rows": [{key: _round(value) for key, value in row.items()} for row in rows],
            "summary": {key: _round(value) for key, value in summary.items()},
        }


def start(script: str | Path, parser: ArgumentParser, argv: Sequence[str] | None = None) -> Benchmark:
    """Parse the arguments and record the commit before anything can change it.

    Args:
        script: Path of the benchmark, its `__file__`.
        parser: Parser from `argument_parser`.
        argv: Arguments; None takes those of the command line.
    """
    argv = sys.argv[1:] if argv is None else argv
    options = parser.parse_args(argv)
    module = Path(script).resolve().relative_to(ROOT).with_suffix("").parts
    command = shlex.join(["python", "-m", ".".join(module), *argv])
    return Benchmark(module[-1], command, options, NO_COMMIT if options.quick else current_commit())


def current_commit() -> str:
    """Return the commit of the checkout, with "+dirty" if a tracked file other than a result differs from it.

    Raises:
        SystemExit: The code lies in no git checkout, so a result could not be traced to its code.
    """
    try:
        head = _git("rev-parse", "HEAD")
        changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".", ":(exclude)benchmarks/results")
    except (OSError, subprocess.CalledProcessError) as error:
        raise SystemExit(f"a result file must name its commit, but git failed ({error}); try --quick") from error
    return f"{head}+dirty" if changed else head


def _git(*arguments: str) -> str:
    command = ["git", "--no-optional-locks", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def package_versions(peers: Iterable[str] = ()) -> dict[str, str]:
    """Return the versions of Python and of those of `PACKAGES` and `peers` that are installed."""
    versions = {"python": platform.python_version()}
    for package in (*PACKAGES, *peers):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


def describe_device(*, gpu: bool = False) -> dict[str, Any]:
    """Return the processor, the number of usable cores and the name of the GPU if one was measured."""
    return {
        "cpu": _cpu_model(),
        "cores": usable_cores(),
        "system": f"{platform.system()} {platform.machine()}",
        "gpu": torch.cuda.get_device_name() if gpu else None,
    }


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cpu_model() -> str:
    file = Path("/proc/cpuinfo")
    lines = file.read_text("utf-8").splitlines() if file.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return (names or [platform.processor() or platform.machine()])[0]


def print_table(title: str, rows: Sequence[Row]) -> None:
    """Print the rows as a table that has the columns of all rows."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=200)  # a file or a pipe has no width of its own
    table = Table(title=title)
    columns = dict.fromkeys(column for row in rows for column in row)
    for column in columns:
        numeric = not any(isinstance(row.get(column), str) for row in rows)
        table.add_column(column.replace("_", " "), justify="right" if numeric else "left")
    for row in rows:
        table.add_row(*(_format_cell(row.get(column)) for column in columns))
    console.print(table)


def _format_cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return str(value)


def _round(value: Any) -> Any:
    if isinstance(value, list):
        return [_round(item) for item in value]
    return float(f"{value:.{SIGNIFICANT_DIGITS}g}") if isinstance(value, float) else value


def _to_json(document: Mapping[str, Any]) -> str:
    """Return JSON with one line per row, so that `git diff` compares rows."""
    lines = []
    for key, value in document.items():
        if key == "rows":
            rows = ",\n".join(f"    {json.dumps(row, ensure_ascii=False, allow_nan=False)}" for row in value)
            lines.append(f'  "rows": [\n{rows}\n  ]')
        else:
            indent = 2 if key in ("summary", "versions") else None
            text = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent).replace("\n", "\n  ")
            lines.append(f'  "{key}": {text}')
    return "{\n" + ",\n".join(lines) + "\n}\n"
