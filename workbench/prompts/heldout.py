"""Which generated problems are held out: the problem itself decides, so no seed can ever train on one."""

from hashlib import sha256


def is_held_out(question: str) -> bool:
    """Whether a problem belongs to the one eighth that neither pretraining nor training ever shows."""
    return sha256(question.encode()).digest()[0] < 32
