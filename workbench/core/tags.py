"""The one reader of a completion's tags and boxes: text in, its final answer's text out.

Rewards, tasks and diagnoses read completions through these functions, so that all see the same final answer.
"""

_OPEN, _CLOSE = "<answer>", "</answer>"
_THINK, _THOUGHT = "<think>", "</think>"
_BOXES = ("\\boxed", "\\fbox")


def tag_at_end(completion: str) -> str | None:
    """What the `<answer>` that ends the completion holds, as it stands; None where there is no such thing.

    It runs from the last `<answer>` to the last `</answer>`, so it may hold `<`, tags of other kinds and line breaks.
    """
    text = completion.rstrip()
    start = text.rfind(_OPEN)
    if start < 0 or not text.endswith(_CLOSE) or start + len(_OPEN) > len(text) - len(_CLOSE):
        return None
    return text[start + len(_OPEN) : -len(_CLOSE)]


def last_tag(completion: str) -> str | None:
    """What the last whole `<answer>` holds, wherever it stands; None where there is none."""
    end = completion.rfind(_CLOSE)
    return None if end < 0 else tag_at_end(completion[: end + len(_CLOSE)])


def after_thoughts(completion: str) -> str:
    """What follows the last `</think>`: all of it where nothing was thought, nothing where the thoughts never end."""
    return completion.rpartition(_THOUGHT)[2].partition(_THINK)[0]


def boxes(text: str) -> list[tuple[int, int, str]]:
    """(start, end, content) of every outermost `\\boxed{…}`, braces inside counted; one that never closes is left out."""
    found: list[tuple[int, int, str]] = []
    place = 0
    while True:
        starts = [(text.find(name, place), name) for name in _BOXES]
        begin, name = min(((at, name) for at, name in starts if at >= 0), default=(-1, ""))
        if begin < 0:
            return found
        inside = begin + len(name)
        while inside < len(text) and text[inside] == " ":
            inside += 1
        end = _closing(text, inside)
        if end is None:
            place = begin + len(name)
            continue
        found.append((begin, end + 1, text[inside + 1 : end]))
        place = end + 1


def last_box(text: str) -> str | None:
    """What the last `\\boxed{…}` holds, or None."""
    found = boxes(text)
    return found[-1][2].strip() if found else None


def _closing(text: str, start: int) -> int | None:
    """The place of the brace that closes the one at `start`; a backslash hides the sign after it."""
    if not text.startswith("{", start):
        return None
    depth, place = 0, start
    while place < len(text):
        sign = text[place]
        if sign == "\\":
            place += 2
            continue
        depth += (sign == "{") - (sign == "}")
        if depth == 0:
            return place
        place += 1
    return None
