"""pass@k, avg@k and maj@k over problems with several completions, by hand."""

import numpy as np
import pytest

from workbench.diagnose.attempts import Attempts, at_k

NAN = float("nan")


def problem(right: list[float], final_answers: list[str | None]) -> Attempts:
    return Attempts(np.array(right), final_answers)


def test_two_problems_of_four_completions() -> None:
    found = at_k([problem([1, 0, 0, 1], ["7", "3", "3", "7.0"]), problem([0, 0, 0, 1], ["1", "1", "2", "5"])])
    assert found == pytest.approx(
        {
            "pass_at/2": ((1 - 1 / 6) + (1 - 3 / 6)) / 2,
            "avg_at/2": (0.5 + 0) / 2,
            "maj_at/2": (1 + 0) / 2,  # the tie of 7 and 3 goes to the 7 that was seen first
            "pass_at/4": 1.0,
            "avg_at/4": (0.5 + 0.25) / 2,
            "maj_at/4": (1 + 0) / 2,  # 7 and 7.0 are the same final answer: two votes against two, seen first
        }
    )


def test_without_a_final_answer_there_is_no_vote_and_a_problem_without_votes_is_left_out() -> None:
    found = at_k([problem([1, 0], [None, "3"]), problem([1, 0], [None, None])])
    assert found["maj_at/2"] == 0.0
    assert "maj_at/2" not in at_k([problem([1, 0], [None, None])])


def test_completions_that_no_reward_judged_do_not_count() -> None:
    found = at_k([problem([1, NAN, 0], ["1", "2", "3"]), problem([NAN], ["1"])])
    assert found == pytest.approx({"pass_at/2": 1.0, "avg_at/2": 0.5, "maj_at/2": 1.0})
    assert at_k([problem([1], ["1"])]) == {} == at_k([])
