"""The messages between the pool and a reward process: the same values at both ends, one line each."""

import json
from pathlib import Path

import pytest

from tests.rewarding import sources_of
from workbench.rewards.api.code import RewardCode
from workbench.rewards.api.reward_input import of_rows
from workbench.rewards.runtime.messages import (
    Call,
    CallResult,
    CallResults,
    Load,
    LoadFailed,
    RewardsLoaded,
    RunFacts,
    ScoreRequest,
    decode,
    encode,
)

CODE = RewardCode("f", "/saved/0123.py", "f", "reward.py", False, {"limit": 3, "kind": "l"}, "ab" * 32)


@pytest.mark.parametrize(
    "message",
    [
        Load([CODE], RunFacts(2.5, max_steps=7, prepare=False, max_length=64)),
        LoadFailed("Line 3 of reward.py: import nltkk\nThere is no module named nltkk."),
        ScoreRequest(
            4, of_rows([{"completion": "a\ud800\n", "level": 3}]), [Call(0, 0, 0), Call(0, 1, None)]
        ),
        CallResults(
            [
                CallResult([1.0]),
                CallResult([None, 0.5], ["why", ""], {"said": ["A", None]}, {"longest": [2.0]}, "seen\n"),
            ]
        ),
    ],
)
def test_a_message_arrives_as_it_was_sent(message):
    line = encode(message)
    assert line.count(b"\n") == 1 and line.endswith(b"\n")
    there = decode(line)
    assert type(there) is type(message)
    assert json.loads(encode(there)) == json.loads(line)
    if isinstance(message, CallResults):
        assert [list(one.values) for one in there.results] == [[1.0], [None, 0.5]]
        assert there.results[0] == ([1.0], [], {}, {}, "")
    if isinstance(message, ScoreRequest):
        assert there.calls == [(0, 0, 0), (0, 1, None)] and there.groups[0]["completions"] == ["a\ud800\n"]


def test_of_a_runs_reward_only_what_its_process_needs_is_sent(tmp_path: Path):
    [source] = sources_of(
        tmp_path, "def f(completion, *, limit=1): return limit", weight=0.5, options={"limit": 2}
    )
    [code] = decode(encode(Load([source], RunFacts(1.0)))).rewards
    assert type(code) is RewardCode
    assert (code.name, code.path, code.options, code.sha) == ("f", source.path, {"limit": 2}, source.sha)
    [shape] = decode(encode(RewardsLoaded([source.shape]))).shapes
    assert shape == source.shape and shape.takes == ("limit",)
