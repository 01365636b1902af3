"""The messages between the pool's process and a reward process, one JSON line each, with the same types at both ends.

To the reward process: one `Load`, then `ScoreRequest`s. From it: `RewardsLoaded` or `LoadFailed`, then for each request `CallResults`
until there is one result for each of its calls, in their order.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any, NamedTuple

from workbench.rewards.api.code import RewardCode
from workbench.rewards.api.reward_input import RewardInput
from workbench.rewards.api.signature import Shape


class RunFacts(NamedTuple):
    """What rewards may know about the run."""

    timeout: float
    """Seconds for one call."""
    max_steps: int = 0
    prepare: bool = True
    """Whether modules run their `prepare`; reading a signature needs no model."""
    max_length: int | None = None
    """Limit of a completion in tokens; None = not known, for recorded samples and typed ones."""


class Load(NamedTuple):
    """The rewards that the process is to hold."""

    rewards: Sequence[RewardCode]
    facts: RunFacts


class RewardsLoaded(NamedTuple):
    """They can be called; their shapes, in order."""

    shapes: Sequence[Shape]


class LoadFailed(NamedTuple):
    """One of them cannot be loaded; a sentence with the user's line."""

    error: str


class Call(NamedTuple):
    """Which group of a request, which reward, which sample of the group; sample None = one call for the whole group."""

    group: int
    reward: int
    sample: int | None


class ScoreRequest(NamedTuple):
    """Groups, and the calls to make on them, in order."""

    step: int
    groups: Sequence[RewardInput]
    calls: Sequence[Call]


class CallResult(NamedTuple):
    """What came of one call: a value for its sample, or one for each sample of the group."""

    values: list[float | None]
    reasons: Sequence[str] = ()
    """One for each value ('' where there is one); empty where all values are there."""
    logs: Mapping[str, list[Any]] = {}
    """Columns of `log_extra`, and what verl's rewards return beside the score; one entry for each value."""
    metrics: Mapping[str, list[float]] = {}
    """Numbers of `log_metric`."""
    printed: str = ""
    """The end of what the call printed."""


class CallResults(NamedTuple):
    """The results of the next calls, one or more; a message for each call would cost more than most calls."""

    results: Sequence[CallResult]


Message = Load | RewardsLoaded | LoadFailed | ScoreRequest | CallResults

_DECODED: dict[str, Callable[..., Message]] = {
    "Load": lambda rewards, facts: Load([RewardCode(**code) for code in rewards], RunFacts(*facts)),
    "RewardsLoaded": lambda shapes: RewardsLoaded([Shape.of_json(shape) for shape in shapes]),
    "LoadFailed": LoadFailed,
    "ScoreRequest": lambda step, groups, calls: ScoreRequest(step, groups, [Call(*call) for call in calls]),
    "CallResults": lambda results: CallResults([CallResult(*result) for result in results]),
}
_CODE_FIELDS = [item.name for item in fields(RewardCode)]


def _plain(value: RewardCode | Shape) -> dict[str, Any]:
    # A RewardSource is a RewardCode with more fields; the process needs the code only.
    return (
        value.to_json() if isinstance(value, Shape) else {name: getattr(value, name) for name in _CODE_FIELDS}
    )


_encoder = json.JSONEncoder(default=_plain)


def encode(message: Message) -> bytes:
    """One line."""
    return _encoder.encode([type(message).__name__, *message]).encode() + b"\n"


def decode(line: bytes) -> Message:
    """The message of one line."""
    kind, *values = json.loads(line)
    return _DECODED[kind](*values)
