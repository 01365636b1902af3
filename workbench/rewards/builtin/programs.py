"""Model-written programs, run in the sandbox against test cases. Expected values stay on this side."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from workbench.core.errors import SandboxError
from workbench.rewards.api.decorator import Example, reward
from workbench.sandbox import Call, Job, Limits, Result, Sandbox, compare_exact

_BLOCK = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)```", re.DOTALL)
_sandbox: Sandbox | None = None


def prepare() -> None:
    """Start the sandbox, probe included, before the clock of the first call runs. Raises SandboxError."""
    global _sandbox
    if _sandbox is None:
        _sandbox = Sandbox(servers=1)


def finish() -> None:
    """End the sandbox and remove its folders."""
    if _sandbox is not None:
        _sandbox.close()


@reward(
    title="Passes the tests",
    range=(0.0, 1.0),
    weakness=(
        "Few tests are learned by heart: special cases written out pass them. Numbers must be "
        "of the same type."
    ),
    example=Example(
        {
            "completion": "```python\ndef double(n):\n    return n + n\n```",
            "tests": [{"args": [3], "expected": 6}],
            "function": "double",
        },
        1.0,
    ),
)
def code_tests(
    completion: str,
    tests: Sequence[Mapping[str, Any]] | str,
    function: str | None = None,
    *,
    partial: bool = False,
    seconds: float = 4.0,
    memory_mb: int = 512,
) -> float | None:
    """1 where the program passes every test, else 0; with `partial` the share of tests it passes.

    The column `tests` holds cases `{"args": [...], "expected": ...}` for the column `function`, or cases
    `{"stdin": text, "expected": text}` for a whole program. The program is the last code block, or everything
    after `</think>`. `seconds` are for all tests together.
    """
    cases = json.loads(tests) if isinstance(tests, str) else list(tests)
    if not cases:
        return None
    by_call = "args" in cases[0]
    if by_call and not function:
        raise ValueError("tests with args need the column `function`, the name of what they call.")
    limits = Limits(wall_s=seconds if by_call else max(0.1, seconds / len(cases)), memory_mb=memory_mb)
    source = program(completion)
    if by_call:
        calls = tuple(Call(str(function), tuple(case["args"])) for case in cases)
        result = _run(Job(source, calls=calls, limits=limits))
    else:
        result = _run(Job(source, stdin=tuple(str(case["stdin"]) for case in cases), limits=limits))
    passed = [_is_passed(case, result, place, by_call) for place, case in enumerate(cases)]
    return sum(passed) / len(passed) if partial else float(all(passed))


def program(completion: str) -> str:
    """The last code block after `</think>`, or everything there."""
    text = completion.rpartition("</think>")[2]
    blocks = _BLOCK.findall(text)
    return str(blocks[-1]) if blocks else text


def _run(job: Job) -> Result:
    prepare()
    assert _sandbox is not None
    result = _sandbox.run(job)
    if result.status == "infra_error":
        raise SandboxError(result.error or "the sandbox failed")
    return result


def _is_passed(case: Mapping[str, Any], result: Result, place: int, by_call: bool) -> bool:
    if result.errors[place] is not None:
        return False
    value = result.values[place]
    if by_call:
        return compare_exact(case["expected"], value)
    return isinstance(value, str) and value.split() == str(case["expected"]).split()
