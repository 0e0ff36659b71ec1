"""Several hosts on one machine: network namespaces with an address each, or processes of one address.

Used by `multi_host.py`.
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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar, Protocol

HEAD = ("ray", "start", "--head", "--port=6379")
WORKER = ("ray", "start", "--address={head}")
"""The commands, as the README has them."""

LEAN = ("--num-cpus=1", "--object-store-memory=200000000", "--disable-usage-stats")
"""So that three hosts fit on one machine."""

HEALTH = {"initial_delay_ms": "0", "period_ms": "1000", "timeout_ms": "2000", "failure_threshold": "3"}
"""Of Ray's health checks, in the head's environment as RAY_health_check_…."""

PATIENCE = 540.0
"""Seconds until something that should have happened counts as failed."""


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
        self._run(name, [*filled(WORKER, head=self._at), *LEAN], {})

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
        return environment() | {"RAY_TMPDIR": str(own)}

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
        os.environ.update(environment())
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


def filled(command: Sequence[str], **words: Any) -> list[str]:
    """`command` with its words in curly brackets replaced."""
    return [part.format(**words) for part in command]


_TOKEN = secrets.token_hex(32)


def environment() -> dict[str, str]:
    """This process's, with our own programs first, and nothing of a Ray or MLflow elsewhere."""
    taken = ("RAY_ADDRESS", "OMP_NUM_THREADS", "MLFLOW_TRACKING_URI")
    kept = {name: value for name, value in os.environ.items() if name not in taken}
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    auth = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": _TOKEN}
    return kept | auth | {"PATH": programs, "RAY_USAGE_STATS_ENABLED": "0"}
