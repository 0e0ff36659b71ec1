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
from benchmarks.reliability.hosts import Hosts, Log, Namespaces, Processes, closing, environment, filled

NAME = "hosts"

DRIVER = ("roletune", "search", "sweep.yaml", "--address={head}", "--storage={shared}/runs")
DOCTOR = ("roletune", "doctor", "sweep.yaml", "--address={head}", "--storage={shared}/runs")
MLFLOW = ("mlflow", "server", "--backend-store-uri={store}", "--artifacts-destination={shared}/mlflow")
"""The commands, as the README has them; those that start Ray stand in `benchmarks.reliability.hosts`."""

ALONE = {"distill": {"alpha": 0.0}}
"""What a student without a teacher learns from: labels."""


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
    parser = argument_parser(__doc__)
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
        log.run(filled(driver, shared=shared), folder, environment())
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
        mlflow = [*filled(MLFLOW, store=store, shared=shared), "--workers=1", f"--port={hosts.port}"]
        server.begin(hosts.on_head(mlflow), folder, environment())
        server.wait_for(lambda: "Application startup complete" in server.text(), "MLflow's server did not start")
        began = time.perf_counter()
        tracked = environment() | {"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{hosts.port}"}
        with Log(folder / "doctor.log") as doctor:
            doctor.run(hosts.on_head(filled(DOCTOR, head=address, shared=shared)), folder, tracked)
        driver.begin(hosts.on_head(filled(DRIVER, head=address, shared=shared)), folder, tracked)
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


if __name__ == "__main__":
    main()
