"""Forward passes: weights, models, batches, log-probabilities."""
