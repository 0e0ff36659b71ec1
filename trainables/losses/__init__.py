"""Distillation losses, one file each, and the catalog from which a sweep file names them."""

from trainables.losses.base import Criterion, DistillBatch, Loss, Pair
from trainables.losses.feature.attention import Attention
from trainables.losses.feature.base import FeatureLoss, as_map, pooled
from trainables.losses.feature.crd import Crd
from trainables.losses.feature.hint import Hint
from trainables.losses.feature.pkt import Pkt
from trainables.losses.feature.rkd import RKD
from trainables.losses.feature.similarity import Similarity
from trainables.losses.feature.spectral import Spectral
from trainables.losses.logit.dist import Dist
from trainables.losses.logit.dkd import Dkd
from trainables.losses.logit.kd import Kd, divergence, kd_loss
from trainables.losses.logit.mutual import Mutual
from trainables.losses.registry import LOSSES, Term, described, terms

__all__ = [
    "LOSSES",
    "RKD",
    "Attention",
    "Crd",
    "Criterion",
    "Dist",
    "DistillBatch",
    "Dkd",
    "FeatureLoss",
    "Hint",
    "Kd",
    "Loss",
    "Mutual",
    "Pair",
    "Pkt",
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
