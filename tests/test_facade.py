"""The facade `roletune`: complete, lazy, documented, and the same object however a name is reached."""

import ast
import doctest
import importlib
import inspect
import subprocess
import sys
from itertools import permutations
from pathlib import Path

import pytest

import roletune

SOURCE = Path(roletune.__file__)
FUNCTIONS = ("evaluate", "replay", "run")


def fresh(code):
    """Run `code` in a new process and return what it prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=SOURCE.parent)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("name", roletune.__all__)
def test_a_name_is_the_same_object_on_every_access(name):
    first = getattr(roletune, name)
    assert first is getattr(roletune, name)
    assert not inspect.ismodule(first)
    assert getattr(importlib.import_module("roletune"), name) is first
    scope = {}
    exec(f"from roletune import {name}", scope)
    assert scope[name] is first


@pytest.mark.slow
@pytest.mark.parametrize("order", list(permutations(FUNCTIONS)))
def test_no_order_of_first_accesses_hides_a_function_behind_a_module(order):
    names = ", ".join(f"roletune.{name}" for name in (*order, *reversed(order)))
    assert fresh(f"import roletune, inspect; print(any(map(inspect.ismodule, ({names}))))") == "False"
    names = names.replace("roletune.", "search.")
    assert fresh(f"import search, inspect; print(any(map(inspect.ismodule, ({names}))))") == "False"


def test_a_star_import_gives_all_names():
    scope = {}
    exec("from roletune import *", scope)
    assert set(roletune.__all__) <= set(scope)


def test_the_names_for_type_checkers_are_those_for_users():
    guarded = next(node for node in ast.parse(SOURCE.read_text("utf-8")).body if isinstance(node, ast.If))
    listed = {(node.module, alias.name) for node in guarded.body for alias in node.names}
    assert listed == {(module, name) for name, module in roletune._HOMES.items()}


def test_importing_it_imports_nothing_else():
    code = (
        "import roletune, sys; print([m for m in ('torch', 'ray', 'mlflow', 'spaces', 'search') if m in sys.modules])"
    )
    assert fresh(code) == "[]"


@pytest.mark.parametrize("name", [n for n in roletune.__all__ if callable(getattr(roletune, n))])
def test_a_name_is_documented_with_an_example(name):
    found = getattr(roletune, name)
    assert inspect.getdoc(found), name
    assert doctest.DocTestParser().get_examples(inspect.getdoc(found)), f"{name} has no example"


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        roletune.nothing  # noqa: B018


def test_nothing_imports_the_facade():
    for room in ("spaces", "trainables", "results", "search"):
        for path in (SOURCE.parent / room).rglob("*.py"):
            assert "roletune" not in {
                name
                for node in ast.walk(ast.parse(path.read_text("utf-8")))
                for name in (
                    [alias.name for alias in node.names]
                    if isinstance(node, ast.Import)
                    else [node.module]
                    if isinstance(node, ast.ImportFrom)
                    else []
                )
            }, path
