"""An exported classifier answers like the learner, quantized or not."""

import pytest
import torch

from spaces import Genome
from trainables import Recipe
from trainables.export import export_classifier
from trainables.quantization import Bits


@pytest.mark.parametrize("bits", [Bits(), Bits(2, 2), Bits(1, 4), Bits(32, 2), Bits(2, 32)])
def test_it_answers_as_the_learner_did_on_bytes(make_task, bits):
    recipe = Recipe(lr=0.05, batch_size=16, channels_last=False)  # another layout rounds otherwise
    task = make_task("student", model="resnet8", bits=bits, recipe=recipe)
    learner = task.learner(Genome(), seed=1)
    learner.step()
    network = export_classifier(task, learner.state_dict()["model"])
    images, _ = next(iter(task.data.test.batches(6)))
    learner.model.eval()
    unit = images.float() / 255
    given = (unit - 0.25) / 0.2
    torch.testing.assert_close(given, learner.normalize(images))  # up to rounding, which levels would magnify
    with torch.no_grad():
        assert torch.equal(answers := network(unit), learner.model(given))
    assert not answers.requires_grad and not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert not any("parametrizations" in name for name in network.state_dict())


def test_it_travels_as_a_graph_that_takes_any_number_of_images(make_task, tmp_path):
    """What MLflow keeps of it: an exported program, loaded without a line of this project."""
    task = make_task("student", model="cnn", bits=Bits(2, 2))
    network = export_classifier(task, task.learner(Genome(), seed=1).state_dict()["model"])
    images = torch.rand(5, task.data.channels, task.data.size, task.data.size)
    graph = torch.export.export(network, (images[:2],), dynamic_shapes=[{0: torch.export.Dim.AUTO}])
    torch.export.save(graph, tmp_path / "network.pt2")
    loaded = torch.export.load(tmp_path / "network.pt2").module()
    for count in (1, 2, 5):
        assert torch.equal(loaded(images[:count]), network(images[:count]))
