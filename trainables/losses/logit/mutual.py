"""Deep mutual learning (Zhang et al. 2018, https://arxiv.org/abs/1706.00384)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from trainables.losses.base import Criterion, DistillBatch, Loss, NetworkPair
from trainables.losses.checks import require_same_classes
from trainables.losses.logit.kd import kd_loss


@dataclass(frozen=True)
class Mutual(Loss):
    """`kd_loss` from a peer network, a copy of the teacher that learns from the labels and from the student.

    The authors' networks start from random weights and use T = 1; this peer starts from the teacher's weights.

    Example:
        >>> import torch
        >>> peer = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
        >>> pair = NetworkPair(classes=2, images=10, student={}, teacher_classes=2, peer=lambda: peer)
        >>> labels = torch.tensor([0, 1])
        >>> batch = DistillBatch(torch.rand(2, 1, 2, 2), labels, labels, temperature=1.0, student=torch.zeros(2, 2))
        >>> sorted(Mutual().build(pair)(batch))
        ['auxiliary_loss', 'loss']
    """

    kind: ClassVar[str] = "mutual"
    needs: ClassVar[frozenset[str]] = frozenset({"teacher", "classes"})

    def build(self, pair: NetworkPair) -> Criterion:
        """Copy the teacher.

        Raises:
            RequestError: There is no teacher, or it has other classes.
        """
        require_same_classes(self, pair)
        assert pair.peer is not None
        return MutualCriterion(pair.peer())


class MutualCriterion(Criterion):
    """The mutual losses of a student and a peer.

    Args:
        peer: Network, images → logits (B, C); taken over, and trained.
    """

    def __init__(self, peer: nn.Module) -> None:
        """Take the peer over."""
        super().__init__()
        self.peer = peer

    def forward(self, batch: DistillBatch) -> dict[str, Tensor]:
        """Compute the losses of a batch.

        Returns:
            `loss`, the student's `kd_loss` from the peer; and `auxiliary_loss`, the peer's cross-entropy with the
            labels plus its `kd_loss` from the student.
        """
        peer: Tensor = self.peer(batch.images)
        auxiliary = F.cross_entropy(peer.float(), batch.labels) + kd_loss(peer, batch.student, batch.temperature)
        return {"loss": kd_loss(batch.student, peer, batch.temperature), "auxiliary_loss": auxiliary}
