"""One Ray for the tests of this room, since starting it takes seconds, and a place where faulty models leave marks."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

import pytest
from support import score_here

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def _marks_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("marks")


@pytest.fixture(scope="session")
def _ray(_marks_folder):
    import ray

    from search.execution.cluster import ENVIRONMENT, _local_ray

    # Workers inherit this process's environment, and import the modules beside the tests by their names.
    os.environ.update(ENVIRONMENT | {"ROLETUNE_TEST_MARKS": str(_marks_folder)})
    sys.path.append(str(HERE))
    with _local_ray():  # as a sweep starts it
        ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    yield
    ray.shutdown()
    sys.path.remove(str(HERE))


@pytest.fixture
def marks(_ray, _marks_folder):
    """Two slots to run trials on, and an empty folder that `faulty`'s models write to."""
    for mark in _marks_folder.iterdir():
        mark.unlink()
    return _marks_folder


@pytest.fixture(scope="module")
def scored_here():
    """Tests the trained networks in this process: the workers for that take longer to start than all the rest."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("search.execution.scoring.score_all", score_here)
        yield


@pytest.fixture
def sweep_file(tmp_path, monkeypatch):
    """Writes a sweep file in an empty working folder, which sweeps store in too."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)

    def write(text):
        path = tmp_path / "sweep.yaml"
        path.write_text(text)
        return path

    return write
