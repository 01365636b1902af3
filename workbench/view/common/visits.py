"""Visits of one prompt: each time it was sampled, in training or in a held-out evaluation.

In: rows of `Reader.prompt_history`. Out: plain JSON values, as the dashboard's routes promise them.
"""

from typing import Any

Json = dict[str, Any]
SHOWN_CHARACTERS = 2000
"""Characters of a completion that a visit shows."""


def visit_summary(visit: Json) -> Json:
    """When a prompt was sampled and how its group scored."""
    fields = ("step", "kind", "mode", "k", "n", "reward_mean", "reward_std", "dead")
    return {**{name: visit[name] for name in fields}, "pass_rate": pass_rate(visit)}


def pass_rate(visit: Json) -> float | None:
    """Share of the group that is right; None where correctness was not scored."""
    return None if visit["right"] is None else visit["right"] / max(1, visit["n"])
