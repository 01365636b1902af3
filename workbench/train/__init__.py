"""Stages 4 to 6 and the loop: grpo.py calls the eight stages in order, the other files are those stages."""
