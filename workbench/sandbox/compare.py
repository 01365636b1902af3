"""Compares an expected value with a value out of the sandbox, in the caller's process: expected values never enter it."""

from typing import Any

from workbench.core.errors import SandboxError

SCALARS = (type(None), bool, int, float, str)


def compare_exact(expected: Any, got: Any) -> bool:
    """Whether both are the same JSON value of exactly the same types.

    `True` is not 1, 1 is not 1.0, and an instance of a subclass equals nothing. A tuple counts as a list, since values travel as
    JSON. NaN equals NaN, 0.0 equals -0.0. No tolerance: that is a reward's decision. The order of a dict's keys does not count.
    SandboxError if `expected` itself is not a JSON value.
    """
    pairs = [(expected, got)]
    while pairs:
        want, have = pairs.pop()
        if type(want) is tuple:
            want = list(want)
        if type(have) is tuple:
            have = list(have)
        if type(want) is list:
            if type(have) is not list or len(want) != len(have):
                return False
            pairs += zip(want, have, strict=True)
        elif type(want) is dict:
            if type(have) is not dict or want.keys() != have.keys():
                return False
            pairs += [(item, have[key]) for key, item in want.items()]
        elif type(want) not in SCALARS:
            raise SandboxError(
                f"the expected answer holds a {type(want).__name__}; allowed are None, bool, int, float, "
                "str, lists and dicts. Write it as JSON."
            )
        elif type(want) is not type(have) or not (want == have or (want != want and have != have)):
            return False
    return True
