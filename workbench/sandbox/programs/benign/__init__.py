"""Honest programs that must work. Each file has a `solve` whose `solve(7)` is 49, made the long way."""
