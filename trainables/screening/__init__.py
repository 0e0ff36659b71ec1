"""T. stddev, and the ranking of augmentations by it."""
