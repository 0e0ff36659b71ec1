"""What the README shows is what there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset
from torchvision import transforms

from benchmarks.reliability import hosts, multi_host
from spaces import Entry, Genome, ImageSpec, Phase, Policy, Schedule

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")


@pytest.fixture
def blocks(tmp_path, monkeypatch):
    """The README's Python, in a folder that holds the policy file it names."""
    genome = Genome(Policy((Entry("Rotate", 8, 5), Entry("Cutout", 8, 8))))
    phases = (Phase(1, genome), Phase(2, Genome()))
    Schedule(phases, "student", ImageSpec(8, 1, (78,))).save(tmp_path / "policy.student.json")
    monkeypatch.chdir(tmp_path)
    found = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(found) == 2 and all(len(code.strip().splitlines()) <= 12 for code in found)
    return found


def test_the_plain_loop_runs_as_it_stands(blocks):
    images = torch.randint(0, 256, (12, 1, 8, 8), dtype=torch.uint8)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    before = model[1].weight.detach().clone()
    seen = {
        "epochs": 6,
        "loader": DataLoader(TensorDataset(images, torch.arange(12) % 3), batch_size=4),
        "model": model,
        "normalize": lambda batch: batch.float() / 255,
        "criterion": nn.CrossEntropyLoss(),
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.1),
    }
    exec(blocks[0], seen)
    assert seen["schedule"].epochs == 6 and not torch.equal(before, model[1].weight)


class Pictures(Dataset):
    """Gray pictures as a torchvision data set gives them."""

    def __init__(self, transform):
        self.transform = transform

    def __len__(self):
        return 8

    def __getitem__(self, index):
        return self.transform(Image.new("L", (8, 8), 10 * index)), index


@pytest.mark.slow
def test_the_loop_with_workers_runs_as_it_stands(blocks):
    changed = []
    seen = {
        "epochs": 3,
        "dataset": Pictures,
        "transforms": transforms,
        "DataLoader": DataLoader,
        "step": lambda images, labels: changed.append(any(len(image.unique()) > 1 for image in images)),
    }
    exec(blocks[1], seen)
    assert len(changed) == 6
    assert any(changed[:2]) and not any(changed[2:]), "augmented in the first epoch alone, as the schedule says"


def test_links_inside_the_repository_lead_somewhere():
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_names_that_it_lists_are_all_there_are():
    from search.config.catalog import markdown
    from spaces.importers import READERS

    assert markdown() in README, "paste what `roletune list --markdown` prints"
    for name in READERS:
        assert f"`{name}`" in README, name


def test_the_run_over_several_hosts_follows_the_section_on_clusters_word_by_word():
    section = README.partition("## On a cluster")[2].partition("\n## ")[0]
    commands = re.sub(r" +#.*", "", re.search(r"```sh\n(.*?)```", section, re.DOTALL)[1])
    shared = {"shared": "/shared", "store": "sqlite:////shared/mlflow.db", "head": "HEAD:6379"}
    for command in (hosts.HEAD, hosts.WORKER, multi_host.MLFLOW, multi_host.DOCTOR, multi_host.DRIVER):
        assert " ".join(hosts.fill(command, **shared)) in commands.splitlines()
