"""A sweep over several hosts, of which one is disconnected while another one joins: are reports lost?

The hosts are network namespaces of this machine with their own addresses on one bridge. Only that bridge and a shared
folder connect them. Ray is started on each with `ray start`, as on any machine. The head also runs MLflow's server and
`roletune search`. After a third of the epochs of the student's search a worker's link is taken down without notice: its
connections go silent. Then a new host joins.

Namespaces need Linux, root and iproute2 (`apt-get install iproute2`). Without them, or with `--cluster-utils`, the
hosts are processes with one address (`ray.cluster_utils`), and one is killed.

The same sweep also runs undisturbed on this machine with its own Ray. `same_policy` is true if both roles' policy files
have the same bytes. `members` are the MLflow runs of searches and final trainings, `finished` those that finished.
`lost_reports` counts the epochs that MLflow lacks, `repeated` those that it has more than once. `seconds` is the
duration of the disturbed sweep, start included. Ray declares a silent host dead after about five seconds here, by
settings of its health checks, and after half a minute or more by default.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from argparse import Namespace
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.common.results_file import Row, argument_parser, start
from benchmarks.reliability.hosts import Hosts, Log, Namespaces, Processes, closing, environment, fill
from results.runlog.events import JOURNAL_FILE
from results.runlog.history import History

NAME = "hosts"

DRIVER = ("roletune", "search", "sweep.yaml", "--address={head}", "--storage={shared}/runs")
DOCTOR = ("roletune", "doctor", "sweep.yaml", "--address={head}", "--storage={shared}/runs")
MLFLOW = ("mlflow", "server", "--backend-store-uri={store}", "--artifacts-destination={shared}/mlflow")
"""Commands as documented for clusters. Those that start Ray are in `benchmarks.reliability.hosts`."""

LABELS_ONLY = {"distill": {"alpha": 0.0}}
"""Settings of a student without a teacher."""


@dataclass(frozen=True)
class Setting:
    """Size of the benchmark.

    Args:
        epochs: Epochs of every training.
        interval: Epochs between perturbations.
        train: Training images.
        teacher: True to search and train a teacher before the student.
    """

    epochs: int
    interval: int
    train: int
    teacher: bool

    def sweep(self, seed: int) -> str:
        """Return the sweep file as JSON, which is valid YAML."""
        search = {"algorithm": "pbt", "epochs": self.epochs, "population": 4, "interval": self.interval}
        role = {"model": "mlp", "recipe": {"lr": 0.05, "batch_size": 20}, "search": search}
        roles = {"teacher": role, "student": role} if self.teacher else {"teacher": None, "student": LABELS_ONLY | role}
        data = {"name": "digits", "train": self.train, "validation": 500}
        return json.dumps({"name": NAME, "seed": seed, "data": data, **roles, "baselines": []})


FULL = Setting(epochs=48, interval=4, train=700, teacher=True)
QUICK = Setting(epochs=4, interval=2, train=50, teacher=False)


def main() -> None:
    """Run the sweep undisturbed and over changing hosts, and compare."""
    parser = argument_parser(__doc__)
    parser.add_argument(
        "--cluster-utils", action="store_true", help="use processes with one address instead of namespaces"
    )
    benchmark = start(__file__, parser)
    setting = QUICK if benchmark.quick else FULL
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # cleans up
    with TemporaryDirectory(prefix="rt") as path:
        folder = Path(path)
        (folder / "sweep.yaml").write_text(setting.sweep(benchmark.seed), "utf-8")
        undisturbed = _run_undisturbed(folder)
        disturbed, hosts = _run_disturbed(folder, setting, benchmark.options)
    rows = [
        row("this machine alone", undisturbed, undisturbed),
        row(f"{hosts['hosts']} hosts", disturbed, undisturbed),
    ]
    summary = {
        **{key: value for key, value in hosts.items() if key != "kind"},
        **{key: rows[-1][key] for key in ("members", "finished")},
        "lost_reports": rows[-1]["lost"],
        "same_policy": undisturbed.policies == disturbed.policies,
        "seconds": disturbed.seconds,
    }
    rows[-1] |= {"hosts_are": hosts["kind"]}
    benchmark.finish(rows, summary, peers=("ray", "mlflow"))


# Outcome --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """Files and records of a finished sweep.

    Args:
        policies: Bytes of the policy files by name.
        statuses: Status by name of the MLflow run.
        reports: Number of times that MLflow has each (name of the run, epoch).
        seconds: Duration of the command.
    """

    policies: Mapping[str, bytes]
    statuses: Mapping[str, str]
    reports: Counter[tuple[str, int]]
    seconds: float


def row(run: str, outcome: Outcome, undisturbed: Outcome) -> Row:
    """Return the row of a sweep, compared with the undisturbed one."""
    return {
        "run": run,
        "members": len(outcome.statuses),
        "finished": sum(status == "FINISHED" for status in outcome.statuses.values()),
        "reports": outcome.reports.total(),
        "lost": len(undisturbed.reports.keys() - outcome.reports.keys()),
        "repeated": outcome.reports.total() - len(outcome.reports),
        "seconds": outcome.seconds,
    }


def read_outcome(folder: Path, store: str, seconds: float) -> Outcome:
    """Read a sweep's folder and its MLflow store."""
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


def _run_undisturbed(folder: Path) -> Outcome:
    started, shared = time.perf_counter(), folder / "alone"
    driver = [part for part in DRIVER if not part.startswith("--address")]
    with Log(folder / "alone.log") as log:
        log.run(fill(driver, shared=shared), folder, environment())
    (sweep,) = (shared / "runs").iterdir()
    return read_outcome(sweep, f"sqlite:///{sweep / 'mlflow.db'}", time.perf_counter() - started)


def _run_disturbed(folder: Path, setting: Setting, options: Namespace) -> tuple[Outcome, dict[str, Any]]:
    """Run the sweep on a head and two workers; one of them is disconnected and a third one joins."""
    shared = folder / "shared"
    shared.mkdir()
    store = f"sqlite:///{shared / 'mlflow.db'}"
    kind: type[Hosts] = Namespaces if not options.cluster_utils and Namespaces.available() else Processes
    with closing(kind(folder)) as hosts, Log(folder / "mlflow.log") as server, Log(folder / "driver.log") as driver:
        address = hosts.head()
        for name in ("first", "second"):
            hosts.join(name)
        mlflow = [*fill(MLFLOW, store=store, shared=shared), "--workers=1", f"--port={hosts.port}"]
        server.start(hosts.on_head(mlflow), folder, environment())
        server.wait_for(lambda: "Application startup complete" in server.text(), "MLflow's server did not start")
        started = time.perf_counter()
        variables = environment() | {"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{hosts.port}"}
        with Log(folder / "doctor.log") as doctor:
            doctor.run(hosts.on_head(fill(DOCTOR, head=address, shared=shared)), folder, variables)
        driver.start(hosts.on_head(fill(DRIVER, head=address, shared=shared)), folder, variables)
        driver.wait_for(lambda: _last_perturbation(shared / "runs") >= setting.epochs // 3, "the search is too slow")
        hosts.cut_off("first")
        hosts.join("third")
        driver.wait()
        seconds = time.perf_counter() - started
        states = hosts.states()
        server.stop()
        (sweep,) = (shared / "runs").iterdir()
        changes = {"kind": kind.KIND, "hosts": 3, "cut_off": states.count(False), "added": len(states) - 3}
        return read_outcome(sweep, store, seconds), changes


def _last_perturbation(storage: Path) -> int:
    """Return the epoch of the student's last perturbation."""
    for path in storage.glob(f"*/{JOURNAL_FILE}"):
        perturbations = History.read(path.parent).perturbations("student-pbt")
        return perturbations[-1].epoch if perturbations else 0
    return 0


if __name__ == "__main__":
    main()
