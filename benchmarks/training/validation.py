"""How many images should a member be scored on, how often, and by which rule: what a choice is worth, and its price.

**Choice.** Small populations are searched as a sweep's are (8 members, 40 epochs, interval 4, PBA's space), on the 100
images of `examples/digits.yaml`: teachers (resnet8), and students (mlp) of a teacher. After every epoch each member
answers all of the 1,697 images that it is not trained on, and at each perturbation these are the truth: who is better,
with the weights that would be copied. Then every size of a validation set, every rule and number of scored epochs is
asked whom it would have chosen, 100 times each, see `benchmarks.training.selection`; copies themselves follow the truth, so that
no size has a population to its own advantage. `right` is the share of pairs in their right order, `best` how often the
first is the best, `quantile` the share of those in the upper and the lower quarter that belong there, `regret` what the
first lacks to the best, in points of accuracy. `simulated` rows are the same of drawn populations, a twin for each
measured one: of the same accuracy, spread and likeness. `independent` are twins whose members err independently of each
other, as two binomials would. `close` is no twin: members whose accuracy is 94 % with a spread of 0.5 points, that
are as alike as the measured ones: what two good augmentations differ by on CIFAR-10.

**Price.** Seconds of an epoch and of a score, one thread: `digits` as above, `cifar` resnet20 ← resnet56 (random
images of that size, batches of 128). `share` is the part of a slice's seconds that scoring takes, at interval 3, where
4,000 images are trained on, as PBA does, or 45,000, as a sweep file does that says nothing.

What this cannot show: the truth is that of a pool, whose own chance makes members look more different than they are; a
population of 100 training images differs more than one of 4,000; and whether a better choice makes a better policy in
the end.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from io import BytesIO
from typing import Any

import numpy as np
import torch

from benchmarks.common.record import ROOT, Row, arguments, start
from benchmarks.common.timing import interleaved, spread
from benchmarks.training.selection import RULES, Figures, Population, Quality, Right, judged, ruled, scores
from benchmarks.training.step import shaped_task
from search.config.schema import SweepConfig
from spaces import Genome, Space
from spaces.core.io import write_atomic
from trainables import Task, TrainedTeacher
from trainables.data import Images, load
from trainables.data.joined import join
from trainables.training.learner import Learner

PICTURE = ROOT / "docs" / "images" / "validation.png"
COLORS = {"last": "#0072b2", "mean": "#009e73", "max": "#d55e00"}
SIZES = (50, 150, 500, 1000, 2000, 5000, 10_000)
ROLES, TWINS = ("teacher", "student"), ("simulated", "independent")
SHARE = 0.25
"""Of a population that copies, and that is copied."""
INTERVAL = 3
"""The sweep file's default."""
REDUCED, WHOLE = 4000, 45_000
"""Images of CIFAR-10 that are trained on: PBA's, and those of a sweep file that says nothing."""


@dataclass(frozen=True)
class Setting:
    """How much there is to do.

    Args:
        members: of a population.
        epochs: of each member.
        interval: epochs between perturbations.
        seeds: populations of each role.
        draws: of the validation images.
        rounds: that times are taken in.
        close: populations that are drawn where nothing was measured.
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
    """Measure what is chosen, simulate it, and take the times."""
    benchmark = start(__file__, arguments(__doc__))
    torch.set_num_threads(1)
    setting, first = (QUICK if benchmark.quick else FULL), 1000 * benchmark.seed
    everything: dict[str, Sequence[Right]] = {}
    for role in ROLES:
        measured = [right for seed in range(first, first + setting.seeds) for right in evolved(role, seed, setting)]
        everything[role] = measured
        for kind in TWINS:
            alike = kind == "simulated"
            everything[f"{role}, {kind}"] = [twin(right, seed, alike=alike) for seed, right in enumerate(measured)]
    everything["close"] = close([right for role in ROLES for right in everything[role]], setting)
    rows = [
        row
        for source, rights in everything.items()
        for row in (looks(source, rights), *chosen(source, rights, setting))
    ]
    times = {"digits": seconds(demo("student", benchmark.seed, setting.epochs), 20, setting, benchmark.seed)}
    times["cifar"] = seconds(
        shaped_task("resnet20", "resnet56", 256, 128, benchmark.seed), 128, setting, benchmark.seed
    )
    rows += [row for name, taken in times.items() for row in prices(name, *taken)]
    summary = told(rows)
    if not benchmark.quick:
        plot(rows)
    benchmark.finish(rows, summary)


# Populations ----------------------------------------------------------------------------------------------------------


def demo(role: str, seed: int, epochs: int) -> Task:
    """A role's task of the demo, with all other images held out; a student's teacher is trained without a policy."""
    config = SweepConfig.load(ROOT / "examples" / "digits.yaml")
    data = load("digits", train=config.data.train, seed=seed)
    settings = config.roles["teacher"]
    task = Task("teacher", settings.model, data, settings.recipe, epochs)
    if role == "teacher" or config.student is None:
        return task
    learner = task.learner(Genome(), seed=seed)
    while learner.epoch < task.epochs:
        learner.step()
    teacher = TrainedTeacher(settings.model, copy.deepcopy(learner.model.state_dict()))
    student = config.student
    return Task("student", student.model, data, student.recipe, task.epochs, teacher=teacher, distill=student.distill)


def evolved(role: str, seed: int, setting: Setting) -> Iterator[Right]:
    """Search a population; at each perturbation, who answered what rightly in the epochs before, (M, K, P)."""
    task = demo(role, seed, setting.epochs)
    pool, space, draw = join(task.data.validation, task.data.test), Space(), np.random.default_rng(seed)
    members = [task.learner(space.zero(), seed=100 * seed + index) for index in range(setting.members)]
    genomes = [space.zero()] * setting.members
    count = round(SHARE * setting.members)
    for _ in range(setting.epochs // setting.interval):
        right = np.stack([[answers(member, pool) for _ in range(setting.interval)] for member in members])
        yield right
        ranked = np.argsort(-right[:, -1].mean(axis=1), kind="stable")
        for target in ranked[-count:]:
            donor = ranked[draw.integers(count)]
            members[target].load_state_dict(copy.deepcopy(members[donor].state_dict()))
            genomes[target] = space.explore(genomes[donor], draw)
            members[target].obey(genomes[target])


@torch.no_grad()
def rightly(learner: Learner, pool: Images) -> Right:
    """Which images the network as it stands gives their label, (P,)."""
    learner.model.eval()
    found = [learner.model(learner.normalize(images)).argmax(1) == labels for images, labels in pool.batches(512)]
    return np.asarray(torch.cat(found).numpy())


def answers(learner: Learner, pool: Images) -> Right:
    """Train an epoch; which images it answers rightly after it."""
    learner.step()
    return rightly(learner, pool)


def twin(right: Right, seed: int, *, alike: bool = True) -> Right:
    """A drawn population that looks like a measured one, or one whose members err independently of each other."""
    members, epochs, pool = right.shape
    population = Figures.of(right).fitted(pool, epochs)
    if not alike:
        population = replace(population, alike=0.0, steady=population.steady - population.alike)
    return population.draw(members, epochs, pool, seed)


def close(measured: Sequence[Right], setting: Setting) -> list[Right]:
    """Populations of good members that differ little, in a pool of 50,000."""
    fitted = [Figures.of(right).fitted(right.shape[2], right.shape[1]) for right in measured]
    alike, steady = (float(np.mean([getattr(one, name) for one in fitted])) for name in ("alike", "steady"))
    level, slope = 1.555, 0.119  # the normal quantile of 0.94, and the density there
    population = Population(level, 0.005 / slope, 0.002 / slope, alike, max(alike, steady))
    return [population.draw(setting.members, setting.interval, 50_000, seed) for seed in range(setting.close)]


def looks(source: str, rights: Sequence[Right]) -> Row:
    """The mean figures of some populations."""
    figures = [asdict(Figures.of(right)) for right in rights]
    return {"what": "population", "source": source} | {
        name: float(np.mean([one[name] for one in figures])) for name in figures[0]
    }


def chosen(source: str, rights: Sequence[Right], setting: Setting) -> Iterator[Row]:
    """What scores of each size, rule and number of epochs would have chosen; of twins the last epoch alone."""
    ways = [("last", 1)]
    if not source.endswith(TWINS):
        ways += [(rule, epochs) for rule in RULES[1:] for epochs in sorted({2, setting.interval})]
    for size in SIZES:
        found: dict[tuple[str, int], list[Quality]] = {way: [] for way in ways}
        for number, right in enumerate(rights):
            scored, truth = scores(right, size, draws=setting.draws, seed=number), right[:, -1].mean(axis=1)
            for way in ways:
                found[way].append(judged(ruled(scored, *way), truth, SHARE))
        for (rule, epochs), each in found.items():
            row: Row = {"what": "choice", "source": source, "images": size, "rule": rule, "epochs_scored": epochs}
            for name in ("right", "best", "quantile"):
                row[name] = float(np.nanmean([getattr(one, name) for one in each]))
            yield row | {"regret": 100 * float(np.mean([one.regret for one in each]))}


# Times ----------------------------------------------------------------------------------------------------------------


def seconds(task: Task, batch: int, setting: Setting, seed: int) -> tuple[float, float, float]:
    """Seconds that an image takes in a student's training, in a teacher's of the same network, and in a score."""
    student = replace(task, epochs=10**6).learner(Genome(), seed=seed)
    alone = replace(task, role="teacher", teacher=None, epochs=10**6).learner(Genome(), seed=seed)
    held_out = task.data.validation.subset(torch.arange(min(512, len(task.data.validation))))
    runs = {
        "student": lambda turn: student.step(),
        "alone": lambda turn: alone.step(),
        "score": lambda turn: student.evaluate(held_out),
    }
    taken = interleaved(runs, rounds=setting.rounds, seconds=0.0 if setting is QUICK else 0.5, seed=seed)
    images = len(task.data.train) // batch * batch
    median = {name: spread(values).median for name, values in taken.items()}
    return median["student"] / images, median["alone"] / images, median["score"] / len(held_out)


def prices(source: str, student: float, alone: float, score: float) -> Iterator[Row]:
    """The share of a slice that scores take, for each size, once in a slice and after each epoch."""
    for role, train in (("student", student), ("teacher", alone)):
        for trained in (REDUCED, WHOLE):
            for size in SIZES:
                for epochs in (1, INTERVAL):
                    scored = size * epochs * score
                    row: Row = {"what": "price", "source": source, "role": role, "trained_on": trained, "images": size}
                    row |= {"epochs_scored": epochs, "train_us": 1e6 * train, "score_us": 1e6 * score}
                    yield row | {"share": scored / (scored + INTERVAL * trained * train)}


# What is told ---------------------------------------------------------------------------------------------------------


def told(rows: Sequence[Row]) -> dict[str, Any]:
    """The figures that others read."""

    def choice(figure: str, size: int, rule: str = "last", *sources: str) -> float:
        wanted = sources or ROLES
        found = [row for row in rows if row["what"] == "choice" and row["source"] in wanted]
        found = [row for row in found if row["images"] == size and row["rule"] == rule]
        most = max(row["epochs_scored"] for row in found)
        return float(np.mean([row[figure] for row in found if row["epochs_scored"] == most]))

    def share(trained: int, size: int, epochs: int, role: str = "student") -> float:
        wanted = {"source": "cifar", "role": role, "trained_on": trained, "images": size, "epochs_scored": epochs}
        return float(next(row["share"] for row in rows if wanted.items() <= row.items()))

    summary = {f"right_{size}": choice("right", size) for size in (150, 500, 2000, 5000)}
    summary |= {f"right_{size}_close": choice("right", size, "last", "close") for size in (500, 2000, 5000)}
    summary |= {f"right_2000_{rule}": choice("right", 2000, rule) for rule in RULES[1:]}
    summary |= {
        f"right_2000_{twins}": choice("right", 2000, "last", *(f"{role}, {twins}" for role in ROLES)) for twins in TWINS
    }
    summary |= {f"regret_{size}": choice("regret", size) for size in (150, 500, 2000, 5000)}
    summary |= {"share_each_epoch": share(REDUCED, 2000, INTERVAL), "share_reduced": share(REDUCED, 2000, 1)}
    summary |= {"share_reduced_teacher": share(REDUCED, 2000, 1, "teacher")}
    return summary | {"share_before": share(WHOLE, 2000, 1), "share_after": share(WHOLE, 5000, 1)}


def plot(rows: Sequence[Row]) -> None:
    """On the left what a choice is worth, by size and rule; on the right what it costs."""
    from matplotlib.figure import Figure  # here, since it takes a second that a quick run has no use for

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
        for rule, epochs, words in lines:
            found = [
                row for row in choices if (row["source"], row["rule"], row["epochs_scored"]) == (source, rule, epochs)
            ]
            axes.plot(SIZES, [100 * row["right"] for row in found], "o-", color=COLORS[rule], markersize=4, label=words)
        for other, style, color, words in (
            (f"{source}, simulated", "--", COLORS["last"], "last, simulated twins"),
            (f"{source}, independent", ":", COLORS["last"], "last, twins that err independently"),
            ("close", "--", "#737373", "last, simulated: 0.5 points apart"),
        ):
            found = [row for row in choices if row["source"] == other and row["rule"] == "last"]
            axes.plot(SIZES, [100 * row["right"] for row in found], style, color=color, linewidth=1.2, label=words)
        axes.set_title(title, loc="left", fontsize=11)
        axes.set_ylim(35, 100)
    panels["teacher"].set_ylabel("pairs of members in their right order, %")
    panels["student"].legend(frameon=False, fontsize=8, loc="lower right")
    for trained, epochs, style, words in (
        (REDUCED, INTERVAL, "-", "4,000 trained on, scored each epoch"),
        (REDUCED, 1, "--", "4,000, once in a slice of 3"),
        (WHOLE, 1, ":", "45,000, once in a slice of 3"),
    ):
        wanted = {"what": "price", "source": "cifar", "role": "student", "trained_on": trained, "epochs_scored": epochs}
        found = [row for row in rows if wanted.items() <= row.items()]
        panels["price"].plot(SIZES, [100 * row["share"] for row in found], style, color="#0072b2", label=words)
    panels["price"].set_title("resnet20 ← resnet56, CIFAR-10's size", loc="left", fontsize=11)
    panels["price"].set_ylabel("share of the time that goes into scores, %")
    panels["price"].set_ylim(0, 40)
    panels["price"].legend(frameon=False, fontsize=9, loc="upper left")
    for axes in panels.values():
        axes.set_xscale("log")
        axes.set_xticks(SIZES, [f"{size:,}" for size in SIZES], rotation=45)
        axes.minorticks_off()
        axes.set_xlabel("images of a score")
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(buffer := BytesIO(), format="png", dpi=120, metadata={"Software": None})
    write_atomic(PICTURE, buffer.getvalue())


if __name__ == "__main__":
    main()
