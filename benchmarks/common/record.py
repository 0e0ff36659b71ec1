"""What all benchmarks share: their arguments, where a figure comes from, the table, and the result file.

    python benchmarks/NAME.py            measures, prints a table, writes benchmarks/results/NAME.json
    python benchmarks/NAME.py --quick    shows in seconds that it runs; its figures mean nothing, and nothing is written

A result file holds to `results.schema.json`. It names no path, no user and no host of the machine it was made on.
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
"""Whose versions every result file names."""

DIGITS = 5
"""Significant digits that are kept of a figure."""

Row: TypeAlias = dict[str, Any]
"""Column → text, number, truth value, None, or a list of numbers."""


def arguments(description: str | None) -> ArgumentParser:
    """The arguments that every benchmark takes; one that takes more adds them."""
    parser = ArgumentParser(description=description, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a smoke run of seconds that writes nothing")
    parser.add_argument("--seed", type=int, default=0, help="everything that is drawn follows from it (default: 0)")
    return parser


@dataclass(frozen=True)
class Benchmark:
    """One run of a benchmark.

    Args:
        name: of the script and its result file.
        command: that was given, without the machine's paths.
        options: what it was asked for.
        commit: of the code that is measured, see `commit`; zeros in a quick run, which needs no checkout.
    """

    name: str
    command: str
    options: Namespace
    commit: str

    @property
    def quick(self) -> bool:
        """Whether this is a smoke run, which writes nothing."""
        return bool(self.options.quick)

    @property
    def seed(self) -> int:
        """What everything that is drawn follows from."""
        return int(self.options.seed)

    def finish(
        self, rows: Sequence[Row], summary: Mapping[str, Any], *, peers: Iterable[str] = (), gpu: bool = False
    ) -> None:
        """Print the table, and write the result file unless the run was a quick one.

        Args:
            rows: what was measured.
            summary: the few figures that others read.
            peers: packages that were measured too; their versions go into the file.
            gpu: whether a GPU was measured, so that the file names it.

        Raises:
            jsonschema.ValidationError: rows or summary are not what the schema asks for.
        """
        title = f"{self.name}, a quick run: these figures mean nothing" if self.quick else self.name
        show(title, rows)
        for key, value in summary.items():
            print(f"{key:>32}  {_text(value)}")
        document = self.document(rows, summary, peers=peers, gpu=gpu)
        jsonschema.validate(document, json.loads(SCHEMA.read_text("utf-8")))
        if not self.quick:
            path = write_atomic(RESULTS / f"{self.name}.json", _json(document))
            print(f"written: {path.relative_to(ROOT)}")

    def document(
        self, rows: Sequence[Row], summary: Mapping[str, Any], *, peers: Iterable[str] = (), gpu: bool = False
    ) -> dict[str, Any]:
        """The result file's content."""
        return {
            "name": self.name,
            "command": self.command,
            "commit": self.commit,
            "versions": versions(peers),
            "device": device(gpu=gpu),
            "seed": self.seed,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "rows": [{key: rounded(value) for key, value in row.items()} for row in rows],
            "summary": {key: rounded(value) for key, value in summary.items()},
        }


def start(script: str, parser: ArgumentParser, given: Sequence[str] | None = None) -> Benchmark:
    """Begin the benchmark `script`, its `__file__`; the commit is noted now, before anything can change it.

    Args:
        script: the benchmark's own file.
        parser: from `arguments`.
        given: the arguments; None: those of the command line.
    """
    given = sys.argv[1:] if given is None else given
    options, name = parser.parse_args(given), Path(script).stem
    module = ".".join(Path(script).resolve().relative_to(ROOT).with_suffix("").parts)
    command = shlex.join(["python", "-m", module, *given])
    return Benchmark(name, command, options, "0" * 40 if options.quick else commit())


def commit() -> str:
    """The commit of the checkout, with "+dirty" where a tracked file other than a result differs from it.

    Raises:
        SystemExit: this is no git checkout: a figure that cannot be traced to its code is not written.
    """
    try:
        head = _git("rev-parse", "HEAD")
        changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".", ":(exclude)benchmarks/results")
    except (OSError, subprocess.CalledProcessError) as error:
        raise SystemExit(f"a result names its commit, and git cannot tell it ({error}); --quick needs none") from error
    return f"{head}+dirty" if changed else head


def _git(*command: str) -> str:
    whole = ["git", "--no-optional-locks", *command]
    return subprocess.run(whole, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def versions(peers: Iterable[str] = ()) -> dict[str, str]:
    """Python's version, and those of `PACKAGES` and of `peers` as far as they are installed."""
    found = {"python": platform.python_version()}
    for package in (*PACKAGES, *peers):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def device(*, gpu: bool = False) -> dict[str, Any]:
    """The processor, the cores that this process may use, and the name of the GPU if one was measured."""
    return {
        "cpu": _cpu(),
        "cores": cores(),
        "system": f"{platform.system()} {platform.machine()}",
        "gpu": torch.cuda.get_device_name() if gpu else None,
    }


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cpu() -> str:
    described = Path("/proc/cpuinfo")
    lines = described.read_text("utf-8").splitlines() if described.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return (names or [platform.processor() or platform.machine()])[0]


def show(title: str, rows: Sequence[Row]) -> None:
    """Print the rows as a table; the columns are those of all rows together."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=200)  # a file or a pipe has no width of its own
    table = Table(title=title)
    columns = dict.fromkeys(column for row in rows for column in row)
    for column in columns:
        numbers = not any(isinstance(row.get(column), str) for row in rows)
        table.add_column(column.replace("_", " "), justify="right" if numbers else "left")
    for row in rows:
        table.add_row(*(_text(row.get(column)) for column in columns))
    console.print(table)


def _text(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return str(value)


def rounded(value: Any) -> Any:
    """`value` with `DIGITS` significant digits where it is a fraction, or a list of them."""
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def _json(document: Mapping[str, Any]) -> str:
    """JSON with one line for each row, which is what a person reads and what `git diff` compares."""
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
