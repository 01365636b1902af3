"""Stage 2: groups of answers, each with its own seed and its sampler's log-probabilities."""
