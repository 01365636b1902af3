"""Models, their tokenizers and chat templates; the log-probabilities of completions under them."""
