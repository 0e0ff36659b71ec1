"""Distillation losses, one file each."""

from trainables.losses.kd import kd_loss

__all__ = ["kd_loss"]
