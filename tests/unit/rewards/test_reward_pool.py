"""The pool: totals, order, overlap, any number of processes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import wait_until
from tests.rewarding import group, sources_of, written
from workbench.core.config import RewardSpec
from workbench.core.errors import RewardError
from workbench.rewards.api.reward_input import of_groups
from workbench.rewards.runtime.pool import RewardPool, error_share, infrastructure_share
from workbench.rewards.runtime.registry import resolve

RIGHT, WRONG = "<think>t</think><answer>4</answer>", "<think>t</think><answer>5</answer>"


def test_the_reward_is_the_weighted_sum_of_what_counts_and_absent_is_not_zero(tmp_path: Path):
    path = written(tmp_path, "def sometimes(completion):\n    return None if completion == 'x' else 3.0\n")
    specs = [
        RewardSpec(name="correct", weight=2.0),
        RewardSpec(name="format", weight=5.0, enabled=False),
        RewardSpec(name=f"{path}:sometimes", weight=-0.5),
    ]
    with RewardPool(resolve(specs, tmp_path / "rewards")) as pool:
        right, neither, no_reference = pool.score([group(RIGHT, "x"), group("x", answer=None)])
    assert right.values == {"correct": 1.0, "format": 1.0, "sometimes": 3.0}
    assert right.reward == 2.0 * 1.0 - 0.5 * 3.0
    assert neither.values == {"correct": 0.0, "format": 0.0, "sometimes": None} and neither.reward == 0.0
    assert no_reference.values == {"correct": None, "format": 0.0, "sometimes": None}
    assert no_reference.reward is None, "format is only watched, and nothing else has a value"


def test_totals_beyond_the_clip_are_clipped_and_parts_are_kept(tmp_path: Path):
    sources = sources_of(tmp_path, "def f(completion):\n    return float(completion)\n")
    with RewardPool(sources, reward_clip=2.0) as pool:
        scores = pool.score([group("-7", "1.5", "7")])
    assert [score.reward for score in scores] == [-2.0, 1.5, 2.0]
    assert [score.values["f"] for score in scores] == [-7.0, 1.5, 7.0]


def test_scores_are_the_same_at_any_pool_size_and_in_sample_order(tmp_path: Path):
    code = """
        import random

        def noisy(completion, index):
            if completion == "13":
                raise ValueError(completion)
            return float(completion) + random.random()

        def rank(completions, **kwargs):
            return [sorted(completions).index(text) for text in completions]
    """
    path = written(tmp_path, code)
    specs = [RewardSpec(name=f"{path}:noisy"), RewardSpec(name=f"{path}:rank")]
    sources = resolve(specs, tmp_path / "rewards")
    groups = [
        group(*(str(n) for n in range(first, first + 1 + first % 5)), question=str(first))
        for first in range(40)
    ]
    results = []
    for workers in (1, 3):
        seen: list[tuple[int, int]] = []
        with RewardPool(sources, workers) as pool:
            results.append(
                pool.score(groups, step=3, progress=lambda done, total, seen=seen: seen.append((done, total)))
            )
        total = sum(len(item) for item in groups)
        assert seen[-1] == (total, total) and [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert results[0] == results[1]
    texts = [rollout.text for item in groups for rollout in item.rollouts]
    assert [int(s.values["noisy"]) for s, text in zip(results[0], texts, strict=True) if text != "13"] == [
        int(text) for text in texts if text != "13"
    ]


def test_scoring_that_began_early_gives_what_scoring_at_the_end_gives(tmp_path: Path):
    mark = tmp_path / "go"
    code = f"""
        import os, random, time
        def f(completion):
            while completion == "waits" and not os.path.exists({str(mark)!r}):
                time.sleep(0.005)
            return random.random()
    """
    groups = of_groups([group(text, "b", question=text) for text in ("a", "waits", "c", "d")], tokens=False)
    with RewardPool(sources_of(tmp_path, code)) as pool:
        begun = {place: pool.submit([groups[place]], 7) for place in (1, 2)}
        assert not begun[1][0].done()
        mark.touch()
        early = pool.score_inputs(groups, 7, submitted=begun)
        assert early == pool.score_inputs(groups, 7)
    assert len({score.reward for score in early}) == 8


def test_closing_ends_the_processes_even_in_the_middle_of_a_call(tmp_path: Path):
    mark = tmp_path / "running"
    code = f"import time\ndef f(completion):\n    open({str(mark)!r}, 'w').close()\n    time.sleep(600)\n"
    pool = RewardPool(sources_of(tmp_path, code), timeout=600)
    (future,) = pool.submit(of_groups([group("a")], tokens=False))
    wait_until(mark.exists)
    pool.close()
    with pytest.raises(RewardError, match="closed"):
        future.result(timeout=60)
    assert pool.pids == set()


def test_a_killed_parent_leaves_neither_process_nor_folder(tmp_path: Path):
    code = """
        import os, sys, time
        from pathlib import Path
        from workbench.core.config import RewardSpec
        from workbench.rewards.runtime.pool import RewardPool
        from workbench.rewards.runtime.registry import resolve
        from workbench.rewards.api.reward_input import of_rows

        if __name__ == "__main__":
            pool = RewardPool(resolve([RewardSpec(name="correct")], Path(sys.argv[1]) / "rewards"))
            pool.score_inputs(of_rows([{"completion": "a", "answer": "a"}]))
            os.kill(os.getpid(), 9)
    """
    script = written(tmp_path, code, "parent.py")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    command = [sys.executable, str(script), str(tmp_path)]
    assert subprocess.run(command, env={**os.environ, "TMPDIR": str(temporary)}).returncode == -9
    wait_until(lambda: not list(temporary.glob("workbench-*")))


def test_failures_of_the_infrastructure_are_told_apart(tmp_path: Path):
    code = """
        from workbench.core.errors import SandboxError

        def f(completion):
            if completion == "a":
                raise SandboxError("no process could be started")
            if completion == "b":
                raise ValueError
            return 1.0
    """
    with RewardPool(sources_of(tmp_path, code)) as pool:
        scores = pool.score([group("a", "b", "c", "d")])
    assert error_share(scores) == {"f": 0.5}
    assert infrastructure_share(scores) == {"f": 0.25}
    assert scores[0].reasons["f"] == "Infrastructure: no process could be started"


def test_a_stream_brings_scores_step_by_step_in_order_and_sums_up_at_its_end(tmp_path: Path):
    code = """
        def f(completion, step):
            if completion == "bad":
                raise ValueError
            print(completion)
            return step + len(completion)
    """
    steps = [(step, of_groups([group("a", "bb"), group("ccc", "bad")], tokens=False)) for step in range(300)]
    with RewardPool(sources_of(tmp_path, code), workers=2) as pool:
        parts = list(pool.stream(steps))
        assert pool.error_rate == {"f": 0.25} and pool.printed.endswith("ccc\n")
    found = [score.reward for part in parts for score in part]
    assert found == [value for step in range(300) for value in (step + 1.0, step + 2.0, step + 3.0, None)]


def test_many_groups_of_large_answers_pass(tmp_path: Path):
    sources = sources_of(tmp_path, "def f(completion):\n    return len(completion)\n")
    big = group(*["x" * 300_000] * 8)
    with RewardPool(sources) as pool:
        assert {score.reward for score in pool.score([big] * 3)} == {300_000.0}


def test_texts_with_lone_surrogates_and_control_characters_arrive_as_they_are(tmp_path: Path):
    text = "a\ud800\x00\u2028\n\r\u202eb"
    code = f"def f(completion):\n    assert completion == {text!r}\n    raise ValueError(completion)\n"
    with RewardPool(sources_of(tmp_path, code)) as pool:
        (score,) = pool.score([group(text)])
    assert score.reasons["f"].startswith("Your reward raised ValueError: a\\ud800")
    score.reasons["f"].encode()
