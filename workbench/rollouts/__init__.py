"""Stage 2: groups of completions, each sampled with a seed of its own and with its log-probabilities."""
