"""Cases 14 to 21: what reward functions do wrong, and what it costs."""

import random
import time
from pathlib import Path

import numpy as np
import pytest

from tests.helpers import wait_until
from tests.rewarding import group, scores_of, sources_of, written
from workbench.algorithm import advantages
from workbench.core.config import RewardSpec, RunConfig
from workbench.core.errors import ConfigError, RewardError
from workbench.launch import preflight
from workbench.rewards.runtime.pool import RewardPool
from workbench.rewards.runtime.registry import resolve

EIGHT = group(*"abcdefgh")


def test_case_14_a_reward_that_raises_costs_that_sample_and_keeps_the_users_line(tmp_path: Path):
    code = """
        def helper(completion):
            return 1 / (ord(completion) - ord("d"))

        def f(completion):
            return helper(completion)
    """
    with RewardPool(sources_of(tmp_path, code)) as pool:
        scores = pool.score([EIGHT])
        assert pool.error_rate == {"f": 1 / 8}
    assert [score.reward is None for score in scores] == [False] * 3 + [True] + [False] * 4
    reason = scores[3].reasons["f"]
    assert reason.startswith(
        "Your reward raised ZeroDivisionError: division by zero. "
        'Line 3 of reward.py: return 1 / (ord(completion) - ord("d"))'
    )
    assert "called from Line 6 of reward.py: return helper(completion)" in reason
    assert "pool.py" not in reason and "runner.py" not in reason


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            '"yes"',
            'returned text ("yes") for sample 0. It must return a number or None. Line 3 of reward.py.',
        ),
        ("[1.0]", "returned a list of 1 for sample 0. It must return a number or None."),
        ("__import__('numpy').ones(2)", "returned an array of shape (2,) for sample 0."),
        ("1j", "returned a complex for sample 0."),
    ],
)
def test_case_15_a_value_that_is_no_number_is_absent_and_says_what_it_was(
    tmp_path: Path, value: str, message: str
):
    (score,) = scores_of(tmp_path, f"\ndef f(completion):\n    return {value}\n", [group("a")])
    assert score.values == {"f": None} and score.reward is None
    assert message in score.reasons["f"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ("[1.0, 2.0]", "Your reward returned 2 values for 3 completions."),
        ("1.0", "Your reward returned a single number (1)."),
        ("None", "Your reward returned None. It must return a list"),
        ('"abc"', 'Your reward returned text ("abc").'),
    ],
)
def test_case_15_a_list_of_the_wrong_length_is_absent_for_the_whole_group(
    tmp_path: Path, values: str, message: str
):
    scores = scores_of(
        tmp_path, f"def f(completions, **kwargs):\n    return {values}\n", [group("a", "b", "c")]
    )
    assert [score.values for score in scores] == [{"f": None}] * 3
    assert all(
        score.reasons["f"].startswith(message) and "Line 2 of reward.py" in score.reasons["f"]
        for score in scores
    )


def test_case_16_nan_infinity_and_1e30_are_absent_and_weights_stay_finite(tmp_path: Path):
    code = """
        def f(completion):
            return {"a": float("nan"), "b": float("inf"), "c": 1e30, "d": 1, "e": True}.get(completion, 0.0)
    """
    scores = scores_of(tmp_path, code, [EIGHT])
    assert [score.reward for score in scores] == [None, None, None, 1.0, 1.0, 0.0, 0.0, 0.0]
    assert "returned NaN for sample 0" in scores[0].reasons["f"]
    assert "returned infinity for sample 1" in scores[1].reasons["f"]
    assert "1e+30" in scores[2].reasons["f"]
    rewards_B = np.array([np.nan if score.reward is None else score.reward for score in scores])
    assert np.isfinite(advantages.compute(rewards_B, np.zeros(8, dtype=np.int64)).advantages_B[3:]).all()


@pytest.mark.parametrize("hang", ["while True: pass", "import re; re.match(r'(a+)+$', 'a' * 60 + 'b')"])
def test_case_17_a_hang_is_ended_at_the_time_out_and_says_where_it_was(tmp_path: Path, hang: str):
    code = f"def f(completion):\n    if completion == 'c':\n        {hang}\n    return 1.0\n"
    with RewardPool(sources_of(tmp_path, code), timeout=2.0) as pool:
        pids = pool.pids
        scores = pool.score([EIGHT])
        assert pids.isdisjoint(pool.pids)
        assert [score.reward for score in pool.score([group("a", "b")])] == [1.0, 1.0]
    assert [score.reward for score in scores] == [1.0, 1.0, None, 1.0, 1.0, 1.0, 1.0, 1.0]
    assert scores[2].reasons["f"].startswith("No answer within 2 s. Line 3 of reward.py: " + hang[:10])


def test_case_17_a_reward_that_always_hangs_is_given_up_after_two_calls_a_group(tmp_path: Path):
    started = time.monotonic()
    scores = scores_of(
        tmp_path, "import time\ndef f(completion):\n    time.sleep(600)\n", [EIGHT], timeout=1.0
    )
    assert time.monotonic() - started < 60
    assert [score.reward for score in scores] == [None] * 8
    assert (
        scores[2]
        .reasons["f"]
        .startswith("Not tried, after 2 lost calls in this group. No answer within 1 s.")
    )


def test_case_17_a_reward_that_ends_its_process_is_tried_twice_and_costs_that_sample(tmp_path: Path):
    code = f"""
        import os

        def f(completion):
            if completion == "b":
                open({str(tmp_path / "tries")!r}, "a").write("x")
                os._exit(3)
            return 1.0
    """
    scores = scores_of(tmp_path, code, [EIGHT])
    assert [score.reward for score in scores] == [1.0, None, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    assert (
        scores[1].reasons["f"]
        == "Your reward ended its own process (exit code 3), twice. Line 8 of reward.py."
    )
    assert (tmp_path / "tries").read_text() == "xx"


def test_case_17_a_process_killed_from_outside_costs_nothing(tmp_path: Path):
    code = f"""
        import os, signal, pathlib

        def f(completion):
            mark = pathlib.Path({str(tmp_path / "mark")!r})
            if completion == "b" and not mark.exists():
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return 1.0
    """
    assert [score.reward for score in scores_of(tmp_path, code, [EIGHT])] == [1.0] * 8


def test_case_17_what_a_hanging_reward_started_is_ended_with_it(tmp_path: Path):
    code = f"""
        import subprocess, time

        def f(completion):
            child = subprocess.Popen(["sleep", "600"])
            open({str(tmp_path / "pid")!r}, "w").write(str(child.pid))
            time.sleep(600)
    """
    scores_of(tmp_path, code, [group("a")], timeout=1.0)
    pid = int((tmp_path / "pid").read_text())
    wait_until(lambda: _gone(pid))


def _gone(pid: int) -> bool:
    try:
        return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return True


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            "def f(completion):\n    return 1.0 +\n",
            "reward.py, line 2: return 1.0 +\ninvalid syntax. Correct that line.",
        ),
        (
            "import math\nimport nltkk\ndef f(completion): return 1.0\n",
            "Line 2 of reward.py: import nltkk\nThere is no module",
        ),
        (
            "LIMIT = 1 / 0\ndef f(completion): return 1.0\n",
            "Line 1 of reward.py: LIMIT = 1 / 0\nZeroDivisionError",
        ),
        ("import sys\nsys.exit(0)\ndef f(completion): return 1.0\n", "Line 2 of reward.py: sys.exit(0)"),
        ("import os\nos._exit(1)\ndef f(completion): return 1.0\n", "ended (exit code 1)"),
        ("def g(completion): return 1.0\n", "reward.py has no function f. It has: g."),
        ("def f(): return 1.0\n", "f of reward.py asks for nothing."),
    ],
)
def test_case_18_a_reward_that_cannot_be_loaded_is_refused_with_its_line(
    tmp_path: Path, code: str, message: str
):
    path = written(tmp_path, code)
    with pytest.raises(RewardError) as caught:
        resolve([RewardSpec(name="correct"), RewardSpec(name=f"{path}:f")], tmp_path / "sources")
    assert message in str(caught.value)
    assert not (tmp_path / "sources").exists(), "nothing half made"


def test_case_19_equal_rewards_give_advantages_of_zero(tmp_path: Path):
    scores = scores_of(tmp_path, "def f(completion):\n    return 0.7\n", [EIGHT])
    rewards_B = np.array([score.reward for score in scores])
    assert advantages.compute(rewards_B, np.zeros(8, dtype=np.int64)).advantages_B.tolist() == [0.0] * 8


def test_case_20_a_reward_that_changes_its_inputs_changes_nothing_for_the_next_one(tmp_path: Path):
    path = written(
        tmp_path,
        """
        def spoil(completion, numbers, tokens, group, columns):
            numbers.clear(); tokens.append(1); group.reverse(); columns.clear()
            return 1.0

        def look(completion, numbers, tokens, group, columns, index):
            unspoilt = numbers == [1, 2] and tokens == [5, 6, 7] and "numbers" in columns
            return float(unspoilt and group[index] == completion)
        """,
    )
    specs = [RewardSpec(name=f"{path}:spoil"), RewardSpec(name=f"{path}:look")]
    asked = group("a", "b", numbers=[1, 2])
    with RewardPool(resolve(specs, tmp_path / "sources")) as pool:
        assert [score.values["look"] for score in pool.score([asked])] == [1.0, 1.0]
    assert asked.prompt.columns == {"numbers": [1, 2]}
    assert asked.rollouts[0].token_ids.tolist() == [5, 6, 7]


def test_case_20_random_numbers_of_a_reward_leave_ours_alone_and_come_back_on_a_resume(tmp_path: Path):
    code = "import random\ndef f(completion):\n    return random.random()\n"
    random.seed(1)
    before = random.getstate()
    first = scores_of(tmp_path, code, [EIGHT])
    assert random.getstate() == before
    again = scores_of(tmp_path, code, [EIGHT])
    assert [score.reward for score in first] == [score.reward for score in again]
    assert len({score.reward for score in first}) == 8


def test_case_21_an_edit_during_the_run_does_not_reach_it(tmp_path: Path):
    code = "def f(completion):\n    return 1.0\n"
    sources = sources_of(tmp_path, code)
    written(tmp_path, "def f(completion):\n    return 2.0\n")
    with RewardPool(sources) as pool:
        assert pool.score([group("a")])[0].reward == 1.0
    assert Path(sources[0].path).read_text() == code


def test_a_megabyte_of_printing_harms_nothing_and_its_end_is_kept(tmp_path: Path):
    code = """
        import os, sys

        def f(completion):
            print("x" * 1_000_000, "the end")
            sys.stderr.write("y" * 1_000)
            os.write(1, b'{"values": [7]}\\n' * 1000)
            return 1.0
    """
    with RewardPool(sources_of(tmp_path, code)) as pool:
        assert [score.reward for score in pool.score([group("a", "b")])] == [1.0, 1.0]
        assert "the end" in pool.printed and len(pool.printed) <= 2000


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("def f(completions, **kwargs):\n    return [1.0]\n", "returned 1 value for 3 completions"),
        (
            "def f(completions, **kwargs):\n    return 0.5\n",
            "returned a single number (0.5). It must return a list",
        ),
        ("def f(completion):\n    return 'good'\n", 'returned text ("good") for sample 0'),
        (
            "def f(completion):\n    import numpy\n    return numpy.ones(3)\n",
            "returned an array of shape (3,)",
        ),
        ("def f(completion):\n    return [1.0]\n", "returned a list of 1 for sample 0"),
        ("def f(completion):\n    return float('nan')\n", "returned NaN for sample 0"),
        ("def f(completion):\n    return undefined\n", "raised NameError: name 'undefined' is not defined."),
        ("def f(completion):\n    import nltkk\n    return 1.0\n", "raised ModuleNotFoundError"),
        ("def f(completion)\n    return 1.0\n", "line 1: def f(completion)"),
        ("import nltkk\ndef f(completion): return 1.0\n", "There is no module named nltkk"),
    ],
)
def test_case_15_and_18_a_reward_that_works_on_nothing_blocks_the_start_with_its_line(
    tmp_path: Path, code: str, message: str
):
    path = written(tmp_path, code)
    report = preflight.check(RunConfig.build(None, {"rewards": ["correct", f"{path}:f=0.5"]}))
    assert message in report.problems["rewards"]
    assert "line" in report.problems["rewards"].casefold()
    with pytest.raises(ConfigError, match="f"):
        preflight.start_checked(report, tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_case_15_a_reward_that_only_sometimes_gives_nothing_may_start(tmp_path: Path):
    code = """
        def f(completion):
            return None

        def g(completion):
            return 1 / len(completion)
    """
    path = written(tmp_path, code)
    settings = {"rewards": ["correct", f"{path}:f=0.5", f"{path}:g=0.5"]}
    assert preflight.check(RunConfig.build(None, settings)).problems == {}


def test_case_14_what_is_away_at_the_start_is_a_note_and_blocks_nothing(tmp_path: Path):
    code = """
        from workbench.rewards.api.outcome import Unavailable

        def f(completion):
            raise Unavailable("the grader does not answer")
    """
    path = written(tmp_path, code)
    report = preflight.check(RunConfig.build(None, {"rewards": ["correct", f"{path}:f"]}))
    assert report.problems == {}
    assert any("the grader does not answer" in warning for warning in report.warnings)
