"""Speed of training steps, and the cost of validation."""
