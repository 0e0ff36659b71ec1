"""The files of examples/cluster start one sweep, on storage that all nodes share, and go on with it after a death."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import tomllib
from pathlib import Path, PurePosixPath

import jsonschema
import pytest
import ray
import typer
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from search.cli import app
from search.config.schema import SweepConfig

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "examples" / "cluster"
CLUSTER = yaml.safe_load((FOLDER / "cluster.yaml").read_text("utf-8"))
VOLUME, JOB = yaml.safe_load_all((FOLDER / "rayjob.yaml").read_text("utf-8"))
SPEC = JOB["spec"]["rayClusterSpec"]
HEAD, WORKERS = SPEC["headGroupSpec"], SPEC["workerGroupSpecs"]
SCHEMA = Path(ray.__file__).parent / "autoscaler" / "ray-schema.json"


@pytest.fixture
def stubs(tmp_path, monkeypatch):
    """Stand-ins for other programs; each notes the command that it was, and prints what it is told to."""
    folder, notes = tmp_path / "bin", tmp_path / "notes"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("NOTES", str(notes))

    def add(name, then=""):
        path = folder / name
        path.write_text(f'#!/usr/bin/env bash\n(printf "%q " {name} "$@"; echo) >> "$NOTES"\n{then}\n')
        path.chmod(0o755)

    add("roletune")
    return add, lambda: [shlex.split(line) for line in notes.read_text("utf-8").splitlines()] if notes.exists() else []


def parsed(command):
    """What our command line understands by `roletune search …`; it refuses what it does not know."""
    assert command[:2] == ["roletune", "search"]
    search = typer.main.get_command(app).commands["search"]
    return search.make_context("search", list(command[2:])).params


def run(script, *words, **environment):
    return subprocess.run(
        ["bash", str(script), *map(str, words)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


# The script that all have in common -----------------------------------------------------------------------------------


@pytest.mark.parametrize("script", ["search.sh", "slurm.sh"])
def test_a_script_is_one(script):
    assert subprocess.run(["bash", "-n", str(FOLDER / script)], capture_output=True, text=True).stderr == ""


def test_the_sweep_can_be_read_and_outlives_a_node():
    config = SweepConfig.load(FOLDER / "sweep.yaml")
    assert config.resources.retries > 0, "a trial whose node dies starts again on another"
    assert config.data.name == "digits", "nothing is to be fetched first"


def test_the_first_start_begins_and_every_other_goes_on(stubs, tmp_path):
    _, commands = stubs
    storage = tmp_path / "my runs"
    assert run(FOLDER / "search.sh", storage, "--address", "auto").returncode == 0
    (storage / "digits-001").mkdir(parents=True)
    assert run(FOLDER / "search.sh", storage).returncode == 0
    (storage / "digits-001" / "sweep.yaml").touch()
    assert run(FOLDER / "search.sh", storage, "--address", "auto").returncode == 0
    first, early, again = map(parsed, commands())
    assert [each["resume"] for each in (first, early, again)] == [False, False, True], "there must be a sweep to resume"
    assert [each["address"] for each in (first, early, again)] == ["auto", None, "auto"]
    assert {each["storage"] for each in (first, early, again)} == {str(storage)}
    assert {each["sweep"].resolve() for each in (first, early, again)} == {FOLDER / "sweep.yaml"}


def test_the_status_of_the_sweep_is_that_of_the_script(stubs, tmp_path):
    add, _ = stubs
    add("roletune", "exit 130")
    assert run(FOLDER / "search.sh", tmp_path).returncode == 130


def test_all_three_start_that_script():
    dockerfile = (FOLDER / "Dockerfile").read_text("utf-8")
    (root,) = re.findall(r"^COPY .* (\S+)$", dockerfile, re.MULTILINE)
    ours = "examples/cluster/search.sh"
    assert shlex.split(JOB["spec"]["entrypoint"])[:2] == ["bash", f"{root}/{ours}"]
    assert f'bash "$SLURM_SUBMIT_DIR/{ours}"' in (FOLDER / "slurm.sh").read_text("utf-8")
    assert f"bash /shared/roletune/{ours}" in launched()


# Kubernetes -----------------------------------------------------------------------------------------------------------


def pods():
    return [HEAD["template"]["spec"], *(group["template"]["spec"] for group in WORKERS)]


def test_the_job_is_one_of_kuberays():
    assert (JOB["apiVersion"], JOB["kind"]) == ("ray.io/v1", "RayJob") and JOB["metadata"]["name"]
    assert JOB["spec"]["backoffLimit"] > 0, "a job that fails is tried again"
    assert JOB["spec"]["shutdownAfterJobFinishes"] is True
    for group in WORKERS:
        assert 1 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"] and group["groupName"]
    for group in (HEAD, *WORKERS):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values()), "numbers are strings there"
    for pod in pods():
        (container,) = pod["containers"]
        assert container["resources"]["limits"].keys() == {"cpu", "memory"}
    assert SPEC["authOptions"] == {"mode": "token"}, "else whoever reaches the pods runs code on them"


def test_head_and_workers_mount_the_storage_alike():
    _, script, storage = shlex.split(JOB["spec"]["entrypoint"])
    mounts = []
    for pod in pods():
        (container,) = pod["containers"]
        (mount,) = container["volumeMounts"]
        (volume,) = (volume for volume in pod["volumes"] if volume["name"] == mount["name"])
        mounts.append((mount["mountPath"], volume["persistentVolumeClaim"]["claimName"]))
    assert len(set(mounts)) == 1
    ((place, claim),) = set(mounts)
    assert PurePosixPath(storage).is_relative_to(place) and not PurePosixPath(script).is_relative_to(place)
    assert (VOLUME["kind"], VOLUME["metadata"]["name"]) == ("PersistentVolumeClaim", claim)
    assert VOLUME["spec"]["accessModes"] == ["ReadWriteMany"]


def test_the_head_knows_where_mlflow_is():
    (container,) = HEAD["template"]["spec"]["containers"]
    environment = {entry["name"]: entry["value"] for entry in container["env"]}
    assert environment["MLFLOW_TRACKING_URI"].startswith("http://")


def test_every_node_has_one_release_of_ray_that_the_project_takes():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    (wanted,) = (each for each in map(Requirement, project["dependencies"]) if each.name == "ray")
    assert wanted.specifier.contains(SPEC["rayVersion"])
    (image,) = {container["image"] for pod in pods() for container in pod["containers"]}
    assert image.endswith(f":{project['version']}-ray{SPEC['rayVersion']}")
    dockerfile = (FOLDER / "Dockerfile").read_text("utf-8")
    ((base, python),) = re.findall(r"^FROM rayproject/ray:([\d.]+)-py3(\d+)$", dockerfile, re.MULTILINE)
    assert base == SPEC["rayVersion"] and SpecifierSet(project["requires-python"]).contains(f"3.{python}")
    assert image in dockerfile, "the command that builds it"


# Ray's cluster launcher -----------------------------------------------------------------------------------------------


def launched():
    """What `ray exec` in the file's own comment runs on the head."""
    (line,) = re.findall(
        r"^#   ray exec examples/cluster/cluster.yaml '(.*)'$", (FOLDER / "cluster.yaml").read_text(), re.M
    )
    return line


def test_the_launchers_file_holds_to_rays_schema():
    jsonschema.validate(CLUSTER, json.loads(SCHEMA.read_text("utf-8")))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(CLUSTER | {"min_workers": 2}, json.loads(SCHEMA.read_text("utf-8")))


def test_the_launchers_nodes_start_ray_with_a_token_and_find_each_other():
    head, worker = (CLUSTER[f"{kind}_start_ray_commands"][-1] for kind in ("head", "worker"))
    assert all(command.startswith("RAY_AUTH_MODE=token ") for command in (head, worker))
    assert "--head --port=6379" in head and "--autoscaling-config=~/ray_bootstrap_config.yaml" in head
    assert worker.endswith("--address=$RAY_HEAD_IP:6379")


def test_what_the_launcher_runs_is_the_sweep(stubs, tmp_path):
    """The line itself, with /shared elsewhere."""
    _, commands = stubs
    shared = tmp_path / "shared"
    (shared / "roletune").mkdir(parents=True)
    (shared / "roletune" / "examples").symlink_to(ROOT / "examples")
    line = launched().replace("/shared/", f"{shared}/")
    assert subprocess.run(["bash", "-c", line], timeout=60).returncode == 0
    (command,) = commands()
    params = parsed(command)
    assert (params["address"], params["resume"]) == ("auto", False)
    assert params["sweep"].resolve() == FOLDER / "sweep.yaml"
    assert Path(params["storage"]).is_relative_to(shared)
    assert re.search(r" MLFLOW_TRACKING_URI=http://\S+ ", launched()) and " RAY_AUTH_MODE=token " in launched()


# Slurm ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def slurm(stubs, tmp_path):
    """A job of Slurm's on three nodes, of which the first runs what `srun` and `ray` are given."""
    add, commands = stubs
    add("scontrol", '[ "$1" != show ] || printf "%s\\n" node7 node8 node9')
    add("srun", 'shift; exec "$@"')
    add("ray", 'while [ $# -gt 0 ] && [ "$1" != -- ]; do shift; done; [ $# -eq 0 ] || { shift; exec "$@"; }')
    add("roletune", f'mkdir -p "{tmp_path}/runs/slurm-4711/digits-001" && touch "$_/sweep.yaml" "$_/result.json"')
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    environment = {
        "SLURM_SUBMIT_DIR": str(tmp_path),
        "SLURM_JOB_ID": "4711",
        "SLURM_JOB_NODELIST": "node[7-9]",
        "SLURM_JOB_NUM_NODES": "3",
        "SLURM_CPUS_PER_TASK": "16",
        "OMP_NUM_THREADS": "16",
        "MLFLOW_TRACKING_URI": "http://mlflow:5000",
    }
    return lambda **more: run(FOLDER / "slurm.sh", **(environment | more)), add, commands


def test_slurm_starts_ray_on_every_node_and_the_sweep_on_the_first(slurm, tmp_path):
    job, _, commands = slurm
    done = job()
    assert done.returncode == 0, done.stderr
    by_name = {command[0]: command for command in commands() if command[:2] != ["ray", "get-auth-token"]}
    assert by_name["srun"][1:3] == ["--cpus-per-task=16", "ray"], "srun itself takes none over from sbatch"
    ray_command = by_name["ray"]
    started = ray_command[1 : ray_command.index("--")]
    assert started[:5] == ["symmetric-run", "--address", "node7:6379", "--min-nodes", "3"]
    assert started[5:] == ["--num-cpus=16", "--num-gpus=0"]
    params = parsed(by_name["roletune"])
    assert params["address"] == "node7:6379", "else the driver would start a Ray of its own"
    assert params["storage"] == f"{tmp_path}/runs/slurm-4711" and not params["resume"]
    assert params["sweep"].resolve() == FOLDER / "sweep.yaml"


def test_slurm_takes_all_gpus_of_a_node(slurm):
    job, _, commands = slurm
    job(SLURM_GPUS_ON_NODE="4")
    assert any("--num-gpus=4" in command for command in commands())


def test_a_job_that_was_queued_again_goes_on(slurm, tmp_path):
    job, add, commands = slurm
    add("roletune", f'mkdir -p "{tmp_path}/runs/slurm-4711/digits-001" && touch "$_/sweep.yaml"; exit 1')
    assert job().returncode == 1
    add("roletune", f'touch "{tmp_path}/runs/slurm-4711/digits-001/result.json"')
    assert job(SLURM_RESTART_COUNT="1").returncode == 0
    assert [parsed(each)["resume"] for each in commands() if each[0] == "roletune"] == [False, True]


def test_a_ray_that_does_not_start_is_no_success(slurm):
    job, add, _ = slurm
    add("ray")
    assert job().returncode != 0


def test_a_job_that_runs_out_of_time_queues_itself_again(slurm):
    job, add, commands = slurm
    add("roletune", "kill -USR1 $PPID")  # `exec` all the way: the parent is the batch script
    job()
    assert ["scontrol", "requeue", "4711"] in commands()


def test_threads_are_left_to_the_sweep_and_strangers_outside(slurm, tmp_path):
    job, add, _ = slurm
    add("roletune", f'echo "${{OMP_NUM_THREADS-unset}} $RAY_AUTH_MODE $MLFLOW_TRACKING_URI" > "{tmp_path}/seen"')
    job()
    assert (tmp_path / "seen").read_text().split() == ["unset", "token", "http://mlflow:5000"]


def test_without_a_tracking_server_the_job_says_so_at_once(slurm):
    job, _, commands = slurm
    done = job(MLFLOW_TRACKING_URI="")
    assert done.returncode != 0 and "set it to the server that logs the sweep" in done.stderr
    assert not commands()


def test_slurm_is_asked_to_queue_the_job_again():
    teacher_inputs = dict(
        re.findall(r"^#SBATCH --([a-z-]+)=?(.*)$", (FOLDER / "slurm.sh").read_text("utf-8"), re.MULTILINE)
    )
    assert "requeue" in teacher_inputs and teacher_inputs["signal"].startswith("B:USR1@"), (
        "to the script, before the time is up"
    )
    assert teacher_inputs["ntasks-per-node"] == "1" and "exclusive" in teacher_inputs, (
        "`ray stop` at the end stops every Ray on a node"
    )
