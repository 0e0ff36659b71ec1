"""Speed of training steps, and the number of validation images that a selection needs."""
