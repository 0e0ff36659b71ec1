"""Result files conform to one schema, and every benchmark has one."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

import benchmarks
from benchmarks.common import results_file

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "benchmarks"
RESULTS = sorted((FOLDER / "results").glob("*.json"))
SCRIPTS = sorted(path for path in FOLDER.glob("*/*.py") if '__name__ == "__main__"' in path.read_text("utf-8"))
MODULES = [f"benchmarks.{path.parent.name}.{path.stem}" for path in SCRIPTS]
SCHEMA = json.loads(results_file.SCHEMA.read_text("utf-8"))
SUMMARIES = [branch["if"]["properties"]["name"]["const"] for branch in SCHEMA["allOf"]]
MACHINE = re.compile(r"(?<![\w.])(/(home|root|Users|tmp|mnt|work|opt|var)/|[A-Za-z]:\\)")

MINUTES = ("benchmarks.reliability.faults", "benchmarks.reliability.multi_host", "benchmarks.scheduling.sweep")
"""Benchmarks whose quick run starts several drivers or hosts, which takes minutes."""


def make_result(name, summary, rows=({"arm": "ours", "seconds": 1 / 3},), argv=("--seed", "3")):
    parser = results_file.argument_parser(None)
    return results_file.start(FOLDER / "methods" / f"{name}.py", parser, ["--quick", *argv]).document(rows, summary)


def start_in(folder, argv):
    return results_file.start(folder / "benchmarks" / "methods" / "mine.py", results_file.argument_parser(None), argv)


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_committed_result_conforms_to_the_schema(path):
    text = path.read_text("utf-8")
    result = json.loads(text)
    jsonschema.validate(result, SCHEMA)
    (script,) = (script for script in SCRIPTS if script.stem == path.stem)
    old, new = f"python benchmarks/{path.stem}.py", f"python -m benchmarks.{script.parent.name}.{path.stem}"
    assert result["name"] == path.stem and re.match(f"({re.escape(old)}|{re.escape(new)})( |$)", result["command"])
    assert "--quick" not in result["command"]
    assert not MACHINE.search(text), "no path of the machine"


@pytest.mark.parametrize(
    ("command", "valid"),
    [
        ("python -m benchmarks.methods.mine --seed 3", True),
        ("python benchmarks/mine.py --seed 3", True),  # the scripts lay in one folder when the first files were made
        ("python benchmarks/methods/mine.py", False),
        ("python -m benchmarks.mine", False),
        ("/usr/bin/python -m benchmarks.methods.mine", False),
    ],
)
def test_command_pattern(command, valid):
    checker = jsonschema.Draft202012Validator(SCHEMA)
    assert checker.is_valid(make_result("mine", {"ratio": 1.0}) | {"command": command}) == valid


def test_schema_is_valid():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_schema_lists_exactly_the_benchmarks():
    assert sorted(path.stem for path in SCRIPTS) == sorted(SUMMARIES)


@pytest.mark.parametrize("name", SUMMARIES)
def test_every_summary_key_is_required(name, required_keys):
    summary = dict.fromkeys(required_keys[name], 0.5)
    result, checker = make_result(name, summary), jsonschema.Draft202012Validator(SCHEMA)
    checker.validate(result)
    for key in summary:
        incomplete = {other: value for other, value in summary.items() if other != key}
        assert not checker.is_valid(result | {"summary": incomplete | {"other": 1}})


def test_result_records_command_versions_and_device():
    result = make_result(
        "mine", {"ratio": 2 / 3}, rows=[{"figures": [1 / 3, 2.0], "none": None, "what": "x", "n": 123456}]
    )
    assert result["name"] == "mine" and result["seed"] == 3
    assert result["command"] == "python -m benchmarks.methods.mine --quick --seed 3"
    assert result["versions"]["torch"] == results_file.version("torch") and result["device"]["cores"] >= 1
    assert result["rows"] == [{"figures": [0.33333, 2.0], "none": None, "what": "x", "n": 123456}]
    assert result["summary"] == {"ratio": 0.66667}
    assert not MACHINE.search(json.dumps(result))


def test_result_is_written_with_one_line_per_row(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(results_file, "ROOT", tmp_path)
    monkeypatch.setattr(results_file, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(results_file, "current_commit", lambda: "a" * 40 + "+dirty")
    rows = [{"arm": "one", "seconds": 1.5}, {"arm": "two", "seconds": 1234.5}]
    start_in(tmp_path, []).finish(rows, {"ratio": 2.0})
    (path,) = (tmp_path / "results").iterdir()
    result = json.loads(path.read_text("utf-8"))
    assert result["rows"] == rows and '    {"arm": "two", "seconds": 1234.5}\n' in path.read_text("utf-8")
    printed = capsys.readouterr().out
    assert "1,234" in printed and "ratio" in printed and "mine.json" in printed


def test_quick_run_writes_nothing_and_needs_no_checkout(tmp_path, monkeypatch):
    monkeypatch.setattr(results_file, "ROOT", tmp_path)
    monkeypatch.setattr(results_file, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(results_file, "current_commit", lambda: pytest.fail("asked for"))
    start_in(tmp_path, ["--quick"]).finish([{"seconds": 1.5}], {"ratio": 2.0})
    assert list(tmp_path.iterdir()) == []


def test_commit_is_dirty_if_the_code_differs(tmp_path, monkeypatch):
    def git(*command):
        who = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
        subprocess.run(["git", *who, *command], cwd=tmp_path, check=True, capture_output=True)

    monkeypatch.setattr(results_file, "ROOT", tmp_path)
    with pytest.raises(SystemExit, match="commit"):
        monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
        results_file.current_commit()
    code, result = tmp_path / "code.py", tmp_path / "benchmarks" / "results" / "mine.json"
    result.parent.mkdir(parents=True)
    for path in (code, result):
        path.write_text("1")
    git("init")
    git("add", ".")
    git("commit", "-m", "one")
    assert re.fullmatch("[0-9a-f]{40}", results_file.current_commit())
    result.write_text("2")
    (tmp_path / "new.py").write_text("3")
    assert "+" not in results_file.current_commit(), "neither a result nor an untracked file changes the code"
    code.write_text("2")
    assert results_file.current_commit().endswith("+dirty")


@pytest.mark.slow
@pytest.mark.parametrize("module", [module for module in MODULES if module not in MINUTES])
def test_quick_run_leaves_the_folder_as_it_is(module):
    def files():
        return {path: path.stat().st_mtime_ns for path in FOLDER.rglob("*") if "__pycache__" not in path.parts}

    before = files()
    command = [sys.executable, "-m", module, "--quick"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stderr
    assert "quick run" in run.stdout and files() == before


def test_package_is_this_checkout():
    assert Path(benchmarks.__file__).parent == FOLDER, "another distribution owns the name `benchmarks`"
