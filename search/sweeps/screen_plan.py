"""The plan of a screening: its augmentations and settings, resolved from the sweep file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from search.config.schema import SweepConfig
from spaces import RequestError, Schedule, Space
from spaces.augmentations import CATALOG, Augmentation, Hard, Identity, Mixup, Pick, PolicyAugmentation, augmentation
from spaces.augmentations.base import Draw
from trainables.screening.ranking import Precision


@dataclass(frozen=True)
class ScreenPlan:
    """Settings of a screening.

    Args:
        space: Space whose augmentations are ranked.
        drop: Share of them that is dropped, in [0, 1).
        draw: How random numbers are drawn; None: as each augmentation says.
        precision: Number of images and means.
        seed: Seed of all draws.
        channels_last: Memory format of the teacher; None: the faster one.
    """

    space: Space
    drop: float
    draw: Draw | None
    precision: Precision
    seed: int
    channels_last: bool | None

    @classmethod
    def resolve(cls, config: SweepConfig) -> ScreenPlan:
        """Return the screening that a sweep file describes."""
        screen, teacher = config.screen, config.teacher
        channels_last = teacher.recipe.channels_last if teacher is not None else None
        return cls(config.space, screen.drop, screen.draw, screen.precision, config.seed, channels_last)

    def contestants(self, only: Sequence[str] = (), policies: Sequence[Schedule] = ()) -> tuple[Augmentation, ...]:
        """Return what is ranked: the names given, else the space's own augmentations, else the whole catalog.

        Args:
            only: Names of the catalog, or dotted ones.
            policies: Schedules whose last phase is ranked too.

        Raises:
            RequestError: A name is unknown, or an augmentation comes twice.
        """
        named: tuple[Augmentation, ...] = tuple(augmentation(name) for name in only)
        if not named:
            choices = rankable(self.space)
            named = choices if len(choices) > 1 else _catalog()
        last = [schedule.phases[-1].genome for schedule in policies]
        learned = [genome.augment for genome in last]
        # A policy that does nothing is no contestant beside what its second view has learned.
        shown = (
            *(PolicyAugmentation(policy=g.policy) for g in last if not (g.policy.is_identity and g.has_view)),
            *(augment for augment in learned if isinstance(augment, Hard) and not augment.learns),
        )
        draw = self.draw
        found = tuple(_with_draw(choice, draw) if draw else choice for choice in (*named, *shown))
        labels = [choice.label for choice in found]
        if len(set(labels)) < len(labels):
            hint = "name each once; screen.draw makes equal what differs in draw alone"
            raise RequestError("augmentations to rank must differ", value=labels, hint=hint)
        return found


def rankable(space: Space) -> tuple[Augmentation, ...]:
    """Return the augmentations of a space that need no student to learn against."""
    return tuple(choice for choice in space.augmentations if not choice.learns)


def _with_draw(choice: Augmentation, draw: Draw) -> Augmentation:
    """Return `choice` with that draw, for a pick that of its base; identity and HARD have none."""
    if isinstance(choice, Identity | Hard):
        return choice
    if type(choice) is Pick:
        return replace(choice, base=_with_draw(choice.base, draw))
    return replace(choice, draw=draw)


def _catalog() -> tuple[Augmentation, ...]:
    """Return all that needs no student; `pick` with mixup, since with CutMix it is CutMixPick."""
    usual = (Pick(base=Mixup()) if kind == Pick.kind else cls() for kind, cls in CATALOG.items())
    return tuple(choice for choice in usual if not choice.learns)
