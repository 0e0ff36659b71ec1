"""Speed of augmentation."""
