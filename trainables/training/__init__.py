"""Training of one network: learner, recipe, batches, random streams, normalization, memory format, frozen teacher."""
