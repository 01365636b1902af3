"""The style of a completion in one word, and its final answer, by regular expressions. Text in, words out.

A style depends on the form alone: whether there is thinking, whether that skips steps, checks itself, or is cut.
"""

import re
from typing import Literal

from workbench.core import tags
from workbench.core.types import Rollout
from workbench.diagnose.text import R1_WORDS

Style = Literal["direct", "jumps", "worked", "checked", "bare", "unfinished"]
STYLES: dict[Style, str] = {
    "direct": "answers without thinking",
    "jumps": "thinks, several operations a line",
    "worked": "thinks step by step",
    "checked": "thinks and checks itself",
    "bare": "has no answer tag",
    "unfinished": "was cut at the limit",
}
_ANSWER = re.compile(r"<answer>(.*?)</answer>|\\boxed\{([^{}]*)\}", re.DOTALL)
_THINKING = re.compile(r"<think>(.*?)(?:</think>|$)", re.DOTALL)
_REFLECTS = re.compile(rf"\b(?:{'|'.join(R1_WORDS)})\b", re.IGNORECASE)
_SUM = r"\d+(?:[+\-*/]\d+)"
_JUMP = re.compile(rf"{_SUM}{{2,}}\s*=")
_STEP = re.compile(rf"{_SUM}\s*=")


def final_answer(text: str) -> str | None:
    """The content of the last `<answer>` or `\\boxed{}`, white space trimmed; None where there is neither."""
    tagged, boxed = text.rfind("</answer>"), text.rfind("\\boxed")
    found = tags.last_tag(text) if tagged > boxed else tags.last_box(text)
    if found is None:
        found = tags.last_box(text) if tagged > boxed else tags.last_tag(text)
    return None if found is None else found.strip()


def style(rollout: Rollout) -> Style:
    """One of STYLES."""
    if rollout.finish_reason == "length":
        return "unfinished"
    thinking = _THINKING.search(rollout.text)
    thoughts = thinking.group(1).strip() if thinking else _ANSWER.sub("", rollout.text).strip()
    if final_answer(rollout.text) is None and thinking is None:
        return "bare"
    if not thoughts:
        return "direct"
    if _REFLECTS.search(thoughts):
        return "checked"
    jumps, steps = len(_JUMP.findall(thoughts)), len(_STEP.findall(thoughts))
    return "jumps" if jumps and jumps * 2 >= steps else "worked"
