"""Pick, and CutMixPick: of several views of a batch, the images that leave a network least certain.

Source: CutMixPick, Wang et al. 2022 (NeurIPS), https://arxiv.org/abs/2012.02909; to pick from any augmentation, and
from more than two passes, is our own step beyond it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from spaces.augmentations.base import Answers, Augmentation, View, check_whole
from spaces.augmentations.mixing import CutMix
from spaces.core.errors import RequestError


@dataclass(frozen=True)
class Pick(Augmentation):
    """Of `passes` views of the batch, the B images with the highest entropy of softmax(answers), over the whole pool.

    Args:
        draw: that of the base is what counts.
        base: any other augmentation of the catalog.
        passes: views in the pool, at least 2: a pool as large as the batch would leave nothing to pick.
        pick_by: whose entropy: the `teacher`'s or the `student`'s.
    """

    kind: ClassVar[str] = "pick"

    base: Augmentation = field(default_factory=CutMix)
    passes: int = 2
    pick_by: Literal["teacher", "student"] = "teacher"

    def __post_init__(self) -> None:
        """Refuse a pool that leaves nothing to pick."""
        super().__post_init__()
        if isinstance(self.passes, int) and not isinstance(self.passes, bool) and self.passes < 2:
            rule = f"{self.kind} picks from 2 passes or more: a pool of one is the batch itself"
            raise RequestError(rule, value=self.passes)
        check_whole(f"{self.kind}'s passes", self.passes, 2, 16)
        if self.pick_by not in ("teacher", "student"):
            raise RequestError(f"{self.kind}'s pick_by is teacher or student", value=self.pick_by)
        if not isinstance(self.base, Augmentation):
            raise RequestError(f"{self.kind}'s base is an augmentation", value=self.base)
        if isinstance(self.base, Pick):
            raise RequestError(f"{self.kind}'s base picks nothing itself", value=self.base.kind)
        if self.base.learns:
            raise RequestError(f"{self.kind}'s base has nothing to learn first", value=self.base.kind)

    @property
    def asks(self) -> str:
        """Whose answers it needs."""
        return self.pick_by

    def __call__(
        self, images: Tensor, fill: Sequence[int], generator: torch.Generator, answers: Answers | None = None
    ) -> View:
        """Make the pool, ask once for all of it, and keep the best; the view carries their logits."""
        if answers is None:
            raise RequestError(f"{self.kind} needs the {self.pick_by}'s answers", value=None)
        views = [self.base(images, fill, generator) for _ in range(self.passes)]
        pool = View(*(torch.cat(parts) for parts in zip(*map(_parts, views), strict=True)))
        with torch.no_grad():
            logits = answers(pool.images)
        best = entropy(logits).nan_to_num(nan=-1.0).topk(len(images)).indices
        images, first, second, weight = (part[best] for part in _parts(pool))
        return View(images, first, second, weight, logits[best])


@dataclass(frozen=True)
class CutMixPick(Pick):
    """CutMixPick as its authors have it: two passes of CutMix, picked by the teacher's entropy.

    Args:
        draw: as for every augmentation; `batch`: each pass has one λ and one box, as in the authors' code.
        alpha: CutMix's.
        passes: as for `pick`.
        pick_by: as for `pick`.
    """

    kind: ClassVar[str] = "cutmixpick"

    base: Augmentation = field(init=False, repr=False, compare=False)
    alpha: float = 1.0

    def __post_init__(self) -> None:
        """CutMix is the base."""
        base = CutMix(draw=self.draw, alpha=self.alpha)
        object.__setattr__(self, "base", base)
        object.__setattr__(self, "alpha", base.alpha)
        super().__post_init__()

    def to_json(self) -> dict[str, Any]:
        """Without the base, which its kind says."""
        content = super().to_json()
        del content["base"]
        return content


def _parts(view: View) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return view.images, view.first, view.second, view.weight


def entropy(logits: Tensor) -> Tensor:
    """H(softmax(logits)) at temperature 1, in nats: (B, K) → (B,)."""
    parts: Tensor = torch.special.entr(logits.float().softmax(dim=1))
    return parts.sum(dim=1)
