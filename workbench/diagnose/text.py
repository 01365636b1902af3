"""Text metrics of completions and groups: texts, words, token ids or final answers in, numbers out.

"Items" are words or token ids, whichever the caller wants n-grams of; the record uses `words`.
"""

import math
import re
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

from sacrebleu.metrics import BLEU

R1_WORDS = ("wait", "mistake", "however", "but", "retry", "error", "verify", "wrong", "evaluate", "check")
"""Reflective words counted in R1 (2501.12948 C.2). A rate is meaningful only relative to that at step 0."""


def words(text: str) -> list[str]:
    """Lower-case words and single other signs, in order; white space is dropped."""
    return re.findall(r"\w+|[^\w\s]", text.lower())


# -- several completions of one problem ------------------------------------------------------------------


def pass_at_k(n: int, correct: int, k: int) -> float:
    """Probability that k of n completions, drawn without replacement, contain a right one: 1 - C(n-c, k) / C(n, k) with c =
    `correct` (Chen 2021, 2107.03374). Raises ValueError where k is not within 1..n or c not within 0..n.
    """
    if not (1 <= k <= n and 0 <= correct <= n):
        raise ValueError(
            f"pass@{k} of {n} samples with {correct} right: k must be 1 to {n} and the right ones 0 to {n}."
        )
    return 1.0 - math.comb(n - correct, k) / math.comb(n, k)


def avg_at_k(n: int, correct: int) -> float:
    """c / n, the share of right completions; pass@1 in the R1 report."""
    return correct / n


def majority(final_answers: Sequence[str | None]) -> str | None:
    """The most frequent final answer; None does not vote, and among equals the first one wins."""
    votes = Counter(answer for answer in final_answers if answer is not None)
    # Counter keeps the order of insertion, max the first of equals
    return max(votes, key=lambda answer: votes[answer]) if votes else None


def maj_at_k(final_answers: Sequence[str | None], correct: str) -> float:
    """1 where the majority of k final answers is the right one, else 0 (also without votes)."""
    return float(majority(final_answers) == correct)


def distinct_count(final_answers: Sequence[str | None]) -> int:
    """Number of different final answers in a group, None left out."""
    return len({answer for answer in final_answers if answer is not None})


def duplicate_fraction(texts: Sequence[Hashable]) -> float:
    """Share of a group's completions that repeat an earlier one exactly; 0 for an empty group."""
    return 1.0 - len(set(texts)) / len(texts) if texts else 0.0


# -- diversity and repetition ----------------------------------------------------------------------


def ngrams(items: Sequence[Hashable], n: int) -> list[tuple[Hashable, ...]]:
    return [tuple(items[start : start + n]) for start in range(len(items) - n + 1)]


def distinct_n(texts: Sequence[Sequence[Hashable]], n: int) -> float:
    """Distinct over total n-grams, pooled over the group (Li et al. 2016, 1510.03055); 0 without n-grams."""
    pooled = [gram for items in texts for gram in ngrams(items, n)]
    return len(set(pooled)) / len(pooled) if pooled else 0.0


def self_bleu(texts: Sequence[Sequence[Hashable]], weights: Sequence[float] = (0.5, 0.5)) -> float | None:
    """Mean BLEU of each completion against the others of its group (Texygen, 1802.01886): 1 = all alike. None for fewer
    than two.

    n-gram orders 1..len(weights), no smoothing, brevity penalty against the closest length; a completion without a
    matching n-gram of some order scores 0.
    """
    if len(texts) < 2:
        return None
    lines = [_as_line(items) for items in texts]
    metric = _bleu(len(weights))
    total = 0.0
    for i, line in enumerate(lines):
        score = metric.sentence_score(line, lines[:i] + lines[i + 1 :])
        if all(precision > 0 for precision in score.precisions):
            total += score.bp * math.exp(
                sum(w * math.log(p / 100) for w, p in zip(weights, score.precisions, strict=True))
            )
    return total / len(lines)


def repeat_fraction(items: Sequence[Hashable], n: int = 3) -> float:
    """Share of a completion's n-grams that repeat an earlier one; 0 where it is shorter than n."""
    grams = ngrams(items, n)
    return 1.0 - len(set(grams)) / len(grams) if grams else 0.0


def longest_run_above(values: Sequence[float], threshold: float = 0.99) -> int:
    """Length of the longest run of values above the threshold. For token probabilities it indicates a loop (MiniMax-M1,
    2506.13585, stops at 3,000)."""
    longest = run = 0
    for value in values:
        run = run + 1 if value > threshold else 0
        longest = max(longest, run)
    return longest


@lru_cache(maxsize=8)
def _bleu(order: int) -> BLEU:
    # effective_order only silences a warning: the score is computed from the precisions
    return BLEU(
        tokenize="none", smooth_method="none", max_ngram_order=order, effective_order=True, force=True
    )


def _as_line(items: Sequence[Hashable]) -> str:
    # sacrebleu splits at white space; an item that contains some must stay one item
    return " ".join(re.sub(r"\s", "\u2423", str(item)) or "\u2205" for item in items)


# -- reflection ------------------------------------------------------------------------------------


class WordCounts(NamedTuple):
    """Occurrences of a word list in a text, case ignored."""

    word: int
    """Whole words; this count is reported."""
    substring: int
    """Anywhere, as some implementations count: "button" contains "but"."""


def reflection_counts(text: str, vocabulary: Sequence[str] = R1_WORDS) -> WordCounts:
    lowered = text.lower()
    whole_words = sum(len(_whole_word(word).findall(lowered)) for word in vocabulary)
    return WordCounts(whole_words, sum(lowered.count(word.lower()) for word in vocabulary))


class Reflection(NamedTuple):
    """Reflective words in a set of completions."""

    per_1k_tokens: float
    share: float
    """Share of completions with at least one."""
    accuracy_with: float | None
    """Of the completions with one; None where there is none."""
    accuracy_without: float | None


def reflection(
    texts: Sequence[str],
    token_counts: Sequence[int],
    correct: Sequence[bool],
    vocabulary: Sequence[str] = R1_WORDS,
) -> Reflection:
    """Rate per 1,000 tokens, share of completions, accuracy with and without. All arguments (B,) but the vocabulary."""
    counts = [reflection_counts(text, vocabulary).word for text in texts]
    having = [right for count, right in zip(counts, correct, strict=True) if count]
    lacking = [right for count, right in zip(counts, correct, strict=True) if not count]
    tokens = sum(token_counts)
    return Reflection(
        1000 * sum(counts) / tokens if tokens else 0.0,
        len(having) / len(texts) if texts else 0.0,
        sum(having) / len(having) if having else None,
        sum(lacking) / len(lacking) if lacking else None,
    )


# -- overthinking ----------------------------------------------------------------------------------


def first_statement_end(text: str, answer: str) -> int | None:
    """Number of characters up to the end of the first statement of the reference answer; None without a statement.

    A statement is `= value`, `answer is value`, `<answer>value` or `\\boxed{value`, unless the text continues to compute with
    the value: then it was an intermediate result.
    """
    found = _statement(answer.strip()).search(text)
    return found.end() if found else None


def tokens_until(tokens: Iterable[str | bytes], prefix: str) -> int | None:
    """Number of tokens that cover a prefix of their text; None where they spell something else."""
    wanted, spelt = prefix.encode(), bytearray()
    for count, token in enumerate(tokens, 1):
        spelt += token if isinstance(token, bytes) else token.encode()
        if len(spelt) >= len(wanted):
            return count if spelt.startswith(wanted) else None
    return None


@lru_cache(maxsize=1024)
def _statement(answer: str) -> re.Pattern[str]:
    value = re.escape(answer)
    stated = r"(?:=|\banswer(?:\s+is)?\s*:?|<answer>|\\boxed\{)[\s$*]*"
    operation = r" *[-+*/×^=] ?[\d(]"
    continued = rf"\w|[.,]\d|{operation}|[\s,;.]+{value}{operation}"
    return re.compile(rf"{stated}{value}(?!{continued})", re.IGNORECASE)


@lru_cache(maxsize=256)
def _whole_word(word: str) -> re.Pattern[str]:
    return re.compile(rf"\b{re.escape(word.lower())}\b")
