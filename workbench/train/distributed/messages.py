"""What ranks send each other: an instruction as JSON and its arrays, in one safetensors blob. No pickle.

Groups travel without their texts: neither the sampler nor the update reads those.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save

from workbench.core.types import Group, Prompt, Rollout, Turn

Arrays = dict[str, NDArray[Any]]
Sampled = tuple[NDArray[np.int32], NDArray[np.float32]]
"""Token ids and sampler log-probabilities of one completion, (T,) each."""
_HEADER = "header"


def pack(fields: Mapping[str, Any], arrays: Arrays | None = None) -> bytes:
    """JSON fields and arrays as one blob."""
    header = np.frombuffer(json.dumps(fields).encode(), np.uint8)
    return bytes(save({_HEADER: header, **{k: np.ascontiguousarray(v) for k, v in (arrays or {}).items()}}))


def unpack(data: bytes) -> tuple[dict[str, Any], Arrays]:
    """What `pack` was given."""
    arrays: Arrays = load(data)
    fields: dict[str, Any] = json.loads(arrays.pop(_HEADER).tobytes())
    return fields, arrays


def pack_groups(groups: Sequence[Group]) -> tuple[dict[str, Any], Arrays]:
    """Fields and arrays from which `unpack_groups` makes the groups again: prompts and sizes; (B,) lengths, flat ids and logprobs."""
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    fields = {
        "prompts": [list(group.prompt.token_ids) for group in groups],
        "sizes": [len(group) for group in groups],
        "turns": [rollout.turns for rollout in rollouts],
    }
    return fields, {
        "lengths": np.array([rollout.length for rollout in rollouts], np.int64),
        "ids": np.concatenate([np.zeros(0, np.int32), *(rollout.token_ids for rollout in rollouts)]),
        "logps": np.concatenate([np.zeros(0, np.float32), *(rollout.logprobs for rollout in rollouts)]),
    }


def unpack_groups(fields: Mapping[str, Any], arrays: Arrays) -> list[Group]:
    """The groups of `pack_groups`, without texts."""
    rollouts = iter(
        [
            Rollout(*completion, "", "stop", turns=tuple(Turn(*turn) for turn in turns))
            for completion, turns in zip(unpack_completions(arrays), fields["turns"], strict=True)
        ]
    )
    return [
        Group(Prompt("", token_ids=tuple(ids)), tuple(next(rollouts) for _ in range(size)))
        for ids, size in zip(fields["prompts"], fields["sizes"], strict=True)
    ]


def unpack_completions(arrays: Arrays) -> list[Sampled]:
    """Token ids and log-probabilities of each completion."""
    if not len(arrays["lengths"]):
        return []
    ends = np.cumsum(arrays["lengths"])[:-1]
    return list(zip(np.split(arrays["ids"], ends), np.split(arrays["logps"], ends), strict=True))
