"""Rewards that an earlier version saved with a run: their records and their copies of code work as they did then."""

import hashlib
import json
from pathlib import Path

import pytest

from tests.rewarding import group
from workbench.rewards.api.outcome import INFRASTRUCTURE
from workbench.rewards.runtime.pool import RewardPool
from workbench.rewards.runtime.registry import RewardSource

OLD_RUN = Path(__file__).parents[2] / "data" / "run_v1"
OLD_CODE = """
from workbench.errors import RewardError, SandboxError
from workbench.rewards import formulas
from workbench.rewards.answers import is_right
from workbench.rewards.declare import Example, reward
from workbench.rewards.outcome import Absent, Unavailable, shorten
from workbench.rewards.remote import (
    beside,
    memory,
    secret,
)
from workbench.rewards.summary import ngrams
from workbench.rewards.text import normalised, said, tagged_answer, thoughts, words
from workbench.sandbox import Call, Job, Limits, Result, Sandbox, compare_exact
from workbench.types import prompt_id


@reward(title="Old", range=(0.0, 1.0), example=Example({"completion": "x"}, 0.0))
def f(completion: str, answer: str) -> float:
    if completion == "away":
        raise Unavailable(shorten("the grader is away"))
    right = is_right(completion, answer, "stop") and tagged_answer(completion) == said(completion) == answer
    return right + formulas.soft_overlong(90, 100, 20) / 4
"""
RECORD = {
    "name": "f", "function": "f", "weight": 2.0, "enabled": True, "options": {}, "file": "old.py", "ours": False,
    "shape": {
        "kind": "sample", "dialect": "workbench", "needs": ["completion", "answer"], "takes": [], "takes_all": False,
        "is_async": False, "messages": False, "line": 24, "alone": False, "outside": False,
    },
}  # fmt: skip


def test_a_saved_copy_that_imports_our_modules_by_former_names_still_loads_and_scores(tmp_path: Path) -> None:
    sha = hashlib.sha256(OLD_CODE.encode()).hexdigest()
    (tmp_path / f"{sha[:16]}.py").write_text(OLD_CODE)
    source = RewardSource.of_record({**RECORD, "sha": sha}, tmp_path)
    assert (source.weight, source.shape.needs, source.shape.guessed) == (2.0, ("completion", "answer"), ())
    with RewardPool([source]) as pool:
        scores = pool.score([group("<answer>4</answer>", "<answer>5</answer>", "away")])
    # soft_overlong(90, 100, 20) is (80 - 90) / 20 = -.5, a quarter of that -.125.
    assert [score.values["f"] for score in scores] == [0.875, -0.125, None], scores[0].reasons
    assert scores[0].reward == 1.75
    assert scores[2].reasons["f"] == INFRASTRUCTURE + "the grader is away"


def test_the_records_of_a_run_of_version_1_bring_back_its_rewards() -> None:
    records = json.loads((OLD_RUN / "config.json").read_text())["rewards"]
    sources = [RewardSource.of_record(record, OLD_RUN / "rewards") for record in records]
    right, wrong = "<think>t</think><answer>4</answer>", "<answer>5</answer>"
    with RewardPool(sources) as pool:
        scores = pool.score([group(right, wrong)])
    assert [dict(score.values) for score in scores] == [
        {"correct": 1.0, "format": 1.0},
        {"correct": 0.0, "format": 0.0},
    ]
    kept = [{name: value for name, value in record.items() if name != "shape"} for record in records]
    again = json.loads(json.dumps([source.to_record() for source in sources]))
    assert [{name: one[name] for name in kept[0]} for one in again] == kept, (
        "the keys of a record keep their names"
    )


@pytest.mark.parametrize("name", ["workbench.rewards.builtin.text", "workbench.rewards.text"])
def test_former_names_of_a_function_work_from_its_former_and_its_present_module(
    name: str, tmp_path: Path
) -> None:
    code = (
        f"from {name} import said\ndef f(completion, answer):\n    return float(said(completion) == answer)\n"
    )
    sha = hashlib.sha256(code.encode()).hexdigest()
    (tmp_path / f"{sha[:16]}.py").write_text(code)
    with RewardPool([RewardSource.of_record({**RECORD, "sha": sha}, tmp_path)]) as pool:
        assert [score.reward for score in pool.score([group("<answer>4</answer>", "5")])] == [2.0, 0.0]
