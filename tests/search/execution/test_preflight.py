"""A sweep that cannot run on some node says so before it starts: one line with the node, the rule and the mend."""

from __future__ import annotations

import ipaddress
import json
import os
import signal
import subprocess
import sys
import threading
import time
from importlib.metadata import version
from pathlib import Path

import pytest
import ray
import torch
from ray import tune
from ray._private import ray_constants
from ray.cluster_utils import Cluster

from search.config.schema import SweepConfig
from search.config.sections import ResourceConfig
from search.execution import preflight
from search.execution.cluster import connected
from search.execution.journal import Journal
from search.execution.members import Member
from search.execution.preflight import Answer, Requirements, ask_nodes, checks, custom_imports
from search.execution.trials import JournalCallback, run_trials, worker
from search.sweeps.doctor import examine
from spaces import Genome, RequestError
from trainables import Recipe, Task
from trainables.data import load
from trainables.models import build_model
from trainables.ray_trainable import RoleTrial, Worker
from trainables.task import TrainedTeacher

HERE = Path(__file__).parents[1]
OWN_LOSS = "trainables.losses.logit.dist:DIST"  # any that is named with a dot
VERSIONS = {"python": "3.11", "torch": "2.15.0+cpu", "roletune": "code 12345678"}
FINE = Answer("10.0.0.1 (aaaa)", free={preflight.STORAGE: 9 * 2**30, preflight.SESSION: 5 * 2**30}, versions=VERSIONS)


def config(**more):
    return SweepConfig.from_mapping({"data": {"name": "digits"}, **more})


def needs(**more):
    return Requirements.resolve(config(**more))


def other(**changed):
    return Answer(**{**vars(FINE), "node": "10.0.0.2 (bbbb)", **changed})


# What the nodes' answers mean -----------------------------------------------------------------------------------------


@pytest.fixture
def answers(monkeypatch, tmp_path):
    """Runs one check on what nodes are made to say."""

    def look(name, *given, **sweep):
        monkeypatch.setattr(preflight, "ask_nodes", lambda place, own: list(given))
        return checks(needs(**sweep), tmp_path / "runs")[name]()

    return look


def test_nodes_that_are_alike_are_fine(answers, tmp_path):
    both = (FINE, other())
    assert answers("nodes", *both) == "2 of 2 answered"
    assert answers("storage", *both) == f"{tmp_path}, read and written by 2 nodes"
    assert answers("disk", *both) == "at least 9 GiB free in the storage, at least 5 GiB free in Ray's own folder"
    assert answers("versions", *both) == "python 3.11, torch 2.15.0+cpu, roletune code 12345678, on all nodes"


REFUSED = {
    "nodes": (other(silent="it died meanwhile"), "10.0.0.2 (bbbb) does not: it died meanwhile; wait until it is back"),
    "storage": (
        other(storage="No such file or directory"),
        "and 10.0.0.2 (bbbb) does not: No such file or directory; mount it there, or choose another --storage",
    ),
    "disk": (
        other(free={preflight.STORAGE: 2**29}),
        "the storage must have 1 GiB free on 10.0.0.2 (bbbb), but it has 0.50; free some there, or choose another --st",
    ),
    "versions": (
        other(versions=VERSIONS | {"torch": "2.14.1"}),
        "the same torch; 10.0.0.1 (aaaa) has 2.15.0+cpu, 10.0.0.2 (bbbb) has 2.14.1; install the same on both",
    ),
    "own code": (
        other(missing=("nets",)),
        "10.0.0.2 (bbbb) has no module 'nets'; install it there, or run in a folder that all nodes share",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_node_that_is_not_is_named_with_the_mend(answers, name):
    wrong, line = REFUSED[name]
    with pytest.raises(RequestError) as refused:
        answers(name, FINE, wrong)
    assert line in str(refused.value) and "\n" not in str(refused.value)


def test_a_full_disk_of_rays_own_is_mended_otherwise(answers):
    with pytest.raises(RequestError, match=r"start Ray with --temp-dir on a larger disk"):
        answers("disk", FINE, other(free={preflight.SESSION: 0}))


def test_how_a_wheel_was_built_makes_no_difference(answers):
    assert answers("versions", FINE, other(versions=VERSIONS | {"torch": "2.15.0+cu130"})).endswith("on all nodes")


def test_the_first_thing_that_is_wrong_stops_the_sweep(monkeypatch, tmp_path):
    looked = []

    def look(name):
        def note():
            looked.append(name)
            if name == "b":
                raise RequestError("b")

        return note

    monkeypatch.setattr(preflight, "checks", lambda *_: {name: look(name) for name in "abc"})
    with pytest.raises(RequestError, match="b"):
        preflight.preflight(needs(), tmp_path)
    assert looked == ["a", "b"]


# The sweep's own code -------------------------------------------------------------------------------------------------


def test_what_a_sweep_imports_is_known_by_name(monkeypatch):
    monkeypatch.syspath_prepend(str(HERE))
    assert custom_imports(config()) == ()
    sweep = {
        "data": {"name": "my.data:birds"},
        "teacher": {"model": "my.nets:big", "data": {"name": "my.data:beasts"}},
        "student": {"model": "torchvision:resnet18", "distill": {"loss": {"kd": 1, "OWN_LOSS": 2}}},
        "space": {"augment": ["flip", {"kind": "pick", "base": {"kind": "my.views:blur", "sigma": 1.0}}]},
    }
    own = SweepConfig.from_mapping(json.loads(json.dumps(sweep).replace("OWN_LOSS", OWN_LOSS)))
    named = {"my.data:birds", "my.data:beasts", "my.nets:big", "my.views:blur", OWN_LOSS}
    assert set(custom_imports(own)) == named and len(custom_imports(own)) == len(named)


# One node -------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_this_machine_is_fine_and_nothing_is_left_behind(marks, tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    preflight.preflight(needs(), tmp_path / "runs" / "deeper")
    found = {name: look() for name, look in checks(needs(), tmp_path / "runs").items()}
    assert list(tmp_path.iterdir()) == []
    assert found["storage"] == f"{tmp_path}, read and written by 1 node"
    assert f"torch {version('torch')}" in found["versions"] and "roletune code " in found["versions"]
    assert "none" not in found["versions"] and found["own code"] == "none"


@pytest.mark.slow
def test_a_module_that_no_node_has_is_missed(marks, tmp_path):
    sweep = needs(teacher={"model": "nowhere.nets:big"}, student={"model": "faulty:plain"})
    with pytest.raises(RequestError, match="has no module 'nowhere'"):
        preflight.preflight(sweep, tmp_path)


@pytest.mark.slow
def test_a_storage_that_cannot_be_written_to_is_refused(marks, tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / ".roletune-x").touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preflight.secrets, "token_hex", lambda _: "x")  # root may write anywhere, but not over a file
        with pytest.raises(RequestError, match=r"cannot write to .*runs: File exists; choose another --storage"):
            ask_nodes(tmp_path / "runs")


@pytest.mark.slow
def test_a_storage_that_ray_would_delete_is_refused(marks):
    (node,) = ray.nodes()
    inside = Path(node["ObjectStoreSocketName"]).parents[1] / "logs"
    with pytest.raises(RequestError, match=r"must outlive the job.* give an absolute --storage"):
        ask_nodes(inside)


@pytest.mark.slow
def test_the_doctor_shows_each_check(marks, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = {check.name: check for check in examine(config())}
    assert all(check.ok for check in found.values())
    assert [*found] == ["packages", "data", "plan", *checks(needs(), tmp_path)]
    monkeypatch.setattr(preflight, "MIN_FREE", 2**60)
    wrong = [check for check in examine(config()) if not check.ok]
    assert [check.name for check in wrong] == ["disk"] and "free some there" in wrong[0].finding


@pytest.mark.slow
def test_the_doctor_tells_what_stops_several_checks_once(marks):
    (node,) = ray.nodes()
    found = examine(config(storage=str(Path(node["ObjectStoreSocketName"]).parents[1] / "runs")))
    wrong = [check for check in found if not check.ok]
    assert [check.name for check in wrong] == ["storage"] and "must outlive the job" in wrong[0].finding


def test_the_doctor_says_when_there_is_no_cluster(monkeypatch):
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    found = {check.name: check for check in examine(config(), "127.0.0.1:1")}
    assert not found["cluster"].ok and "none answers at 127.0.0.1:1" in found["cluster"].finding
    assert found["data"].ok and "nodes" not in found


# Addresses ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.0.0.1:99999", "http://head:8265", "ray://head:10001"])
def test_an_address_that_leads_nowhere_is_refused_at_once(address, monkeypatch):
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr("ray.init", lambda **_: pytest.fail("it would try for two minutes"))
    with pytest.raises(RequestError, match=address.partition("//")[2] or address):
        connected(address).__enter__()


# Threads --------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_trial_has_as_many_threads_as_cpus(marks, tmp_path):
    """Tune's actors too, and even where the cluster was started with another OMP_NUM_THREADS."""

    class Threads(RoleTrial):
        def setup(self, config, task, worker):
            worker.enter()

        def step(self):
            child = [sys.executable, "-c", "import os; print(os.environ['OMP_NUM_THREADS'])"]
            told = int(subprocess.run(child, capture_output=True, text=True, check=True).stdout)
            return {"torch": torch.get_num_threads(), "told": told, "done": True}

        def save_checkpoint(self, checkpoint_dir):
            pass

    resources = ResourceConfig(cpus_per_trial=2)
    trainable = tune.with_parameters(Threads, task=None, worker=worker(resources))
    run = tune.RunConfig(name="threads", storage_path=str(tmp_path), verbose=0)
    grid = tune.Tuner(tune.with_resources(trainable, {"cpu": 2}), run_config=run).fit()
    assert (grid[0].metrics["torch"], grid[0].metrics["told"]) == (2, 2)


def test_a_worker_sets_the_threads_whatever_was_set_before(monkeypatch):
    before = torch.get_num_threads()
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    try:
        Worker(cpus=2, gpus=0).enter()
        assert (os.environ["OMP_NUM_THREADS"], torch.get_num_threads()) == ("2", 2)
    finally:
        torch.set_num_threads(before)


# What travels ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_data_and_teacher_are_put_once_for_all_trials(marks, tmp_path, monkeypatch):
    put = ray.put
    kept = []
    monkeypatch.setattr("ray.put", lambda value, **more: kept.append(value) or put(value, **more))
    data = load("digits", train=60, validation=60)
    teacher = TrainedTeacher("mlp", build_model("mlp", classes=10, channels=1, size=8, seed=0).state_dict())
    task = Task("student", "mlp", data, Recipe(lr=0.05, batch_size=20), 1, validation=data.validation, teacher=teacher)
    members = [Member(f"student-{index}", index, index, Genome(), "search") for index in range(3)]
    with Journal(tmp_path) as journal:
        outcomes = run_trials(members, task, ResourceConfig(), JournalCallback(journal), name="student", save_every=1)
    assert [outcome.epochs for outcome in outcomes] == [1, 1, 1]
    assert len([value for value in kept if isinstance(value, Task)]) == 1


# What needs a Ray of its own: each runs in a process of its own -------------------------------------------------------


def scene(name, *words):
    """What the function of that name below prints, as JSON."""
    environment = {key: value for key, value in os.environ.items() if key not in ("RAY_ADDRESS", "OMP_NUM_THREADS")}
    command = [sys.executable, __file__, name, *map(str, words)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/net/tcp").is_file(), reason="sockets are read from Linux's /proc")
def test_a_ray_of_our_own_listens_on_loopback_alone():
    found = scene("listening")
    assert len(found["processes"]) >= 3 and {"gcs_server", "raylet"} <= set(found["processes"])
    assert found["addresses"] and set(found["addresses"]) == {"127.0.0.1"}
    assert found["preloaded"], "a worker has imported what it needs before it is asked for anything"
    assert not {"dashboard.py", "monitor.py", "log_monitor.py"} & set(found["programs"])
    assert found["switch"] is True, "a cluster that is connected to later is none of our business"
    assert found["threads"] == "2", "Ray sets OMP_NUM_THREADS from the CPUs of a task, where nobody else has"


@pytest.mark.slow
def test_two_nodes_are_asked_and_one_that_is_silent_or_dies_is_named(tmp_path):
    found = scene("cluster", tmp_path)
    first, second = found["names"]
    assert found["both"] == [[first, ""], [second, ""]] and found["left"] == []
    assert found["silent"] == [[first, ""], [second, "no answer within 3 seconds"]]
    assert found["dying"] == [[first, ""], [second, "it died meanwhile"]]
    assert found["unshared"] == ["", "No such file or directory"]
    assert found["after"] == [[first, ""]], "a node that is dead is not asked"


def listening():
    """Addresses that the processes of a Ray that `connected` starts listen on, as /proc tells them."""
    import psutil  # Ray's own, which is found when Ray is there

    with connected(None):
        threads = ray.get(ray.remote(lambda: os.environ.get("OMP_NUM_THREADS")).options(num_cpus=2).remote())
        children = psutil.Process().children(recursive=True)
        sockets = {socket for process in (psutil.Process(), *children) for socket in sockets_of(process.pid)}
        return {
            "processes": sorted({process.name() for process in children}),
            "programs": sorted({Path(part).name for process in children for part in process.cmdline()[:4]}),
            "preloaded": ray.get(ray.remote(lambda: "trainables.ray_trainable" in sys.modules).remote()),
            "addresses": sorted(set(listeners(sockets))),
            "switch": ray_constants.ENABLE_RAY_CLUSTER,
            "threads": threads,
        }


def sockets_of(pid):
    """The inodes of a process's sockets."""
    for file in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = str(file.readlink())
        except FileNotFoundError:
            continue  # closed meanwhile
        if target.startswith("socket:["):
            yield target[8:-1]


def listeners(sockets):
    """Where those of `sockets` that listen for TCP can be reached."""
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *rest = line.split()
            if state == "0A" and rest[5] in sockets:
                words = bytes.fromhex(local.partition(":")[0])
                packed = b"".join(words[at : at + 4][::-1] for at in range(0, len(words), 4))
                address = ipaddress.ip_address(packed)
                yield str(getattr(address, "ipv4_mapped", None) or address)


def cluster(place):
    """What two nodes say: both fine; one stopped; with storage of its own; one killed while it looks; one dead."""
    # A node that is killed is noticed within seconds, one that is stopped not within the timeout below.
    checks = {"period_ms": 300, "timeout_ms": 5000, "failure_threshold": 10, "initial_delay_ms": 0}
    system = {f"health_check_{name}": value for name, value in checks.items()}
    nodes = Cluster(initialize_head=True, connect=True, head_node_args={"num_cpus": 1, "_system_config": system})
    try:
        second = nodes.add_node(num_cpus=1)
        raylet = second.all_processes["raylet"][0].process.pid
        place, plain = Path(place), preflight._node_check

        def said(**more):
            return [[answer.node, answer.silent] for answer in ask_nodes(place, **more)]

        found = {"both": said(), "left": [path.name for path in place.iterdir()]}
        found["names"] = [name for name, _ in found["both"]]
        os.kill(raylet, signal.SIGSTOP)
        found["silent"] = said(timeout=3)
        os.kill(raylet, signal.SIGCONT)

        def elsewhere(node, meeting, *rest):
            there = meeting.with_name(f"{meeting.name}-elsewhere")
            return plain(node, there if node["NodeID"] == second.node_id else meeting, *rest)

        preflight._node_check = elsewhere
        found["unshared"] = [answer.storage for answer in ask_nodes(place)]

        def hanging(node, meeting, *rest):
            def hang():
                Path(meeting, "hanging").touch()
                time.sleep(600)

            return hang if node["NodeID"] == second.node_id else plain(node, meeting, *rest)

        def kill():
            while not list(place.glob("*/hanging")):
                time.sleep(0.05)
            os.kill(raylet, signal.SIGKILL)

        preflight._node_check = hanging
        killer = threading.Thread(target=kill)
        killer.start()
        found["dying"] = said(timeout=120)
        killer.join()
        preflight._node_check = plain
        return found | {"after": said()}
    finally:
        ray.shutdown()
        nodes.shutdown()


if __name__ == "__main__":
    sys.stdout.write(json.dumps({"listening": listening, "cluster": cluster}[sys.argv[1]](*sys.argv[2:])) + "\n")
