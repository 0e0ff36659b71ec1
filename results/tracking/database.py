"""What lies in a store's file, asked without MLflow, which takes seconds to start and tells a traceback."""

from __future__ import annotations

import importlib.util
import sqlite3
from contextlib import closing
from pathlib import Path

from results.tracking.store import sqlite_uri
from results.tracking.views import RUNS
from spaces import RequestError

PAGE = "#/experiments/{}/runs?workflowType=machine_learning"
"""The run table of an experiment; MLflow would open on chat traces."""


def page(store: Path) -> str:
    """Where MLflow's page shows the newest sweep in the SQLite file `store`: the end of an address.

    Raises:
        RequestError: the file is no store of MLflow's, or one that the installed MLflow cannot open as it is.
    """
    try:
        with closing(sqlite3.connect(f"{store.resolve().as_uri()}?mode=ro", uri=True)) as database:
            tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if not {"experiments", "runs", "tags", "experiment_tags", "alembic_version"} <= tables:
                raise RequestError(f"{store} is no store of MLflow's", hint="give the folder of a sweep")
            versions = [version for (version,) in database.execute("SELECT version_num FROM alembic_version")]
            _check_versions(store, versions)
            return _newest(database)
    except sqlite3.Error as error:
        raise RequestError(
            f"{store} is no store of MLflow's", value=str(error), hint="give the folder of a sweep"
        ) from error


def _newest(database: sqlite3.Connection) -> str:
    """The experiment of the newest sweep, in the view that was saved for it; the first one where there is none yet."""
    swept = (
        "SELECT experiment_id FROM runs JOIN tags USING (run_uuid) WHERE key = 'roletune.ticket' "
        "ORDER BY start_time DESC LIMIT 1"
    )
    (experiment,) = database.execute(swept).fetchone() or (1,)
    view = "SELECT 1 FROM experiment_tags WHERE experiment_id = ? AND key = ?"
    saved = database.execute(view, (experiment, f"mlflow.sharedViewState.{RUNS}")).fetchone()
    return PAGE.format(experiment) + (f"&viewStateShareKey={RUNS}" if saved else "")


def _check_versions(store: Path, versions: list[str]) -> None:
    """Hold the store's schema against the installed MLflow's.

    Raises:
        RequestError: it is older, or newer.
    """
    from alembic.script import ScriptDirectory

    spec = importlib.util.find_spec("mlflow")
    if spec is None or spec.origin is None:
        raise RequestError("MLflow must be installed", hint="pip install mlflow")
    known = ScriptDirectory(str(Path(spec.origin).parent / "store" / "db_migrations"))
    if versions == known.get_heads():
        return
    names = {script.revision for script in known.walk_revisions()}
    if not set(versions) <= names:
        raise RequestError(f"{store} was written by a newer MLflow", hint="install that, or a newer one")
    hint = f"copy the file, then `mlflow db upgrade {sqlite_uri(store.resolve())}`"
    raise RequestError(f"{store} was written by an older MLflow", hint=hint)
