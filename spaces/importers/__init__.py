"""Import of schedules from PBA, Ray Tune and AutoAugment."""

from spaces.importers.registry import IMAGE, READERS, read_schedule

__all__ = ["IMAGE", "READERS", "read_schedule"]
