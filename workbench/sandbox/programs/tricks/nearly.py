"""Returns the right number as another type."""


def solve(n: int) -> float:
    return float(n * n)
