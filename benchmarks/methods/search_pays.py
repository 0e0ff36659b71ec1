"""Does a search pay in domain, for the teacher and for a distilled student?

Data: `mnist5k` and Fashion-MNIST, each with 500 training, 2,000 validation and 2,000 test images; a perceptron, 60
epochs. The student is distilled from a perceptron that was trained with `randaugment` on the same
images (α = 0.9, T = 4). Arms, budgets, confirmation and tests are those of `benchmarks.methods.target_domain`, but that
finished trainings are compared by accuracy, as in a sweep with 2,000 validation images.
"""

from __future__ import annotations

from functools import partial

from benchmarks.common.domains import in_domain
from benchmarks.common.results_file import argument_parser, start
from benchmarks.common.search_study import QUICK, Setting, aggregate, compare_searches, finish_study, run_study
from trainables.data import DataSet

NAMES = {"mnist5k": "mnist", "fashionmnist": "fashion"}
FULL = Setting(500, 2000, 2000, epochs=60, members=20, trials=24, seeds=3, tests=3, repetitions=8)


def load_data(place: str, setting: Setting, seed: int) -> DataSet:
    """Return the data of a repetition."""
    name, _, root = place.partition("=")
    name = "mnist5k" if setting == QUICK else name  # Fashion-MNIST is not everywhere
    return in_domain(
        name, root or "data", train=setting.train, validation=setting.validation, test=setting.test, seed=seed
    )


def main() -> None:
    """Run what is missing, and write the result file."""
    parser = argument_parser(__doc__)
    parser.add_argument("--data", default="mnist5k,fashionmnist", help="data sets, separated by commas")
    parser.add_argument("--root", default="data", help="folder of the data sets")
    parser.add_argument("--roles", default="teacher,student", help="roles, separated by commas")
    benchmark = start(__file__, parser)
    options = benchmark.options
    names = options.data.split(",")
    setting = QUICK if benchmark.quick else FULL
    places = [name if options.root == "data" else f"{name}={options.root}" for name in names]
    roles = ["teacher"] if benchmark.quick else options.roles.split(",")
    rows = aggregate(run_study(benchmark, setting, places, partial(compare_searches, load=load_data), roles))
    finish_study(benchmark, rows, {row["place"]: NAMES[row["place"].partition("=")[0]] for row in rows}, len(NAMES))


if __name__ == "__main__":
    main()
