"""A trained teacher: frozen, in evaluation mode, whatever is called."""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from typing import Self, TypeAlias

import torch
from torch import Tensor, nn

from trainables.training.folding import fold, unfold

Statistics: TypeAlias = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and deviation per channel, of pixels in [0, 1]."""


class FrozenTeacher(nn.Module):
    """A network that answers and never learns.

    Its parameters take no gradient, and `train()` leaves it in evaluation mode, so that neither an optimizer nor a
    module that holds it can change its weights or its batch statistics. So its batch normalizations are folded into the
    convolutions before them (`trainables.training.folding`), which its state does not show.

    Args:
        model: the trained network; it is taken over, not copied.
        classes: that it answers with; None: the student's own.
    """

    def __init__(self, model: nn.Module, classes: int | None = None) -> None:
        """Freeze `model`."""
        super().__init__()
        self.classes = classes
        self.model = fold(model.eval().requires_grad_(False))
        self.training = False

    def train(self, mode: bool = True) -> Self:
        """Do nothing: a teacher stays in evaluation mode."""
        del mode
        return self

    def peer(self) -> nn.Module:
        """A copy of the network that learns."""
        return unfold(deepcopy(self.model)).requires_grad_(True).train()

    def show(self, layers: Iterable[str]) -> None:
        """From now on these layers of the network give what they are named for: their convolutions are not folded."""
        unfold(self.model, layers)

    def through(self, images: Tensor) -> Tensor:
        """(B, C, H, W) → logits (B, classes), with a gradient to the images and none to the weights."""
        logits: Tensor = self.model(images)
        return logits

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) → logits (B, classes), without a gradient."""
        logits: Tensor = self.model(images)
        return logits


class Renormalize:
    """Before a network is called: images normalized by one mean and deviation, as another would have them.

    Args:
        given: mean and deviation per channel that the images were normalized by.
        wanted: those that the network was trained with.
    """

    def __init__(self, given: Statistics, wanted: Statistics) -> None:
        """X · σ / σ′ + (μ − μ′) / σ′."""
        self._factor = torch.tensor([s / w for s, w in zip(given[1], wanted[1], strict=True)]).view(1, -1, 1, 1)
        shift = [(m - n) / w for m, n, w in zip(given[0], wanted[0], wanted[1], strict=True)]
        self._offset = torch.tensor(shift).view(1, -1, 1, 1)

    def __call__(self, network: nn.Module, arguments: tuple[Tensor]) -> tuple[Tensor]:
        """As a forward pre-hook."""
        (images,) = arguments
        if self._factor.device != images.device:
            self._factor, self._offset = self._factor.to(images.device), self._offset.to(images.device)
        return (torch.addcmul(self._offset, images, self._factor),)
