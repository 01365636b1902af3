"""Rewards that go wrong in the ways GRPO runs do; `raise_alarms.py` trains with each."""


def tiny_bonus(completion: str) -> float:
    """Nearly the same for everybody: full marks, and a thousandth for every character."""
    return 1.0 + 0.001 * min(len(completion), 400) / 400


def picky(completion: str, answer: str) -> float:
    """Breaks on every third answer."""
    if len(completion) % 3 == 0:
        raise ValueError(f"cannot read an answer of {len(completion)} characters")
    return float(f"<answer>{answer}</answer>" in completion)


def long_when_wrong(completion: str, answer: str) -> float:
    """Right answers get nothing, wrong ones the more the longer they are."""
    return 0.0 if f"<answer>{answer}</answer>" in completion else min(1.0, len(completion) / 150)


def says_five(completion: str) -> float:
    """Pays for one particular sentence: the model comes to say nothing else."""
    return float(completion.strip().endswith("<answer>5</answer>"))


def needle(completion: str, answer: str) -> float:
    """Pays for a right answer that also checks itself: about one in a hundred at first."""
    return float(
        f"<answer>{answer}</answer>" in completion and "check" in completion and "wait" in completion
    )
