"""Distillation losses, one file each."""

from trainables.losses.kd import divergence, kd_loss

__all__ = ["divergence", "kd_loss"]
