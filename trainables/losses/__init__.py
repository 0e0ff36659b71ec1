"""Distillation losses, one file each, and the catalogue from which a sweep file names them."""

from trainables.losses.attention import Attention
from trainables.losses.base import Criterion, Loss, Pair, Seen
from trainables.losses.catalogue import LOSSES, Term, described, terms
from trainables.losses.crd import Crd
from trainables.losses.dist import Dist
from trainables.losses.dkd import Dkd
from trainables.losses.feature import FeatureLoss, as_map, pooled
from trainables.losses.hint import Hint
from trainables.losses.kd import Kd, divergence, kd_loss
from trainables.losses.mutual import Mutual
from trainables.losses.pkt import Pkt
from trainables.losses.relational import Relational
from trainables.losses.similarity import Similarity
from trainables.losses.spectral import Spectral

__all__ = [
    "LOSSES",
    "Attention",
    "Crd",
    "Criterion",
    "Dist",
    "Dkd",
    "FeatureLoss",
    "Hint",
    "Kd",
    "Loss",
    "Mutual",
    "Pair",
    "Pkt",
    "Relational",
    "Seen",
    "Similarity",
    "Spectral",
    "Term",
    "as_map",
    "described",
    "divergence",
    "kd_loss",
    "pooled",
    "terms",
]
