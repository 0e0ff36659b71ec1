"""What a store's file is, before MLflow is asked: the newest sweep in it, or one line that says why not."""

import shutil
import sqlite3
from contextlib import closing

import pytest
from support import tracked

from results.tracking.database import page
from results.tracking.ui import serve
from spaces import RequestError

pytestmark = pytest.mark.filterwarnings(
    "ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning"  # MLflow's own, said once
)


def execute(path, *statements):
    with closing(sqlite3.connect(path)) as database, database:
        for statement in statements:
            database.execute(statement)


@pytest.fixture
def copy(store, tmp_path):
    """A store that may be spoilt."""
    folder = tmp_path / "sweep"
    folder.mkdir()
    shutil.copy(store / "mlflow.db", folder / "mlflow.db")
    return folder


def refusal(folder):
    """What `roletune ui` says; nothing is started."""
    with pytest.raises(RequestError) as caught:
        serve(folder, host="127.0.0.1", port=0, say=pytest.fail)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_empty_folder(tmp_path):
    assert refusal(tmp_path) == f"no MLflow store in {tmp_path}; is this a sweep's folder?"


@pytest.mark.parametrize("content", [b"", b"no database at all, but long enough to have had a header" * 9])
def test_a_file_that_is_no_database(tmp_path, content):
    (tmp_path / "mlflow.db").write_bytes(content)
    assert refusal(tmp_path).startswith(f"{tmp_path}/mlflow.db is no store of MLflow's")


def test_a_database_of_another_tool(tmp_path):
    execute(tmp_path / "mlflow.db", "CREATE TABLE studies (id INT)", "CREATE TABLE alembic_version (version_num TEXT)")
    assert refusal(tmp_path) == f"{tmp_path}/mlflow.db is no store of MLflow's; give the folder of a sweep"


@pytest.mark.slow
def test_a_store_of_an_older_mlflow(copy):
    execute(copy / "mlflow.db", "UPDATE alembic_version SET version_num = '451aebb31d03'")  # MLflow 1.0's
    assert refusal(copy) == (
        f"{copy}/mlflow.db was written by an older MLflow; copy the file, then "
        f"`mlflow db upgrade sqlite:///{copy}/mlflow.db`"
    )


@pytest.mark.slow
def test_a_store_of_a_newer_mlflow(copy):
    execute(copy / "mlflow.db", "UPDATE alembic_version SET version_num = 'ffffffffffff'")
    assert refusal(copy) == f"{copy}/mlflow.db was written by a newer MLflow; install that, or a newer one"


@pytest.mark.slow
def test_the_newest_sweep_is_opened_in_its_view(copy, tmp_path):
    with tracked(copy, "one", journal=tmp_path / "1") as one:
        one.start("one-001")
    with tracked(copy, "two", journal=tmp_path / "2") as two:
        two.start("two-001")
    shown = page(copy / "mlflow.db")
    assert shown == (
        f"#/experiments/{two.experiment_id}/runs?workflowType=machine_learning&viewStateShareKey=roletune-runs"
    )
    execute(copy / "mlflow.db", f"DELETE FROM experiment_tags WHERE experiment_id = {two.experiment_id}")
    assert page(copy / "mlflow.db") == f"#/experiments/{two.experiment_id}/runs?workflowType=machine_learning"
