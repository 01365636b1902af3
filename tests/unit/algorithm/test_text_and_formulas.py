"""Text and group measures, controllers, and the cores of the shaping rewards, by hand."""

import math
from itertools import combinations

import numpy as np
import pytest
import torch

from workbench.algorithm import kl_controllers
from workbench.diagnose import text
from workbench.rewards.builtin import formulas


def test_words_are_lower_case_and_signs_stand_alone() -> None:
    assert text.words("Wait, 3+4=7?\n Über") == ["wait", ",", "3", "+", "4", "=", "7", "?", "über"]


def test_pass_at_k_is_the_share_of_draws_that_hold_a_right_answer() -> None:
    for n, right, k in ((6, 2, 3), (5, 0, 2), (5, 4, 2), (4, 4, 4)):
        draws = list(combinations(range(n), k))
        assert text.pass_at_k(n, right, k) == pytest.approx(
            sum(min(draw) < right for draw in draws) / len(draws)
        )
    with pytest.raises(ValueError, match="k must be 1 to 4"):
        text.pass_at_k(4, 2, 5)


def test_the_majority_breaks_ties_by_who_was_seen_first_and_none_does_not_vote() -> None:
    assert text.majority([None, "5", "4", None, None, "4", "5"]) == "5"
    assert text.maj_at_k(["5", "4", "4"], "4") == 1.0 and text.maj_at_k([None], "4") == 0.0
    assert text.majority([]) is None


def test_answers_and_duplicates_are_counted() -> None:
    assert text.distinct_count(["4", None, "4", "5"]) == 2
    assert text.duplicate_fraction(["a", "b", "a", "a"]) == 0.5 and text.duplicate_fraction([]) == 0.0


def test_distinct_n_of_texts_too_short_is_zero() -> None:
    assert text.distinct_n([["a"], []], 2) == 0.0
    assert text.distinct_n([[1, 2, 3], [1, 2, 4]], 2) == 0.75


def test_self_bleu_is_one_for_copies_none_for_one_answer_and_zero_without_overlap() -> None:
    assert text.self_bleu([["a", "b", "c"]] * 3) == pytest.approx(1)
    assert text.self_bleu([["a", "b"]]) is None
    assert text.self_bleu([["a", "b"], ["c", "d"]]) == 0.0


def test_self_bleu_punishes_short_answers_and_keeps_items_whole() -> None:
    # "a b c" against "a b c d e f": precisions 1, 1; brevity exp(1 - 6/3). The other way round: 3/6 and 2/5,
    # no brevity.
    expected = (math.exp(-1) + math.sqrt(0.5 * 0.4)) / 2
    assert text.self_bleu([["a", "b", "c"], list("abcdef")]) == pytest.approx(expected)
    spaced = [[token + " \n" for token in items] for items in (list("abc"), list("abcdef"))]
    assert text.self_bleu(spaced) == pytest.approx(expected)


def test_repetition_is_the_share_of_ngrams_seen_before() -> None:
    assert text.repeat_fraction(list("abcabc"), 3) == 0.25
    assert text.repeat_fraction([7] * 10) == pytest.approx(7 / 8) and text.repeat_fraction([1, 2]) == 0.0


def test_the_longest_sure_run_is_found_anywhere() -> None:
    assert text.longest_run_above([0.999, 0.5, 0.995, 0.999, 1.0, 0.99]) == 3
    assert text.longest_run_above([]) == 0


def test_reflection_is_a_rate_a_share_and_the_accuracy_on_both_sides() -> None:
    found = text.reflection(["Wait. But no.", "fine", "Check it"], [10, 20, 10], [True, True, False])
    assert found == (pytest.approx(1000 * 3 / 40), pytest.approx(2 / 3), 0.5, 1.0)
    assert text.reflection(["fine"], [5], [False]) == (0.0, 0.0, None, 0.0)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("7", "2+5=7|\nwait, 2+5=7</think>"),
        ("7", "3+4=7\n7-5=2\n2+5=7|"),  # the first 7 is computed on
        ("7", "So = 7 * 2, = 17, = 7.5, = 77, and = **7|**. Done"),
        ("1/2", r"the answer is 1/2|, or \boxed{1/2}"),
        ("-3", "<answer> -3|</answer>"),
        ("Paris", "Answer: Paris|! Not Parisian"),
    ],
)
def test_an_answer_is_settled_where_it_is_first_stated_and_not_computed_on(answer: str, said: str) -> None:
    before, _, after = said.partition("|")
    assert text.first_statement_end(before + after, answer) == len(before)


def test_a_value_in_passing_settles_nothing() -> None:
    assert text.first_statement_end("7 apples and 27 pears: 3+4=7+1", "7") is None


def test_tokens_are_counted_by_what_they_spell_split_characters_included() -> None:
    euro = "€".encode()
    assert text.tokens_until(["a", euro[:1], euro[1:], "bc", "d"], "a€b") == 4
    assert text.tokens_until(["x", "b"], "ab") is None and text.tokens_until(["a"], "ab") is None


def test_controllers_move_beta_towards_the_target() -> None:
    assert kl_controllers.ziegler(0.1, 8.8, 8) == pytest.approx(0.1 * 1.01)
    assert kl_controllers.ziegler(0.1, -5, 8) == pytest.approx(0.098)
    assert [kl_controllers.ppo_adaptive(1.0, kl, 0.01) for kl in (0.0066, 0.0067, 0.0149, 0.0151)] == [
        0.5,
        1.0,
        1.0,
        2.0,
    ]
    for controller in (kl_controllers.ziegler, kl_controllers.ppo_adaptive):
        with pytest.raises(ValueError, match="above 0"):
            controller(0.1, 1.0, 0.0)


def test_the_reference_is_mixed_for_numbers_arrays_and_tensors() -> None:
    assert kl_controllers.mix_reference(2.0, 1.0, 0.6) == pytest.approx(1.6)
    np.testing.assert_allclose(kl_controllers.mix_reference(np.array([1.0]), np.array([3.0]), 1.0), [1.0])
    assert torch.equal(
        kl_controllers.mix_reference(torch.ones(2), torch.zeros(2), 0.25), torch.full((2,), 0.25)
    )


def test_the_overlong_penalty_falls_in_a_line_and_is_whole_at_the_limit() -> None:
    assert [formulas.soft_overlong(length, 100, 20) for length in (0, 80, 85, 100, 101)] == [
        0,
        0,
        -0.25,
        -1,
        -1,
    ]
    assert [formulas.soft_overlong(length, 100, 0) for length in (100, 101)] == [0, -1]


def test_the_repetition_penalty_is_a_penalty() -> None:
    assert formulas.repetition_penalty([1, 2], 3) == 0.0
    assert formulas.repetition_penalty([1, 2, 1, 2, 1], 2, -2.0) == -1.0
    with pytest.raises(ValueError, match="0 or negative"):
        formulas.repetition_penalty([1], 2, 1.0)


def test_kimi_length_prefers_short_right_answers_and_never_rewards_wrong_ones() -> None:
    assert formulas.kimi_length([10, 20, 10], [True, True, False]) == [0.5, -0.5, 0.0]
    assert formulas.kimi_length([], []) == []


def test_language_consistency_has_no_opinion_about_no_words() -> None:
    assert formulas.language_consistency(0, 0) is None and formulas.language_consistency(3, 4) == 0.75
