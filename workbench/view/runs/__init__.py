"""The Runs page: every run of this folder with its state, curve and verdict."""
