"""A sweep that is killed again and again: is anything lost, and is what it finds what it would have found undisturbed?

One small sweep of digits, two roles, is run twice. The first time nobody disturbs it. The second time something gets
SIGKILL whenever its journal has grown by a drawn number of lines: in turns that are drawn too, half of the times the
driver, that is `roletune search` itself, which is then started again with `--resume`, else one of the Ray workers that
train. Moments and victims follow from `--seed`; they are counted in lines of the journal, so that a slow machine is
killed at the same places as a fast one. After a driver's death nothing is waited for before the next start.

`kills` is how often, `resumed` how often `--resume` went on. `lost_reports` counts pairs of a member and an epoch that
the journal of either sweep has, and MLflow does not have exactly once; `other_values` those pairs whose loss is not, to
the last bit, that of the undisturbed sweep. `same_policy`: the policy files of both roles have the same bytes.
`orphans_s` is how long at most a process of a killed driver's own Ray outlived it, `overhead_s` what all of it cost.
`at_line` holds where the kills fell, and `seconds` what the sweep took, with all of its starts.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks.common.results_file import Row, argument_parser, start
from search.execution.journal import FILE

SWEEP = """
name: faults
data: {{name: digits, train: 100, validation: 100}}
teacher: &role
  model: mlp
  recipe: {{lr: 0.05, batch_size: 20}}
  stage: {{epochs: {epochs}, population: {population}, interval: 2}}
  full: {{epochs: {full}}}
student: *role
search: {{seed: {seed}}}
"""
COMMAND = (sys.executable, "-m", "search.cli", "search", "sweep.yaml", "--set", "resources.retries=30")

WORKERS = ("ray::RoleTrial", "ray::ResourceTrainable")
"""What Ray calls a process that trains, as it waits and as it works."""

DRIVER, TRAINS = "driver", "worker"

LOOK = 0.02
"""Seconds from one look at the journal to the next."""

PATIENCE = 600.0
"""Seconds without a new line in the journal after which the sweep counts as stuck."""


@dataclass(frozen=True)
class Setting:
    """How much there is to do.

    Args:
        kills: over the whole sweep.
        population: of either role.
        epochs: of a search.
        full: epochs of a full training.
    """

    kills: int
    population: int
    epochs: int
    full: int


FULL = Setting(kills=30, population=4, epochs=60, full=10)
QUICK = Setting(kills=3, population=2, epochs=4, full=2)


def main() -> None:
    """Run the sweep undisturbed, then disturbed, and compare."""
    benchmark = start(__file__, argument_parser(__doc__))
    setting = QUICK if benchmark.quick else FULL
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that nothing is left running
    with TemporaryDirectory(prefix="rt", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        (folder / "sweep.yaml").write_text(SWEEP.format(**vars(setting), seed=benchmark.seed), "utf-8")
        alone = run(folder, "alone", [])
        plan = drawn(setting.kills, alone.lines, benchmark.seed)
        disturbed = run(folder, "disturbed", plan)
    overhead = disturbed.seconds - alone.seconds
    victims = Counter(kill.victim for kill in plan)
    summary = {
        "kills": len(plan),
        "kills_of_driver": victims[DRIVER],
        "kills_of_worker": victims[TRAINS],
        "resumed": disturbed.starts - 1,
        "lost_reports": lost(alone, disturbed),
        "other_values": other_values(alone, disturbed),
        "same_policy": len(alone.policies) == 2 and alone.policies == disturbed.policies,
        "orphans_s": disturbed.orphans,
        "overhead_s": overhead,
    }
    benchmark.finish([row("undisturbed", alone), row("disturbed", disturbed)], summary, peers=("ray", "mlflow"))


# Kills ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kill:
    """A kill that is to come.

    Args:
        after: lines that the journal grows by since the kill before.
        victim: the driver, or a worker that trains.
        which: of the workers.
    """

    after: int
    victim: str
    which: int


def drawn(kills: int, lines: int, seed: int) -> list[Kill]:
    """Kills at random places of a journal of `lines`, half of them the driver's; all come before its end."""
    draw = np.random.default_rng(seed)
    places = np.sort(draw.integers(1, lines * 9 // 10, kills))
    victims = draw.permutation([(TRAINS, DRIVER)[number % 2] for number in range(kills)])
    gaps, which = np.diff(places, prepend=0), draw.integers(1000, size=kills)
    return [Kill(int(gap), str(victim), int(one)) for gap, victim, one in zip(gaps, victims, which, strict=True)]


Process = tuple[int, int]
"""A process's id, and when it was started, since ids are used again."""


def processes() -> dict[Process, tuple[int, str]]:
    """Every process of this machine, but for what is dead already: its parent's id, and what it is called."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            state, parent, *rest = (entry / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()
            title = (entry / "cmdline").read_text("utf-8", "replace")
        except OSError:  # it has ended meanwhile
            continue
        if state not in "ZX":
            found[int(entry.name), int(rest[17])] = int(parent), title
    return found


def descendants(root: int) -> dict[Process, str]:
    """What the processes are called that `root` has started, and those that these have, and so on."""
    everyone, family, before = processes(), {root}, 0
    while len(family) > before:
        before = len(family)
        family |= {pid for (pid, _), (parent, _) in everyone.items() if parent in family}
    return {process: title for process, (_, title) in everyone.items() if process[0] in family - {root}}


# The sweep ------------------------------------------------------------------------------------------------------------


@dataclass
class SearchResult:
    """What a sweep left.

    Args:
        policies: the policy file's bytes by role.
        journal: losses by (member, epoch), as its journal has them.
        tracked: losses by (name of the run, epoch), as MLflow has them, each as often as it has it.
        unfinished: runs in MLflow that are not FINISHED.
        lines: of its journal.
        starts: lives that it had.
        at_line: of the journal, where the kills fell.
        orphans: seconds that a process of a killed driver's outlived it.
        seconds: from the first command to the last one's end.
    """

    policies: Mapping[str, bytes]
    journal: Mapping[tuple[str, int], float]
    tracked: Mapping[tuple[str, int], Sequence[float]]
    unfinished: int
    lines: int
    starts: int
    at_line: Sequence[int]
    orphans: float
    seconds: float


def row(what: str, found: SearchResult) -> Row:
    """The figures of a sweep."""
    return {
        "run": what,
        "starts": found.starts,
        "journal_lines": found.lines,
        "reports": sum(len(losses) for losses in found.tracked.values()),
        "unfinished_runs": found.unfinished,
        "seconds": found.seconds,
        "at_line": list(found.at_line),
    }


def lost(alone: SearchResult, disturbed: SearchResult) -> int:
    """Reports that one of the journals has, or MLflow, and that MLflow does not have once."""
    every = {*alone.journal, *disturbed.journal, *disturbed.tracked}
    return sum(len(disturbed.tracked.get(pair, ())) != 1 for pair in every)


def other_values(alone: SearchResult, disturbed: SearchResult) -> int:
    """Reports whose loss the disturbed sweep found another one for than the undisturbed one, or has not."""
    return sum(
        {disturbed.journal.get(pair), *disturbed.tracked.get(pair, ())} != {loss}
        for pair, loss in alone.journal.items()
    )


def run(folder: Path, name: str, plan: Sequence[Kill]) -> SearchResult:
    """Run the sweep of `folder` to its end, whatever is killed meanwhile.

    Raises:
        SystemExit: it failed, or does not go on.
    """
    began = time.monotonic()
    storage = folder / name
    victim = Victim(folder, storage)
    left, at_line = list(plan), list[int]()
    try:
        while victim.alive():
            if left and victim.lines - (at_line[-1] if at_line else 0) >= left[0].after and victim.kill(left[0]):
                at_line.append(victim.lines)
                left.pop(0)
            time.sleep(LOOK)
    finally:
        victim.close()
    if left:
        raise SystemExit(f"the sweep was over before the last {len(left)} kills")
    seconds = time.monotonic() - began
    return read(storage / "faults-001", victim.orphans.longest, at_line, seconds)


class Victim:
    """The driver's command, which is started again after each of its deaths.

    Args:
        folder: with the sweep file; what the command says goes there too.
        storage: of the sweep.
    """

    def __init__(self, folder: Path, storage: Path) -> None:
        """Start it."""
        self._folder, self._storage = folder, storage
        self._said = folder / f"{storage.name}.log"
        self._journal = storage / "faults-001" / FILE
        self.lines = 0
        self._size, self._moved = 0, time.monotonic()
        self.orphans = Orphans()
        self._start()

    def alive(self) -> bool:
        """Whether the sweep is not over; looks at its journal meanwhile.

        Raises:
            SystemExit: it failed, or is stuck.
        """
        if (status := self._driver.poll()) is not None:
            if status:
                self._fail(f"it ended with status {status}")
            return False
        self.orphans.look()
        if self._journal.is_file() and (size := self._journal.stat().st_size) != self._size:
            self.lines = self._journal.read_bytes().count(b"\n")
            self._size, self._moved = size, time.monotonic()
        if time.monotonic() > self._moved + PATIENCE:
            self._fail("it does not go on")
        return True

    def kill(self, kill: Kill) -> bool:
        """Kill the driver, and start it again, or one of its workers; False: there is none at the moment."""
        family = descendants(self._driver.pid)
        if kill.victim == DRIVER:
            self._driver.kill()
            self._driver.wait()
            self.orphans.add(family)
            self._start("--resume")
            return True
        workers = sorted(pid for (pid, _), title in family.items() if title.startswith(WORKERS))
        if workers:
            os.kill(workers[kill.which % len(workers)], signal.SIGKILL)
        return bool(workers)

    def close(self) -> None:
        """End it, if it still runs, and wait until its Ray has gone too."""
        if self._driver.poll() is None:
            self.orphans.add(descendants(self._driver.pid))
            self._driver.kill()
            self._driver.wait()
        self.orphans.wait()

    def _start(self, *more: str) -> None:
        taken = ("MLFLOW_TRACKING_URI", "RAY_ADDRESS", "OMP_NUM_THREADS")
        environment = {key: value for key, value in os.environ.items() if key not in taken}
        command = [*COMMAND, "--storage", str(self._storage), *(more if self._journal.is_file() else ())]
        with self._said.open("ab") as file:
            self._driver = subprocess.Popen(
                command,
                cwd=self._folder,
                env=environment | {"RAY_TMPDIR": str(self._folder)},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
            )
        self._moved = time.monotonic()

    def _fail(self, why: str) -> None:
        said = self._said.read_text("utf-8", errors="replace").splitlines()[-40:]
        raise SystemExit("\n".join([f"{self._storage.name}: {why}", *said]))


@dataclass
class Orphans:
    """Processes whose driver was killed; `longest` is how many seconds one of them went on."""

    longest: float = 0.0
    _since: dict[Process, float] = field(default_factory=dict)
    _looked: float = 0.0

    def add(self, family: Mapping[Process, str]) -> None:
        """From now on these are orphans."""
        self._since |= dict.fromkeys(family, time.monotonic())

    def look(self) -> None:
        """See who still lives, some times a second."""
        now = time.monotonic()
        if not self._since or now < self._looked + 0.2:
            return
        self._looked, everyone = now, processes()
        self._since = {process: since for process, since in self._since.items() if process in everyone}
        self.longest = max([self.longest, *(now - since for since in self._since.values())])

    def wait(self) -> None:
        """Wait until all have ended.

        Raises:
            SystemExit: some stay.
        """
        while self._since:
            self.look()
            if self.longest > PATIENCE:
                raise SystemExit(f"{len(self._since)} processes outlive their driver by {self.longest:.0f} s")
            time.sleep(LOOK)


def read(folder: Path, orphans: float, at_line: Sequence[int], seconds: float) -> SearchResult:
    """What a sweep left in its folder, and in MLflow."""
    from mlflow.tracking import MlflowClient

    events = [json.loads(line) for line in (folder / FILE).read_text("utf-8").splitlines()]
    reports = [event for event in events if event["event"] == "reported"]
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("faults")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    tracked: dict[tuple[str, int], list[float]] = {}
    for one in runs:
        for point in client.get_metric_history(one.info.run_id, "loss"):
            tracked.setdefault((str(one.info.run_name), point.step), []).append(point.value)
    return SearchResult(
        policies={path.name: path.read_bytes() for path in sorted(folder.glob("policy.*.json"))},
        journal={(event["member"], event["epoch"]): event["metrics"]["loss"] for event in reports},
        tracked=tracked,
        unfinished=sum(one.info.status != "FINISHED" for one in runs),
        lines=len(events),
        starts=sum(event["event"] == "started" for event in events),
        at_line=at_line,
        orphans=orphans,
        seconds=seconds,
    )


if __name__ == "__main__":
    main()
