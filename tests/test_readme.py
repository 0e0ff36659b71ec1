"""The README's code runs, its links lead somewhere, and it stays short."""

from __future__ import annotations

import pytest
import torch
from documentation import ROOT, blocks, links, read
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset
from torchvision import transforms

from search.config.schema import SweepConfig
from search.execution.cluster import connected
from spaces import Entry, Genome, ImageSpec, Phase, Policy, Schedule

README = read(ROOT / "README.md")
BATCHES, IMAGES, API = range(3)

SWEEP = """
name: readme
data: {name: digits, train: 40, validation: 40}
teacher: null
student:
  model: mlp
  recipe: {lr: 0.05, batch_size: 20}
  distill: {alpha: 0.0}
  search: {algorithm: pbt, population: 2, epochs: 2, interval: 1}
baselines: []
"""


@pytest.fixture
def code(tmp_path, monkeypatch):
    """The README's Python, in a folder that holds the files it names."""
    genome = Genome(Policy((Entry("Rotate", 8, 5), Entry("Cutout", 8, 8))))
    phases = (Phase(1, genome), Phase(2, Genome()))
    Schedule(phases, "student", ImageSpec(8, 1, (78,))).save(tmp_path / "policy.student.json")
    (tmp_path / "sweep.yaml").write_text(SWEEP, "utf-8")
    monkeypatch.chdir(tmp_path)
    found = blocks(README, "python")
    assert len(found) == 3 and all(len(block.strip().splitlines()) <= 15 for block in found)
    return found


def test_the_plain_loop_runs_as_it_stands(code):
    images = torch.randint(0, 256, (12, 1, 8, 8), dtype=torch.uint8)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    before = model[1].weight.detach().clone()
    scope = {
        "epochs": 6,
        "loader": DataLoader(TensorDataset(images, torch.arange(12) % 3), batch_size=4),
        "model": model,
        "normalize": lambda batch: batch.float() / 255,
        "criterion": nn.CrossEntropyLoss(),
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.1),
    }
    exec(code[BATCHES], scope)
    assert scope["schedule"].epochs == 6 and not torch.equal(before, model[1].weight)


class Pictures(Dataset):
    """Gray pictures as a torchvision data set gives them."""

    def __init__(self, transform):
        self.transform = transform

    def __len__(self):
        return 8

    def __getitem__(self, index):
        return self.transform(Image.new("L", (8, 8), 10 * index)), index


@pytest.mark.slow
def test_the_loop_with_workers_runs_as_it_stands(code):
    changed = []
    scope = {
        "epochs": 3,
        "dataset": Pictures,
        "transforms": transforms,
        "DataLoader": DataLoader,
        "step": lambda images, labels: changed.append(any(len(image.unique()) > 1 for image in images)),
    }
    exec(code[IMAGES], scope)
    assert len(changed) == 6
    assert any(changed[:2]) and not any(changed[2:]), "augmented in the first epoch alone, as the schedule says"


@pytest.mark.slow
def test_the_python_api_runs_as_it_stands(code, capsys):
    scope = {}
    with connected(None):  # one Ray for all calls
        exec(code[API], scope)
    assert scope["history"].finished and scope["result"].failed == {}
    arms = {arm.name for arm in scope["evaluation"].arms}
    assert {"mine", "none", "trivialaugment"} <= arms
    assert "student" in capsys.readouterr().out


def test_the_sweep_is_a_valid_sweep_file(tmp_path):
    (sweep,) = blocks(README, "yaml")
    assert len(sweep.strip().splitlines()) <= 20
    (tmp_path / "sweep.yaml").write_text(sweep, "utf-8")
    assert SweepConfig.load(tmp_path / "sweep.yaml").name == "scanner"


def test_links_inside_the_repository_lead_somewhere():
    found = links(README)
    assert found
    assert [link for link in found if not (ROOT / link).exists()] == []


def test_it_is_short():
    assert len(README.splitlines()) <= 250
    assert len(README.encode()) <= 14_000
