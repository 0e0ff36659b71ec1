"""One network in training: learner, batches, recipe, frozen teacher."""
