"""The documentation: it builds strictly, its sweeps and code are valid, and what it lists is what there is."""

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from documentation import DOCS, PAGES, ROOT, blocks, links, read

from benchmarks.reliability import hosts, multi_host
from search.config.catalog import markdown
from search.config.schema import SweepConfig
from spaces import Entry, Genome, ImageSpec, Phase, Policy, Schedule
from spaces.importers import READERS

NAMES = [str(path.relative_to(DOCS)) for path in PAGES]


def page(name):
    return read(DOCS / name)


@pytest.fixture
def mypackage(monkeypatch):
    """The package that the pages import from: each of its modules has all names of the page on extensions."""
    scope = run("extending.md")
    for module in ("mypackage", *(f"mypackage.{name}" for name in ("augment", "data", "losses", "networks", "search"))):
        fake = ModuleType(module)
        vars(fake).update({name: value for name, value in scope.items() if not name.startswith("__")})
        monkeypatch.setitem(sys.modules, module, fake)


def run(name):
    """Run the Python of a page from top to bottom and return its names."""
    scope = {"__name__": "documentation"}
    for block in blocks(page(name), "python"):
        exec(compile(block, name, "exec", dont_inherit=True), scope)
    return scope


SWEEPS = [pytest.param(block, id=f"{name}-{i}") for name in NAMES for i, block in enumerate(blocks(page(name), "yaml"))]


@pytest.mark.parametrize("block", SWEEPS)
def test_every_sweep_is_valid(block, tmp_path, mypackage):
    """A block that leaves `data` out is a part of a sweep; with data it is a whole one."""
    data = "" if re.search(r"^data:", block, re.MULTILINE) else "data: {name: digits}\n"
    path = tmp_path / "sweep.yaml"
    path.write_text(data + block, "utf-8")
    SweepConfig.load(path)


@pytest.mark.parametrize("name", [name for name in NAMES if blocks(page(name), "python")])
def test_the_code_of_a_page_runs_from_top_to_bottom(name, tmp_path, monkeypatch):
    genome = Genome(Policy((Entry("Rotate", 8, 5),)))
    schedule = Schedule((Phase(2, genome),), "student", ImageSpec(8, 1, (78,)))
    schedule.save(tmp_path / "policy.student.json")
    monkeypatch.chdir(tmp_path)
    run(name)


@pytest.mark.parametrize("name", NAMES)
def test_every_link_leads_to_a_file(name):
    folder = (DOCS / name).parent
    assert [link for link in links(page(name)) if not (folder / link).exists()] == []


@pytest.mark.parametrize("name", NAMES)
def test_every_file_of_the_repository_that_a_page_names_exists(name):
    named = set(re.findall(r"`((?:examples|benchmarks|spaces|trainables|results|search|tests)/[\w./-]+)`", page(name)))
    assert {path for path in named if "NAME" not in path and not (ROOT / path).exists()} == set()


@pytest.mark.parametrize("name", NAMES)
def test_every_python_name_that_a_page_calls_exists(name):
    for module, function in re.findall(r"`((?:roletune|search|trainables|results|spaces)[\w.]*)\.(\w+)\(", page(name)):
        assert hasattr(importlib.import_module(module), function), f"{module}.{function}"


def test_every_picture_is_used():
    text = read(ROOT / "README.md") + "".join(map(page, NAMES)) + read(ROOT / "benchmarks" / "README.md")
    assert [path.name for path in (DOCS / "images").iterdir() if path.name not in text] == []


def test_every_importer_is_documented():
    for name in READERS:
        assert f"`{name}`" in page("policies.md"), name


def test_the_cluster_page_has_the_commands_of_the_run_over_several_hosts():
    code = "".join(blocks(page("cluster.md"), "sh"))
    commands = re.sub(r" +#.*", "", code).splitlines()
    shared = {"shared": "/shared", "store": "sqlite:////shared/mlflow.db", "head": "HEAD:6379"}
    for command in (hosts.HEAD, hosts.WORKER, multi_host.MLFLOW, multi_host.DOCTOR, multi_host.DRIVER):
        assert " ".join(hosts.fill(command, **shared)) in commands


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built strictly."""
    folder = tmp_path_factory.mktemp("site")
    # Not with --quiet, under which MkDocs counts no warnings and --strict has no effect.
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def text_of(site, name):
    return re.sub(r"<[^>]+>", "", (site / name).read_text("utf-8"))


@pytest.mark.slow
def test_the_strict_build_loads_nothing_from_a_network(site):
    fetched = re.compile(
        r"""(?:<link[^>]*(?:stylesheet|preconnect)[^>]*href|<script[^>]*src|<img[^>]*src)=["']?https?:"""
    )
    pages = list(site.rglob("*.html"))
    assert len(pages) > len(PAGES)
    assert [path.name for path in pages if fetched.search(path.read_text("utf-8"))] == []


@pytest.mark.slow
def test_the_configuration_reference_has_every_key(site):
    schema = SweepConfig.model_json_schema()
    keys = {key for node in (schema, *schema["$defs"].values()) for key in node.get("properties", {})}
    text = text_of(site, "configuration.html")
    assert {key for key in keys if key not in text} == set()


@pytest.mark.slow
def test_the_reference_of_names_is_what_the_catalog_lists(site):
    text = text_of(site, "configuration.html")
    assert [name for name in re.findall(r"`([^`]+)`", markdown()) if name not in text] == []


@pytest.mark.slow
def test_the_command_line_reference_has_every_command(site):
    import typer

    from search.cli import app

    text = text_of(site, "cli.html")
    commands = typer.main.get_command(app).commands
    assert commands
    assert [name for name in commands if f"roletune {name}" not in text] == []


@pytest.mark.slow
def test_the_api_reference_has_every_public_name(site):
    import roletune

    text = text_of(site, "api/index.html")
    assert [name for name in roletune.__all__ if f"roletune.{name}" not in text] == []


def test_every_figure_comes_from_a_committed_result():
    for name in NAMES:
        for result, key in re.findall(r"\{\{ *(\w+)\.(\w+)", page(name)):
            content = json.loads(Path(ROOT / "benchmarks" / "results" / f"{result}.json").read_text("utf-8"))
            assert key in content["summary"], (name, result, key)
