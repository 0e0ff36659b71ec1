# Every target sets itself up in a virtual environment; Python 3.11 or newer is all that is needed.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
ROOMS := spaces trainables results search
# One thread per process: the tests use both cores through processes. `loadfile` keeps a module's Ray and MLflow in one process.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile

.PHONY: demo test test-slow test-browser check docs fmt clean

demo: $(STAMP)  ## search policies for both roles in a target domain
	$(BIN)/roletune search examples/mnist5k.yaml

test: $(STAMP)  ## run the tests that a person waits for, and the examples in the docstrings
	$(PYTEST) -m "not slow" tests
	$(PYTEST) --doctest-modules roletune.py $(ROOMS)

test-slow: $(STAMP)  ## run the long sweeps, the kills and the servers
	$(PYTEST) -m slow tests

test-browser: $(STAMP)  ## run the tests that open pages in Chromium
	$(BIN)/python -m pytest -m browser -rs tests/browser

check: $(STAMP)  ## check style, types, import rules and the documentation
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

docs: $(STAMP)  ## build the documentation site into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

fmt: $(STAMP)  ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(STAMP): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "roletune needs Python 3.11 or newer: make PYTHON=python3.11 …")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache site
