"""What the README shows is what there is."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from spaces import Entry, Genome, ImageSpec, Phase, Schedule

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")


def test_the_plain_loop_runs_as_it_stands(tmp_path, monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(code.strip().splitlines()) <= 12
    genome = Genome((Entry("Rotate", 8, 5), Entry("Cutout", 8, 8)))
    Schedule((Phase(1, genome), Phase(2, Genome())), "student", ImageSpec(8, 1, (78,))).save(
        tmp_path / "policy.student.json"
    )
    monkeypatch.chdir(tmp_path)
    images = torch.randint(0, 256, (12, 1, 8, 8), dtype=torch.uint8)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    before = model[1].weight.detach().clone()
    seen = {
        "epochs": 6,
        "loader": DataLoader(TensorDataset(images, torch.arange(12) % 3), batch_size=4),
        "model": model,
        "normalise": lambda batch: batch.float() / 255,
        "criterion": nn.CrossEntropyLoss(),
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.1),
    }
    exec(code, seen)
    assert seen["schedule"].epochs == 6 and not torch.equal(before, model[1].weight)


def test_links_inside_the_repository_lead_somewhere():
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_names_that_it_lists_are_all_there_are():
    from trainables.data import DATA
    from trainables.models import MODELS

    for name in (*DATA, *MODELS):
        assert f"`{name}`" in README, name
