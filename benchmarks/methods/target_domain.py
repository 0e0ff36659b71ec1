"""Does the default pipeline pay where the validation images come from a target domain?

The training images are those of mnist5k; validation and test images are moved to a domain that was fixed before any
search was run: `shift` (translation by up to 4 px of 28), `rotation` (up to 30 degrees), `dark` (darkness with low
contrast). 500 training images, 500 validation images, 2,000 test images, a perceptron, 60 epochs.

Every search has 20 trainings of 60 epochs, or as many epochs in other trainings; each is confirmed against the free
baselines by the same rule, as a sweep does. `best_free` is the confirmation among the free baselines alone. `default`
is 24 factorial trials of 40 epochs, then a population of 4 for 60 epochs from their policy. `unconfirmed_accuracy` is
that of what the search found. A repetition has its own split and seeds; its accuracy is the mean of 3 trainings.
Differences are in points, paired by repetition; p is that of a paired t test, Holm-corrected over the three opponents.
"""

from __future__ import annotations

from functools import partial

from benchmarks.common.domains import DOMAINS, in_domain, target_domain
from benchmarks.common.results_file import argument_parser, start
from benchmarks.common.search_study import QUICK, Setting, aggregate, compare_searches, finish_study, run_study
from trainables.data import DataSet

FULL = Setting(500, 500, 2000, epochs=60, members=20, trials=24, seeds=3, tests=3, repetitions=8)


def load_domain(place: str, setting: Setting, seed: int) -> DataSet:
    """Return the data of a repetition in a domain."""
    sizes = {"train": setting.train, "validation": setting.validation, "test": setting.test}
    return target_domain(in_domain("mnist5k", "data", seed=seed, **sizes), place, seed)


def main() -> None:
    """Run what is missing, and write the result file."""
    parser = argument_parser(__doc__)
    parser.add_argument("--domains", default=",".join(DOMAINS), help="domains, separated by commas")
    benchmark = start(__file__, parser)
    places = dict.fromkeys(benchmark.options.domains.split(","), QUICK if benchmark.quick else FULL)
    rows = aggregate(run_study(benchmark, places, partial(compare_searches, load=load_domain)))
    finish_study(benchmark, rows, {name: name for name in DOMAINS})


if __name__ == "__main__":
    main()
