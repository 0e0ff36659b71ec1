"""A whole sweep, as a user runs it: the figures, the files, what MLflow holds, and what a kill leaves behind."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import mlflow.pytorch
import pytest
from children import child
from mlflow.tracking import MlflowClient

from results.runlog.events import JOURNAL_FILE
from results.runlog.export import export_policy
from results.runlog.history import History
from search import SweepConfig, replay, run
from search.sweeps.plan import SweepPlan
from spaces import Schedule

pytestmark = pytest.mark.slow

SWEEP = """
name: small
data: {name: digits, train: 60, validation: 60}
teacher:
  model: cnn
  recipe: {lr: 0.05, batch_size: 20}
  search: {population: 3, epochs: 4, interval: 2}
  final: {seeds: 2}
student: {model: mlp, recipe: {lr: 0.05, batch_size: 20}, search: {population: 3, epochs: 4, interval: 2}}
"""
TRIALS = 2 * (3 + 3) + 3 * 2 + 3 + 1  # two searches a role, the final trainings of three arms, the search's teacher


@pytest.fixture(scope="module")
def finished(tmp_path_factory, _ray):
    """One sweep that ran to its end, and its configuration."""
    folder = tmp_path_factory.mktemp("sweep")
    path = folder / "sweep.yaml"
    path.write_text(SWEEP)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        config = SweepConfig.load(path)
        return config, run(config), folder


def test_the_result_has_every_figure_and_path(finished):
    _, result, folder = finished
    data = json.loads(json.dumps(result.to_json()))
    assert set(data["roles"]) == {"teacher", "student"} and data["failed"] == {}
    for role, seeds in (("teacher", 2), ("student", 1)):
        found = data["roles"][role]
        assert 0 <= found["best_validation"] <= 1 and found["exploits"] == 1
        assert set(found["test"]) == {"policy", "none", "random"}
        assert all(len(arm["by_seed"]) == seeds for arm in found["test"].values())
        assert (folder / found["policy_file"]).is_file()
    assert json.loads((folder / data["folder"] / "result.json").read_text()) == data
    assert (folder / data["report"] / "summary.md").is_file()
    for picture in ("schedule", "lineage"):
        assert (folder / data["report"] / f"{picture}.student.png").is_file()
    assert (folder / data["folder"] / "models" / "teacher.safetensors").is_file()


def test_the_policies_are_whole_schedules_with_their_origin(finished):
    _, result, folder = finished
    for role in result.roles:
        schedule = Schedule.load(folder / role.policy_file)
        assert (schedule.role, schedule.epochs, schedule.image.size) == (role.role, 4, 8)
        assert schedule.provenance["metric"] == "validation_loss" and schedule.provenance["value"] > 0
        assert 0 < role.best_validation <= 1
        assert schedule.provenance["data"] == {"name": "digits", "train": 60, "validation": 60}
        assert export_policy(str(folder / result.folder), role.role) == schedule


def test_the_store_opens_with_plain_mlflow_calls(finished):
    _, result, _ = finished
    client = MlflowClient(result.tracking_uri)
    experiment = client.get_experiment_by_name("small")
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    assert len(runs) == TRIALS + 1
    assert {run.info.status for run in runs} == {"FINISHED"}
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = [run for run in runs if run is not parent]
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    assert parent.data.params["student.distill.temperature"] == "4.0"
    assert parent.data.metrics["final_teacher_test_accuracy/policy"] == pytest.approx(
        result.roles[0].accuracy("policy")[0]
    )
    assert {item.path for item in client.list_artifacts(parent.info.run_id)} == {
        "sweep.yaml",
        "result.json",
        "summary.md",
        "index.html",
        "policies.json",
        *(f"policy.{role}.json" for role in ("teacher", "student")),
        *(f"{picture}.{role}.png" for picture in ("schedule", "lineage") for role in ("teacher", "student")),
    }
    assert result.roles[0].policy_file.endswith("policy.teacher.json")
    policy = export_policy(parent.info.run_id, "teacher", result.tracking_uri)
    assert policy == export_policy(result.folder, "teacher") if Path(result.folder).is_dir() else policy.epochs == 4


def test_the_sweeps_run_describes_itself(finished):
    _, result, _ = finished
    client = MlflowClient(result.tracking_uri)
    experiment = client.get_experiment_by_name("small")
    (parent,) = client.search_runs([experiment.experiment_id], "tags.stage = 'sweep'")
    note = parent.data.tags["mlflow.note.content"]
    assert note.startswith("Search pbt, seed 0, on digits.\n") and result.markdown() in note
    assert (
        "60 training images, 60 for validation" in note and "| **teacher** | cnn; search: 3 members × 4 epochs" in note
    )
    assert "`policy.student.json`" in note and "model `small-student` in the registry" in note
    assert parent.data.metrics["final_test_accuracy"] == result.roles[1].accuracy("policy")[0]


def test_what_the_arms_saw_can_be_put_side_by_side(finished, monkeypatch):
    _, result, _ = finished
    monkeypatch.setenv("MLFLOW_TRACKING_URI", result.tracking_uri)  # MLflow's own reader asks its global store
    client = MlflowClient(result.tracking_uri)
    experiment = client.get_experiment_by_name("small").experiment_id
    each = client.load_table(experiment, "policy.json", extra_columns=["run_id"])
    assert each["run_id"].nunique() == 6  # the first training of each arm of each role
    together = client.load_table(experiment, "policies.json")
    assert len(together) == len(each) and together["policy: operation"].is_unique


def test_each_roles_network_is_a_version_of_a_registered_model(finished, monkeypatch):
    """Loaded as anybody would, it answers on the test images as the sweep said that it does."""
    config, result, folder = finished
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", result.tracking_uri)
    client = MlflowClient(result.tracking_uri)
    images, labels = next(iter(SweepPlan.resolve(config).data.test.batches(10_000)))
    for role in result.roles:
        (version,) = client.search_model_versions(f"name = 'small-{role.role}'")
        assert client.get_run(version.run_id).data.tags["mlflow.runName"] == f"{role.role}-full-policy-0"
        address = f"models:/small-{role.role}/{version.version}"
        right = mlflow.pytorch.load_model(address)(images.float() / 255).argmax(1) == labels
        assert right.float().mean().item() == pytest.approx(role.test["policy"][0], abs=1e-6)
        assert version.tags["accuracy"] == f"{role.test['policy'][0]:.4f}"
        policy = Path(mlflow.artifacts.download_artifacts(address), f"policy.{role.role}.json").read_bytes()
        assert policy == Path(role.policy_file).read_bytes()
        assert version.tags["policy_sha256"] == hashlib.sha256(policy).hexdigest()


def test_each_trial_can_be_followed_over_its_epochs(finished):
    _, result, _ = finished
    client = MlflowClient(result.tracking_uri)
    experiment = client.get_experiment_by_name("small").experiment_id
    runs = {run.data.tags["mlflow.runName"]: run for run in client.search_runs([experiment], max_results=1000)}
    student = runs["student-pbt-00"]
    assert student.data.tags["role"] == "student" and student.data.tags["stage"] == "pbt search"
    for key in ("loss", "task_loss", "kd_loss", "learning_rate", "images_per_s", "policy/Rotate/strength"):
        assert [point.step for point in client.get_metric_history(student.info.run_id, key)] == [1, 2, 3, 4], key
    scored = client.get_metric_history(student.info.run_id, "validation_accuracy")
    assert [point.step for point in scored] == [2, 4]
    assert student.data.metrics["best_validation_accuracy"] == max(point.value for point in scored)
    copies = [run for run in runs.values() if "exploited_from" in run.data.tags]
    assert len(copies) == 2
    assert all(run.data.tags["exploited_at_epoch"] == "2" and run.data.tags["generation"] == "1" for run in copies)
    assert runs["teacher-full-none-1"].data.metrics["final_test_accuracy"] == result.roles[0].test["none"][1]
    assert "kd_loss" not in runs["teacher-full-policy-0"].data.metrics


def test_a_policy_is_replayed_as_the_sweep_trained_it(finished):
    """The same seeds, the same schedule: not only within noise, but the same figures."""
    config, result, folder = finished
    schedules = [Schedule.load(folder / role.policy_file) for role in result.roles]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        again = replay(config, schedules)
    assert [role.test["policy"] for role in again.roles] == [role.test["policy"] for role in result.roles]
    assert Path(again.folder).name == "small-train-001"


KILLED = """
name: killed
data: {name: digits, train: 60, validation: 60}
teacher: {model: mlp, recipe: {batch_size: 20}, search: {population: 3, epochs: 600, interval: 2}}
student: {model: mlp, recipe: {batch_size: 20}}
"""


def start(folder):
    (folder / "sweep.yaml").write_text(KILLED)
    environment = {key: value for key, value in os.environ.items() if key not in ("MLFLOW_TRACKING_URI", "RAY_ADDRESS")}
    command = [sys.executable, "-m", "search.cli", "search", "sweep.yaml"]
    return child(command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def wait_for_generations(driver, folder, count):
    place = folder / "runs" / "killed-001"

    def epoch():
        made = (place / JOURNAL_FILE).is_file() and History.read(place)
        return max((each.epoch for each in made.perturbations("teacher-pbt")), default=0) if made else 0

    while driver.poll() is None and epoch() < 2 * count:
        time.sleep(0.1)
    assert driver.poll() is None, driver.stderr.read().decode()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_what_was_found_outlives_the_driver(tmp_path, how):
    with start(tmp_path) as driver:
        wait_for_generations(driver, tmp_path, 4)
        driver.send_signal(how)
        _, err = driver.communicate(timeout=120)
    folder = tmp_path / "runs" / "killed-001"
    for path in folder.glob("*.json"):
        json.loads(path.read_text())
    assert not (folder / "policy.teacher.json").exists() and not (folder / "result.json").exists()
    policy = export_policy(str(folder), "teacher")
    assert policy.provenance["unfinished"] and policy.epochs >= 8
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("killed").experiment_id
    runs = client.search_runs([experiment])
    population = [run for run in runs if run.data.tags["stage"] == "pbt search"]
    assert len(population) == 3
    assert all(client.get_metric_history(run.info.run_id, "loss") for run in population)
    if how == signal.SIGINT:
        assert driver.returncode == 130 and b"Traceback" not in err, err
        assert b"roletune: stopped" in err
        assert {run.info.status for run in runs} == {"KILLED"}
