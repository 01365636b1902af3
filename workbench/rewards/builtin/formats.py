"""Whether a completion keeps the format `<think>…</think><answer>…</answer>`."""

import re

from workbench.rewards.api.decorator import Example, reward

_TEMPLATE = re.compile(r"<think>.*?</think>\s*<answer>.*?</answer>", re.DOTALL)
_TAGS = ("<think>", "</think>", "<answer>", "</answer>")


@reward(
    title="Think, then answer",
    range=(0.0, 1.0),
    weakness="Says nothing about the content: alone it teaches empty thoughts and any answer at all.",
    example=Example({"completion": "<think>6+8=4</think><answer>4</answer>", "rendered": ""}, 1.0),
)
def format(completion: str, rendered: str) -> float:
    """1 where the completion is exactly `<think>…</think><answer>…</answer>`, each tag once, else 0.

    Where the prompt itself ends with `<think>`, the completion starts inside the reasoning. (DeepSeek-R1,
    2501.12948)
    """
    text = completion.strip()
    if rendered.rstrip().endswith("<think>"):
        text = "<think>" + text
    once = all(text.count(tag) == 1 for tag in _TAGS)
    return 1.0 if once and _TEMPLATE.fullmatch(text) else 0.0
