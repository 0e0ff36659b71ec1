"""A genome applied to a batch of images: parameters are drawn first, pixels are changed after.

The way a policy is applied is PBA's (Ho et al. 2019, https://arxiv.org/abs/1905.05393, the authors' code): for each
image draw a count from {0: 0.2, 1: 0.3, 2: 0.5}, shuffle the entries, walk them and apply each with its probability
until `count` were applied. Crop and flip, which belong to the data set, come after.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from spaces.errors import RequestError
from spaces.genome import TENTHS, Genome
from spaces.operations import OPERATIONS, check_images

COUNTS = (0.2, 0.3, 0.5)
"""How probable it is that 0, 1 or 2 operations are applied to an image."""

_OPERATIONS = tuple(OPERATIONS.values())
_INDEX = {name: index for index, name in enumerate(OPERATIONS)}
NONE = -1
"""In `Parameters.operations`: nothing is applied in this place."""


@dataclass(frozen=True)
class Parameters:
    """What happens to each image of a batch, in which order: enough to replay it.

    Args:
        operations: (B, 2) int64, an index into `OPERATIONS` or `NONE`; column 0 is applied first.
        levels: (B, 2) int64, 0 … 9.
        signs: (B, 2) int64, −1 or +1; only the geometric operations look at it.
        positions: (B, 2, 2) float32 in [0, 1), fractions of height and width; only Cutout looks at it.
    """

    operations: Tensor
    levels: Tensor
    signs: Tensor
    positions: Tensor

    def __len__(self) -> int:
        """How many images the parameters are for."""
        return len(self.operations)


def sample(genome: Genome, batch: int, generator: torch.Generator) -> Parameters:
    """Draw what happens to `batch` images under `genome`, on the CPU, from `generator` alone.

    The same number of random numbers is drawn whatever the genome says, so two genomes of the same length that start
    from the same generator see the same draws.

    Raises:
        RequestError: fewer than one image.
    """
    if batch < 1:
        raise RequestError("a batch holds at least one image", got=batch)
    places = len(COUNTS) - 1
    entries = len(genome.policy)
    order = torch.rand(batch, entries, generator=generator).argsort(dim=1)
    chance = torch.rand(batch, entries, generator=generator)
    counts = torch.multinomial(torch.tensor(COUNTS), batch, replacement=True, generator=generator)
    signs = torch.randint(0, 2, (batch, places), generator=generator) * 2 - 1
    positions = torch.rand(batch, places, 2, generator=generator)

    probability = torch.tensor([entry.probability / TENTHS for entry in genome.policy])
    rank = (chance < probability[order]).cumsum(dim=1)
    operations = torch.full((batch, places), NONE)
    levels = torch.zeros(batch, places, dtype=torch.int64)
    op_of = torch.tensor([_INDEX[entry.op] for entry in genome.policy])
    level_of = torch.tensor([entry.magnitude for entry in genome.policy])
    for place in range(places) if entries else ():
        # The first entry at which the running count of hits reaches place + 1 is the one applied here.
        found = (rank[:, -1] > place) & (counts > place)
        entry = order.gather(1, (rank > place).int().argmax(dim=1, keepdim=True)).squeeze(1)
        operations[:, place] = torch.where(found, op_of[entry], NONE)
        levels[:, place] = torch.where(found, level_of[entry], 0)
    return Parameters(operations, levels, signs, positions)


def apply(images: Tensor, parameters: Parameters, fill: Sequence[int]) -> Tensor:
    """Change uint8 images (B, C, H, W) as `parameters` say; the same parameters give the same pixels.

    Args:
        images: left as they are; a new tensor is returned where anything changes.
        parameters: for exactly B images.
        fill: the colour of uncovered pixels, C numbers from 0 to 255.

    Raises:
        RequestError: the images are no uint8 batch, or the parameters are for another number of images.
    """
    check_images(images)
    if len(parameters) != len(images):
        raise RequestError(f"parameters for {len(images)} images are needed", got=len(parameters))
    colour = torch.tensor(fill, dtype=torch.uint8, device=images.device)
    for place in range(parameters.operations.shape[1]):
        chosen = parameters.operations[:, place]
        changed = images
        for index in chosen.unique().tolist():
            if index == NONE:
                continue
            rows = (chosen == index).nonzero().squeeze(1)
            if changed is images:
                changed = images.clone()
            here = rows.to(images.device)
            changed[here] = _OPERATIONS[index](
                images[here],
                parameters.levels[rows, place].to(images.device),
                parameters.signs[rows, place].to(images.device),
                parameters.positions[rows, place].to(images.device),
                colour,
            )
        images = changed
    return images


class Transform(nn.Module):
    """A genome as a module: uint8 images (B, C, H, W) in, the same out, each image changed on its own.

    Args:
        genome: what is applied.
        fill: the colour of uncovered pixels, one number from 0 to 255 per channel.
        seed: whole numbers that the random numbers follow from; the global random state is not touched.
    """

    def __init__(self, genome: Genome, *, fill: Sequence[int], seed: Sequence[int] = (0,)) -> None:
        """Make the module's own random generator."""
        super().__init__()
        self.genome = genome
        self.fill = tuple(fill)
        self.generator = seeded(*seed)

    def forward(self, images: Tensor) -> Tensor:
        """Draw parameters for the batch and apply them."""
        check_images(images)
        if self.genome.is_identity:
            return images
        return apply(images, sample(self.genome, len(images), self.generator), self.fill)

    def extra_repr(self) -> str:
        """The operations in force, for `print`."""
        return ", ".join(f"{op} {value:.1f}" for op, value in self.genome.strength().items() if value)


def seeded(*numbers: int) -> torch.Generator:
    """A CPU generator whose stream follows from all of `numbers`; near numbers give unrelated streams."""
    state = 0x9E3779B97F4A7C15
    for number in numbers:  # splitmix64's finaliser, once per number
        state = (state ^ (number & 0xFFFFFFFFFFFFFFFF)) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
        state = (state ^ (state >> 27)) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
        state ^= state >> 31
    return torch.Generator().manual_seed(state >> 1)
