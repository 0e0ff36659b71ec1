"""The benchmark `scale`: the surface in closed form, Tune's order of calls in the simulation, and constant cost."""

from __future__ import annotations

import itertools
import logging
import sys
from dataclasses import replace

import numpy as np
import pytest
from ray.tune import Callback
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from scipy import stats

from benchmarks.common.search import search_settings
from benchmarks.scheduling import scale
from benchmarks.scheduling.response_surface import (
    CURVATURE,
    KINDS,
    NOISE,
    TOTAL_PROGRESS,
    SimulatedTraining,
    State,
    Surface,
    skill,
)
from benchmarks.scheduling.simulated_tune import PENDING, Controller
from results.analysis.statistics import holm
from search.execution.journal import Journal
from search.execution.trials import JournalCallback
from spaces import Genome, Phase, Space
from spaces.search_space.encoding import decode, encode

ONE = Space(operations=("Rotate",), copies=1)


@pytest.fixture(autouse=True)
def _quiet():
    logging.getLogger("ray.tune").setLevel(logging.WARNING)


# ---- the surface -----------------------------------------------------------------------------------


def every_genome(space):
    places = itertools.product(range(11), range(10))
    return [decode(space, space.zero(), (p / 10, m / 9)) for p, m in places]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("interval", [1, 4, 10])
def test_the_best_schedule_is_the_best_of_all(kind, interval):
    """The progress of an epoch does not depend on those before, so all genomes can be tried for each slice."""
    surface = Surface.sample(kind, ONE, 10, seed=3)
    z = 0.0
    for phase, first in zip(surface.best_phases(interval), range(0, 10, interval), strict=True):
        epochs = range(first + 1, min(first + interval, 10) + 1)
        assert phase.epochs == len(epochs)
        sums = [sum(surface.gain(encode(ONE, g), epoch) for epoch in epochs) for g in every_genome(ONE)]
        assert sum(surface.gain(encode(ONE, phase.genome), epoch) for epoch in epochs) == pytest.approx(max(sums))
        z += max(sums)
    assert surface.final_skill(surface.best_phases(interval)) == pytest.approx(skill(z))


def test_a_training_that_is_always_at_its_best_learns_all_there_is():
    place = encode(ONE, decode(ONE, ONE.zero(), (0.3, 5 / 9)))
    surface = Surface(ONE, 20, place, place)
    best = decode(ONE, ONE.zero(), place)
    assert surface.final_skill([Phase(20, best)]) == pytest.approx(1 - np.exp(-TOTAL_PROGRESS))
    off = float(np.mean((encode(ONE, ONE.zero()) - place) ** 2))
    expected = skill(TOTAL_PROGRESS * (0.25 + 0.75 * (1 - CURVATURE * off)))
    assert surface.final_skill([Phase(15, ONE.zero()), Phase(5, best)]) == pytest.approx(expected)
    assert surface.final_skill([Phase(5, best), Phase(15, ONE.zero())]) == pytest.approx(expected), "in any order"


def test_only_a_surface_that_moves_wants_a_schedule():
    moving, still = (Surface.sample(kind, scale.SMALL, 60, seed=0) for kind in KINDS)
    assert moving.final_skill(moving.best_phases(1)) - moving.final_skill(moving.best_phases(60)) > 0.02
    assert still.final_skill(still.best_phases(1)) == pytest.approx(still.final_skill(still.best_phases(60)))
    assert np.all(np.abs(moving.end - moving.start) > 0.59) and np.array_equal(still.start, still.end)
    again = Surface.sample("moving", scale.SMALL, 60, seed=0)
    assert np.array_equal(again.start, moving.start)
    assert not np.array_equal(Surface.sample("moving", scale.SMALL, 60, seed=1).start, moving.start)


def test_a_simulated_training_is_the_surface_with_noise_in_its_scores_alone():
    surface = Surface.sample("moving", scale.SMALL, 200, seed=0)
    training, state, off = SimulatedTraining(surface, 1), State(), []
    first, second = (scale.SMALL.random(np.random.default_rng(seed)).to_json() for seed in (0, 1))
    for epoch in range(200):
        member = {"seed": 7, "genome": first if epoch < 120 else second}
        state, report = training.step(member, state)
        off.append(report["validation_accuracy"] - skill(state.z))
    assert [item["epochs"] for item in state.history] == [120, 80] and state.epoch == 200
    phases = [Phase(120, Genome.from_json(first)), Phase(80, Genome.from_json(second))]
    assert skill(state.z) == pytest.approx(surface.final_skill(phases))
    assert np.std(off) == pytest.approx(NOISE, rel=0.2) and abs(np.mean(off)) < 4 * NOISE / 200**0.5
    _, again = training.step(member, replace(state, epoch=199))
    assert again["validation_accuracy"] - again["train_accuracy"] == pytest.approx(off[-1]), "of seed and epoch"
    assert "validation_accuracy" not in SimulatedTraining(surface, 3).step(member, State())[1]


# ---- the simulation ----------------------------------------------------------------------------------


class CallRecorder:
    """Calls with their trial and its state."""

    def __init__(self):
        self.recorded = []

    def note(self, what, trial):
        self.recorded.append((what, trial.trial_id, trial.status, trial.last_result.get("epoch", 0)))


class PausingScheduler(FIFOScheduler):
    """Pauses each trial after two epochs."""

    def __init__(self, notes):
        super().__init__()
        self.note = notes.note

    def on_trial_add(self, controller, trial):
        self.note("add", trial)

    def on_trial_result(self, controller, trial, result):
        self.note("scheduler result", trial)
        return TrialScheduler.PAUSE if result["epoch"] == 2 else TrialScheduler.CONTINUE

    def on_trial_complete(self, controller, trial, result):
        self.note("scheduler complete", trial)


class RecordingCallback(Callback):
    def __init__(self, notes):
        self.note = notes.note

    def on_trial_start(self, iteration, trials, trial, **info):
        self.note("callback start", trial)

    def on_trial_result(self, iteration, trials, trial, result, **info):
        self.note("callback result", trial)

    def on_trial_save(self, iteration, trials, trial, **info):
        self.note("callback save", trial)

    def on_trial_complete(self, iteration, trials, trial, **info):
        self.note("callback complete", trial)


def configs(count):
    genome = ONE.zero().to_json()
    return [{"member": {"name": f"m{i}", "index": i, "seed": i, "moved": True, "genome": genome}} for i in range(count)]


def run_simulation(count, folder):
    notes, training = CallRecorder(), SimulatedTraining(Surface.sample("still", ONE, 3, 0), 1)
    known = {"slots": 2, "epochs": 3, "configs": configs(count)}
    controller = Controller(training, PausingScheduler(notes), RecordingCallback(notes), folder, **known)
    controller.run()
    return controller, notes.recorded


def test_simulation_keeps_tunes_order_of_calls(tmp_path):
    """Scheduler before callback; the last report past the scheduler; saved before it is paused, and before it ends."""
    _, recorded = run_simulation(1, tmp_path)
    running, pending = Trial.RUNNING, Trial.PENDING
    assert [(what, status, epoch) for what, _, status, epoch in recorded] == [
        ("add", pending, 0),
        ("callback start", pending, 0),
        ("scheduler result", running, 0),
        ("callback result", running, 0),
        ("scheduler result", running, 1),
        ("callback result", running, 1),
        ("callback save", running, 2),
        ("callback start", pending, 2),
        ("callback result", running, 2),
        ("callback save", running, 3),
        ("scheduler complete", running, 3),
        ("callback complete", running, 3),
    ]


def test_simulation_limits_running_and_pending_trials(tmp_path):
    controller, recorded = run_simulation(40, tmp_path)
    assert controller.reports == 3 * 40 and all(trial.is_finished() for trial in controller.get_trials())
    running, most = set(), 0
    for what, trial, _, _ in recorded:
        if what == "callback start":
            running.add(trial)
        elif what == "callback save":
            running.discard(trial)
        most = max(most, len(running))
    assert most == 2
    calls = [what for what, *_ in recorded]
    assert calls[:PENDING] == ["add"] * PENDING and calls[PENDING] == "callback start"


# ---- what it measures ------------------------------------------------------------------------------


def calls_per_report(algorithm, size, folder):
    """Calls of Python and C functions in the driver, for each report of a search; no clock is looked at."""
    counted = [0]

    def count(frame, event, argument):
        counted[0] += event in ("call", "c_call")

    folder.mkdir()
    surface = Surface.sample("moving", ONE, 9, 0)
    with Journal(folder) as journal:
        settings = search_settings(algorithm, size=size, epochs=9, interval=3)
        search = scale.SurfaceSearch(settings, surface, 0, JournalCallback(journal), size // 4)
        sys.setprofile(count)
        try:
            search.controller.run()
        finally:
            sys.setprofile(None)
    return counted[0] / search.controller.reports


@pytest.mark.parametrize("algorithm", ["pbt", "successive_halving", "random"])
def test_a_report_costs_the_driver_as_much_among_many_trials_as_among_few(algorithm, tmp_path):
    few, many = (calls_per_report(algorithm, size, tmp_path / str(size)) for size in (16, 128))
    assert many < 1.3 * few


def test_no_search_spends_more_than_its_budget():
    setting = replace(scale.QUICK, members=8, epochs=9)
    surface = Surface.sample("still", scale.SMALL, 9, 0)
    for options in scale.SEARCHES.values():
        phases, epochs = scale.search_within_budget(options, surface, setting, 0)
        assert 0.5 * 72 < epochs <= 72 and sum(phase.epochs for phase in phases) == 9


def test_regrets_are_paired_by_seed_and_corrected_over_both_surfaces():
    draw = np.random.default_rng(0)
    names = (*scale.SEARCHES, "best_slices", "best_constant")
    rows = [
        {"surface": kind, "search": name, "regret_by_seed": (place + 0.3 * draw.random(20)).tolist()}
        for kind in KINDS
        for place, name in enumerate(names)
    ]
    found = scale.summarize(rows)
    values = {(row["surface"], row["search"]): row["regret_by_seed"] for row in rows}
    assert found["regret_pbt"] == pytest.approx(np.mean(values["moving", "pbt"]))
    assert found["regret_still_random"] == pytest.approx(np.mean(values["still", "random"]))
    pairs = [(kind, name) for kind in KINDS for name in ("pb2", "tpe_asha", "random")]
    p = holm([stats.ttest_rel(values[kind, "pbt"], values[kind, name]).pvalue for kind, name in pairs])
    assert [found[f"p_{kind}_pbt_minus_{name}"] for kind, name in pairs] == pytest.approx(p)
    assert len(found) == 2 * 6 + 6 and {f"regret_{name}" for name in scale.SEARCHES} <= set(found)
