"""Is the answer the gold answer? Tagged answers compared as text or as numbers."""

import re

from workbench.rewards.declare import Example, reward

_TAGGED_AT_END = re.compile(r"<answer>([^<]*)</answer>\s*\Z")
_NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?(?:[eE][-+]?\d+)?(?:/\d+)?")


def tagged_answer(completion: str) -> str | None:
    """The text inside the `<answer>` that ends the completion, or None where there is no such thing."""
    found = _TAGGED_AT_END.search(completion)
    return found.group(1).strip() if found else None


@reward(
    title="Right answer",
    range=(0.0, 1.0),
    weakness=(
        "A lucky guess counts like reasoning, and a right answer in other words (1/2 for 0.5) "
        "counts as wrong."
    ),
    example=Example(
        {"completion": "<think>6+8=4</think><answer>4</answer>", "answer": "4", "finish_reason": "stop"}, 1.0
    ),
)
def correct(completion: str, answer: str | None, finish_reason: str) -> float | None:
    """1 where the text in the `<answer>` that ends the completion is exactly the gold answer, else 0.

    The answer must have stopped by itself. None where the prompt has no gold answer.
    """
    if answer is None:
        return None
    return 1.0 if finish_reason == "stop" and tagged_answer(completion) == answer.strip() else 0.0


@reward(
    title="Right number",
    range=(0.0, 1.0),
    weakness=(
        "Without an answer tag it reads the last number of the text, so a list of numbers that "
        "ends well passes."
    ),
    example=Example({"completion": "So it is <answer>1,200.0</answer>", "answer": "1200"}, 1.0),
)
def number(completion: str, answer: str | None, *, tolerance: float = 1e-6) -> float | None:
    """1 where the final number equals the gold number within a relative tolerance, else 0.

    Reads the `<answer>` tag at the end, or else the last number in the text; knows 1,200, 3/4, 1e3 and 12 %.
    None where the gold answer is no number.
    """
    gold = None if answer is None else read_number(answer)
    if gold is None:
        return None
    tagged = tagged_answer(completion)
    given = read_number(tagged) if tagged is not None else last_number(completion)
    if given is None:
        return 0.0
    return 1.0 if abs(given - gold) <= tolerance * max(1.0, abs(gold)) else 0.0


def read_number(text: str) -> float | None:
    """The number that a text is, with thousands commas, a fraction, a dollar or a per cent sign; None where
    it is none.
    """
    text = text.strip().strip("$€£").rstrip("%").rstrip(".").strip().replace("−", "-")
    if not text or not _NUMBER.fullmatch(text):
        return None
    return _value(text)


def last_number(text: str) -> float | None:
    """The last number in a text, or None."""
    found = [
        match.group() for match in _NUMBER.finditer(text.replace("−", "-")) if re.search(r"\d", match.group())
    ]
    return _value(found[-1]) if found else None


def _value(text: str) -> float | None:
    above, _, below = text.replace(",", "").partition("/")
    try:
        return float(above) / float(below) if below else float(above)
    except (ValueError, ZeroDivisionError):
        return None
