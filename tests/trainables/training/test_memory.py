"""Memory and checkpoint size do not grow with the length of a training, except for a game's snapshots."""

import gc
import io
import tracemalloc

import pytest
import torch

from spaces import Genome
from spaces.augmentations import HardAffine, HardMix
from trainables import Recipe

SHORT, LONG = 5, 500


def held():
    """Bytes of all tensors that live, but for fakes that an export of other tests has left, which have no memory."""
    gc.collect()
    tensors = [each for each in gc.get_objects() if type(each) in (torch.Tensor, torch.nn.Parameter)]
    return sum({part.data_ptr(): part.nbytes() for part in map(torch.Tensor.untyped_storage, tensors)}.values())


def size(state):
    """Bytes of a checkpoint."""
    torch.save(state, file := io.BytesIO())
    return file.tell()


def measured(learner, task, epochs):
    while learner.epoch < epochs:
        task.train_epoch(learner)
    return held(), size(learner.state_dict())


@pytest.fixture
def make_long(make_data, make_task):
    """A task of 500 epochs of one step, scored now and then."""

    def make(role):
        recipe = Recipe(lr=0.01, batch_size=12)
        return make_task(role, make_data(train=12), model="mlp", recipe=recipe, epochs=LONG, validate_every=50)

    return make


@pytest.mark.slow
@pytest.mark.parametrize("role", ["teacher", "student"])
def test_a_long_training_holds_no_more(make_long, rich, role):
    task = make_long(role)
    learner = task.learner(rich, seed=0)
    tensors, checkpoint = measured(learner, task, SHORT)
    tracemalloc.start()
    try:
        assert measured(learner, task, LONG) == (tensors, checkpoint)
        taken = tracemalloc.take_snapshot()
    finally:
        tracemalloc.stop()
    # What our own code has made: threads of other tests' Ray and MLflow may be at work meanwhile.
    ours = taken.filter_traces([tracemalloc.Filter(True, file) for file in ("*/trainables/*.py", "*/spaces/*.py")])
    grew = sum(each.size for each in ours.statistics("filename"))
    assert grew < 100 * (LONG - SHORT), "nothing is kept of an epoch, not even a few numbers"


RULES = {"warmup": 2, "student_steps": 2, "memory": 0}
"""Phases of two steps, and no augmentor of earlier on, of which there may be 20 from the fifth epoch on."""


@pytest.mark.slow
@pytest.mark.parametrize("augment", [HardAffine(**RULES), HardMix(**RULES)])
def test_a_long_game_keeps_its_augmentor_of_each_epoch(make_long, augment):
    """Which a replay needs; and beside it some numbers of each epoch, and a few pictures."""
    task = make_long("student")
    learner = task.learner(Genome(augment=augment), seed=0)
    epochs = 100
    tensors, checkpoint = measured(learner, task, SHORT)
    more_tensors, larger = measured(learner, task, epochs)
    snapshot = sum(value.nbytes for value in learner.game.augmentor.learnable().values())
    grew = (epochs - SHORT) * snapshot
    assert len(learner.game.snapshots) == epochs and len(learner.game.grids) <= 5
    assert grew <= more_tensors - tensors < grew + 100_000, "the pictures come once in a quarter of the training"
    assert larger - checkpoint < grew + 5000 * (epochs - SHORT)
