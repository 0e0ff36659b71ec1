"""What tests of several files have in common."""

from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch

from spaces import OPERATIONS, Entry, Genome, Parameters, Policy, Space
from spaces.augmentations import CATALOG, HardChain, HardVae, augmentation
from spaces.augmentors import Vae
from spaces.core.weights import Learned
from spaces.policy.sampling import NO_OPERATION

NAMES = list(OPERATIONS)
FILLS = {1: (119,), 3: (125, 122, 113)}
READY = [kind for kind in CATALOG if not augmentation(kind).learns]
"""The augmentations that can be called by themselves: the others have yet to learn, in a game against a student."""


def with_any_vae(choice, channels, seed=0):
    """`choice`, a VAE in it with weights that nobody trained."""
    if isinstance(choice, HardChain):
        return replace(choice, parts=tuple(with_any_vae(part, channels, seed) for part in choice.parts))
    if not isinstance(choice, HardVae):
        return choice
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        vae = Vae(channels, latent=choice.latent, width=choice.width)
    return replace(choice, vae=Learned.of(vae.state_dict()))


def taught(choice, channels=1, seed=0):
    """The hard augmentation that `choice` names, as if it had learned something: its start, moved by noise."""
    choice = with_any_vae(augmentation(choice), channels, seed)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        weights = choice.augmentor(channels).learnable()
        moved = {name: value + 0.3 * torch.randn_like(value) for name, value in weights.items()}
    return replace(choice, learned=Learned.of(moved))


def genome_of(*probabilities):
    """One entry per probability, told apart by operation and magnitude."""
    return Genome(Policy(tuple(Entry(NAMES[i], p, i % 10) for i, p in enumerate(probabilities))))


def random_genome(seed, **changes):
    genome = Space().random(np.random.default_rng(seed))
    entries = (Entry(e.op, changes.get("probability", e.probability), e.magnitude) for e in genome.policy)
    return Genome(Policy(tuple(entries)))


def pictures(batch, channels, height=13, width=11):
    generator = torch.Generator().manual_seed(channels)
    return torch.randint(0, 256, (batch, channels, height, width), dtype=torch.uint8, generator=generator)


def parameters_of(*rows, level=0):
    """Parameters that apply these names, with no say in signs and positions."""
    operations = torch.tensor([[NAMES.index(name) if name else NO_OPERATION for name in row] for row in rows])
    ones = torch.ones_like(operations)
    return Parameters(operations, ones * level, ones, torch.full((*operations.shape, 2), 0.5))


def equal(one, other):
    return all(
        torch.equal(getattr(one, name), getattr(other, name)) for name in ("operations", "levels", "signs", "positions")
    )


WRONG_IMAGES = [
    (torch.zeros(2, 3, 8, 8, dtype=torch.int64), "images must be uint8, or floating point .* got 'torch.int64'"),
    (torch.zeros(2, 3, 8, 8, dtype=torch.bool), "images must be uint8, or floating point .* got 'torch.bool'"),
    (torch.zeros(3, 8, 8, dtype=torch.uint8), r"shape \(B, C, H, W\), got \(3, 8, 8\)"),
    (torch.tensor(3, dtype=torch.uint8), r"shape \(B, C, H, W\), got \(\)"),
    (torch.zeros(2, 4, 8, 8, dtype=torch.uint8), r"1 \(gray\) or 3 \(RGB\) channels"),
    (torch.zeros(0, 3, 8, 8, dtype=torch.uint8), "at least one image"),
    (torch.zeros(2, 3, 0, 8, dtype=torch.uint8), "at least one image"),
    (np.zeros((2, 3, 8, 8), np.uint8), "a tensor of shape .* got 'ndarray'"),
]


def score_here(task, checkpoints, bits, resources):
    """`score_all` in this process; see `tests/search/conftest.py`."""
    from trainables.ray_trainable import read_state
    from trainables.task import test_score

    for name, checkpoint in checkpoints.items():
        yield name, test_score(replace(task, bits=bits[name]), read_state(checkpoint)["model"]), ""


def start_search(name, algorithm, task, space, journal, *, seed=0, callback=None, **settings):
    """A search of `algorithm` with these settings of a role's `search` section; nothing of it is run."""
    from search.config.registry import capabilities
    from search.config.sections import SearchConfig

    search = SearchConfig(algorithm=algorithm, **settings)
    cls = capabilities(algorithm)
    search.check_algorithm(cls)
    return cls.variant(search)(name, task, search, space, journal, seed=seed, callback=callback)


@contextmanager
def tracked(folder, experiment, uri=None, *, journal=None):
    """A tracker that follows a journal, in `journal` or else in the folder of the store."""
    from results.tracking.tracker import Tracker
    from search.execution.journal import Journal

    tracker = Tracker.open(folder, experiment, uri)
    place = journal or folder
    place.mkdir(parents=True, exist_ok=True)
    with Journal(place) as writer, tracker.follow(writer):
        yield tracker


def runs_of(client, tracker):
    """MLflow's runs of an experiment, by their names."""
    return {run.info.run_name: run for run in client.search_runs([tracker.experiment_id], max_results=1000)}


def run_id(client, tracker, name):
    """MLflow's id of the run of that name."""
    return runs_of(client, tracker)[name].info.run_id
