"""Pick and CutMixPick: selection of the images with the highest predictive entropy from several views.

Source: CutMixPick, Wang et al. 2022 (NeurIPS), https://arxiv.org/abs/2012.02909. Picking from any augmentation and from
more than two passes is an extension of this project.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from spaces.augmentations.base import Augmentation, Predict, View
from spaces.augmentations.mixing import CutMix
from spaces.core.errors import RequestError
from spaces.core.validation import check_choice, check_integer


@dataclass(frozen=True)
class Pick(Augmentation):
    """Selection of the B images with the highest entropy of softmax(logits) from `passes` views of a batch.

    Args:
        draw: Has no effect; the base has its own.
        base: Another augmentation.
        passes: Views in the pool, 2 to 16; one view would leave nothing to select.
        pick_by: Network whose entropy counts, `teacher` or `student`.

    Example:
        >>> import torch
        >>> from spaces.augmentations import Mixup, Pick
        >>> images = torch.zeros(4, 1, 8, 8, dtype=torch.uint8)
        >>> predict = lambda images: images.float().mean(dim=(2, 3)).repeat(1, 10)
        >>> view = Pick(base=Mixup(), passes=3)(images, (0,), torch.Generator().manual_seed(0), predict)
        >>> view.images.shape, view.logits.shape
        (torch.Size([4, 1, 8, 8]), torch.Size([4, 10]))
    """

    kind: ClassVar[str] = "pick"

    base: Augmentation = field(default_factory=CutMix)
    passes: int = 2
    pick_by: Literal["teacher", "student"] = "teacher"

    def __post_init__(self) -> None:
        """Check the parameters."""
        super().__post_init__()
        check_integer(f"{self.kind} passes", self.passes, 2, 16)
        check_choice(f"{self.kind} pick_by", self.pick_by, ("teacher", "student"))
        if not isinstance(self.base, Augmentation):
            raise RequestError(f"the base of {self.kind} must be an augmentation", value=self.base)
        if isinstance(self.base, Pick):
            raise RequestError(f"the base of {self.kind} must not be a pick", value=self.base.kind)
        if self.base.learns:
            raise RequestError(f"the base of {self.kind} must not need learning", value=self.base.kind)

    @property
    def scored_by(self) -> str:
        """Network whose logits the augmentation needs."""
        return self.pick_by

    def __call__(
        self, images: Tensor, fill: Sequence[int], generator: torch.Generator, predict: Predict | None = None
    ) -> View:
        """Make the pool, predict it in one call, and keep the images of highest entropy with their logits."""
        if predict is None:
            raise RequestError(f"{self.kind} must be called with `predict`, for the logits of the {self.pick_by}")
        views = [self.base(images, fill, generator) for _ in range(self.passes)]
        pool = View(*(torch.cat(parts) for parts in zip(*map(_parts, views), strict=True)))
        with torch.no_grad():
            logits = predict(pool.images)
        best = entropy(logits).nan_to_num(nan=-1.0).topk(len(images)).indices
        images, first, second, weight = (part[best] for part in _parts(pool))
        return View(images, first, second, weight, logits[best])


@dataclass(frozen=True)
class CutMixPick(Pick):
    """CutMixPick (Wang et al. 2022, https://arxiv.org/abs/2012.02909): two passes of CutMix, picked by the teacher.

    Args:
        draw: `sample` for λ and a box per image, `batch` for one of each per pass, as in the authors' code.
        alpha: α of CutMix.
        passes: Views in the pool, 2 to 16; 2 in the paper.
        pick_by: Network whose entropy counts, `teacher` or `student`.

    Example:
        >>> from spaces.augmentations import CutMixPick
        >>> CutMixPick().scored_by
        'teacher'
    """

    kind: ClassVar[str] = "cutmixpick"

    base: Augmentation = field(init=False, repr=False, compare=False)
    alpha: float = 1.0

    def __post_init__(self) -> None:
        """Set CutMix as the base."""
        base = CutMix(draw=self.draw, alpha=self.alpha)
        object.__setattr__(self, "base", base)
        object.__setattr__(self, "alpha", base.alpha)
        super().__post_init__()

    def to_json(self) -> dict[str, Any]:
        """Return name and parameters without the base, which the name implies."""
        content = super().to_json()
        del content["base"]
        return content


def _parts(view: View) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return view.images, view.first, view.second, view.weight


def entropy(logits: Tensor) -> Tensor:
    """Return the entropy (B,) of softmax(logits) for logits (B, K), in nats at temperature 1."""
    parts: Tensor = torch.special.entr(logits.float().softmax(dim=1))
    return parts.sum(dim=1)
