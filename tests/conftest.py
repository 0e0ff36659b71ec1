"""What all tests share: an empty MLflow store, of which each new one is a copy."""

import shutil
import threading

import pytest
import servers

import results.tracking.store
from search.config.schema import SweepConfig
from search.config.sections import ConfirmConfig


@pytest.fixture(scope="session", autouse=True)
def _new_stores_are_copies(tmp_path_factory):
    """MLflow runs all its migrations to make a store, seconds each time; here the first is made so, and then copied."""
    made, lock, probe = tmp_path_factory.mktemp("store") / "mlflow.db", threading.Lock(), results.tracking.store._probe

    def copy(path):
        with lock:
            if not made.exists():
                results.tracking.store._ask(
                    results.tracking.store.sqlite_uri(made), lambda client: client.search_experiments(), 300
                )
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(made, path)

    def probed(uri):
        file = results.tracking.store._sqlite_file(uri)
        if file is not None and file != made and not file.exists():
            copy(file)
        probe(uri)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(results.tracking.store, "_probe", probed)
        patch.setattr(servers, "empty_store", copy)
        yield


@pytest.fixture(scope="session", autouse=True)
def _no_confirmation():
    """Leave the confirmation out of sweeps that do not ask for it: it costs about 20 trainings a role."""
    for section in (ConfirmConfig, SweepConfig):
        if section is ConfirmConfig:
            usual, section.model_fields["seeds"].default = section.model_fields["seeds"].default, 0
        section.model_rebuild(force=True)
    yield
    ConfirmConfig.model_fields["seeds"].default = usual
