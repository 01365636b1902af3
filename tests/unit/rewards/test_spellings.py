"""Readers know more than one spelling: chosen letters, short final answers, code blocks, tests of programs, printed output."""

import pytest

from workbench.rewards.builtin.catalogue import function_of
from workbench.rewards.builtin.choice import chosen
from workbench.rewards.builtin.programs import Case, program, read_cases, same_output
from workbench.rewards.builtin.text import normalised, words
from workbench.sandbox import Call


@pytest.mark.parametrize(
    "text",
    [
        "The correct answer is **B**.", "**Answer:** B", "Answer: $B$", r"The answer is $\boxed{\text{B}}$", r"\boxed{B}", "b",
        "(b)", "B.", "**B**", "`B`", "The answer is b.", "Answer: (B) because air sinks", "Option A is wrong, so the answer is B",
        "答案是B", "Ｂ", "I choose [B]", r"\(B\)", "B) cold air",
    ],
)  # fmt: skip
def test_a_wrapped_letter_is_the_chosen_one(text):
    assert chosen(text) == "B"


def test_references_come_in_either_case_and_texts_without_a_letter_have_none():
    choice = function_of("choice")
    assert choice("<answer>B</answer>", "b") == 1.0 and choice("<answer>B</answer>", r"\boxed{B}") == 1.0
    assert choice("The answer is a dog.", "A") == 0.0 and chosen("It is a dog.") is None
    assert choice("B", "fish") is None


@pytest.mark.parametrize(
    ("one", "other"),
    [("-5", "5"), ("3.14", "314"), ("C++", "C"), ("C#", "C"), ("1/2", "12"), ("a < b", "a > b"), ("Vitamin A", "Vitamin"),
     ("x^2", "x2"), ("10:30", "1030"), ("-.5", ".5")],
)  # fmt: skip
def test_answers_that_differ_in_a_sign_differ_after_normalisation(one, other):
    assert normalised(one) != normalised(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [("The Beatles!", "beatles"), ("«Paris»", "Paris"), ("1,000,000", "1000000"), ("−5", "-5"), ("A", "a."), ("1939–1945", "1939-1945"),
     ("東京。", "東京"), ("東 京", "東京"), ("Ｔｏｋｙｏ", "tokyo"), ("rock’n’roll", "rock'n'roll"), ("don't", "dont"), ("¿Qué?", "qué"),
     ("Paris\u200b", "Paris"), ("1, 2, 3", "1,2,3")],
)  # fmt: skip
def test_answers_that_say_the_same_are_the_same_after_normalisation(one, other):
    assert normalised(one) == normalised(other)


def test_scripts_without_spaces_are_compared_sign_by_sign():
    assert words("東京は晴れ") == ["東", "京", "は", "晴", "れ"]
    assert function_of("qa_f1")("<answer>東京都</answer>", "東京") == pytest.approx(0.8)
    assert function_of("qa_match")("<answer>the</answer>", "The") == 1.0


@pytest.mark.parametrize(
    "text",
    [
        "```python\nx = 1\n```", "```Python\nx = 1\n```", "```python3\nx = 1\n```", "```py\r\nx = 1\r\n```", "```\nx = 1\n```",
        "~~~python\nx = 1\n~~~", "x = 1", "```python title=a.py\nx = 1\n```", "- so\n  ```python\n  x = 1\n  ```",
        "```python\nx = 1\n```\nIt prints:\n```\n1\n```", "```python\nx = 1\n```\n```bash\nls\n```", "```python\nx = 1\n",
        "<think>```python\nx = 2\n```</think><answer>x = 1</answer>",
    ],
)  # fmt: skip
def test_the_program_is_found_in_any_fence(text):
    assert program(text).strip() == "x = 1"


@pytest.mark.parametrize(
    ("tests", "function"),
    [
        ([{"args": [3], "expected": 6}], "f"),
        ([{"input": [3], "output": 6}], "f"),
        ({"fn_name": "f", "inputs": [[3]], "outputs": [6]}, None),
        ('{"fn_name": "f", "inputs": [[3]], "outputs": [6]}', None),
        (["assert f(3) == 6"], None),
        ("assert f(3) == 6\n", None),
        (["assert 6 == f(3), 'doubles'"], None),
    ],
)
def test_calls_are_read_in_every_known_shape(tests, function):
    assert read_cases(tests, function) == [Case(Call("f", (3,)), "", 6)]


@pytest.mark.parametrize(
    "tests",
    [
        [{"stdin": "3", "expected": "6"}],
        [{"input": "3", "output": "6"}],
        '{"inputs": ["3"], "outputs": ["6"]}',
        {"input": "3", "output": 6},
        [{"input": 3, "expected_output": "6"}],
    ],
)
def test_texts_to_read_too(tests):
    assert read_cases(tests, None) == [Case(None, "3", "6")]


@pytest.mark.parametrize(
    "tests",
    [[{"question": "3"}], ["f(3) == 6"], [3], "f(3)", ["assert f(3) > 5"], [{"args": 3, "expected": 6}], 7],
)
def test_another_shape_says_what_is_wanted(tests):
    with pytest.raises(ValueError, match=r"[Gg]ive"):
        read_cases(tests, "f")


def test_no_tests_are_no_value():
    code_tests = function_of("code_tests")
    assert [code_tests("x", tests) for tests in (None, [], "", "[]")] == [None] * 4


@pytest.mark.parametrize(
    ("given", "expected", "same"),
    [("6\n", "6", True), ("1 2", "1\n2", False), ("1  2 \n\n", "1 2", True), ("0.33333333", "0.333333", True), ("0.34", "0.333333", False),
     ("6.0", "6", False), ("2", "2.0", True), ("1000001", "1000000", False), ("nan", "1.0", False), ("a\r\nb", "a\nb", True),
     ("1000001.0", "1000000", False)],
)  # fmt: skip
def test_printed_output_is_compared_line_by_line_and_decimals_within_a_millionth(given, expected, same):
    assert same_output(given, expected) is same
