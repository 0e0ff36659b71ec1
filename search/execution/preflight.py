"""Checks that a sweep can run on every node of the connected cluster, before anything of it is started."""

from __future__ import annotations

import os
import secrets
import shutil
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from results.tracking.store import check_store
from search.config.schema import SweepConfig
from search.config.sections import ResourceConfig
from search.execution.cluster import slots, started_here
from spaces import RequestError
from spaces.core.importing import check_dotted
from spaces.core.redaction import mask

PACKAGES = ("torch", "torchvision", "ray", "numpy")
"""Packages whose versions must be the same on all nodes, beside Python's and roletune's."""

MIN_FREE = 2**30
"""Free space that a disk must have, in bytes."""

STORAGE, SESSION = "the storage", "Ray's own folder"
"""Places that must have free space."""

TIMEOUT = 30.0
"""Time that a node may take to answer, in s."""


@dataclass(frozen=True)
class Answer:
    """Answer of one node.

    Args:
        node: Address and first digits of the node's id.
        silent: Why it did not answer; empty where it did.
        storage: Fault of the storage on the node; empty for none.
        free: Free space in bytes, by place.
        versions: Versions by package.
        missing: Modules of the user's own that it cannot find.
    """

    node: str
    silent: str = ""
    storage: str = ""
    free: dict[str, int] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class Requirements:
    """Requirements of a sweep on the cluster.

    Args:
        resources: Resources of one trial.
        tracking_uri: Address of MLflow; None for its default.
        imports: Dotted names of the user's own that the sweep imports.
    """

    resources: ResourceConfig
    tracking_uri: str | None
    imports: tuple[str, ...]

    @classmethod
    def resolve(cls, config: SweepConfig) -> Requirements:
        """Return what a sweep file needs."""
        return cls(config.resources, config.tracking.uri, custom_imports(config))


def preflight(needs: Requirements, folder: Path) -> None:
    """Check everything, cheapest first.

    Args:
        needs: Requirements of the sweep.
        folder: Folder that the sweep will write to; it need not exist yet.

    Raises:
        RequestError: The first requirement that is not met.
    """
    for check in checks(needs, folder).values():
        check()


def checks(needs: Requirements, folder: Path) -> dict[str, Callable[[], str]]:
    """Return the checks by name; each returns what it found in words, or raises.

    All nodes are asked once and together, when the first check needs them.
    """
    place = next(parent for parent in (folder.resolve(), *folder.resolve().parents) if parent.is_dir())
    answers = cache(lambda: ask_nodes(place, needs.imports))

    def answered() -> list[Answer]:
        return [answer for answer in answers() if not answer.silent]

    return {
        "cluster": lambda: _cluster(needs),
        "tracking": lambda: _tracking(needs),
        "storage": lambda: _storage(answered(), place),
        "nodes": lambda: _nodes(answers()),
        "disk": lambda: _disk(answered()),
        "versions": lambda: _versions(answered()),
        "own code": lambda: _own_code(answered(), needs.imports),
    }


def custom_imports(config: SweepConfig) -> tuple[str, ...]:
    """Return the dotted names that the sweep imports: data, models, losses, augmentations and algorithms."""
    named = [config.data.name, *config.space.custom_names]
    if config.teacher is not None:
        named += [config.teacher.model, *([config.teacher.data.name] if config.teacher.data else [])]
    if config.student is not None:
        named += [config.student.model, *(term.factory for term in config.student.distill.terms)]
    named += [search.algorithm for role in config.roles.values() for search in role.searches]
    own = (name for name in named if {".", ":"} & set(name) and not name.startswith("torchvision:"))
    return tuple(dict.fromkeys(own))


# Asking ---------------------------------------------------------------------------------------------------------------


def ask_nodes(place: Path, own: Iterable[str] = (), timeout: float = TIMEOUT) -> list[Answer]:
    """Return the answers of all live nodes, this process's own first.

    Each node reads what this process writes to `place`, and writes something there that this process reads.

    Args:
        place: Existing folder.
        own: Dotted names that each node must be able to import.
        timeout: Time to wait for the slowest node, in s.

    Raises:
        RequestError: This process cannot write to `place`, or Ray would delete it.
    """
    token = secrets.token_hex(8)
    meeting = place / f".roletune-{token}"
    here = ray.get_runtime_context().get_node_id()
    nodes = sorted((node for node in ray.nodes() if node["Alive"]), key=lambda node: node["NodeID"] != here)
    if any(place.is_relative_to(_session(node)) for node in nodes):
        rule = "storage must outlive the job, but Ray deletes its own session's folders"
        raise RequestError(rule, value=str(place), hint="give an absolute --storage that all nodes share")
    modules = sorted({check_dotted(name)[0].partition(".")[0] for name in own})
    try:
        try:
            meeting.mkdir()
            (meeting / "driver").write_text(token)
        except OSError as error:
            rule = f"storage must be writable: cannot write to {place}: {error.strerror or error}"
            raise RequestError(rule, hint="choose another --storage") from error
        if started_here() and len(nodes) == 1:  # as installed here; and a worker that has run a task is no trial's
            return [_answer(nodes[0], _node_check(nodes[0], meeting, token, modules), meeting, token)]
        tasks = {_task(node, meeting, token, modules): node for node in nodes}
        ready = _ready(tasks, timeout)
        return [
            _answer(node, partial(_result_of, task), meeting, token)
            if task in ready
            else _no_answer(node, task, timeout)
            for task, node in tasks.items()
        ]
    finally:
        shutil.rmtree(meeting, ignore_errors=True)


def _session(node: dict[str, Any]) -> Path:
    """Return the folder of Ray's own files on a node."""
    return Path(node["ObjectStoreSocketName"]).parents[1]


def _name(node: dict[str, Any]) -> str:
    return f"{node['NodeManagerAddress']} ({node['NodeID'][:8]})"


def _task(node: dict[str, Any], meeting: Path, token: str, modules: list[str]) -> Any:
    """Start the check on `node`."""
    where = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
    check = _node_check(node, meeting, token, modules)
    return ray.remote(check).options(num_cpus=0, max_retries=0, scheduling_strategy=where).remote()


def _node_check(node: dict[str, Any], at: Path, token: str, modules: list[str]) -> Callable[[], dict[str, Any]]:
    """Return the function that a node runs to answer.

    It is nested, since Ray sends a nested function with all that it needs: the node may lack roletune.
    """
    name, meeting, session = node["NodeID"], str(at), str(_session(node))
    import_from = [str(Path(path or ".").resolve()) for path in sys.path]

    def check() -> dict[str, Any]:
        import platform
        import shutil
        import sys
        from hashlib import sha256
        from importlib.machinery import PathFinder
        from importlib.metadata import PackageNotFoundError, version
        from pathlib import Path

        def installed(package: str) -> str:
            try:
                return version(package)
            except PackageNotFoundError:
                return "none"

        def code() -> str:
            digest = sha256()
            for room in ("search", "trainables", "results", "spaces"):
                found = PathFinder.find_spec(room)
                if found is None or not found.origin:
                    return "none"
                root = Path(found.origin).parent
                for file in sorted(root.rglob("*.py")):
                    digest.update(str(file.relative_to(root)).encode() + file.read_bytes())
            return f"code {digest.hexdigest()[:8]}"

        def write() -> str:
            try:
                if (Path(meeting) / "driver").read_text() != token:
                    return "another file lies there"
                (Path(meeting) / name).write_text(token)
            except OSError as error:
                return error.strerror or str(error)
            return ""

        storage = write()
        places = {STORAGE: meeting} if not storage else {}
        python = ".".join(platform.python_version_tuple()[:2])
        return {
            "storage": storage,
            "free": {what: shutil.disk_usage(place).free for what, place in (places | {SESSION: session}).items()},
            "versions": {"python": python, **{name: installed(name) for name in PACKAGES}, "roletune": code()},
            "missing": tuple(m for m in modules if PathFinder.find_spec(m, [*sys.path, *import_from]) is None),
        }

    return check


def _result_of(task: Any) -> dict[str, Any]:
    said: dict[str, Any] = ray.get(task)
    return said


def _ready(tasks: dict[Any, dict[str, Any]], timeout: float) -> set[Any]:
    """Return the tasks that ended in time, without waiting for nodes that died, which Ray may not notice."""
    waiting, end = dict(tasks), time.monotonic() + timeout
    while waiting and (left := end - time.monotonic()) > 0:
        done, _ = ray.wait([*waiting], num_returns=len(waiting), timeout=min(left, 1.0))
        waiting = {task: node for task, node in waiting.items() if task not in done and not _died(node)}
    return set(ray.wait([*tasks], num_returns=len(tasks), timeout=0)[0])


def _answer(node: dict[str, Any], check: Callable[[], dict[str, Any]], meeting: Path, token: str) -> Answer:
    """Return the answer of a node, after reading here what it wrote."""
    try:
        said = check()
    except RayError as error:
        why = next((line for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__)
        return Answer(_name(node), silent="it died meanwhile" if _died(node) else f"it failed there: {why.strip()}")
    if not said["storage"]:
        try:
            seen = (meeting / node["NodeID"]).read_text()
        except OSError as error:
            seen = error.strerror or str(error)
        said["storage"] = "" if seen == token else f"what it writes there cannot be read here: {seen}"
    return Answer(_name(node), **said)


def _no_answer(node: dict[str, Any], task: Any, timeout: float) -> Answer:
    ray.cancel(task, force=True)
    return Answer(_name(node), silent="it died meanwhile" if _died(node) else f"no answer within {timeout:g} seconds")


def _died(node: dict[str, Any]) -> bool:
    return not any(now["Alive"] for now in ray.nodes() if now["NodeID"] == node["NodeID"])


# What the answers mean ------------------------------------------------------------------------------------------------


def _cluster(needs: Requirements) -> str:
    have, nodes = ray.cluster_resources(), sum(bool(node["Alive"]) for node in ray.nodes())
    return (
        f"{nodes} node{'s' if nodes != 1 else ''}, {have.get('CPU', 0):g} CPUs, {have.get('GPU', 0):g} GPUs: "
        f"{slots(needs.resources)} trials at once"
    )


def _tracking(needs: Requirements) -> str:
    uri = needs.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
    if not uri:
        return "a store in the sweep's own folder"
    check_store(uri)
    return f"{mask(uri)} answers"


def _nodes(answers: list[Answer]) -> str:
    for answer in answers:
        if answer.silent:
            hint = "wait until it is back, or take it out of the cluster, and start again"
            raise RequestError(f"every node must answer, and {answer.node} does not: {answer.silent}", hint=hint)
    return f"{len(answers)} of {len(answers)} answered"


def _storage(answers: list[Answer], place: Path) -> str:
    for answer in answers:
        if answer.storage:
            rule = f"all nodes must share the storage {place}, and {answer.node} does not: {answer.storage}"
            raise RequestError(rule, hint="mount it there, or choose another --storage")
    count = len(answers)
    return f"{place}, read and written by {count} node{'s' if count != 1 else ''}"


def _disk(answers: list[Answer]) -> str:
    least: dict[str, int] = {}
    for answer in answers:
        for what, free in answer.free.items():
            if free < MIN_FREE:
                hint = "free some there, or choose another --storage"
                if what == SESSION:
                    hint = "free some there, or start Ray with --temp-dir on a larger disk"
                rule = f"{what} must have {MIN_FREE / 2**30:g} GiB free on {answer.node}"
                raise RequestError(f"{rule}, but it has {free / 2**30:.2f}", hint=hint)
            least[what] = min(free, least.get(what, free))
    return ", ".join(f"at least {free / 2**30:.0f} GiB free in {what}" for what, free in least.items())


def _versions(answers: list[Answer]) -> str:
    if not answers:
        return "no node answered"
    first, *others = answers
    here = first.versions
    for other in others:
        for package, version in other.versions.items():
            # What stands behind a "+" is how a wheel was built: "cpu" on the head and "cu130" elsewhere get along.
            if version.partition("+")[0] != here[package].partition("+")[0]:
                rule = f"all nodes must have the same {package}; {first.node} has {here[package]}"
                raise RequestError(f"{rule}, {other.node} has {version}", hint="install the same on both")
    text = ", ".join(f"{package} {version}" for package, version in here.items())
    return text if not others else f"{text}, on all nodes"


def _own_code(answers: list[Answer], own: tuple[str, ...]) -> str:
    for answer in answers:
        if answer.missing:
            rule = f"every node must find the sweep's own code, and {answer.node} has no module {answer.missing[0]!r}"
            raise RequestError(rule, hint="install it there, or run in a folder that all nodes share")
    return ", ".join(own) or "none"
