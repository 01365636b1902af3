"""Multiple choice: whether the chosen letter is the right one."""

import re

from workbench.rewards.api.decorator import Example, reward
from workbench.rewards.builtin.text import final_answer

_ALONE = re.compile(r"\s*[(\[]?([A-Z])[)\].:]?(?:\s.*)?", re.DOTALL)
_STATED = re.compile(r"(?i:answer|choice|option)(?i:\s+is)?\s*:?\s*[(\[]?([A-Z])\b(?![-'’])")
_BRACKETED = re.compile(r"[(\[]([A-Z])[)\]]")


@reward(
    title="Right choice",
    range=(0.0, 1.0),
    weakness="With four options a blind guess is right every fourth time: expect noise, use larger groups.",
    example=Example({"completion": "Cold air sinks, so the answer is (B).", "answer": "B"}, 1.0),
)
def choice(completion: str, answer: str | None) -> float | None:
    """1 where the chosen letter is that of the reference answer, else 0.

    Reads the answer tag, `answer: B`, or the last letter in brackets. None where the reference answer names no letter.
    """
    expected = _letter_at_start(answer or "")
    return None if expected is None else float(chosen(final_answer(completion)) == expected)


def chosen(text: str) -> str | None:
    """The letter that a text settles on, or None."""
    if len(text.split()) <= 1 and (alone := _letter_at_start(text)):
        return alone
    for pattern in (_STATED, _BRACKETED):
        if found := pattern.findall(text):
            return str(found[-1])
    return _letter_at_start(text) if re.match(r"\s*[(\[]?[A-Z][)\].:]", text) else None


def _letter_at_start(text: str) -> str | None:
    match = _ALONE.fullmatch(text)
    return match.group(1) if match else None
