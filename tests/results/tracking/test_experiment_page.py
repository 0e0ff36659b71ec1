"""The note of an experiment and the addresses of its page; which experiment of a store is opened; what is refused."""

import shutil
import sqlite3
from contextlib import closing
from urllib.parse import parse_qs

import pytest
from support import tracked

from results.tracking.experiment_page import EXPERIMENT_TAGS, runs_page, schedules_page
from results.tracking.tracker import Tracker
from results.tracking.ui import newest_experiment, serve
from spaces import RequestError

pytestmark = [
    pytest.mark.usefixtures("place"),
    pytest.mark.filterwarnings(  # MLflow's own models use it, and SQLAlchemy 2.1 says so once
        "ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning"
    ),
]


def execute(path, *statements):
    with closing(sqlite3.connect(path)) as database, database:
        for statement in statements:
            database.execute(statement)


@pytest.fixture
def copy(store, tmp_path):
    """A store that may be damaged."""
    folder = tmp_path / "sweep 50% #?"
    folder.mkdir()
    shutil.copy(store / "mlflow.db", folder / "mlflow.db")
    return folder


def refusal(folder):
    """The error of `roletune ui`; nothing is started, and the file is left as it is."""
    file = folder / "mlflow.db"
    before = file.read_bytes() if file.exists() else None
    with pytest.raises(RequestError) as caught:
        serve(folder, host="127.0.0.1", port=0, say=pytest.fail)
    assert "\n" not in str(caught.value)
    assert (file.read_bytes() if file.exists() else None) == before
    return str(caught.value)


# ---- the page --------------------------------------------------------------------------------------


def test_the_page_of_schedules_has_charts_of_the_members_the_best_first():
    page, _, query = schedules_page("7").partition("?")
    assert page == "#/experiments/7/runs" == runs_page("7").partition("?")[0]
    assert {name: value for name, (value,) in parse_qs(query).items()} == {
        "workflowType": "machine_learning",
        "compareRunsMode": "CHART",
        "searchFilter": "tags.stage != 'sweep'",
        "orderByKey": "metrics.`best_validation_accuracy`",
        "orderByAsc": "false",
    }
    assert not set(" '`") & set(query), "the address can be copied as one word"


def test_tags_are_public_and_short_enough_for_any_server():
    assert set(EXPERIMENT_TAGS) == {"mlflow.experimentKind", "mlflow.note.content"}
    assert all(len(value) < 5000 for value in EXPERIMENT_TAGS.values())


@pytest.mark.slow
def test_a_new_experiment_has_them(store, client):
    with Tracker.open(store, "noted") as tracker:
        pass
    tags = client.get_experiment(tracker.experiment_id).tags
    assert {name: tags[name] for name in EXPERIMENT_TAGS} == EXPERIMENT_TAGS


# ---- the store -------------------------------------------------------------------------------------


def test_an_empty_folder(tmp_path):
    assert refusal(tmp_path) == f"no MLflow store in {tmp_path}; is this a sweep's folder?"


@pytest.mark.parametrize("content", [b"", b"no database at all, but long enough to have had a header" * 9])
def test_a_file_that_is_no_database(tmp_path, content):
    (tmp_path / "mlflow.db").write_bytes(content)
    assert refusal(tmp_path).startswith(f"{tmp_path}/mlflow.db is not an MLflow store; give the folder of a sweep")


def test_a_database_of_another_tool(tmp_path):
    execute(tmp_path / "mlflow.db", "CREATE TABLE studies (id INT)", "CREATE TABLE alembic_version (version_num TEXT)")
    assert refusal(tmp_path).startswith(f"{tmp_path}/mlflow.db is not an MLflow store; give the folder of a sweep")


@pytest.mark.slow
@pytest.mark.parametrize("version", ["451aebb31d03", "ffffffffffff"], ids=["MLflow 1.0's", "a newer one's"])
def test_a_store_of_another_mlflow(copy, version):
    execute(copy / "mlflow.db", f"UPDATE alembic_version SET version_num = '{version}'")
    text = refusal(copy)
    assert text.startswith(f"{copy}/mlflow.db must have the schema of MLflow ") and f"found version {version}" in text
    assert "copy the file, then `mlflow db upgrade sqlite:///" in text


@pytest.mark.slow
def test_a_store_of_an_old_mlflow_without_some_tables(copy):
    execute(copy / "mlflow.db", "DROP TABLE trace_tags", "UPDATE alembic_version SET version_num = '451aebb31d03'")
    assert "copy the file, then `mlflow db upgrade sqlite:///" in refusal(copy)


@pytest.mark.slow
def test_the_experiment_of_the_newest_sweep_is_opened(copy):
    with tracked(copy, "one", journal=copy / "one") as one:
        one.start("one-001")
    with tracked(copy, "two", journal=copy / "two") as two:
        two.start("two-001")
    with tracked(copy, "empty", journal=copy / "empty"):
        pass
    assert newest_experiment(copy / "mlflow.db") == two.experiment_id
    with tracked(copy, "one", journal=copy / "one") as one:
        one.start("one-002")
    assert newest_experiment(copy / "mlflow.db") == one.experiment_id
    execute(copy / "mlflow.db", "DELETE FROM tags")
    assert newest_experiment(copy / "mlflow.db") not in ("0", one.experiment_id, two.experiment_id)
