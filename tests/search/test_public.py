"""What `import search` gives: every public name, whatever was imported before it."""

import importlib
import subprocess
import sys

import pytest

import search


@pytest.mark.parametrize("name", search.__all__)
def test_a_public_name_stays_what_it_is_after_every_module_was_imported(name):
    first = getattr(search, name)
    for module in ("evaluation", "runner", "screening", "doctor"):
        importlib.import_module(f"search.sweeps.{module}")
    assert getattr(search, name) is first and callable(first) and first.__doc__
    namespace = {}
    exec(f"from search import {name}", namespace)
    assert namespace[name] is first and name in dir(search)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'evaluation_'"):
        search.evaluation_  # noqa: B018


def test_importing_the_package_imports_neither_ray_nor_torch():
    code = "import sys, search; print(sorted({'ray', 'torch', 'mlflow', 'optuna', 'pydantic'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
