"""A network in MLflow's registry: what is kept of it, that it is kept once, and what happens where it cannot be."""

import json
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import ENDPOINT_NOT_FOUND
from support import run_id, tracked
from torch import nn

from results.tracking.cursor import read_cursors
from results.tracking.delivery import remaining
from results.tracking.model_registry import describe, save_model, sha256
from spaces import Entry, Genome, ImageSpec, Phase, Policy, Schedule, WorkError

pytestmark = [
    pytest.mark.usefixtures("place"),
    pytest.mark.slow,
    pytest.mark.filterwarnings(  # MLflow's own models use it, and SQLAlchemy 2.1 says so once
        "ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning"
    ),
]

POLICY = Schedule((Phase(3, Genome(Policy((Entry("Rotate", 5, 5),)))),), "student", ImageSpec(4, 1, (9,)))
IMAGES = np.random.default_rng(0).random((2, 1, 4, 4), dtype=np.float32)
ANSWER = "this server has no registry for it; MLflow 3 has"
TAGS = {"sweep": "s-001", "role": "student", "run": "student-full-policy-0", "accuracy": "0.9000"}


def network():
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).eval().requires_grad_(False)


@pytest.fixture
def saved(tmp_path):
    net = network()
    return net, save_model(tmp_path / "models" / "student", net, IMAGES, 3, POLICY)


def registered(store, client, name, folder, run_name="student-full-policy-0"):
    """Register the model, with the journal beside it; MLflow's id of the run."""
    with tracked(store, "registry", journal=folder.parent) as tracker:
        run = tracker.start(run_name)
        tracker.model(run, folder, name, TAGS, describe(name, TAGS, (1, 4, 4)), [("final_test_accuracy", 0.9, 5, 3)])
        tracker.finish(run)
    return run_id(client, tracker, run)


def test_a_version_has_its_files_and_loads_as_plain_mlflow_loads_it(store, client, saved, capfd, monkeypatch):
    import mlflow

    net, folder = saved
    run = registered(store, client, "plain-student", folder)
    assert remaining(*read_cursors(folder.parent)) == 0
    assert capfd.readouterr() == ("", "")
    (version,) = client.search_model_versions("name = 'plain-student'")
    assert (int(version.version), version.run_id, version.status) == (1, run, "READY")
    assert version.tags == TAGS and "90.00 %" in version.description
    monkeypatch.setenv("MLFLOW_TRACKING_URI", client.tracking_uri)
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    address = f"models:/plain-student/{version.version}"
    loaded = mlflow.pytorch.load_model(address)
    images = torch.rand(5, 1, 4, 4)
    assert isinstance(loaded, nn.Module) and torch.equal(loaded(images), net(images))
    assert mlflow.pyfunc.load_model(address).predict(IMAGES) == pytest.approx(net(torch.from_numpy(IMAGES)).numpy())
    info = mlflow.models.get_model_info(address)
    assert [spec.shape for spec in (*info.signature.inputs, *info.signature.outputs)] == [(-1, 1, 4, 4), (-1, 3)]
    files = mlflow.artifacts.download_artifacts(address)
    assert Schedule.load(f"{files}/policy.student.json") == POLICY
    example = np.array(json.loads(Path(files, "input_example.json").read_text()), np.float32)
    assert np.array_equal(example, IMAGES)
    (model,) = client.search_logged_models([version_experiment(client, run)])
    assert [(metric.key, metric.value) for metric in model.metrics] == [("final_test_accuracy", 0.9)]
    assert json.loads(model.tags["mlflow.modelVersions"]) == [{"name": "plain-student", "version": "1"}]
    assert model.source_run_id == run and client.get_run(run).data.metrics == {"final_test_accuracy": 0.9}


def version_experiment(client, run):
    return client.get_run(run).info.experiment_id


def test_a_sweep_that_goes_on_registers_nothing_twice(store, client, saved):
    first = registered(store, client, "again-student", saved[1], "again")
    second = registered(store, client, "again-student", saved[1], "again")
    assert first == second
    assert len(client.search_model_versions("name = 'again-student'")) == 1
    registered(store, client, "again-student", saved[1], "another")
    assert {int(v.version) for v in client.search_model_versions("name = 'again-student'")} == {1, 2}


def test_a_registration_cut_off_in_the_middle_is_gone_on_with(store, client, saved, monkeypatch):
    """The server is lost between the model's files and the version: there is one model in the end."""
    from mlflow.tracking import MlflowClient

    right, failures = MlflowClient.create_model_version, [ConnectionError("away")]

    def wrong(self, *args, **kwargs):
        if failures:
            raise failures.pop()
        return right(self, *args, **kwargs)

    monkeypatch.setattr(MlflowClient, "create_model_version", wrong)
    run = registered(store, client, "cut-student", saved[1], "cut")
    assert len(client.search_model_versions("name = 'cut-student'")) == 1
    made = client.search_logged_models([version_experiment(client, run)], f"source_run_id = '{run}'")
    assert len(made) == 1 and str(made[0].status) == "READY"


def test_a_server_without_a_registry_is_told_once_and_nothing_else_is_lost(
    store, client, saved, tmp_path, monkeypatch, caplog
):
    from mlflow.tracking import MlflowClient

    def none(self, *args, **kwargs):
        raise MlflowException("no such endpoint", error_code=ENDPOINT_NOT_FOUND)

    monkeypatch.setattr(MlflowClient, "search_model_versions", none)
    caplog.set_level(logging.WARNING, logger="roletune.tracking")
    with tracked(store, "registry", journal=tmp_path) as tracker:
        run = tracker.start("none")
        tracker.model(run, saved[1], "none-student", TAGS, "")
        tracker.log(run, {"loss": 1.0})
    told = [record.getMessage() for record in caplog.records]
    assert told[0] == f"MLflow refused 'model' of run 'none': {ANSWER}" and len(told) == 2  # and that it is kept
    assert client.get_run(run_id(client, tracker, run)).data.metrics == {"loss": 1.0}
    (cursor,) = read_cursors(tmp_path)
    (kept,) = cursor.refused.values()
    assert (kept.op, kept.run, kept.reason) == ("model", "none", ANSWER)


def test_a_network_that_cannot_be_exported_is_refused_in_one_line_and_leaves_nothing(tmp_path):
    class Moody(nn.Module):
        def forward(self, images):
            return images.flatten(1)[:, :3] * (2 if images.sum() > 0 else 1)

    with pytest.raises(WorkError) as caught:
        save_model(tmp_path / "models" / "student", Moody(), IMAGES, 3, POLICY)
    assert str(caught.value).startswith("the student is no MLflow model: ") and "\n" not in str(caught.value)
    assert list((tmp_path / "models").glob("*")) == []


def test_a_model_is_replaced_whole(saved, tmp_path):
    other = network()
    other[1].weight.fill_(2.0)
    folder = save_model(tmp_path / "models" / "student", other, IMAGES, 3, replace(POLICY, provenance={"seed": 2}))
    assert [path.name for path in folder.parent.iterdir()] == ["student"]
    assert Schedule.load(folder / "policy.student.json").provenance == {"seed": 2}


def test_the_hash_is_that_of_the_file(tmp_path):
    (tmp_path / "empty").touch()
    assert sha256(tmp_path / "empty") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
