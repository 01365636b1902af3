"""The formulas of the shaping rewards: lengths, token ids and counts in, a number out. Pure."""

from collections.abc import Hashable, Sequence


def soft_overlong(length: int, max_length: int, cache: int) -> float:
    """0 up to max_length - cache, then falling linearly to -1 at max_length and after. (DAPO 2503.14476 eq 13)"""
    free = max_length - cache
    if length <= free:
        return 0.0
    return (free - length) / cache if length <= max_length else -1.0


def repetition_penalty(items: Sequence[Hashable], n: int = 3, max_penalty: float = -1.0) -> float:
    """max_penalty x share of n-grams (of token ids or words) that repeat an earlier one. (2502.03373 C.2)"""
    if max_penalty > 0:
        raise ValueError(f"max_penalty is {max_penalty}: a penalty must be 0 or negative.")
    total = len(items) - n + 1
    if total <= 0:
        return 0.0
    unique = len({tuple(items[start : start + n]) for start in range(total)})
    return max_penalty * (1.0 - unique / total) if unique < total else 0.0


def kimi_length(lengths: Sequence[int], correct: Sequence[bool]) -> list[float]:
    """.5 - (length - shortest) / (longest - shortest) for each completion of a group, at most 0 for wrong ones; all 0 where the
    lengths are equal. (Kimi k1.5 2501.12599 section 2.3.3)"""
    shortest, longest = min(lengths, default=0), max(lengths, default=0)
    if shortest == longest:
        return [0.0] * len(lengths)
    scores = [0.5 - (length - shortest) / (longest - shortest) for length in lengths]
    return [score if right else min(0.0, score) for score, right in zip(scores, correct, strict=True)]


def language_consistency(target_words: int, words: int) -> float | None:
    """Share of the words in the target language; None where there are no words. (2501.12948 eq 7)"""
    return target_words / words if words else None
