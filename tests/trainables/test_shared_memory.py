"""Tasks cross process boundaries without a copy of images or weights."""

import copy
import pickle
import warnings

import numpy as np
import pytest
import torch

from trainables import TrainedTeacher
from trainables.data import TensorImages
from trainables.models import build_model
from trainables.shared_memory import all_from_shareable, all_to_shareable, from_shareable, to_shareable


def beside(value):
    """The pickled message, and what lies beside it, read-only as in a node's shared memory."""
    buffers = []
    message = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    return message, [bytes(buffer.raw()) for buffer in buffers]


def lies_in(tensor, buffers):
    starts = [np.frombuffer(buffer, np.uint8).__array_interface__["data"][0] for buffer in buffers]
    return any(start <= tensor.data_ptr() < start + len(buffer) for start, buffer in zip(starts, buffers, strict=True))


def many(count=500):
    draw = torch.Generator().manual_seed(3)
    return TensorImages(
        torch.randint(0, 256, (count, 3, 8, 8), dtype=torch.uint8, generator=draw), torch.arange(count) % 3
    )


def test_images_lie_beside_the_message_and_are_read_there():
    images = many()
    message, buffers = beside(images)
    assert len(message) < 1000 < images.images.nbytes
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        there = pickle.loads(message, buffers=buffers)
    assert lies_in(there.images, buffers) and lies_in(there.labels, buffers)
    assert torch.equal(there.images, images.images) and torch.equal(there.labels, images.labels)


def test_a_part_of_a_larger_tensor_travels_alone():
    whole = many()
    part = TensorImages(whole.images[100:110], whole.labels[100:110])
    _, buffers = beside(part)
    assert sum(map(len, buffers)) == part.images.nbytes + part.labels.nbytes


def test_a_frozen_teacher_reads_its_weights_where_they_lie(make_data):
    data = make_data()
    weights = build_model("resnet8", seed=3, classes=data.classes, channels=1, size=8).state_dict()
    message, buffers = beside(TrainedTeacher("resnet8", weights))
    assert len(message) < sum(map(len, buffers)) / 20
    there = pickle.loads(message, buffers=buffers)
    frozen = there.freeze(data)
    assert all(lies_in(parameter, buffers) for parameter in frozen.parameters())
    assert all(parameter.dtype.is_floating_point and not parameter.requires_grad for parameter in frozen.parameters())
    learns = frozen.trainable_copy()
    assert not any(lies_in(parameter, buffers) for parameter in learns.parameters()), "who learns has memory of its own"


def test_a_teacher_from_another_precision_has_the_network_s(make_data):
    data = make_data()
    weights = build_model("resnet8", seed=3, classes=data.classes, channels=1, size=8).state_dict()
    half = {name: value.half() if value.dtype.is_floating_point else value for name, value in weights.items()}
    frozen = TrainedTeacher("resnet8", half).freeze(data)
    assert {parameter.dtype for parameter in frozen.parameters()} == {torch.float32}


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_a_task_is_trained_and_scored_on_memory_that_nobody_may_write_to(make_task, assert_same, role, rich):
    """Two epochs give what they give here, and neither images nor weights are others afterwards."""
    task = make_task(role)
    message, buffers = beside(task)
    before = [bytes(buffer) for buffer in buffers]
    there = pickle.loads(message, buffers=buffers)
    assert lies_in(there.data.train.images, buffers) and lies_in(there.validation.images, buffers)
    states = []
    for one in (task, there):
        learner = one.learner(rich, seed=1)
        scores = [one.train_epoch(learner)["validation_accuracy"] for _ in range(2)]
        states.append([scores, learner.state_dict()])
    assert_same(*states)
    assert buffers == before


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_a_task_on_the_cpu_is_put_there_without_a_copy(make_task, role):
    task = make_task(role)
    there = task.to("cpu")
    for one, other in [(task.data.train, there.data.train), (task.validation, there.validation)]:
        assert one.images.data_ptr() == other.images.data_ptr() and one.labels.data_ptr() == other.labels.data_ptr()


def test_a_copy_of_images_is_one():
    images = many(5)
    again = copy.deepcopy(images)
    assert torch.equal(again.images, images.images) and again.images.data_ptr() != images.images.data_ptr()


def test_what_numpy_has_nothing_for_travels_as_it_is():
    odd = {
        "bfloat16": torch.ones(3, dtype=torch.bfloat16),
        "scalar": torch.tensor(7),
        "learned": torch.nn.Parameter(torch.ones(2)),
        "turned": torch.arange(6).view(2, 3).T,
        "none": torch.empty(0, 4),
    }
    again = all_from_shareable(pickle.loads(pickle.dumps(all_to_shareable(odd))))
    for name, value in odd.items():
        assert again[name].dtype == value.dtype and again[name].shape == value.shape
        assert torch.equal(again[name], value.detach())
    for value in (odd["bfloat16"], torch.eye(3).to_sparse(), torch.empty(3, device="meta")):
        assert to_shareable(value) is value and from_shareable(value) is value
