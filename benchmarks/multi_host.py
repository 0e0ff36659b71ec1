"""A sweep over several hosts, one of which is cut off in its midst while another one joins: is anything lost?

The hosts are network namespaces of this machine, each with an address of its own on one bridge: nothing but that
bridge and a shared folder connects them. Ray is started on each as on any machine, with `ray start`; the head also has
MLflow's server and runs `roletune search`. Once the student's search has passed a third of its epochs, as the sweep's
own files tell, a worker's cable is pulled: nobody is told, its connections just go silent. Then a new host joins.

Namespaces need Linux, root and iproute2 (`apt-get install iproute2`). Where they are not to be had, or with
`--cluster-utils`, the hosts are processes of one address, by Ray's own `ray.cluster_utils`, and one is killed.

The same sweep is run undisturbed on this machine alone, on a Ray of its own. `same_policy`: both roles' policy files
have the same bytes. `members` are runs in MLflow, of searches and full trainings, `finished` those that came to their
end; `lost_reports` counts the epochs of a run that MLflow lacks, `repeated` those that it has more than once. `seconds`
is what the disturbed sweep took, its start included. Ray gives a silent host up after some five seconds here, by
settings of its health checks, and after half a minute or more by default.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from argparse import Namespace
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, Protocol

from benchmarks.record import Row, arguments, start

NAME = "hosts"

HEAD = ("ray", "start", "--head", "--port=6379")
WORKER = ("ray", "start", "--address={head}")
DRIVER = ("roletune", "search", "sweep.yaml", "--address={head}", "--storage={shared}/runs")
MLFLOW = ("mlflow", "server", "--backend-store-uri={store}", "--artifacts-destination={shared}/mlflow")
"""The commands, as the README has them."""

LEAN = ("--num-cpus=1", "--object-store-memory=200000000", "--disable-usage-stats")
"""So that three hosts fit on one machine."""

HEALTH = {"initial_delay_ms": "0", "period_ms": "1000", "timeout_ms": "2000", "failure_threshold": "3"}
"""Of Ray's health checks, in the head's environment as RAY_health_check_…."""

ALONE = {"distill": {"alpha": 0.0}}
"""What a student without a teacher learns from: labels."""

PATIENCE = 540.0
"""Seconds until something that should have happened counts as failed."""


@dataclass(frozen=True)
class Setting:
    """How much there is to do.

    Args:
        epochs: of every training.
        interval: epochs between perturbations.
        train: images.
        teacher: whether there is one, which is searched and trained before the student.
    """

    epochs: int
    interval: int
    train: int
    teacher: bool

    def sweep(self, seed: int) -> str:
        """The sweep file, as JSON, which is YAML too."""
        stage = {"epochs": self.epochs, "population": 4, "interval": self.interval}
        role = {"model": "mlp", "recipe": {"lr": 0.05, "batch_size": 20}, "stage": stage}
        roles = {"teacher": role, "student": role} if self.teacher else {"teacher": None, "student": ALONE | role}
        data = {"name": "digits", "train": self.train, "validation": 500}
        search = {"kind": "pbt", "seed": seed}
        return json.dumps({"name": NAME, "data": data, **roles, "search": search, "baselines": []})


FULL = Setting(epochs=48, interval=4, train=700, teacher=True)
QUICK = Setting(epochs=4, interval=2, train=50, teacher=False)


def main() -> None:
    """Run the sweep alone, then over hosts that come and go, and compare."""
    parser = arguments(__doc__)
    parser.add_argument("--cluster-utils", action="store_true", help="processes of one address instead of namespaces")
    benchmark = start(__file__, parser)
    setting = QUICK if benchmark.quick else FULL
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that everything is cleaned up
    with TemporaryDirectory(prefix="rt") as name:
        folder = Path(name)
        (folder / "sweep.yaml").write_text(setting.sweep(benchmark.seed), "utf-8")
        alone = _undisturbed(folder)
        disturbed, events = _disturbed(folder, setting, benchmark.options)
    rows = [row("this machine alone", alone, alone), row(f"{events['hosts']} hosts", disturbed, alone)]
    summary = {
        **{key: value for key, value in events.items() if key != "kind"},
        **{key: rows[-1][key] for key in ("members", "finished")},
        "lost_reports": rows[-1]["lost"],
        "same_policy": alone.policies == disturbed.policies,
        "seconds": disturbed.seconds,
    }
    rows[-1] |= {"hosts_are": events["kind"]}
    benchmark.finish(rows, summary, peers=("ray", "mlflow"))


# What came out --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """What a sweep left.

    Args:
        policies: the policy file's bytes by role.
        statuses: of MLflow's runs, by the run's name.
        reports: how often MLflow has each epoch, by (name of the run, epoch).
        seconds: from the command to its end.
    """

    policies: Mapping[str, bytes]
    statuses: Mapping[str, str]
    reports: Counter[tuple[str, int]]
    seconds: float


def row(what: str, found: Outcome, wanted: Outcome) -> Row:
    """The figures of a sweep, held against those of the undisturbed one."""
    return {
        "run": what,
        "members": len(found.statuses),
        "finished": sum(status == "FINISHED" for status in found.statuses.values()),
        "reports": found.reports.total(),
        "lost": len(wanted.reports.keys() - found.reports.keys()),
        "repeated": found.reports.total() - len(found.reports),
        "seconds": found.seconds,
    }


def outcome(folder: Path, store: str, seconds: float) -> Outcome:
    """Read it from the sweep's folder, and from MLflow's store."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(store)
    experiment = client.get_experiment_by_name(NAME)
    assert experiment is not None
    runs = [run for run in client.search_runs([experiment.experiment_id]) if "mlflow.parentRunId" in run.data.tags]
    histories = {run.info.run_name: client.get_metric_history(run.info.run_id, "loss") for run in runs}
    return Outcome(
        {path.name: path.read_bytes() for path in sorted(folder.glob("policy.*.json"))},
        {run.info.run_name: run.info.status for run in runs},
        Counter((name, metric.step) for name, history in histories.items() for metric in history),
        seconds,
    )


def _undisturbed(folder: Path) -> Outcome:
    began, shared = time.perf_counter(), folder / "alone"
    driver = [part for part in DRIVER if not part.startswith("--address")]
    with Log(folder / "alone.log") as log:
        log.run(_filled(driver, shared=shared), folder, _environment())
    (left,) = (shared / "runs").iterdir()
    return outcome(left, f"sqlite:///{left / 'mlflow.db'}", time.perf_counter() - began)


def _disturbed(folder: Path, setting: Setting, options: Namespace) -> tuple[Outcome, dict[str, Any]]:
    """The sweep on a head and two workers, of which one is cut off while a third one joins."""
    shared = folder / "shared"
    shared.mkdir()
    store = f"sqlite:///{shared / 'mlflow.db'}"
    kind: type[Hosts] = Namespaces if not options.cluster_utils and Namespaces.possible() else Processes
    with closing(kind(folder)) as hosts, Log(folder / "mlflow.log") as server, Log(folder / "driver.log") as driver:
        address = hosts.head()
        for name in ("first", "second"):
            hosts.join(name)
        mlflow = [*_filled(MLFLOW, store=store, shared=shared), "--workers=1", f"--port={hosts.port}"]
        server.begin(hosts.on_head(mlflow), folder, _environment())
        server.wait_for(lambda: "Application startup complete" in server.text(), "MLflow's server did not start")
        began = time.perf_counter()
        environment = _environment() | {"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{hosts.port}"}
        search = _filled(DRIVER, head=address, shared=shared)
        driver.begin(hosts.on_head([*search, "--set", "resources.retries=3"]), folder, environment)
        driver.wait_for(lambda: _reached(shared / "runs") >= setting.epochs // 3, "the search did not come that far")
        hosts.cut_off("first")
        hosts.join("third")
        driver.end()
        seconds = time.perf_counter() - began
        states = hosts.states()
        server.stop()
        (left,) = (shared / "runs").iterdir()
        events = {"kind": kind.KIND, "hosts": 3, "cut_off": states.count(False), "added": len(states) - 3}
        return outcome(left, store, seconds), events


def _reached(storage: Path) -> int:
    """The epoch of the student's last perturbation."""
    for path in storage.glob("*/student-pbt.population.json"):
        return max(int(member["epoch"]) for member in json.loads(path.read_text("utf-8"))["members"])
    return 0


# Hosts ----------------------------------------------------------------------------------------------------------------


class Hosts(Protocol):
    """Machines with Ray on them; `KIND` says what they are, `port` is one that is free on the head."""

    KIND: str
    port: int

    def __init__(self, folder: Path) -> None:
        """None yet; their own files will go to `folder`."""

    def head(self) -> str:
        """Start the head; returns the address that others find it by."""

    def join(self, name: str) -> None:
        """A worker joins."""

    def cut_off(self, name: str) -> None:
        """A worker is gone, without a word."""

    def on_head(self, command: Sequence[str]) -> list[str]:
        """What runs `command` on the head."""

    def states(self) -> list[bool]:
        """Of every host that ever was one of Ray's nodes: whether Ray takes it to be alive."""

    def close(self) -> None:
        """End everything that was started, and leave nothing behind."""


class Namespaces:
    """Hosts as network namespaces, each with an address of its own, on a bridge."""

    KIND = "network namespaces"
    port = 5000

    def __init__(self, folder: Path) -> None:
        """Nothing is made before there is a head."""
        self._folder, self._tag = folder, f"rt{os.getpid() % 100000}"
        self._names: list[str] = []

    @staticmethod
    def possible() -> bool:
        """Whether this process may make them."""
        if not sys.platform.startswith("linux") or os.geteuid() or shutil.which("ip") is None:
            return False
        name = f"rt{os.getpid() % 100000}try"
        if subprocess.run(["ip", "netns", "add", name], capture_output=True).returncode:
            return False
        _ip("netns", "del", name)
        return True

    @property
    def _bridge(self) -> str:
        return f"{self._tag}br"

    def head(self) -> str:
        """Put up the bridge, and start the head."""
        _ip("link", "add", self._bridge, "type", "bridge")
        _ip("link", "set", self._bridge, "up")
        self._add("head")
        health = {f"RAY_health_check_{name}": value for name, value in HEALTH.items()}
        self._run("head", [*HEAD, *LEAN, "--include-dashboard=false"], health)
        self._at = f"{self._address('head')}:6379"
        return self._at

    def join(self, name: str) -> None:
        """Start a worker."""
        self._add(name)
        self._run(name, [*_filled(WORKER, head=self._at), *LEAN], {})

    def cut_off(self, name: str) -> None:
        """Pull the cable."""
        _ip("link", "set", self._cable(name), "down")

    def on_head(self, command: Sequence[str]) -> list[str]:
        """In the head's namespace."""
        return ["ip", "netns", "exec", self._space("head"), *command]

    def states(self) -> list[bool]:
        """As the head's own table says."""
        code = "import json, ray; ray.init('auto', logging_level=40, log_to_driver=False); print(); print(json.dumps("
        code += "[node['Alive'] for node in ray.nodes()]))"
        environment = self._environment("head")
        command = self.on_head([sys.executable, "-c", code])
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=True)
        states: list[bool] = json.loads(done.stdout.splitlines()[-1])
        return states

    def close(self) -> None:
        """End what runs in the namespaces, by its number, and remove them."""
        for name in reversed(self._names):
            while pids := _ip("netns", "pids", self._space(name), check=False).split():
                for pid in pids:
                    with suppress(ProcessLookupError):
                        os.kill(int(pid), signal.SIGKILL)
                time.sleep(0.1)
            _ip("link", "del", self._cable(name), check=False)  # a namespace itself may outlive its name for a while
            _ip("netns", "del", self._space(name), check=False)
        _ip("link", "del", self._bridge, check=False)

    def _add(self, name: str) -> None:
        self._names.append(name)
        space, cable = self._space(name), self._cable(name)
        _ip("netns", "add", space)
        _ip("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", space)
        _ip("link", "set", cable, "master", self._bridge, "up")
        _ip("-n", space, "address", "add", f"{self._address(name)}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            _ip("-n", space, "link", "set", device, "up")
        _ip("-n", space, "route", "add", "default", "dev", "eth0")  # Ray takes the address that leads out for its own

    def _run(self, name: str, command: Sequence[str], more: dict[str, str]) -> None:
        inside = ["ip", "netns", "exec", self._space(name), *command]
        with Log(self._folder / f"{name}.log") as log:
            log.run(inside, self._folder, self._environment(name) | more)

    def _environment(self, name: str) -> dict[str, str]:
        own = self._folder / name[0]  # short: the paths of sockets may have 107 characters
        own.mkdir(exist_ok=True)
        return _environment() | {"RAY_TMPDIR": str(own)}

    def _space(self, name: str) -> str:
        return f"{self._tag}-{name}"

    def _cable(self, name: str) -> str:
        return f"{self._tag}v{self._names.index(name)}"

    def _address(self, name: str) -> str:
        # RFC 2544 keeps this range for benchmarks.
        return f"198.18.0.{self._names.index(name) + 1}"


class Processes:
    """Hosts as processes of one address."""

    KIND = "processes of one address"
    LEAN: ClassVar[dict[str, Any]] = {"num_cpus": 1, "object_store_memory": 200_000_000}

    def __init__(self, folder: Path) -> None:
        """Keep Ray quiet."""
        os.environ.update(_environment())
        self._cluster: Any = None
        self._nodes: dict[str, Any] = {}
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]

    def head(self) -> str:
        """Start the head."""
        from ray.cluster_utils import Cluster

        health = {f"health_check_{name}": int(value) for name, value in HEALTH.items()}
        self._cluster = Cluster(initialize_head=True, head_node_args=self.LEAN | {"_system_config": health})
        return str(self._cluster.address)

    def join(self, name: str) -> None:
        """Start a worker."""
        self._nodes[name] = self._cluster.add_node(**self.LEAN)

    def cut_off(self, name: str) -> None:
        """Kill it."""
        self._cluster.remove_node(self._nodes[name], allow_graceful=False)

    def on_head(self, command: Sequence[str]) -> list[str]:
        """Here."""
        return list(command)

    def states(self) -> list[bool]:
        """As the head's own table says."""
        import ray

        ray.init(self._cluster.address, logging_level=40, log_to_driver=False)
        try:
            return [bool(node["Alive"]) for node in ray.nodes()]
        finally:
            ray.shutdown()

    def close(self) -> None:
        """End the nodes."""
        if self._cluster is not None:
            self._cluster.shutdown()


@contextmanager
def closing(hosts: Hosts) -> Iterator[Hosts]:
    """Hosts that are gone after the block, whatever happens in it."""
    try:
        yield hosts
    finally:
        hosts.close()


def _ip(*words: str, check: bool = True) -> str:
    return subprocess.run(["ip", *words], check=check, capture_output=True, text=True).stdout


# Commands -------------------------------------------------------------------------------------------------------------


class Log:
    """A command whose words go to a file; on leaving the block it is ended.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        """No command yet."""
        self._path = path
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Log:
        """This one."""
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        self.stop()

    def begin(self, command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> None:
        """Start it."""
        with self._path.open("wb") as file:
            self._process = subprocess.Popen(command, cwd=folder, env=environment, stdout=file, stderr=file)

    def run(self, command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> None:
        """Start it, and wait for its end.

        Raises:
            SystemExit: it failed.
        """
        self.begin(command, folder, environment)
        self.end()

    def end(self) -> None:
        """Wait for its end.

        Raises:
            SystemExit: it failed, or takes too long.
        """
        self.wait_for(lambda: self._status is not None, "it took too long")
        if self._status:
            self._fail(f"exit status {self._status}")

    def wait_for(self, event: Callable[[], bool], failed: str) -> None:
        """Wait for an event.

        Raises:
            SystemExit: it does not come, or the command ends before.
        """
        end = time.monotonic() + PATIENCE
        while not event():
            if time.monotonic() > end or self._status is not None:
                self._fail(failed)
            time.sleep(0.1)

    def text(self) -> str:
        """What it said so far."""
        return self._path.read_text("utf-8", errors="replace")

    def stop(self) -> None:
        """End it, if it still runs."""
        if self._process is not None and self._status is None:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(10)
            self._process.kill()
            self._process.wait()

    @property
    def _status(self) -> int | None:
        return self._process.poll() if self._process is not None else None

    def _fail(self, why: str) -> None:
        last = "\n".join(self.text().splitlines()[-40:])
        raise SystemExit(f"{self._path.stem}: {why}\n{last}")


def _filled(command: Sequence[str], **words: Any) -> list[str]:
    return [part.format(**words) for part in command]


_TOKEN = secrets.token_hex(32)


def _environment() -> dict[str, str]:
    """This process's, with our own programs first, and nothing of a Ray or MLflow elsewhere."""
    taken = ("RAY_ADDRESS", "OMP_NUM_THREADS", "MLFLOW_TRACKING_URI")
    kept = {name: value for name, value in os.environ.items() if name not in taken}
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    auth = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": _TOKEN}
    return kept | auth | {"PATH": programs, "RAY_USAGE_STATS_ENABLED": "0"}


if __name__ == "__main__":
    main()
