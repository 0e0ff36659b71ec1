"""Does a search pay in domain, for the teacher and for a distilled student?

Data: `mnist5k` and Fashion-MNIST, each with 500 training, 2,000 validation and 2,000 test images, 60 epochs; CIFAR-10
as JPEG, with 4,000 training images and 30 epochs. The network is a perceptron. The student is distilled from a
perceptron that was trained with `randaugment` on the same images (α = 0.9, T = 4). Arms, budgets, confirmation and
tests are those of `benchmarks.methods.target_domain`, but that finished trainings are compared by accuracy, as in a
sweep with 2,000 validation images.

    python -m benchmarks.methods.search_pays --data mnist5k,fashionmnist
    python -m benchmarks.methods.search_pays --data cifar10-jpeg --root DIR    # DIR has train/CLASS/ and test/CLASS/

The result file is written once all three are there.
"""

from __future__ import annotations

from functools import partial

from benchmarks.common.domains import in_domain
from benchmarks.common.results_file import argument_parser, start
from benchmarks.common.search_study import QUICK, Setting, aggregate, compare_searches, finish_study, run_study
from trainables.data import DataSet

NAMES = {"mnist5k": "mnist", "fashionmnist": "fashion", "cifar10-jpeg": "cifar"}
SMALL = Setting(500, 2000, 2000, epochs=60, members=20, trials=24, seeds=3, tests=3, repetitions=8)
PHOTOGRAPHS = Setting(
    4000, 2000, 2000, epochs=30, members=20, trials=24, seeds=3, tests=3, repetitions=8, batch_size=128
)


def load_data(place: str, setting: Setting, seed: int, root: str) -> DataSet:
    """Return the data of a repetition."""
    sizes = {"train": setting.train, "validation": setting.validation, "test": setting.test}
    if setting == QUICK:  # the others are not everywhere
        place = "mnist5k"
    if place == "cifar10-jpeg":
        return in_domain("imagefolder", root, seed=seed, size=32, **sizes)
    return in_domain(place, root, seed=seed, **sizes)


def main() -> None:
    """Run what is missing, and write the result file."""
    parser = argument_parser(__doc__)
    parser.add_argument("--data", default="mnist5k,fashionmnist", help=f"some of {', '.join(NAMES)}")
    parser.add_argument("--root", default="data", help="folder of the data sets")
    parser.add_argument("--roles", default="teacher,student", help="roles, separated by commas")
    benchmark = start(__file__, parser)
    options = benchmark.options
    sizes = {name: PHOTOGRAPHS if name == "cifar10-jpeg" else SMALL for name in options.data.split(",")}
    roles = options.roles.split(",")
    if benchmark.quick:
        sizes, roles = dict.fromkeys(NAMES, QUICK), ["teacher"]
    rows = aggregate(
        run_study(benchmark, sizes, partial(compare_searches, load=partial(load_data, root=options.root)), roles)
    )
    finish_study(benchmark, rows, NAMES)


if __name__ == "__main__":
    main()
