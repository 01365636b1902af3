"""Model-written programs, run in the sandbox against test cases. Expected values stay on this side."""

import ast
import json
import math
import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from workbench.core.errors import SandboxError
from workbench.rewards.api.code import shorten
from workbench.rewards.api.decorator import Example, reward
from workbench.rewards.builtin.text import final_answer
from workbench.sandbox import Call, Job, Limits, Result, Sandbox, compare_exact

_BLOCK = re.compile(
    r"^([ \t]*)(```+|~~~+)[ \t]*\{?\.?([\w+#-]*)[^\n`]*\n(.*?)(?:^[ \t]*\2[ \t]*$|\Z)",
    re.DOTALL | re.MULTILINE,
)
_PYTHON = frozenset({"python", "python3", "py", "py3", "ipython", "python2", "pycon"})
_DECIMAL = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
_NEAR = 1e-6
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
    tests: Sequence[Any] | Mapping[str, Any] | str | None,
    function: str | None = None,
    *,
    partial: bool = False,
    seconds: float = 4.0,
    memory_mb: int = 512,
) -> float | None:
    """1 where the program passes every test, else 0; with `partial` the share of tests it passes.

    The column `tests` holds cases `{"args": [...], "expected": ...}` for the column `function`, cases
    `{"stdin": text, "expected": text}` for a whole program, or lines `assert f(1) == 2`; `input` and `output`, `inputs` and
    `outputs` are read too. The program is the last Python block, or everything after `</think>`. Printed lines must be the same;
    numbers with a decimal point may differ by 1e-6. `seconds` are for all tests together. None without tests.
    """
    cases = read_cases(tests, function)
    if not cases:
        return None
    by_call = cases[0].call is not None
    limits = Limits(wall_s=seconds if by_call else max(0.1, seconds / len(cases)), memory_mb=memory_mb)
    source = program(completion)
    if by_call:
        result = _run(Job(source, calls=tuple(case.call for case in cases if case.call), limits=limits))
    else:
        result = _run(Job(source, stdin=tuple(case.stdin for case in cases), limits=limits))
    passed = [_is_passed(case, result, place) for place, case in enumerate(cases)]
    return sum(passed) / len(passed) if partial else float(all(passed))


class Case(NamedTuple):
    """One test: a call or a text to read, and what must come out."""

    call: Call | None
    stdin: str
    expected: Any


def read_cases(tests: Any, function: str | None) -> list[Case]:
    """The tests of a row in any of the shapes that data sets use. Raises ValueError, which says what is wanted."""
    if isinstance(tests, str):
        tests = _parsed(tests)
    if isinstance(tests, Mapping):
        function = str(tests.get("fn_name") or "") or function
        tests = _columns(tests)
    if not tests:
        return []
    if not isinstance(tests, Sequence):
        raise _unknown(tests)
    cases = [_case(test, function) for test in tests]
    if len({case.call is None for case in cases}) > 1:
        raise ValueError("the tests of one row mix calls and texts to read; give one kind.")
    return cases


def _parsed(text: str) -> Any:
    if not text.strip():
        return []
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        lines = [line.strip() for line in text.splitlines()]
        if any(line.startswith("assert") for line in lines):
            return [line for line in lines if line.startswith("assert")]
        raise _unknown(text) from None


def _columns(tests: Mapping[str, Any]) -> list[Any]:
    """One test from a mapping, or many from one with lists side by side, as APPS and TACO keep them."""
    for given, wanted in (("inputs", "outputs"), ("input", "output"), ("stdin", "expected")):
        if given not in tests or wanted not in tests:
            continue
        many = isinstance(tests[given], list) and isinstance(tests[wanted], list)
        if not many:
            return [{"input": tests[given], "output": tests[wanted]}]
        if len(tests[given]) != len(tests[wanted]):
            raise ValueError(
                f"the tests have {len(tests[given])} {given} and {len(tests[wanted])} {wanted}; give one for each."
            )
        return [
            {"input": one, "output": other} for one, other in zip(tests[given], tests[wanted], strict=True)
        ]
    for name in ("tests", "test_cases", "public_tests", "test_list"):
        if isinstance(tests.get(name), list):
            return list(tests[name])
    return [tests]


def _case(test: Any, function: str | None) -> Case:
    if isinstance(test, str):
        return _asserted(test)
    if not isinstance(test, Mapping):
        raise _unknown(test)
    wanted = next(
        (name for name in ("expected", "expected_output", "output", "outputs") if name in test), None
    )
    if wanted is None:
        raise _unknown(test)
    expected = test[wanted]
    name = str(test.get("fn_name") or test.get("function") or function or "")
    given = next((key for key in ("args", "stdin", "input", "inputs") if key in test), None)
    if given == "args" and not name:
        raise ValueError("tests with args need the column `function`, the name of what they call.")
    if given == "args" or (name and given in ("input", "inputs") and isinstance(test[given], list)):
        if not isinstance(test[given], list | tuple):
            raise ValueError(f"a test's {given} is no list; give the arguments as a list, such as [3].")
        return Case(Call(name, tuple(test[given])), "", expected)
    if given is None:
        raise _unknown(test)
    return Case(None, _lines(test[given]), _lines(expected))


def _lines(value: Any) -> str:
    return "\n".join(map(str, value)) if isinstance(value, list) else str(value)


def _asserted(line: str) -> Case:
    """`assert f(1) == 2`, `assert f(1)`, `assert not f(1)`: read, never run, so that expected values stay on this side."""
    try:
        (statement,) = ast.parse(line.strip()).body
        assert isinstance(statement, ast.Assert)
        test, expected = statement.test, True
        if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
            test, expected = test.operand, False
        elif (
            isinstance(test, ast.Compare) and len(test.ops) == 1 and isinstance(test.ops[0], ast.Eq | ast.Is)
        ):
            left, right = test.left, test.comparators[0]
            test, other = (left, right) if isinstance(left, ast.Call) else (right, left)
            expected = ast.literal_eval(other)
        assert isinstance(test, ast.Call) and isinstance(test.func, ast.Name) and not test.keywords
        return Case(Call(test.func.id, tuple(ast.literal_eval(one) for one in test.args)), "", expected)
    except (SyntaxError, ValueError, AssertionError, TypeError, MemoryError, RecursionError):
        raise _unknown(line) from None


def _unknown(test: Any) -> ValueError:
    shown = shorten(json.dumps(test, default=str, ensure_ascii=False), 80)
    return ValueError(
        f'a test of an unknown shape was given: {shown}. Give {{"args": [3], "expected": 6}} with the column `function`, '
        '{"stdin": "3", "expected": "6"}, {"inputs": [...], "outputs": [...]}, or lines such as assert f(3) == 6.'
    )


def program(completion: str) -> str:
    """The last Python block after `</think>`, else the last block that names no language, else everything there."""
    text = final_answer(completion.replace("\r\n", "\n"))
    blocks = [(match[3].casefold(), match[1], match[4]) for match in _BLOCK.finditer(text)]
    for names in (_PYTHON, {""}):
        fitting = [(indent, code) for name, indent, code in blocks if name in names]
        if fitting:
            indent, code = fitting[-1]
            return textwrap.dedent(code) if indent else code
    return text


def _run(job: Job) -> Result:
    prepare()
    assert _sandbox is not None
    result = _sandbox.run(job)
    if result.status == "infra_error":
        raise SandboxError(result.error or "the sandbox failed")
    return result


def _is_passed(case: Case, result: Result, place: int) -> bool:
    if result.errors[place] is not None:
        return False
    value = result.values[place]
    if case.call is not None:
        return compare_exact(case.expected, value)
    return isinstance(value, str) and same_output(value, str(case.expected))


def same_output(given: str, expected: str) -> bool:
    """Whether printed texts agree: line by line, white space within a line and at the end aside, decimal numbers within 1e-6."""
    pairs = given.rstrip().splitlines(), expected.rstrip().splitlines()
    return len(pairs[0]) == len(pairs[1]) and all(
        len(left := one.split()) == len(right := other.split()) and all(map(_same_word, left, right))
        for one, other in zip(*pairs, strict=True)
    )


def _same_word(given: str, expected: str) -> bool:
    if given == expected:
        return True
    if not (re.search(r"[.eE]", expected) and _DECIMAL.fullmatch(expected) and _DECIMAL.fullmatch(given)):
        return False
    return math.isclose(float(given), float(expected), rel_tol=_NEAR, abs_tol=_NEAR)
