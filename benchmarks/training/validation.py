"""How many validation images to score a member on, how often and by which rule: quality of the selection, and its cost.

**Selection.** Small populations are searched as in a sweep (8 members, 40 epochs, interval 4, PBA's space) on the 100
training images of `examples/digits.yaml`: teachers (resnet8), and students (mlp) of one teacher. After every epoch each
member classifies all 1,697 images that it is not trained on. At each perturbation the accuracy on this pool, with the
weights that would be copied, is the true ranking. Then every size of the validation set, every rule and every number of
scored epochs selects members, 100 times each (`benchmarks.training.selection`). The copies themselves follow the true
ranking, so that no size is favored by a population of its own.

Columns of the rows `choice`: `right`, the share of pairs in the right order; `best`, how often the first member is the
best; `quantile`, the share of the members of the upper and the lower quarter that belong there; `regret`, the
difference in accuracy between the best member and the first, in points.

Sources beside `teacher` and `student`: `simulated`, a simulated population for each measured one, with the same
accuracy, spread and correlations; `independent`, the same with members whose errors are independent, like two
binomials; `close`, simulated members of 94 % accuracy with a spread of 0.5 points and the measured correlations, which
is how far two good augmentations are apart on CIFAR-10. Columns of the rows `population`: `luck` is the standard
deviation of a member's accuracy between epochs, `apart` the share of images that only one of two members classifies
correctly, `changed` the same for two epochs of a member.

**Cost.** Seconds of an epoch and of a score on one thread: `digits` as above, `cifar` for resnet20 ← resnet56 on random
images of that size in batches of 128. `share` is the part of the time between two perturbations that scoring takes, at
interval 3, with 4,000 training images as in PBA, or 45,000, the default of a sweep file.

Limits: the true ranking is that of a finite pool, whose own sampling noise makes members look more different than they
are. A population with 100 training images differs more than one with 4,000. Whether better selections lead to a better
policy is not measured.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch

from benchmarks.common.plots import save_plot
from benchmarks.common.results_file import ROOT, Row, argument_parser, start
from benchmarks.common.timing import interleaved, spread
from benchmarks.common.training import load_demo, train_teacher
from benchmarks.training.selection import (
    RULES,
    Correct,
    PopulationModel,
    PopulationStatistics,
    SelectionQuality,
    apply_rule,
    sample_scores,
    selection_quality,
)
from benchmarks.training.step import shaped_task
from spaces import Genome, Space
from trainables import Task
from trainables.data import Images, load
from trainables.data.joined import join
from trainables.training.learner import Learner

PLOT = ROOT / "docs" / "images" / "validation.png"
COLORS = {"last": "#0072b2", "mean": "#009e73", "max": "#d55e00"}
SIZES = (50, 150, 500, 1000, 2000, 5000, 10_000)
ROLES, SIMULATIONS = ("teacher", "student"), ("simulated", "independent")

QUANTILE = 0.25
"""Share of a population that is replaced by copies, and of the members that are copied."""

INTERVAL = 3
"""Default interval of a sweep file."""

REDUCED, WHOLE = 4000, 45_000
"""Training images of CIFAR-10: PBA's reduced set, and the default of a sweep file."""

COLUMNS = {"epoch_noise": "luck", "disagreement": "apart", "epoch_disagreement": "changed"}
"""Columns of the committed result file, by field of `PopulationStatistics`."""


@dataclass(frozen=True)
class Setting:
    """Size of the benchmark.

    Args:
        members: Members of a population.
        epochs: Epochs of each member.
        interval: Epochs between perturbations.
        seeds: Populations of each role.
        draws: Draws of the validation images.
        rounds: Rounds of the timing.
        close: Simulated populations of similar members.
    """

    members: int
    epochs: int
    interval: int
    seeds: int
    draws: int
    rounds: int
    close: int


FULL = Setting(members=8, epochs=40, interval=4, seeds=2, draws=100, rounds=5, close=20)
QUICK = Setting(members=4, epochs=4, interval=2, seeds=1, draws=5, rounds=1, close=2)


def main() -> None:
    """Measure the selection, simulate it, and time epochs and scores."""
    benchmark = start(__file__, argument_parser(__doc__))
    torch.set_num_threads(1)
    setting, first = (QUICK if benchmark.quick else FULL), 1000 * benchmark.seed
    populations: dict[str, Sequence[Correct]] = {}
    for role in ROLES:
        measured = [
            one for seed in range(first, first + setting.seeds) for one in search_population(role, seed, setting)
        ]
        populations[role] = measured
        for kind in SIMULATIONS:
            populations[f"{role}, {kind}"] = [
                simulate(one, seed, correlated=kind == "simulated") for seed, one in enumerate(measured)
            ]
    populations["close"] = simulate_similar([one for role in ROLES for one in populations[role]], setting)
    rows = [
        row
        for source, correct in populations.items()
        for row in (population_row(source, correct), *selection_rows(source, correct, setting))
    ]
    digits = demo_task("student", benchmark.seed, setting.epochs)
    cifar = shaped_task("resnet20", "resnet56", 256, 128, benchmark.seed)
    for source, task, batch in (("digits", digits, 20), ("cifar", cifar, 128)):
        rows += cost_rows(source, *seconds_per_image(task, batch, setting, benchmark.seed))
    if not benchmark.quick:
        plot(rows)
    benchmark.finish(rows, summarize(rows))


# Populations ----------------------------------------------------------------------------------------------------------


def demo_task(role: str, seed: int, epochs: int) -> Task:
    """Return a role's task of the demo with all other images held out; the student's teacher has no policy."""
    config = load_demo()
    data = load("digits", train=config.data.train, seed=seed)
    settings = config.roles["teacher"]
    task = Task("teacher", settings.model, data, settings.recipe, epochs)
    if role == "teacher" or config.student is None:
        return task
    student = config.student
    _, teacher = train_teacher(task, seed)
    return Task("student", student.model, data, student.recipe, task.epochs, teacher=teacher, distill=student.distill)


def search_population(role: str, seed: int, setting: Setting) -> Iterator[Correct]:
    """Search with PBT, and yield the predictions (M, K, P) of the epochs before each perturbation."""
    task = demo_task(role, seed, setting.epochs)
    pool, space = join(task.data.validation, task.data.test), Space()
    generator = np.random.default_rng(seed)
    members = [task.learner(space.zero(), seed=100 * seed + index) for index in range(setting.members)]
    genomes = [space.zero()] * setting.members
    count = round(QUANTILE * setting.members)
    for _ in range(setting.epochs // setting.interval):
        correct = np.stack([[train_and_predict(member, pool) for _ in range(setting.interval)] for member in members])
        yield correct
        ranked = np.argsort(-correct[:, -1].mean(axis=1), kind="stable")
        for target in ranked[-count:]:
            source = ranked[generator.integers(count)]
            members[target].load_state_dict(copy.deepcopy(members[source].state_dict()))
            genomes[target] = space.explore(genomes[source], generator)
            members[target].set_genome(genomes[target])


@torch.no_grad()
def predict_correctly(learner: Learner, pool: Images) -> Correct:
    """Return which images (P,) the current network classifies correctly."""
    learner.model.eval()
    batches = [learner.model(learner.normalize(images)).argmax(1) == labels for images, labels in pool.batches(512)]
    return np.asarray(torch.cat(batches).numpy())


def train_and_predict(learner: Learner, pool: Images) -> Correct:
    """Train one epoch, and return which images (P,) are classified correctly after it."""
    learner.step()
    return predict_correctly(learner, pool)


def simulate(correct: Correct, seed: int, *, correlated: bool = True) -> Correct:
    """Draw a population with the statistics of a measured one; if not `correlated`, members err independently."""
    members, epochs, pool = correct.shape
    model = PopulationStatistics.measure(correct).fit(pool, epochs)
    if not correlated:
        own = model.epoch_correlation - model.member_correlation
        model = replace(model, member_correlation=0.0, epoch_correlation=own)
    return model.sample(members, epochs, pool, seed)


def simulate_similar(measured: Sequence[Correct], setting: Setting) -> list[Correct]:
    """Draw populations of good members that differ little, in a pool of 50,000, with the mean measured correlations."""
    models = [PopulationStatistics.measure(one).fit(one.shape[2], one.shape[1]) for one in measured]
    between = float(np.mean([model.member_correlation for model in models]))
    within = float(np.mean([model.epoch_correlation for model in models]))
    level, slope = 1.555, 0.119  # the normal quantile of 0.94, and the density there
    model = PopulationModel(level, 0.005 / slope, 0.002 / slope, between, max(between, within))
    return [model.sample(setting.members, setting.interval, 50_000, seed) for seed in range(setting.close)]


def population_row(source: str, populations: Sequence[Correct]) -> Row:
    """Return the mean statistics of some populations."""
    statistics = [asdict(PopulationStatistics.measure(one)) for one in populations]
    return {"what": "population", "source": source} | {
        COLUMNS.get(name, name): float(np.mean([one[name] for one in statistics])) for name in statistics[0]
    }


def selection_rows(source: str, populations: Sequence[Correct], setting: Setting) -> Iterator[Row]:
    """Yield the quality of the selection by size, rule and scored epochs; for simulations by the last epoch only."""
    rules = [("last", 1)]
    if not source.endswith(SIMULATIONS):
        rules += [(rule, epochs) for rule in RULES[1:] for epochs in sorted({2, setting.interval})]
    for size in SIZES:
        qualities: dict[tuple[str, int], list[SelectionQuality]] = {rule: [] for rule in rules}
        for number, correct in enumerate(populations):
            scores = sample_scores(correct, size, draws=setting.draws, seed=number)
            truth = correct[:, -1].mean(axis=1)
            for rule in rules:
                qualities[rule].append(selection_quality(apply_rule(scores, *rule), truth, QUANTILE))
        for (rule, epochs), each in qualities.items():
            row: Row = {"what": "choice", "source": source, "images": size, "rule": rule, "epochs_scored": epochs}
            row["right"] = float(np.nanmean([one.ordered_pairs for one in each]))
            row["best"] = float(np.nanmean([one.best for one in each]))
            row["quantile"] = float(np.nanmean([one.quantile for one in each]))
            yield row | {"regret": 100 * float(np.mean([one.regret for one in each]))}


# Cost -----------------------------------------------------------------------------------------------------------------


def seconds_per_image(task: Task, batch: int, setting: Setting, seed: int) -> tuple[float, float, float]:
    """Return the seconds per image of training a student, of training the same network alone, and of a score."""
    student = replace(task, epochs=10**6).learner(Genome(), seed=seed)
    alone = replace(task, role="teacher", teacher=None, epochs=10**6).learner(Genome(), seed=seed)
    held_out = task.data.validation.subset(torch.arange(min(512, len(task.data.validation))))
    runs = {
        "student": lambda number: student.step(),
        "alone": lambda number: alone.step(),
        "score": lambda number: student.evaluate(held_out),
    }
    times = interleaved(runs, rounds=setting.rounds, seconds=0.0 if setting is QUICK else 0.5, seed=seed)
    images = len(task.data.train) // batch * batch
    median = {name: spread(values).median for name, values in times.items()}
    return median["student"] / images, median["alone"] / images, median["score"] / len(held_out)


def cost_rows(source: str, student: float, alone: float, score: float) -> Iterator[Row]:
    """Yield the share of scoring in the time between two perturbations, scored once or after each epoch."""
    for role, train in (("student", student), ("teacher", alone)):
        for trained in (REDUCED, WHOLE):
            for size in SIZES:
                for epochs in (1, INTERVAL):
                    scored = size * epochs * score
                    row: Row = {"what": "price", "source": source, "role": role, "trained_on": trained, "images": size}
                    row |= {"epochs_scored": epochs, "train_us": 1e6 * train, "score_us": 1e6 * score}
                    yield row | {"share": scored / (scored + INTERVAL * trained * train)}


# Summary --------------------------------------------------------------------------------------------------------------


def summarize(rows: Sequence[Row]) -> dict[str, Any]:
    """Return the key figures."""

    def quality(column: str, size: int, rule: str = "last", *sources: str) -> float:
        matching = [row for row in rows if row["what"] == "choice" and row["source"] in (sources or ROLES)]
        matching = [row for row in matching if row["images"] == size and row["rule"] == rule]
        most = max(row["epochs_scored"] for row in matching)
        return float(np.mean([row[column] for row in matching if row["epochs_scored"] == most]))

    def share(trained: int, size: int, epochs: int, role: str = "student") -> float:
        wanted = {"source": "cifar", "role": role, "trained_on": trained, "images": size, "epochs_scored": epochs}
        return float(next(row["share"] for row in rows if wanted.items() <= row.items()))

    summary = {f"right_{size}": quality("right", size) for size in (150, 500, 2000, 5000)}
    summary |= {f"right_{size}_close": quality("right", size, "last", "close") for size in (500, 2000, 5000)}
    summary |= {f"right_2000_{rule}": quality("right", 2000, rule) for rule in RULES[1:]}
    summary |= {
        f"right_2000_{kind}": quality("right", 2000, "last", *(f"{role}, {kind}" for role in ROLES))
        for kind in SIMULATIONS
    }
    summary |= {f"regret_{size}": quality("regret", size) for size in (150, 500, 2000, 5000)}
    summary |= {"share_each_epoch": share(REDUCED, 2000, INTERVAL), "share_reduced": share(REDUCED, 2000, 1)}
    summary |= {"share_reduced_teacher": share(REDUCED, 2000, 1, "teacher")}
    return summary | {"share_before": share(WHOLE, 2000, 1), "share_after": share(WHOLE, 5000, 1)}


def plot(rows: Sequence[Row]) -> None:
    """Plot the ordered pairs by size and rule, and the share of time that scoring takes."""
    from matplotlib.figure import Figure  # takes a second that a quick run does not need

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    panels = dict(zip(("teacher", "student", "price"), figure.subplots(1, 3, width_ratios=(3, 3, 2.6)), strict=True))
    choices = [row for row in rows if row["what"] == "choice"]
    longest = max(row["epochs_scored"] for row in choices)
    lines = [
        ("last", 1, "last epoch"),
        ("mean", longest, f"mean of {longest}"),
        ("max", longest, f"best of {longest}"),
    ]
    titles = {"teacher": "Digits, resnet8 teachers", "student": "Digits, mlp students"}
    for source, title in titles.items():
        axes = panels[source]
        for rule, epochs, label in lines:
            drawn = [
                row for row in choices if (row["source"], row["rule"], row["epochs_scored"]) == (source, rule, epochs)
            ]
            axes.plot(SIZES, [100 * row["right"] for row in drawn], "o-", color=COLORS[rule], markersize=4, label=label)
        for other, style, color, label in (
            (f"{source}, simulated", "--", COLORS["last"], "last epoch, simulated"),
            (f"{source}, independent", ":", COLORS["last"], "last epoch, simulated, independent errors"),
            ("close", "--", "#737373", "last epoch, simulated, spread 0.5 points"),
        ):
            drawn = [row for row in choices if row["source"] == other and row["rule"] == "last"]
            axes.plot(SIZES, [100 * row["right"] for row in drawn], style, color=color, linewidth=1.2, label=label)
        axes.set_title(title, loc="left", fontsize=11)
        axes.set_ylim(35, 100)
    panels["teacher"].set_ylabel("pairs of members in the right order, %")
    panels["student"].legend(frameon=False, fontsize=8, loc="lower right")
    for trained, epochs, style, label in (
        (REDUCED, INTERVAL, "-", "4,000 training images, each epoch"),
        (REDUCED, 1, "--", "4,000, every third epoch"),
        (WHOLE, 1, ":", "45,000, every third epoch"),
    ):
        wanted = {"what": "price", "source": "cifar", "role": "student", "trained_on": trained, "epochs_scored": epochs}
        drawn = [row for row in rows if wanted.items() <= row.items()]
        panels["price"].plot(SIZES, [100 * row["share"] for row in drawn], style, color="#0072b2", label=label)
    panels["price"].set_title("resnet20 ← resnet56, CIFAR-10's size", loc="left", fontsize=11)
    panels["price"].set_ylabel("share of time spent on scoring, %")
    panels["price"].set_ylim(0, 40)
    panels["price"].legend(frameon=False, fontsize=8, loc="upper left")
    for axes in panels.values():
        axes.set_xscale("log")
        axes.set_xticks(SIZES, [f"{size:,}" for size in SIZES], rotation=45)
        axes.minorticks_off()
        axes.set_xlabel("validation images")
    save_plot(figure, panels.values(), PLOT)


if __name__ == "__main__":
    main()
