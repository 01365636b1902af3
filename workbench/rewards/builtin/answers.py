"""Whether the final answer is the reference answer: compared as text, as a number, or with partial rewards."""

import re
import sys
from fractions import Fraction

from workbench.rewards.api.decorator import Example, reward
from workbench.rewards.api.outcome import Absent
from workbench.rewards.builtin.text import answer_tag, final_answer

_NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?(?:[eE][-+]?\d+)?(?:/\d+)?")


_TIMES_TEN = re.compile(
    r"(?<![\w.])(\d+(?:\.\d+)?)\s*(?:×|x|\*|·|\\times|\\cdot)\s*10\s*(?:\^|\*\*)\s*\{?\s*([-+]?\d+)\}?"
)
_LARGEST = Fraction(sys.float_info.max)
_LONGEST = 1000
"""Characters of a number; a longer one is none that a person meant."""


@reward(
    title="Right answer",
    range=(0.0, 1.0),
    weakness="A lucky guess counts like reasoning; a right answer in other words (1/2 for 0.5) is wrong.",
    example=Example(
        {"completion": "<think>6+8=4</think><answer>4</answer>", "answer": "4", "finish_reason": "stop"}, 1.0
    ),
)
def correct(completion: str, answer: str | None, finish_reason: str) -> float | None:
    """1 where the text in the `<answer>` that ends the completion is exactly the reference answer, else 0.

    0 where the completion was truncated. None where the prompt has no reference answer.
    """
    if answer is None:
        return None
    return 1.0 if is_right(completion, answer, finish_reason) else 0.0


def is_right(completion: str, answer: str, finish_reason: str) -> bool:
    """The verifier behind `correct`, for rewards that build on it."""
    return finish_reason == "stop" and answer_tag(completion) == answer.strip()


@reward(
    title="Right number",
    range=(0.0, 1.0),
    weakness="It reads the last number of the sample, so a list of guesses that ends well passes.",
    example=Example({"completion": "So it is <answer>1,200.0</answer>", "answer": "1200"}, 1.0),
)
def number(completion: str, answer: str | None, *, tolerance: float = 1e-6) -> float | None:
    """1 where the last number of the completion equals the reference number within a relative tolerance, else 0.

    Reads the `<answer>` tag at the end, or what follows `</think>`; knows 1,200, 3/4, 1e3, 2 x 10^5 and 12 %. Whole numbers must be
    the same, and only zero equals zero. None where the reference answer is no number, or none that is finite.
    """
    if answer is None:
        return None
    if re.fullmatch(r"[-+]?(?:inf(?:inity)?|nan)", answer.strip(), re.IGNORECASE):
        raise Absent(f"the reference {answer.strip()!r} is not finite; give a number that is.")
    expected = exact(answer)
    if expected is None:
        return None
    if abs(expected) > _LARGEST:
        raise Absent(
            f"the reference {answer.strip()!r} is not finite as a float; give a number up to 1.8e308."
        )
    given = last_exact(final_answer(completion))
    return 1.0 if given is not None and same_number(given, expected, tolerance) else 0.0


@reward(
    title="Right answer, with partial credit",
    range=(0.0, 1.0),
    weakness=(
        "Whatever earns the partial reward is easier than a right answer: above about .2 a model gets stuck there."
    ),
    example=Example(
        {"completion": "<think>2+2</think><answer>6</answer>", "answer": "4", "finish_reason": "stop"}, 0.1
    ),
)
def partial_credit(
    completion: str, answer: str | None, finish_reason: str, *, form: float = 0.1, near: float = 0.0
) -> float | None:
    """1 for the right answer; else `form` for any final answer in its tag at the end, plus up to `near` for a number close by.

    Closeness earns near / (1 + distance). Against sparse rewards: a group without a right answer still has something to compare.
    None where the prompt has no reference answer.
    """
    if answer is None:
        return None
    if is_right(completion, answer, finish_reason):
        return 1.0
    tagged = answer_tag(completion)
    if tagged is None or not tagged or finish_reason != "stop":
        return 0.0
    expected, given = read_number(answer), read_number(tagged)
    closeness = 0.0 if expected is None or given is None else near / (1.0 + abs(given - expected))
    return form + closeness


def read_number(text: str) -> float | None:
    """The number a text is: with thousands commas, a fraction, a currency or per cent sign; or None."""
    return _float(exact(text))


def last_number(text: str) -> float | None:
    """The last number in a text, or None."""
    return _float(last_exact(text))


def exact(text: str) -> Fraction | None:
    """What `read_number` reads, without rounding; of a worked solution that ends in `#### 42`, what follows the mark."""
    text = (
        _spelled(after_mark(text)).strip().strip("$€£¥").rstrip("%").rstrip(".").strip().strip("$€£¥").strip()
    )
    text = re.sub(r"^([-+])\s*[$€£¥]?\s*", r"\1", text)
    return _value(text) if text and _NUMBER.fullmatch(text) else None


def last_exact(text: str) -> Fraction | None:
    """What `last_number` reads, without rounding."""
    found = [match.group() for match in _NUMBER.finditer(_spelled(text))]
    values = [value for item in found if (value := _value(item)) is not None]
    return values[-1] if values else None


def after_mark(text: str) -> str:
    """What follows the last `####`, which ends the worked solutions of GSM8K; the whole text where there is none."""
    _, mark, result = text.rpartition("####")
    return result.strip() if mark and result.strip() else text


def same_number(given: Fraction, expected: Fraction, tolerance: float = 1e-6) -> bool:
    """Whether two numbers agree within a tolerance relative to the expected one; whole numbers must be the same."""
    if given.denominator == expected.denominator == 1:
        return given == expected
    return abs(given - expected) <= Fraction(tolerance) * abs(expected)


def _spelled(text: str) -> str:
    """The same text with numbers spelled in one way: minus signs, powers of ten, LaTeX fractions and separators."""
    text = (
        text.replace("−", "-").replace(",\\!", ",").replace("{,}", ",").replace("\\,", "").replace("\\$", "$")
    )
    text = text.replace("\\%", "%")
    text = re.sub(r"\\[dtc]?frac\s*\{\s*(-?\d+)\s*\}\s*\{\s*(\d+)\s*\}", r"\1/\2", text)
    return _TIMES_TEN.sub(r"\1e\2", text)


def _value(text: str) -> Fraction | None:
    above, _, below = text.replace(",", "").partition("/")
    _, _, exponent = above.lower().partition("e")
    if len(exponent.lstrip("+-0")) > 4 or len(text) > _LONGEST:
        return None
    try:
        return Fraction(above) / Fraction(below) if below else Fraction(above)
    except (ValueError, ZeroDivisionError):
        return None


def _float(value: Fraction | None) -> float | None:
    return None if value is None or abs(value) > _LARGEST else float(value)
