"""Whether a sweep can run on every node of the connected cluster: looked at before anything of it is started."""

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
from search.execution.cluster import slots, started_here
from spaces import RequestError
from spaces.core.importing import check_dotted
from spaces.core.redaction import mask

PACKAGES = ("torch", "torchvision", "ray", "numpy")
"""Whose versions must be the same on all nodes, beside Python's and roletune's."""

ROOM = 2**30
"""Bytes that a disk must have free."""

STORAGE, SESSION = "the storage", "Ray's own folder"
"""The places that must have room."""

PATIENCE = 30.0
"""Seconds that a node may take to answer."""


@dataclass(frozen=True)
class Answer:
    """What one node says of itself.

    Args:
        node: its address and the beginning of its id.
        silent: why it gave no answer; empty: it did, and the rest holds.
        storage: what is wrong with the storage there; empty: nothing.
        free: bytes left, by place.
        versions: by package.
        missing: modules of the user's own that it cannot find.
    """

    node: str
    silent: str = ""
    storage: str = ""
    free: dict[str, int] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    missing: tuple[str, ...] = ()


def preflight(config: SweepConfig, folder: Path) -> None:
    """Look at everything, cheapest first.

    Args:
        config: the sweep.
        folder: that the sweep will write to; it need not be there yet.

    Raises:
        RequestError: the first thing that is not as the sweep needs it.
    """
    for look in checks(config, folder).values():
        look()


def checks(config: SweepConfig, folder: Path) -> dict[str, Callable[[], str]]:
    """What is looked at, by name; each gives a finding in words, or refuses.

    The nodes are asked once, all together, when the first finding needs them.
    """
    place = next(parent for parent in (folder.resolve(), *folder.resolve().parents) if parent.is_dir())
    answers = cache(lambda: ask(place, factories(config)))

    def answered() -> list[Answer]:
        return [answer for answer in answers() if not answer.silent]

    return {
        "cluster": lambda: _cluster(config),
        "tracking": lambda: _tracking(config),
        "storage": lambda: _storage(answered(), place),
        "nodes": lambda: _nodes(answers()),
        "disk": lambda: _disk(answered()),
        "versions": lambda: _versions(answered()),
        "own code": lambda: _own_code(answered(), factories(config)),
    }


def factories(config: SweepConfig) -> tuple[str, ...]:
    """The dotted names that the sweep imports: its user's own data, models, losses and augmentations."""
    named = [config.data.name, *config.space.custom_names]
    if config.teacher is not None:
        named += [config.teacher.model, *([config.teacher.data.name] if config.teacher.data else [])]
    if config.student is not None:
        named += [config.student.model, *(term.factory for term in config.student.distill.terms)]
    ours = (name for name in named if {".", ":"} & set(name) and not name.startswith("torchvision:"))
    return tuple(dict.fromkeys(ours))


# Asking ---------------------------------------------------------------------------------------------------------------


def ask(place: Path, own: Iterable[str] = (), patience: float = PATIENCE) -> list[Answer]:
    """What every living node says, this process's own first.

    Each reads what this process writes to `place`, and writes something there that this process reads.

    Args:
        place: an existing folder.
        own: dotted names that each must be able to import.
        patience: seconds to wait for the slowest.

    Raises:
        RequestError: this process cannot write to `place`, or Ray would delete it.
    """
    token = secrets.token_hex(8)
    meeting = place / f".roletune-{token}"
    here = ray.get_runtime_context().get_node_id()
    nodes = sorted((node for node in ray.nodes() if node["Alive"]), key=lambda node: node["NodeID"] != here)
    if any(place.is_relative_to(_session(node)) for node in nodes):
        rule = "the storage must outlive the job, and Ray deletes its own session's folders"
        raise RequestError(rule, value=str(place), hint="give an absolute --storage that all nodes share")
    modules = sorted({check_dotted(name)[0].partition(".")[0] for name in own})
    try:
        try:
            meeting.mkdir()
            (meeting / "driver").write_text(token)
        except OSError as error:
            rule = f"cannot write to {place}: {error.strerror or error}"
            raise RequestError(rule, hint="choose another --storage") from error
        if started_here() and len(nodes) == 1:  # as installed here; and a worker that has run a task is no trial's
            return [_answer(nodes[0], _look(nodes[0], meeting, token, modules), meeting, token)]
        tasks = {_task(node, meeting, token, modules): node for node in nodes}
        ready = _ready(tasks, patience)
        return [
            _answer(node, partial(_told, task), meeting, token) if task in ready else _silence(node, task, patience)
            for task, node in tasks.items()
        ]
    finally:
        shutil.rmtree(meeting, ignore_errors=True)


def _session(node: dict[str, Any]) -> Path:
    """The folder that Ray keeps its own files in, on that node."""
    return Path(node["ObjectStoreSocketName"]).parents[1]


def _name(node: dict[str, Any]) -> str:
    return f"{node['NodeManagerAddress']} ({node['NodeID'][:8]})"


def _task(node: dict[str, Any], meeting: Path, token: str, modules: list[str]) -> Any:
    """Start looking around on `node`."""
    where = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
    look = _look(node, meeting, token, modules)
    return ray.remote(look).options(num_cpus=0, max_retries=0, scheduling_strategy=where).remote()


def _look(node: dict[str, Any], at: Path, token: str, modules: list[str]) -> Callable[[], dict[str, Any]]:
    """What a node does to answer.

    Ray sends a function that stands in another one as it is, with all that it needs: the node may lack roletune.
    """
    name, meeting, session = node["NodeID"], str(at), str(_session(node))
    import_from = [str(Path(path or ".").resolve()) for path in sys.path]

    def look() -> dict[str, Any]:
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

    return look


def _told(task: Any) -> dict[str, Any]:
    said: dict[str, Any] = ray.get(task)
    return said


def _ready(tasks: dict[Any, dict[str, Any]], patience: float) -> set[Any]:
    """Those of the tasks that ended in time; one whose node died is not waited for, since Ray may not notice."""
    waiting, end = dict(tasks), time.monotonic() + patience
    while waiting and (left := end - time.monotonic()) > 0:
        done, _ = ray.wait([*waiting], num_returns=len(waiting), timeout=min(left, 1.0))
        waiting = {task: node for task, node in waiting.items() if task not in done and not _died(node)}
    return set(ray.wait([*tasks], num_returns=len(tasks), timeout=0)[0])


def _answer(node: dict[str, Any], look: Callable[[], dict[str, Any]], meeting: Path, token: str) -> Answer:
    """What the node says, and whether what it wrote can be read here."""
    try:
        said = look()
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


def _silence(node: dict[str, Any], task: Any, patience: float) -> Answer:
    ray.cancel(task, force=True)
    return Answer(_name(node), silent="it died meanwhile" if _died(node) else f"no answer within {patience:g} seconds")


def _died(node: dict[str, Any]) -> bool:
    return not any(now["Alive"] for now in ray.nodes() if now["NodeID"] == node["NodeID"])


# What the answers mean ------------------------------------------------------------------------------------------------


def _cluster(config: SweepConfig) -> str:
    have, nodes = ray.cluster_resources(), sum(bool(node["Alive"]) for node in ray.nodes())
    return (
        f"{nodes} node{'s' if nodes != 1 else ''}, {have.get('CPU', 0):g} CPUs, {have.get('GPU', 0):g} GPUs: "
        f"{slots(config.resources)} trials at once"
    )


def _tracking(config: SweepConfig) -> str:
    uri = config.tracking.uri or os.environ.get("MLFLOW_TRACKING_URI")
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
            if free < ROOM:
                hint = "free some there, or choose another --storage"
                if what == SESSION:
                    hint = "free some there, or start Ray with --temp-dir on a larger disk"
                rule = f"{what} must have {ROOM / 2**30:g} GiB free on {answer.node}"
                raise RequestError(f"{rule}, but it has {free / 2**30:.2f}", hint=hint)
            least[what] = min(free, least.get(what, free))
    return ", ".join(f"at least {free / 2**30:.0f} GiB free in {what}" for what, free in least.items())


def _versions(answers: list[Answer]) -> str:
    if not answers:
        return "nobody to ask"
    first, *others = answers
    here = first.versions
    for other in others:
        for package, version in other.versions.items():
            # What stands behind a "+" is how a wheel was built: "cpu" on the head and "cu130" elsewhere get along.
            if version.partition("+")[0] != here[package].partition("+")[0]:
                rule = f"all nodes must have the same {package}; {first.node} has {here[package]}"
                raise RequestError(f"{rule}, {other.node} has {version}", hint="install the same on both")
    told = ", ".join(f"{package} {version}" for package, version in here.items())
    return told if not others else f"{told}, on all nodes"


def _own_code(answers: list[Answer], own: tuple[str, ...]) -> str:
    for answer in answers:
        if answer.missing:
            rule = f"every node must find the sweep's own code, and {answer.node} has no module {answer.missing[0]!r}"
            raise RequestError(rule, hint="install it there, or run in a folder that all nodes share")
    return ", ".join(own) or "none"
