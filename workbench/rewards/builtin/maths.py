"""Mathematical final answers, compared as mathematics by math-verify.

What is known to be one final answer (the reference, the content of a tag or of a box) is read whole; prose is searched only where that
fails. The library limits its own time by a signal, which works only in the main thread of a process, where rewards are called.
"""

import re
from importlib import import_module
from typing import Any

from workbench.core import tags
from workbench.rewards.api.decorator import Example, reward
from workbench.rewards.builtin.answers import after_mark, exact, same_number
from workbench.rewards.builtin.text import answer_tag

_LIMIT_S = 5
"""Seconds for reading and for comparing one expression; below the time-out of a call."""


def prepare() -> None:
    """Load the library before the clock of the first call runs: sympy takes seconds."""
    _library()


_MATHS = re.compile(
    r"\$\$(.+?)\$\$|\\\[(.+?)\\\]|\\\((.+?)\\\)|(?<![\\$])\$(?=[^\s$])([^$]*?[^\s$\\])\$(?!\d)", re.DOTALL
)
"""An expression between the delimiters of TeX; a dollar before a price opens nothing."""
_SENTENCE = re.compile(r"(?<=[.!?;])\s+|\n+")
_MARK = re.compile(
    r"(?:\b(?:is|are|equals|be|get|gives|so|answer|result|therefore|thus|hence)\b|:|≈|=>)", re.I
)
_WORD = re.compile(r"(?<!\\)(?<![A-Za-z\\])[A-Za-z]{2,}")
_READ_AS_MATHS = frozenset(
    [
        "and",
        "or",
        "sin",
        "cos",
        "tan",
        "cot",
        "sec",
        "csc",
        "log",
        "ln",
        "exp",
        "sqrt",
        "pi",
        "inf",
        "infinity",
        "arcsin",
        "arccos",
        "arctan",
        "sinh",
        "cosh",
        "tanh",
        "lim",
        "max",
        "min",
        "gcd",
        "lcm",
        "mod",
    ]
)
_TEXT = re.compile(r"\\(?:text|mathrm|textbf|mbox|operatorname|textit|mathbf)\s*\{([^{}]*)\}")
_ENVIRONMENT = re.compile(r"\\(?:begin|end)\s*\{[^{}]*\}")
_FLOAT = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?|\.\d+)[eE]([-+]?\d+)(?![\w.])")
_POWER_OF_TEN = re.compile(r"\^\s*([-+]?\d{2,}|[-+]\d)")


@reward(
    title="Right answer, as mathematics",
    range=(0.0, 1.0),
    weakness="Without tag or box it reads the last thing that looks like mathematics, so late guesses pass.",
    example=Example({"completion": r"The result is \boxed{\frac{2}{4}}", "answer": r"$\frac{1}{2}$"}, 1.0),
)
def math(completion: str, answer: str | None) -> float | None:
    """1 where the final expression equals the reference as mathematics (LaTeX or plain), else 0.

    The final expression is the `<answer>` at the end, else the last box, else the last expression after `</think>`.
    Names are compared as text. None where the reference answer cannot be read. (math-verify)
    """
    if answer is None:
        return None
    library = _library()
    reference, given = _content(answer), _final(completion)
    if not reference:
        return None
    if _is_name(reference):
        return float(given is not None and _name(_content(given)) == _name(reference))
    expected = _read(library, reference)
    if not expected:
        return None
    if given is None:
        return 0.0
    given = _content(given)
    numbers = exact(reference), exact(given)
    if numbers[0] is not None and numbers[1] is not None and "%" not in reference + given:
        return float(same_number(numbers[1], numbers[0]))
    found = _read(library, given)
    right = bool(found) and library.verify(expected, found, timeout_seconds=_LIMIT_S)
    return float(right and not _far_apart(expected[0], found[0]))


def _final(completion: str) -> str | None:
    """The text of the final expression, or None where there is none."""
    tagged = answer_tag(completion)
    if tagged is not None:
        return tagged
    text = tags.after_thoughts(completion)
    boxed = _boxed(text)
    if boxed is not None:
        return boxed
    spans: list[re.Match[str]] = list(_MATHS.finditer(text))
    rest = text[spans[-1].end() :] if spans else text
    sentences = [str(part).strip() for part in _SENTENCE.split(rest) if part and part.strip()]
    for place, sentence in reversed(list(enumerate(sentences))):
        if spans and place == 0 and rest.lstrip(" ")[:1] != "\n" and not re.match(r"\s*[.!?;]\s", rest):
            break  # the same sentence as the last expression in delimiters, which says more
        marks = list(_MARK.finditer(sentence))
        stated = sentence[marks[-1].end() :] if marks else sentence
        stated = stated.strip().rstrip(".!;").strip()
        if (marks or not spans) and stated and re.search(r"[\dA-Za-z\\]", stated) and _is_formula(stated):
            return stated
        if not spans and _searched(_library(), sentence):
            return sentence
    if spans:
        return _inside(spans[-1])
    return None


def _inside(match: re.Match[str]) -> str:
    """The expression between delimiters."""
    return next(str(part) for part in match.groups() if part is not None)


def _boxed(text: str) -> str | None:
    """The content of the last box, joined with those before it that only a comma, `and` or `or` sets apart."""
    found = tags.boxes(text)
    if not found:
        return None
    content, start = found[-1][2], found[-1][0]
    for begin, end, before in reversed(found[:-1]):
        if not re.fullmatch(r"[\s$,;]*(?:and|or|\\text\{\s*(?:and|or)\s*\})?[\s$,;]*", text[end:start]):
            break
        content, start = f"{before}, {content}", begin
    return content.strip()


def _content(text: str) -> str:
    """A final answer without what wraps it: `####` of a worked solution, a box, dollars, a currency sign, the full stop."""
    text = after_mark(text).strip()
    boxed = _boxed(text)
    if boxed is not None:
        return _content(boxed) if boxed != text else boxed
    delimited = _MATHS.fullmatch(text.rstrip("."))
    if delimited:
        text = _inside(delimited)
    text = text.replace("\\$", "").replace(",\\!", ",").replace("−", "-").strip()
    if text.count("$") == 1:
        text = text.replace("$", "")
    return text.strip().rstrip(".").strip()


def _is_formula(text: str) -> bool:
    """Whether a text has no words beside those of mathematics (a unit or note in `\\text{}` does not count)."""
    bare = _TEXT.sub(" ", _ENVIRONMENT.sub(" ", text))
    return all(
        word.casefold() in _READ_AS_MATHS or (len(word) == 2 and word not in _SHORT)
        for word in _WORD.findall(bare)
    )


_SHORT = frozenset(
    [
        "is",
        "it",
        "as",
        "at",
        "an",
        "be",
        "by",
        "do",
        "go",
        "he",
        "if",
        "in",
        "me",
        "my",
        "no",
        "of",
        "on",
        "so",
        "to",
        "up",
        "us",
        "we",
    ]
)


def _is_name(text: str) -> bool:
    """Whether a final answer is a name and no expression, such as `Evelyn` or `\\text{east}`; a lone letter is a variable."""
    inside = _TEXT.sub(r"\1", text).strip()
    return bool(re.fullmatch(r"[^\W\d_]{3,}(?:[\s'-]+[^\W\d_]+)*", inside)) and not _is_formula(inside)


def _name(text: str) -> str:
    return " ".join(_TEXT.sub(r"\1", text).casefold().replace("\\", " ").split())


def _read(library: Any, text: str) -> list[Any]:
    """The expressions that a whole final answer is; prose is searched only where it is none."""
    formula = _FLOAT.sub(r"\1 \\times 10^{\2}", text)
    formula = _POWER_OF_TEN.sub(r"^{\1}", formula)
    if "$" in formula and not _MATHS.search(formula):
        formula = formula.replace("$", "")
    if _is_formula(formula):
        inside = formula.replace("$", "")
        found = library.parse(f"${inside}$", parsing_timeout=_LIMIT_S)
        if found:
            return list(found)
    return _searched(library, text)


def _searched(library: Any, text: str) -> list[Any]:
    return list(library.parse(text, parsing_timeout=_LIMIT_S))


def _far_apart(expected: Any, given: Any) -> bool:
    """Whether two numbers that the library's rounding to six decimals makes equal are different, as 9.1e-31 and 1.6e-19 are."""
    if not (getattr(expected, "is_number", False) and getattr(given, "is_number", False)):
        return False
    try:
        left, right = complex(expected.evalf(15)), complex(given.evalf(15))
    except (TypeError, ValueError, OverflowError, AttributeError):
        return False
    ends = max(abs(left), abs(right))
    return bool(ends < _SMALL and abs(left - right) > _NEAR * ends)


_SMALL, _NEAR = 1e-3, 1e-3
"""Below the first, six decimals say too little, and numbers must agree within the second, relative to the larger."""


def _library() -> Any:
    return import_module("math_verify")
