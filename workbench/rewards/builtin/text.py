"""Parts and forms of a completion's text that several rewards need: final answer, reasoning, words, normalised text."""

import re
import unicodedata

from workbench.core import tags

_IDEOGRAPH = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
"""Kana and Han: written without spaces, so each sign is taken for a word."""
_WORD = re.compile(rf"[{_IDEOGRAPH}]|[^\W{_IDEOGRAPH}]+(?:['’][^\W{_IDEOGRAPH}]+)*")
_PIECE = re.compile(rf"[{_IDEOGRAPH}]|[^\s{_IDEOGRAPH}]+")
_ARTICLES = frozenset({"a", "an", "the"})
_DASHES = re.compile("[‐‑‒–—−﹣－]")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_KEPT = re.compile(
    r"(?<=\d)[-./:^*](?=\d)"  # 3.14, 1/2, 10:30, 1939-1945
    r"|(?<![\w)])-(?=[\d.])|(?<!\w)\.(?=\d)"  # -5, .5
    r"|(?<=\w)(?:\+\+?|\#)(?!\w)"  # C++, C#, A+
    r"|(?<=[^\W\d])[*^](?=\w)"  # x^2
    r"|[<>=]|(?<=\s)[-+*/](?=\s)|(?<=\w)\+(?=\w)"  # a <= b, 1 + 2
)
"""Punctuation that changes what a text says."""
_DROPPED = "$`|~^+#"


def answer_tag(completion: str) -> str | None:
    """The text inside the `<answer>` that ends the completion, or None where there is no such thing."""
    found = tags.tag_at_end(completion)
    return None if found is None else found.strip()


def final_answer(completion: str) -> str:
    """What a completion concludes: the text in the `<answer>` at its end, or else everything after `</think>`."""
    tagged = answer_tag(completion)
    return tags.after_thoughts(completion).strip() if tagged is None else tagged


def thoughts(completion: str) -> str:
    """The reasoning: everything before `</think>`, or all of it where that tag is missing."""
    before, tag, _ = completion.partition("</think>")
    return before.replace("<think>", "", 1) if tag else completion


def words(text: str) -> list[str]:
    """Words and numbers in lower case, apostrophes kept, punctuation dropped."""
    return _WORD.findall(text.casefold())


def normalised(text: str) -> str:
    """Lower case without punctuation, English articles and doubled spaces: SQuAD's rule (1606.05250), with what it loses kept.

    Signs, decimal points and the plus of C++ stay, an article that ends the text is none, and where nothing would be left the text
    stays as it is. Any script's punctuation is dropped; dashes and wide forms count as the plain ones.
    """
    plain = _DASHES.sub("-", unicodedata.normalize("NFKC", text).casefold())
    plain = _THOUSANDS.sub("", plain)
    kept = {place for match in _KEPT.finditer(plain) for place in range(*match.span())}
    plain = "".join(
        sign
        if place in kept or not _is_dropped(sign)
        else " " * (sign in ",;" and plain[place + 1 : place + 2].isdigit())
        for place, sign in enumerate(plain)
    )
    parts = plain.split()
    kept_words = [
        part for place, part in enumerate(parts) if part not in _ARTICLES or place == len(parts) - 1
    ]
    return " ".join(split_words(" ".join(kept_words))) or " ".join(text.casefold().split())


def split_words(text: str) -> list[str]:
    """Words of a normalised text, between its spaces; each sign of a script without spaces is one."""
    return _PIECE.findall(text)


def _is_dropped(sign: str) -> bool:
    return (
        sign in _DROPPED
        or unicodedata.category(sign) in ("Cf", "Sc")
        or unicodedata.category(sign).startswith("P")
    )
