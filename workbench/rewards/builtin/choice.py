"""Multiple choice: whether the chosen letter is the right one."""

import re
import unicodedata

from workbench.core import tags
from workbench.rewards.api.decorator import Example, reward
from workbench.rewards.builtin.text import final_answer

_ALONE = re.compile(
    r"\s*[(\[]?\s*(?:([A-Za-z])\s*[)\].:]*|([A-Z])[)\].:]?\s.*|([a-z])[)\].:]\s.*)\s*", re.DOTALL
)
_STATED = re.compile(
    r"(?i:answer|choice|option|答案)(?i:\s+is|是|为)?\s*:?\s*[(\[]?(?:([A-Z])(?![\w'’-])|([a-z])(?=[)\].,;:]|\s*\Z))"
    r"(?!\W*(?i:is|are|was)\s+(?i:wrong|incorrect|not|false|out)\b)"
)
_BRACKETED = re.compile(r"[(\[]([A-Za-z])[)\]]")
_WRAPPED = re.compile(r"\\(?:text|textbf|mathbf|mathrm|mbox)\s*\{([^{}]*)\}")


@reward(
    title="Right choice",
    range=(0.0, 1.0),
    weakness="With four options a blind guess is right every fourth time: expect noise, use larger groups.",
    example=Example({"completion": "Cold air sinks, so the answer is (B).", "answer": "B"}, 1.0),
)
def choice(completion: str, answer: str | None) -> float | None:
    """1 where the chosen letter is that of the reference answer, else 0.

    Reads the answer tag, a box, `answer: B`, or the last letter in brackets; case, Markdown and dollars do not count. None where the reference answer names no letter.
    """
    expected = _letter_at_start(_bare(answer or ""))
    return None if expected is None else float(chosen(final_answer(completion)) == expected)


def chosen(text: str) -> str | None:
    """The letter that a text settles on, in upper case, or None."""
    boxed = tags.last_box(text)
    if boxed is not None and (inside := _letter_at_start(_bare(boxed))):
        return inside
    text = _bare(text)
    if len(text.split()) <= 1 and (alone := _letter_at_start(text)):
        return alone
    for pattern in (_STATED, _BRACKETED):
        if found := list(pattern.finditer(text)):
            return _first(found[-1])
    return _letter_at_start(text) if re.match(r"\s*[(\[]?[A-Za-z][)\].:]", text) else None


def _bare(text: str) -> str:
    """The text without what only wraps it: boxes, LaTeX text, dollars, Markdown, quotes; wide letters and signs made plain."""
    for begin, end, content in reversed(tags.boxes(text)):
        text = text[:begin] + content + text[end:]
    text = _WRAPPED.sub(r"\1", unicodedata.normalize("NFKC", text))
    return re.sub(r"[*`$\"“”_]|\\[()\[\]]", "", text).strip()


def _letter_at_start(text: str) -> str | None:
    match = _ALONE.fullmatch(text)
    return _first(match) if match else None


def _first(match: re.Match[str]) -> str:
    return next(str(letter) for letter in match.groups() if letter).upper()
