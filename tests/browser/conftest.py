"""`roletune ui` on the store of a sweep, and a browser to view it."""

import shutil
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from urllib.request import urlopen

import pytest
from children import child
from mlflow.tracking import MlflowClient
from support import runs_of, tracked

from results.plots.schedule import plot_schedule
from results.tracking.policy_tables import POLICIES_FILE, policies_table, table_tag
from spaces import Entry, Genome, ImageSpec, Phase, Policy, Schedule

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--window-size=1800,1000"),
)
EPOCHS = 4
ROTATES = Genome(Policy((Entry("Rotate", 5, 6), Entry("Invert", 2, 0))))
SCHEDULE = Schedule((Phase(2, Genome()), Phase(2, ROTATES)), "student", ImageSpec(8, 1, (78,)))


def sweep(folder):
    """A finished sweep of two trials, as `search` logs it; MLflow's run ids by name."""
    with tracked(folder, "digits") as tracker:
        parent = tracker.start(
            "digits-001",
            tags={"stage": "sweep"},
            description="pbt search, seed 0.\n\n| role | test |\n|---|---|\n| student | 91.00 |",
        )
        tracker.log(parent, {"final_test_accuracy": 0.91, "best_validation_accuracy": 0.91})
        runs = [parent]
        for number in range(2):
            name = f"student-pbt-{number:02d}"
            tags = {"role": "student", "stage": "pbt search", "member": name, "generation": "0"}
            run = tracker.start(name, parent=parent, tags=tags)
            for epoch in range(1, EPOCHS + 1):
                strength = {f"policy/{op}/strength": float(epoch + number) for op in ("Rotate", "Invert")}
                tracker.log(run, {**strength, "validation_accuracy": 0.8 + 0.02 * epoch}, step=epoch)
            tracker.log(run, {"best_validation_accuracy": 0.9 + number / 100}, step=EPOCHS)
            runs.append(run)
        tracker.artifact(parent, plot_schedule(SCHEDULE, folder / "schedule.student.png"))
        tracker.text(parent, policies_table({("student", "policy"): SCHEDULE}), POLICIES_FILE)
        tracker.tag(parent, table_tag(POLICIES_FILE))
        assert tracker.flush()
        found = runs_of(MlflowClient(tracker.uri), tracker)
        return {run: found[run].info.run_id for run in runs}


@pytest.fixture(scope="session")
def page(tmp_path_factory):
    """The addresses that `roletune ui` prints, the server's as `home`, and the runs of the sweep."""
    folder = tmp_path_factory.mktemp("sweep")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        runs = sweep(folder)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "search.cli", "ui", str(folder), "--port", str(port)]
    log = folder / "ui.log"
    with (
        log.open("w") as output,
        child(command, cwd=Path(__file__).parents[2], stdout=output, stderr=subprocess.STDOUT) as server,
    ):
        home = f"http://127.0.0.1:{port}/"
        while True:
            assert server.poll() is None, log.read_text()
            with suppress(OSError), urlopen(f"{home}health", timeout=10):
                break
            time.sleep(0.1)
        runs_line, charts_line = log.read_text().splitlines()[:2]
        yield SimpleNamespace(address=runs_line.split()[0], charts=charts_line.split()[0], home=home, runs=runs)


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """Chromium without a window; where it is not installed, the tests are skipped."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    from selenium.webdriver.chrome.service import Service

    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver = shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("chromium or chromedriver is not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('browser')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "SEVERE"})
    opened = webdriver.Chrome(options=options, service=Service(driver))
    yield opened
    opened.quit()
