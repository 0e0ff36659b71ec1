"""A sweep whose processes are killed repeatedly: are reports lost, and is the result that of an undisturbed sweep?

A small sweep of digits with two roles runs twice. The first run is undisturbed. In the second, a process gets SIGKILL
whenever the journal has grown by a random number of lines. In random order, half of the kills hit the driver, that is
`roletune search`, which is then restarted with `--resume`; the others hit one of the Ray workers that train. Times and
victims follow from `--seed`. They are counted in lines of the journal, so that a slow machine is hit at the same places
as a fast one. After a driver's death the restart does not wait for anything.

`kills` is the number of kills, `resumed` the number of resumes. `lost_reports` counts pairs of a member and an epoch
that the journal of either sweep has and that MLflow does not have exactly once. `other_values` counts pairs whose loss
differs in any bit from that of the undisturbed sweep. `same_policy` is true if the policy files of both roles have the
same bytes. `orphans_s` is the longest time that a process of a killed driver's Ray outlived it, and `overhead_s` the
total cost. `at_line` has the journal lines of the kills, and `seconds` the duration of the sweep with all its starts.
"""

from __future__ import annotations

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
from results.runlog.events import JOURNAL_FILE, SessionStarted, TrialReported, read_events

SWEEP = """
name: faults
seed: {seed}
data: {{name: digits, train: 100, validation: 100}}
teacher: &role
  model: mlp
  recipe: {{lr: 0.05, batch_size: 20}}
  search: {{epochs: {epochs}, population: {population}, interval: 2}}
  final: {{epochs: {final}}}
student: *role
"""
COMMAND = (sys.executable, "-m", "search.cli", "search", "sweep.yaml", "--set", "resources.retries=30")

WORKERS = ("ray::RoleTrial", "ray::ResourceTrainable")
"""Titles that Ray gives a process that trains, while it waits and while it works."""

DRIVER, WORKER = "driver", "worker"

POLL_INTERVAL = 0.02
"""Seconds between two readings of the journal."""

STALL_TIMEOUT = 600.0
"""Seconds without a new line in the journal after which the sweep counts as stalled."""


@dataclass(frozen=True)
class Setting:
    """Size of the benchmark.

    Args:
        kills: Kills in the whole sweep.
        population: Members of each role's search.
        epochs: Epochs of a search.
        final: Epochs of a final training.
    """

    kills: int
    population: int
    epochs: int
    final: int


FULL = Setting(kills=30, population=4, epochs=60, final=10)
QUICK = Setting(kills=3, population=2, epochs=4, final=2)


def main() -> None:
    """Run the sweep undisturbed and disturbed, and compare."""
    benchmark = start(__file__, argument_parser(__doc__))
    setting = QUICK if benchmark.quick else FULL
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends all processes
    with TemporaryDirectory(prefix="rt", ignore_cleanup_errors=True) as path:
        folder = Path(path)
        (folder / "sweep.yaml").write_text(SWEEP.format(**vars(setting), seed=benchmark.seed), "utf-8")
        undisturbed = run(folder, "alone", [])
        plan = sample_kills(setting.kills, undisturbed.lines, benchmark.seed)
        disturbed = run(folder, "disturbed", plan)
    overhead = disturbed.seconds - undisturbed.seconds
    victims = Counter(kill.victim for kill in plan)
    summary = {
        "kills": len(plan),
        "kills_of_driver": victims[DRIVER],
        "kills_of_worker": victims[WORKER],
        "resumed": disturbed.starts - 1,
        "lost_reports": count_lost(undisturbed, disturbed),
        "other_values": count_other_values(undisturbed, disturbed),
        "same_policy": len(undisturbed.policies) == 2 and undisturbed.policies == disturbed.policies,
        "orphans_s": disturbed.orphans,
        "overhead_s": overhead,
    }
    benchmark.finish([row("undisturbed", undisturbed), row("disturbed", disturbed)], summary, peers=("ray", "mlflow"))


# Kills ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kill:
    """Planned kill.

    Args:
        after: Journal lines since the previous kill.
        victim: `DRIVER` or `WORKER`.
        which: Number that selects one of the workers.
    """

    after: int
    victim: str
    which: int


def sample_kills(kills: int, lines: int, seed: int) -> list[Kill]:
    """Draw kills at random lines of a journal of `lines` lines, before its end; half of them hit the driver."""
    generator = np.random.default_rng(seed)
    at_lines = np.sort(generator.integers(1, lines * 9 // 10, kills))
    victims = generator.permutation([(WORKER, DRIVER)[number % 2] for number in range(kills)])
    gaps, which = np.diff(at_lines, prepend=0), generator.integers(1000, size=kills)
    return [Kill(int(gap), str(victim), int(one)) for gap, victim, one in zip(gaps, victims, which, strict=True)]


Process = tuple[int, int]
"""Id and start time of a process; ids alone are reused."""


def processes() -> dict[Process, tuple[int, str]]:
    """Return the parent's id and the title of every live process of this machine."""
    live = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            state, parent, *rest = (entry / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()
            title = (entry / "cmdline").read_text("utf-8", "replace")
        except OSError:  # the process has ended
            continue
        if state not in "ZX":
            live[int(entry.name), int(rest[17])] = int(parent), title
    return live


def descendants(root: int) -> dict[Process, str]:
    """Return the titles of all direct and indirect children of `root`."""
    live, family, before = processes(), {root}, 0
    while len(family) > before:
        before = len(family)
        family |= {pid for (pid, _), (parent, _) in live.items() if parent in family}
    return {process: title for process, (_, title) in live.items() if process[0] in family - {root}}


# The sweep ------------------------------------------------------------------------------------------------------------


@dataclass
class SweepOutcome:
    """Files and records of a finished sweep.

    Args:
        policies: Bytes of the policy files by name.
        journal: Losses in the journal by (member, epoch).
        tracked: All losses in MLflow by (name of the run, epoch).
        unfinished: Number of MLflow runs that are not FINISHED.
        lines: Lines of the journal.
        starts: Number of starts of the driver.
        at_line: Journal lines of the kills.
        orphans: Longest time in seconds that a child outlived its killed driver.
        seconds: Time from the first start to the end.
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


def row(run: str, outcome: SweepOutcome) -> Row:
    """Return the row of a sweep."""
    return {
        "run": run,
        "starts": outcome.starts,
        "journal_lines": outcome.lines,
        "reports": sum(len(losses) for losses in outcome.tracked.values()),
        "unfinished_runs": outcome.unfinished,
        "seconds": outcome.seconds,
        "at_line": list(outcome.at_line),
    }


def count_lost(undisturbed: SweepOutcome, disturbed: SweepOutcome) -> int:
    """Count the reports of either journal or of MLflow that MLflow does not have exactly once."""
    every = {*undisturbed.journal, *disturbed.journal, *disturbed.tracked}
    return sum(len(disturbed.tracked.get(pair, ())) != 1 for pair in every)


def count_other_values(undisturbed: SweepOutcome, disturbed: SweepOutcome) -> int:
    """Count the reports of the undisturbed sweep whose loss is missing or different in the disturbed one."""
    return sum(
        {disturbed.journal.get(pair), *disturbed.tracked.get(pair, ())} != {loss}
        for pair, loss in undisturbed.journal.items()
    )


def run(folder: Path, name: str, plan: Sequence[Kill]) -> SweepOutcome:
    """Run the sweep of `folder` to its end while processes are killed by `plan`.

    Raises:
        SystemExit: The sweep failed or stalled.
    """
    started = time.monotonic()
    storage = folder / name
    driver = DriverProcess(folder, storage)
    remaining, at_line = list(plan), list[int]()
    try:
        while driver.running():
            since = driver.lines - (at_line[-1] if at_line else 0)
            if remaining and since >= remaining[0].after and driver.kill(remaining[0]):
                at_line.append(driver.lines)
                remaining.pop(0)
            time.sleep(POLL_INTERVAL)
    finally:
        driver.close()
    if remaining:
        raise SystemExit(f"the sweep ended before the last {len(remaining)} kills")
    seconds = time.monotonic() - started
    return read_outcome(storage / "faults-001", driver.orphans.longest, at_line, seconds)


class DriverProcess:
    """Command of the driver, restarted after each kill.

    Args:
        folder: Folder of the sweep file and of the command's output.
        storage: Storage of the sweep.
    """

    def __init__(self, folder: Path, storage: Path) -> None:
        """Start the driver."""
        self._folder, self._storage = folder, storage
        self._log = folder / f"{storage.name}.log"
        self._journal = storage / "faults-001" / JOURNAL_FILE
        self.lines = 0
        self._size, self._changed = 0, time.monotonic()
        self.orphans = Orphans()
        self._start()

    def running(self) -> bool:
        """Read the journal, and return True until the sweep has ended.

        Raises:
            SystemExit: The sweep failed or stalled.
        """
        if (status := self._driver.poll()) is not None:
            if status:
                self._fail(f"the driver ended with status {status}")
            return False
        self.orphans.update()
        if self._journal.is_file() and (size := self._journal.stat().st_size) != self._size:
            self.lines = self._journal.read_bytes().count(b"\n")
            self._size, self._changed = size, time.monotonic()
        if time.monotonic() > self._changed + STALL_TIMEOUT:
            self._fail(f"no new line in the journal for {STALL_TIMEOUT:.0f} s")
        return True

    def kill(self, kill: Kill) -> bool:
        """Kill and restart the driver, or kill one of its workers; return False if there is no worker now."""
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
        """End the driver and wait until its Ray has ended."""
        if self._driver.poll() is None:
            self.orphans.add(descendants(self._driver.pid))
            self._driver.kill()
            self._driver.wait()
        self.orphans.wait()

    def _start(self, *arguments: str) -> None:
        removed = ("MLFLOW_TRACKING_URI", "RAY_ADDRESS", "OMP_NUM_THREADS")
        environment = {key: value for key, value in os.environ.items() if key not in removed}
        command = [*COMMAND, "--storage", str(self._storage), *(arguments if self._journal.is_file() else ())]
        with self._log.open("ab") as file:
            self._driver = subprocess.Popen(
                command,
                cwd=self._folder,
                env=environment | {"RAY_TMPDIR": str(self._folder)},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
            )
        self._changed = time.monotonic()

    def _fail(self, reason: str) -> None:
        output = self._log.read_text("utf-8", errors="replace").splitlines()[-40:]
        raise SystemExit("\n".join([f"{self._storage.name}: {reason}", *output]))


@dataclass
class Orphans:
    """Processes whose driver was killed. `longest` is the longest time in seconds that one of them went on."""

    longest: float = 0.0
    _since: dict[Process, float] = field(default_factory=dict)
    _updated: float = 0.0

    def add(self, family: Mapping[Process, str]) -> None:
        """Add processes whose driver was killed now."""
        self._since |= dict.fromkeys(family, time.monotonic())

    def update(self) -> None:
        """Remove the processes that have ended; does nothing within 0.2 s of the last call."""
        now = time.monotonic()
        if not self._since or now < self._updated + 0.2:
            return
        self._updated, live = now, processes()
        self._since = {process: since for process, since in self._since.items() if process in live}
        self.longest = max([self.longest, *(now - since for since in self._since.values())])

    def wait(self) -> None:
        """Wait until all have ended.

        Raises:
            SystemExit: Processes outlive their driver by more than `STALL_TIMEOUT`.
        """
        while self._since:
            self.update()
            if self.longest > STALL_TIMEOUT:
                raise SystemExit(f"{len(self._since)} processes outlive their driver by {self.longest:.0f} s")
            time.sleep(POLL_INTERVAL)


def read_outcome(folder: Path, orphans: float, at_line: Sequence[int], seconds: float) -> SweepOutcome:
    """Read a sweep's folder and its MLflow store."""
    from mlflow.tracking import MlflowClient

    events = [event for _, event in read_events(folder / JOURNAL_FILE)]
    reports = [event for event in events if isinstance(event, TrialReported)]
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("faults")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    tracked: dict[tuple[str, int], list[float]] = {}
    for run in runs:
        for point in client.get_metric_history(run.info.run_id, "loss"):
            tracked.setdefault((str(run.info.run_name), point.step), []).append(point.value)
    return SweepOutcome(
        policies={path.name: path.read_bytes() for path in sorted(folder.glob("policy.*.json"))},
        journal={(report.trial, report.epoch): report.metrics["loss"] for report in reports},
        tracked=tracked,
        unfinished=sum(run.info.status != "FINISHED" for run in runs),
        lines=len(events),
        starts=sum(isinstance(event, SessionStarted) for event in events),
        at_line=at_line,
        orphans=orphans,
        seconds=seconds,
    )


if __name__ == "__main__":
    main()
