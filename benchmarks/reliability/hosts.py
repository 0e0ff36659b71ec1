"""Several hosts on one machine, as network namespaces or as processes, for `benchmarks.reliability.multi_host`."""

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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar, Protocol

HEAD = ("ray", "start", "--head", "--port=6379")
WORKER = ("ray", "start", "--address={head}")
"""Commands as documented for clusters."""

LEAN = ("--num-cpus=1", "--object-store-memory=200000000", "--disable-usage-stats")
"""Options with which three hosts fit on one machine."""

HEALTH = {"initial_delay_ms": "0", "period_ms": "1000", "timeout_ms": "2000", "failure_threshold": "3"}
"""Settings of Ray's health checks, in the head's environment as RAY_health_check_…."""

TIMEOUT = 540.0
"""Seconds after which an expected event counts as failed."""


class Hosts(Protocol):
    """Hosts that run Ray. `KIND` is their description, `port` a free port of the head."""

    KIND: str
    port: int

    def __init__(self, folder: Path) -> None:
        """Create no host yet; their files go to `folder`."""

    def head(self) -> str:
        """Start the head and return its address."""

    def join(self, name: str) -> None:
        """Start a worker."""

    def cut_off(self, name: str) -> None:
        """Disconnect a worker without notice."""

    def on_head(self, command: Sequence[str]) -> list[str]:
        """Return the command that runs `command` on the head."""

    def states(self) -> list[bool]:
        """Return for each node that ever joined whether Ray considers it alive."""

    def close(self) -> None:
        """End all hosts and remove everything they created."""


class Namespaces:
    """Hosts as network namespaces with their own addresses on one bridge."""

    KIND = "network namespaces"
    port = 5000

    def __init__(self, folder: Path) -> None:
        """Create no namespace before the head."""
        self._folder, self._tag = folder, f"rt{os.getpid() % 100000}"
        self._names: list[str] = []

    @staticmethod
    def available() -> bool:
        """Return True if this process may create namespaces."""
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
        """Create the bridge and start the head."""
        _ip("link", "add", self._bridge, "type", "bridge")
        _ip("link", "set", self._bridge, "up")
        self._add("head")
        health = {f"RAY_health_check_{name}": value for name, value in HEALTH.items()}
        self._run("head", [*HEAD, *LEAN, "--include-dashboard=false"], health)
        self._head_address = f"{self._address('head')}:6379"
        return self._head_address

    def join(self, name: str) -> None:
        """Start a worker."""
        self._add(name)
        self._run(name, [*fill(WORKER, head=self._head_address), *LEAN], {})

    def cut_off(self, name: str) -> None:
        """Take the worker's link down."""
        _ip("link", "set", self._link(name), "down")

    def on_head(self, command: Sequence[str]) -> list[str]:
        """Return the command that runs `command` in the head's namespace."""
        return ["ip", "netns", "exec", self._namespace("head"), *command]

    def states(self) -> list[bool]:
        """Return the states of the head's node table."""
        code = "import json, ray; ray.init('auto', logging_level=40, log_to_driver=False); print(); print(json.dumps("
        code += "[node['Alive'] for node in ray.nodes()]))"
        environment = self._environment("head")
        command = self.on_head([sys.executable, "-c", code])
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=TIMEOUT, check=True)
        states: list[bool] = json.loads(done.stdout.splitlines()[-1])
        return states

    def close(self) -> None:
        """Kill the processes of the namespaces by id, and remove the namespaces."""
        for name in reversed(self._names):
            while pids := _ip("netns", "pids", self._namespace(name), check=False).split():
                for pid in pids:
                    with suppress(ProcessLookupError):
                        os.kill(int(pid), signal.SIGKILL)
                time.sleep(0.1)
            _ip("link", "del", self._link(name), check=False)  # a namespace may outlive its name
            _ip("netns", "del", self._namespace(name), check=False)
        _ip("link", "del", self._bridge, check=False)

    def _add(self, name: str) -> None:
        self._names.append(name)
        namespace, link = self._namespace(name), self._link(name)
        _ip("netns", "add", namespace)
        _ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", namespace)
        _ip("link", "set", link, "master", self._bridge, "up")
        _ip("-n", namespace, "address", "add", f"{self._address(name)}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            _ip("-n", namespace, "link", "set", device, "up")
        _ip("-n", namespace, "route", "add", "default", "dev", "eth0")  # Ray uses the address of the default route

    def _run(self, name: str, command: Sequence[str], variables: dict[str, str]) -> None:
        inside = ["ip", "netns", "exec", self._namespace(name), *command]
        with Log(self._folder / f"{name}.log") as log:
            log.run(inside, self._folder, self._environment(name) | variables)

    def _environment(self, name: str) -> dict[str, str]:
        folder = self._folder / name[0]  # short, because paths of sockets are limited to 107 characters
        folder.mkdir(exist_ok=True)
        return environment() | {"RAY_TMPDIR": str(folder)}

    def _namespace(self, name: str) -> str:
        return f"{self._tag}-{name}"

    def _link(self, name: str) -> str:
        return f"{self._tag}v{self._names.index(name)}"

    def _address(self, name: str) -> str:
        # RFC 2544 reserves this range for benchmarks.
        return f"198.18.0.{self._names.index(name) + 1}"


class Processes:
    """Hosts as processes with one address."""

    KIND = "processes of one address"
    LEAN: ClassVar[dict[str, Any]] = {"num_cpus": 1, "object_store_memory": 200_000_000}

    def __init__(self, folder: Path) -> None:
        """Set the environment and choose a port."""
        os.environ.update(environment())
        self._cluster: Any = None
        self._nodes: dict[str, Any] = {}
        with socket.create_server(("127.0.0.1", 0)) as server:
            self.port = server.getsockname()[1]

    def head(self) -> str:
        """Start the head and return its address."""
        from ray.cluster_utils import Cluster

        health = {f"health_check_{name}": int(value) for name, value in HEALTH.items()}
        self._cluster = Cluster(initialize_head=True, head_node_args=self.LEAN | {"_system_config": health})
        return str(self._cluster.address)

    def join(self, name: str) -> None:
        """Start a worker."""
        self._nodes[name] = self._cluster.add_node(**self.LEAN)

    def cut_off(self, name: str) -> None:
        """Kill the worker."""
        self._cluster.remove_node(self._nodes[name], allow_graceful=False)

    def on_head(self, command: Sequence[str]) -> list[str]:
        """Return `command`, which runs on this machine."""
        return list(command)

    def states(self) -> list[bool]:
        """Return the states of the head's node table."""
        import ray

        ray.init(self._cluster.address, logging_level=40, log_to_driver=False)
        try:
            return [bool(node["Alive"]) for node in ray.nodes()]
        finally:
            ray.shutdown()

    def close(self) -> None:
        """End all nodes."""
        if self._cluster is not None:
            self._cluster.shutdown()


@contextmanager
def closing(hosts: Hosts) -> Iterator[Hosts]:
    """Close the hosts at the end of the block."""
    try:
        yield hosts
    finally:
        hosts.close()


def _ip(*words: str, check: bool = True) -> str:
    return subprocess.run(["ip", *words], check=check, capture_output=True, text=True).stdout


# Commands -------------------------------------------------------------------------------------------------------------


class Log:
    """Command with its output in a file; it is ended on leaving the block.

    Args:
        path: File of the output.
    """

    def __init__(self, path: Path) -> None:
        """Create without a command."""
        self._path = path
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Log:
        """Return self."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the command."""
        self.stop()

    def start(self, command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> None:
        """Start the command."""
        with self._path.open("wb") as file:
            self._process = subprocess.Popen(command, cwd=folder, env=environment, stdout=file, stderr=file)

    def run(self, command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> None:
        """Run the command to its end.

        Raises:
            SystemExit: The command failed.
        """
        self.start(command, folder, environment)
        self.wait()

    def wait(self) -> None:
        """Wait for the end of the command.

        Raises:
            SystemExit: The command failed or timed out.
        """
        self.wait_for(lambda: self._status is not None, f"no end within {TIMEOUT:.0f} s")
        if self._status:
            self._fail(f"exit status {self._status}")

    def wait_for(self, condition: Callable[[], bool], message: str) -> None:
        """Wait until a condition holds.

        Raises:
            SystemExit: The time is over, or the command ended before.
        """
        end = time.monotonic() + TIMEOUT
        while not condition():
            if time.monotonic() > end or self._status is not None:
                self._fail(message)
            time.sleep(0.1)

    def text(self) -> str:
        """Return the output so far."""
        return self._path.read_text("utf-8", errors="replace")

    def stop(self) -> None:
        """End the command if it still runs."""
        if self._process is not None and self._status is None:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(10)
            self._process.kill()
            self._process.wait()

    @property
    def _status(self) -> int | None:
        return self._process.poll() if self._process is not None else None

    def _fail(self, reason: str) -> None:
        last = "\n".join(self.text().splitlines()[-40:])
        raise SystemExit(f"{self._path.stem}: {reason}\n{last}")


def fill(command: Sequence[str], **values: Any) -> list[str]:
    """Return `command` with its placeholders replaced."""
    return [part.format(**values) for part in command]


_TOKEN = secrets.token_hex(32)


def environment() -> dict[str, str]:
    """Return this process's environment with its own programs first on the path and without a remote Ray or MLflow."""
    removed = ("RAY_ADDRESS", "OMP_NUM_THREADS", "MLFLOW_TRACKING_URI")
    kept = {name: value for name, value in os.environ.items() if name not in removed}
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    auth = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": _TOKEN}
    return kept | auth | {"PATH": programs, "RAY_USAGE_STATS_ENABLED": "0"}
