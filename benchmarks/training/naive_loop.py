"""Distillation as a user would first write it: the reference for `benchmarks.training.step`.

PIL images go through torchvision's transforms and a DataLoader in the main process. Everything is float32 in the
default memory format. Forward hooks on every layer of both networks keep the outputs, as in code that may need
features. The teacher runs in evaluation mode under `no_grad`. The loss is fetched at every step.
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


class PilDataset(Dataset[tuple[Tensor, int]]):
    """Training images as PIL images, cropped, flipped and normalized one by one.

    Args:
        data: Data set whose training images are used.
    """

    def __init__(self, data: DataSet) -> None:
        """Convert the images to PIL."""
        images, labels = next(iter(data.train.batches(len(data.train))))
        self.labels = labels.tolist()
        self.images = [Image.fromarray(array) for array in images.permute(0, 2, 3, 1).squeeze(3).numpy()]
        fill = tuple(round(255 * value) for value in data.mean)
        steps: list[Any] = [
            transforms.RandomCrop(data.size, padding=data.crop, fill=fill if len(fill) > 1 else fill[0])
        ]
        steps += [transforms.RandomHorizontalFlip()] * data.flip
        self.transform = transforms.Compose([*steps, transforms.ToTensor(), transforms.Normalize(data.mean, data.std)])

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Return one image as float (C, H, W), and its label."""
        return self.transform(self.images[index]), self.labels[index]


def record_outputs(model: nn.Module) -> dict[str, Tensor]:
    """Register hooks that keep the last output of every layer, and return the outputs by layer."""
    outputs: dict[str, Tensor] = {}

    def make_hook(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
            del module, inputs
            outputs[name] = output

        return hook

    for name, module in model.named_modules():
        if name:
            module.register_forward_hook(make_hook(name))
    return outputs


def distillation_loss(temperature: float, alpha: float) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Return the distillation_loss loss as a function of student logits, teacher logits and labels."""

    def loss(student_logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> Tensor:
        target = F.softmax(teacher_logits / temperature, dim=1)
        log_probabilities = F.log_softmax(student_logits / temperature, dim=1)
        kd = F.kl_div(log_probabilities, target, reduction="batchmean") * temperature**2
        return (1 - alpha) * F.cross_entropy(student_logits, labels) + alpha * kd

    return loss


def naive_epochs(task: Task, seed: int, device: torch.device) -> Run:
    """Return a run that trains one epoch as the arm `plain` does, in a loop without roletune."""
    data, recipe, distill = task.data, task.recipe, task.distill
    shape: dict[str, Any] = {"classes": data.classes, "channels": data.channels, "size": data.size}
    assert task.teacher is not None
    teacher = build_model(task.teacher.model, seed=seed, **shape)
    teacher.load_state_dict(task.teacher.weights)
    teacher.eval().to(device)
    student = build_model(task.model, seed=seed, **shape).to(device)
    features = record_outputs(teacher), record_outputs(student)
    optimizer = torch.optim.SGD(
        student.parameters(), recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay, nesterov=True
    )
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, task.epochs)
    criterion = distillation_loss(distill.temperature, distill.alpha)
    generator = torch.Generator().manual_seed(seed)
    loader = DataLoader(PilDataset(data), recipe.batch_size, shuffle=True, drop_last=True, generator=generator)

    def epoch(_number: int) -> tuple[float, float]:
        student.train()
        total, correct, count = 0.0, 0.0, 0
        for images, labels in loader:
            images, labels = images.to(device), labels.to(device)
            with torch.no_grad():
                teacher_logits = teacher(images)
            logits = student(images)
            loss = criterion(logits, teacher_logits, labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(labels)
            correct += (logits.argmax(1) == labels).sum().item()
            count += len(labels)
        scheduler.step()
        assert all(features)
        return total / count, correct / count

    return epoch
