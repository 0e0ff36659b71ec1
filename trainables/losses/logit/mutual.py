"""Deep mutual learning (Zhang et al. 2018, https://arxiv.org/abs/1706.00384)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from trainables.losses.base import Criterion, DistillBatch, Loss, Pair
from trainables.losses.checks import need_classes
from trainables.losses.logit.kd import kd_loss


@dataclass(frozen=True)
class Mutual(Loss):
    """The student learns from a peer, a copy of the teacher that learns from the labels and from the student.

    The authors' networks start from random weights and at T = 1; this peer starts from the teacher's.
    """

    kind: ClassVar[str] = "mutual"
    needs: ClassVar[frozenset[str]] = frozenset({"teacher", "classes"})

    def build(self, pair: Pair) -> Criterion:
        """Copy the teacher.

        Raises:
            RequestError: there is no teacher, or one of other classes.
        """
        need_classes(self, pair)
        assert pair.peer is not None
        return MutualCriterion(pair.peer())


class MutualCriterion(Criterion):
    """A student and the peer.

    Args:
        peer: images → logits (B, C); taken over, and trained.
    """

    def __init__(self, peer: nn.Module) -> None:
        """Take the peer over."""
        super().__init__()
        self.peer = peer

    def forward(self, seen: DistillBatch) -> dict[str, Tensor]:
        """`loss`: `kd_loss` from the peer; `own`: the peer's cross-entropy, and its `kd_loss` from the student."""
        peer: Tensor = self.peer(seen.images)
        own = F.cross_entropy(peer.float(), seen.labels) + kd_loss(peer, seen.student, seen.temperature)
        return {"loss": kd_loss(seen.student, peer, seen.temperature), "own": own}
