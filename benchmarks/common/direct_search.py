"""Searches in one process, for studies of thousands of short trainings: each arm's search, and its confirmation.

Random search, TPE, the factorial search and successive rejects are the product's own code. A population is trained by a
loop with the rules of `search.algorithms.pbt_scheduler`: at each perturbation the worst quarter copies weights and
genome of a random one of the best quarter and explores by the space's rule. No worker processes are started, which
would cost more than a training of a second.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from benchmarks.common.training import train_epochs
from results.analysis.contrasts import Levels
from results.analysis.effects import estimate_effects
from results.runlog.members import is_loss
from search.algorithms.design_matrix import Design
from search.algorithms.factorial import choose, weighted
from search.algorithms.factors import genome_of, space_factors
from search.algorithms.intervals import perturbations
from search.algorithms.optuna_searcher import ask, finished_trial, new_study
from search.algorithms.rejects import Decision, Measured, decide
from search.sweeps.confirmation import FREE, baseline_schedule, candidates
from search.sweeps.data_plan import MIN_SCORED
from spaces import Genome, Phase, Schedule, Space
from trainables.task import Task
from trainables.training.learner import Learner


@dataclass
class Trainer:
    """Trainings of one task, each done once.

    Args:
        task: Task, with the validation images that searches are scored on.
        known: Results by schedule and seed.
    """

    task: Task
    known: dict[tuple[str, int, int], dict[str, float]] = field(default_factory=dict)

    def train(self, source: Genome | Schedule, seed: int, epochs: int | None = None) -> dict[str, float]:
        """Train, and return `accuracy` and `loss` on the validation and (`test_…`) on the test images."""
        task = self.task if epochs is None else replace(self.task, epochs=epochs)
        schedule = source if isinstance(source, Schedule) else self.constant(source)
        schedule = replace(schedule.stretch(task.epochs), provenance={})
        key = schedule.dumps(), seed, task.epochs
        if key not in self.known:
            learner = task.learner(schedule, seed=seed)
            train_epochs(learner, task.epochs)
            self.known[key] = self.evaluate(learner)
        return self.known[key]

    def score(self, result: Mapping[str, float]) -> float:
        """Return what finished trainings are compared by, as in a sweep: accuracy, or negative loss on few images."""
        assert self.task.validation is not None
        return result["accuracy"] if len(self.task.validation) >= MIN_SCORED else -result["loss"]

    def evaluate(self, learner: Learner) -> dict[str, float]:
        """Return the scores of a network."""
        assert self.task.validation is not None
        score = learner.evaluate(self.task.validation)
        return score | {f"test_{name}": value for name, value in learner.evaluate(self.task.data.test).items()}

    def constant(self, genome: Genome) -> Schedule:
        """Return the schedule with one genome."""
        return Schedule((Phase(self.task.epochs, genome),), self.task.role, self.task.image)


def best_of(trainer: Trainer, genomes: Sequence[Genome]) -> Schedule:
    """Return the genome with the best validation score, each trained once."""
    scores = [trainer.score(trainer.train(genome, 1000 + index)) for index, genome in enumerate(genomes)]
    return trainer.constant(genomes[int(np.argmax(scores))])


def random_search(trainer: Trainer, space: Space, seed: int, trials: int) -> Schedule:
    """Return the best of random genomes."""
    return best_of(trainer, [space.random(np.random.default_rng([seed, index])) for index in range(trials)])


def tpe(trainer: Trainer, space: Space, seed: int, trials: int) -> Schedule:
    """Return the best genome that Optuna's TPE suggests, one after another."""
    finished, found = [], []
    for index in range(trials):
        genome, params, distributions, _ = ask(new_study(seed + index, finished, sized=False), space)
        score = trainer.score(trainer.train(genome, 1000 + index))
        finished.append(finished_trial(params, distributions, [score], pruned=False, intermediate={}))
        found.append((-score, index, genome))
    return trainer.constant(min(found)[2])


@dataclass(frozen=True)
class Screening:
    """Screening experiment over the operations of a space and their strengths.

    Args:
        role: Role that was trained.
        space: Space of genomes.
        levels: Levels of the factors of each trial.
        scores: Validation score of each trial, see `Trainer.score`.
    """

    role: str
    space: Space
    levels: tuple[Levels, ...]
    scores: tuple[float, ...]

    def genome(self) -> Genome:
        """Return the genome of what is more likely good than not."""
        factors = space_factors(self.space)
        effects = estimate_effects(self.role, factors, self.levels, self.scores)
        return weighted(genome_of(self.space, choose(factors, effects)), effects)

    def pooled(self, other: Screening) -> Screening:
        """Return the same experiment with the mean of this and another role's scores, the geometric one of losses."""
        pairs = zip(self.scores, other.scores, strict=True)
        return replace(self, scores=tuple(-math.sqrt(a * b) if is_loss(a) else (a + b) / 2 for a, b in pairs))


def screen(trainer: Trainer, space: Space, seed: int, trials: int, epochs: int) -> Screening:
    """Train each trial of a screening experiment for `epochs` epochs."""
    levels = Design.draw(space_factors(space), trials, seed).trials
    genomes = [genome_of(space, each) for each in levels]
    scores = [trainer.score(trainer.train(genome, 1000 + index, epochs)) for index, genome in enumerate(genomes)]
    return Screening(trainer.task.role, space, tuple(levels), tuple(scores))


def factorial(trainer: Trainer, space: Space, seed: int, trials: int, epochs: int) -> Schedule:
    """Return the policy of what is more likely good than not, from a screening experiment."""
    return trainer.constant(screen(trainer, space, seed, trials, epochs).genome())


def population(
    trainer: Trainer,
    space: Space,
    first: Callable[[int], Genome],
    seed: int,
    *,
    size: int,
    interval: int,
    growth: float = 1.0,
    blind: bool = False,
) -> Schedule:
    """Return the lineage of the member with the lowest validation loss in population-based training.

    Args:
        trainer: Trainings.
        space: Space of genomes.
        first: Genome that a member starts with, by its index.
        seed: Seed of all draws.
        size: Members.
        interval: Epochs until the first perturbation.
        growth: Factor by which the interval grows.
        blind: True to rank at random.
    """
    task = trainer.task
    learners = [task.learner(first(index), seed=1000 + index) for index in range(size)]
    count = max(1, min(math.ceil(size / 4), size // 2))
    before = 0
    for epoch in (*perturbations(task.epochs, interval, growth), task.epochs):
        for learner in learners:
            train_epochs(learner, epoch - before)
        before = epoch
        generator = np.random.default_rng([seed, epoch])
        losses = [trainer.evaluate(learner)["loss"] for learner in learners]
        if epoch == task.epochs:
            break
        order = generator.permutation(size) if blind else np.argsort(losses, kind="stable")
        states = [copy.deepcopy(learner.state_dict()) for learner in learners]
        for worst in order[size - count :].tolist():
            donor = int(order[generator.integers(count)])
            genome = space.explore(learners[donor].agent.genome, generator)
            learners[worst].load_state_dict(copy.deepcopy(states[donor]))
            learners[worst].agent.set_source(genome)
    best = learners[int(np.argmin(losses))]
    return Schedule(best.agent.history, task.role, task.image)


def pipeline(
    trainer: Trainer,
    space: Space,
    seed: int,
    *,
    trials: int,
    trial_epochs: int,
    size: int,
    interval: int,
    growth: float,
) -> Schedule:
    """Return the result of the default pipeline: a factorial search, then short PBT from its policy."""
    start = factorial(trainer, space, seed, trials, trial_epochs)
    genome = start.phases[0].genome
    active = set(genome.policy.by_operation())
    if not active:
        return start
    narrow = replace(space, operations=tuple(op for op in space.operations if op in active))
    first = replace(genome, policy=narrow.genes.restrict(genome.policy))
    return population(trainer, narrow, lambda _: first, seed, size=size, interval=interval, growth=growth)


def confirmed(trainer: Trainer, found: Schedule | None, seeds: int) -> tuple[Schedule, Decision]:
    """Return what the confirmation exports: the policy found, or the best free baseline; None: of these alone."""
    like = trainer.constant(Genome())
    every = {name: baseline_schedule(name, like) for name in FREE} if found is None else candidates(found, {})

    def measure(_number: int, names: Sequence[str], fresh: Sequence[int]) -> dict[str, list[Measured]]:
        results = {name: [trainer.train(every[name], 2000 + number) for number in fresh] for name in names}
        return {
            name: [Measured(trainer.score(each), each["accuracy"]) for each in found] for name, found in results.items()
        }

    decision = decide(list(every), FREE, seeds, measure)
    return every[decision.winner], decision
