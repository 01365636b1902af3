"""Questions to a run's model from a page: Try it, and branches at a token."""
