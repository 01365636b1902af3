"""Mathematics and numbers: what is known to be one answer is read whole, the thoughts never count, numbers agree relatively."""

import pytest

from workbench.core import tags
from workbench.diagnose import style
from workbench.prompts import chain
from workbench.rewards.api.dialects import Parser
from workbench.rewards.api.outcome import Absent
from workbench.rewards.builtin.catalogue import function_of

WHOLE = {
    r"3\sqrt{13}": "3", "2x+3": "2", "2^{10}": "2", "1331, 1728": "1728", r"\pm 2021": "2021", "- 3": "3", "6 - 5i": "5",
    "y = 2x + 3": "3", "x=1 or x=2": "2", r"(1, 2) \cup (3, 4)": "4", "[0,1)": "[0,1]", r"\{1,2\}": "2", r"10,\!000": "10",
    r"\begin{pmatrix}1\\2\end{pmatrix}": r"\begin{pmatrix}1\\3\end{pmatrix}", "x < 3": "3", r"2\sin x": "2",
}  # fmt: skip


@pytest.mark.parametrize(("reference", "part"), WHOLE.items())
def test_a_bare_reference_is_read_whole_and_its_last_number_is_no_answer(reference, part):
    math = function_of("math")
    assert math(f"So it is \\boxed{{{reference}}}.", reference) == 1.0
    assert math(f"<think>t</think><answer>{reference}</answer>", reference) == 1.0
    assert math(f"So it is \\boxed{{{part}}}.", reference) == 0.0


@pytest.mark.parametrize(
    ("completion", "reference", "value"),
    [
        (r"<think>first \boxed{3}</think>\boxed{7}", "7", 1.0),
        (r"<think>it must be \boxed{7}</think> I give up.", "7", 0.0),
        (r"<think>it must be \boxed{7}", "7", 0.0),
        ("The answer is 3. No wait, it is 7.", "7", 1.0),
        ("The answer is $3$. No wait, it is 7.", "3", 0.0),
        ("The answer is $7$. I checked it 3 times.", "7", 1.0),
        ("So it is 2x+3.", "2", 0.0),
        (r"\boxed{3} or \boxed{4}", "4", 0.0),
        (r"\boxed{18.9}", r"\$18.90", 1.0),
        ("It costs $18.90.", "$18.90", 1.0),
        (r"\boxed{9.1\times 10^{-31}}", r"1.6 \times 10^{-19}", 0.0),
        (r"\boxed{1.6e-19}", r"1.6 \times 10^{-19}", 1.0),
        (r"\boxed{seat}", "east", 0.0),
        (r"\boxed{\text{East}}", "east", 1.0),
        (r"\boxed{72}", "3*24=<<3*24=72>>72\n#### 72", 1.0),
        (r"\boxed{5\text{ km}}", "5", 1.0),
    ],
)
def test_the_last_final_expression_after_the_thoughts_counts(completion, reference, value):
    assert function_of("math")(completion, reference) == value


@pytest.mark.parametrize(
    ("given", "reference", "value"),
    [
        ("0", "1.6e-19", 0.0),
        ("9.1e-31", "1.6e-19", 0.0),
        ("1e-30", "0", 0.0),
        ("0.00", "0", 1.0),
        ("1000001", "1000000", 0.0),
        ("9007199254740993", "9007199254740992", 0.0),
        ("3.0000000000000004", "3", 1.0),
        ("0.333333333", "1/3", 1.0),
        ("1e400", "1e308", 0.0),
        (r"\frac{1}{3}", "1/3", 1.0),
        ("1.6×10^-19", "1.6e-19", 1.0),
        ("-5", "- 5", 1.0),
        ("1,234", "so\n#### 1,234", 1.0),
    ],
)
def test_numbers_agree_relatively_and_whole_numbers_exactly(given, reference, value):
    assert function_of("number")(f"<answer>{given}</answer>", reference) == value


@pytest.mark.parametrize("reference", ["1e400", "inf", "NaN"])
def test_a_reference_that_is_not_finite_gives_no_value_and_the_reason(reference):
    with pytest.raises(Absent, match="not finite"):
        function_of("number")("<answer>5</answer>", reference)


@pytest.mark.parametrize("content", ["x < 3", "<b>", "a <= b", "1 << 4", "List<int>", "</b> over\ntwo lines"])
def test_every_reader_of_tags_reads_an_answer_that_holds_less_than(content):
    text = f"<think>t < u</think><answer>{content}</answer>\n"
    assert tags.tag_at_end(text) == content
    assert chain.final_answer(text) == style.final_answer(text) == Parser().parse(text) == content
    assert function_of("correct")(text, content, "stop") == 1.0


def test_an_answer_starts_at_the_last_opening_tag_and_ends_with_the_text():
    assert tags.tag_at_end("<answer>3<answer>4</answer>") == "4"
    assert tags.tag_at_end("<answer>4</answer> so 4") is None
    assert tags.tag_at_end("<answer></answer>") == ""
    assert tags.last_tag("<answer>4</answer> so 4") == "4"


def test_boxes_hold_braces():
    assert tags.last_box(r"\boxed{1} and \boxed{\frac{1}{2}}") == r"\frac{1}{2}"
    assert tags.last_box(r"\boxed{\{1\}}") == r"\{1\}"
    assert tags.last_box(r"\boxed{1") is None
