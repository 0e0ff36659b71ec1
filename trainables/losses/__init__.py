"""Distillation losses, one per file, and the registry from which a sweep file names them."""

from trainables.losses.base import Criterion, DistillBatch, Loss, NetworkPair
from trainables.losses.feature.attention import Attention
from trainables.losses.feature.base import FeatureLoss, as_map, pooled
from trainables.losses.feature.crd import CRD
from trainables.losses.feature.hint import Hint
from trainables.losses.feature.pkt import PKT
from trainables.losses.feature.rkd import RKD
from trainables.losses.feature.similarity import Similarity
from trainables.losses.feature.spectral import Spectral
from trainables.losses.logit.dist import DIST
from trainables.losses.logit.dkd import DKD
from trainables.losses.logit.kd import KD, divergence, kd_loss
from trainables.losses.logit.mutual import Mutual
from trainables.losses.registry import LOSSES, WeightedLoss, describe_losses, parse_losses, upgrade_losses

__all__ = [
    "CRD",
    "DIST",
    "DKD",
    "KD",
    "LOSSES",
    "PKT",
    "RKD",
    "Attention",
    "Criterion",
    "DistillBatch",
    "FeatureLoss",
    "Hint",
    "Loss",
    "Mutual",
    "NetworkPair",
    "Similarity",
    "Spectral",
    "WeightedLoss",
    "as_map",
    "describe_losses",
    "divergence",
    "kd_loss",
    "parse_losses",
    "pooled",
    "upgrade_losses",
]
