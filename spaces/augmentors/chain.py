"""Augmentors one after another."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from spaces.augmentors.base import Augmentor, Drawn


class Chain(Augmentor):
    """The first one's images are the second one's, and so on.

    Args:
        parts: two augmentors or more; at most one of them mixes.
        labels: what each part is called.
    """

    def __init__(self, parts: Sequence[Augmentor], labels: Sequence[str]) -> None:
        """Take them over, in order."""
        super().__init__()
        self.parts = nn.ModuleList(parts)
        pairs = zip(labels, parts, strict=True)
        self.names = tuple(f"{label} {name}" for label, part in pairs for name in part.names)

    def forward(self, images: Tensor, fill: Tensor, generator: torch.Generator) -> Drawn:
        """Pass the batch on from part to part."""
        steps: list[Drawn] = []
        for part in self.parts:
            drawn: Drawn = part(steps[-1].images if steps else images, fill, generator)
            steps.append(drawn)
        mix = next((step for step in steps if step.partner is not None), steps[0])
        return Drawn(
            steps[-1].images,
            torch.stack([step.entropy for step in steps]).sum(),
            torch.cat([step.parameters for step in steps], dim=1),
            mix.partner,
            mix.weight,
        )

    def learnable(self) -> dict[str, Tensor]:
        """What its parts have learned."""
        learned: dict[str, Tensor] = {}
        for index, part in enumerate(self.parts):
            if isinstance(part, Augmentor):
                learned |= {f"parts.{index}.{name}": value for name, value in part.learnable().items()}
        return learned
