"""Distillation as a user would first write it, for `benchmarks/training/step.py` to be held against.

Images come from Pillow through torchvision's transforms and a DataLoader, in the main process; everything is float32 in
the usual layout; hooks on every layer of both networks keep what these give, as one does who may want features; the
teacher is in evaluation mode under `no_grad`; the loss is fetched at every step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from benchmarks.common.timing import Run
from trainables.data import DataSet
from trainables.models import build_model
from trainables.task import Task


class Pictures(Dataset[tuple[Tensor, int]]):
    """The training images one by one, as Pillow has them, augmented and normalized.

    Args:
        data: whose.
    """

    def __init__(self, data: DataSet) -> None:
        """Make pictures of the bytes."""
        images, labels = next(iter(data.train.batches(len(data.train))))
        self.labels = labels.tolist()
        self.pictures = [Image.fromarray(array) for array in images.permute(0, 2, 3, 1).squeeze(3).numpy()]
        fill = tuple(round(255 * value) for value in data.mean)
        steps: list[Any] = [
            transforms.RandomCrop(data.size, padding=data.crop, fill=fill if len(fill) > 1 else fill[0])
        ]
        steps += [transforms.RandomHorizontalFlip()] * data.flip
        self.transform = transforms.Compose([*steps, transforms.ToTensor(), transforms.Normalize(data.mean, data.std)])

    def __len__(self) -> int:
        """How many."""
        return len(self.pictures)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """One of them, (C, H, W) float, and its label."""
        return self.transform(self.pictures[index]), self.labels[index]


def watched(model: nn.Module) -> dict[str, Tensor]:
    """What every layer of `model` gave last, by name."""
    kept: dict[str, Tensor] = {}

    def keeper(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def hook(module: nn.Module, given: Any, output: Tensor) -> None:
            del module, given
            kept[name] = output

        return hook

    for name, module in model.named_modules():
        if name:
            module.register_forward_hook(keeper(name))
    return kept


def distillation(temperature: float, alpha: float) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """The loss as a user would write it: (student's logits, teacher's, labels) → a number."""

    def loss(logits: Tensor, answers: Tensor, labels: Tensor) -> Tensor:
        soft, own = F.softmax(answers / temperature, dim=1), F.log_softmax(logits / temperature, dim=1)
        distance = F.kl_div(own, soft, reduction="batchmean") * temperature**2
        return (1 - alpha) * F.cross_entropy(logits, labels) + alpha * distance

    return loss


def naive(task: Task, seed: int, device: torch.device) -> Run:
    """Epochs of a plain loop that trains as the arm `plain` does, written for one task and nothing else."""
    data, recipe, distill = task.data, task.recipe, task.distill
    shape: dict[str, Any] = {"classes": data.classes, "channels": data.channels, "size": data.size}
    assert task.teacher is not None
    teacher = build_model(task.teacher.model, seed=seed, **shape)
    teacher.load_state_dict(task.teacher.weights)
    teacher.eval().to(device)
    student = build_model(task.model, seed=seed, **shape).to(device)
    features = watched(teacher), watched(student)
    optimizer = torch.optim.SGD(
        student.parameters(), recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay, nesterov=True
    )
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, task.epochs)
    loss_of = distillation(distill.temperature, distill.alpha)
    generator = torch.Generator().manual_seed(seed)
    loader = DataLoader(Pictures(data), recipe.batch_size, shuffle=True, drop_last=True, generator=generator)

    def epoch(_turn: int) -> tuple[float, float]:
        student.train()
        total, hits, seen = 0.0, 0.0, 0
        for pictures, numbers in loader:
            images, labels = pictures.to(device), numbers.to(device)
            with torch.no_grad():
                answers = teacher(images)
            logits = student(images)
            loss = loss_of(logits, answers, labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(labels)
            hits += (logits.argmax(1) == labels).sum().item()
            seen += len(labels)
        scheduler.step()
        assert all(features)
        return total / seen, hits / seen

    return epoch
