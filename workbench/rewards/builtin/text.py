"""Parts and forms of a completion's text that several rewards need: final answer, reasoning, words, normalised text."""

import re
import string
import unicodedata

from workbench.core import tags

_WORD = re.compile(r"\w+(?:['’]\w+)*")
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation + "¿¡«»“”„‘’…–—")


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
    """Lower case without punctuation, English articles and doubled spaces: SQuAD's rule. (1606.05250)"""
    plain = unicodedata.normalize("NFKC", text).casefold().translate(_PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", plain).split())
