"""Regression test of loss values and of one epoch's metrics against `golden_losses.json`."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from spaces import Genome
from trainables import Bits, Distill
from trainables.losses import LOSSES, DistillBatch, FeatureLoss, NetworkPair, parse_losses

GOLDEN = json.loads((Path(__file__).parent / "golden_losses.json").read_text("utf-8"))
IMAGES, CLASSES, BATCH, NARROW, WIDE = 40, 4, 6, 5, 8
SMALL = {"crd": {"width": 4}, "spectral": {"k": 1}}

EPOCHS = {
    "kd": {},
    "kd and hint": {"distill": Distill({"kd": 1, "hint": {"weight": 5, "projection": "inverted"}})},
    "two bits": {"model": "resnet8", "bits": Bits(2, 2)},
}
"""What differs between the three students that train one epoch."""


def cases():
    """Name → (loss, options) of every loss under every projection, and of `hint` under every normalization."""
    features = [name for name, loss in LOSSES.items() if issubclass(loss, FeatureLoss)]
    found = {name: (name, {}) for name in LOSSES if name not in features}
    for name in features:
        for projection in ("none", "student", "inverted", "ensemble"):
            found[f"{name} {projection}"] = name, {"projection": projection}
    for normalization in ("batch", "layer", "l2", "none"):
        options = {"projection": "inverted", "normalization": normalization}
        found[f"hint inverted {normalization}"] = "hint", options
    return found


def value(name, options):
    """Every part of the loss and of its report on one fixed batch, by name."""
    wide = NARROW if (name, options.get("projection")) == ("hint", "none") else WIDE
    pair = NetworkPair(
        classes=CLASSES,
        images=IMAGES,
        student={"last": (NARROW, 4, 4)},
        teacher={"end": (wide, 4, 4)},
        teacher_classes=CLASSES,
        peer=lambda: nn.Sequential(nn.Flatten(), nn.BatchNorm1d(12), nn.Linear(12, CLASSES)),
    )
    draw = torch.Generator().manual_seed(7)
    batch = DistillBatch(
        images=torch.randn(BATCH, 3, 2, 2, generator=draw),
        labels=torch.arange(BATCH) % CLASSES,
        rows=torch.randperm(IMAGES, generator=draw)[:BATCH],
        temperature=3.0,
        student=torch.randn(BATCH, CLASSES, generator=draw),
        teacher=torch.randn(BATCH, CLASSES, generator=draw),
        student_features={"last": torch.randn(BATCH, NARROW, 4, 4, generator=draw)},
        teacher_features={"end": torch.randn(BATCH, wide, 4, 4, generator=draw)},
    )
    (term,) = parse_losses({name: {**SMALL.get(name, {}), **options}})
    torch.default_generator.manual_seed(1)
    criterion = term.loss.build(pair)
    torch.default_generator.manual_seed(2)
    parts = {part: float(value.detach()) for part, value in criterion(batch).items()}
    return parts | criterion.report()


def epoch(make_task, changes):
    """The metrics of the first epoch that do not depend on the machine's speed."""
    task = make_task("student", **changes)
    metrics = task.train_epoch(task.learner(Genome(), seed=3))
    return {name: value for name, value in metrics.items() if not name.startswith(("seconds/", "images_per_s"))}


def test_the_golden_file_names_every_case():
    assert GOLDEN["losses"].keys() == cases().keys() and GOLDEN["epochs"].keys() == EPOCHS.keys()


@pytest.mark.parametrize("case", cases())
def test_loss(case):
    assert value(*cases()[case]) == pytest.approx(GOLDEN["losses"][case], rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("case", EPOCHS)
def test_epoch(make_task, case):
    assert epoch(make_task, EPOCHS[case]) == pytest.approx(GOLDEN["epochs"][case], rel=1e-4, abs=1e-6)
