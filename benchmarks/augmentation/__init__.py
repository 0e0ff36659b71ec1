"""Speed of augmentation, compared with other libraries."""
