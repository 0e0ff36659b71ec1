"""The student in training and its distillation objective."""
