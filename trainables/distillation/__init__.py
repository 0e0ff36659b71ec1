"""The student in training, and the objective it learns by."""
