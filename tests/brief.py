"""A reward in a file of its own, as a person would write it."""

import workbench


@workbench.reward
def brief(completion: str, *, limit: int = 40) -> float:
    """One for a short answer."""
    return float(len(completion) <= limit)
