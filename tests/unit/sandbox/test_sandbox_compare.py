"""Exact comparison of an expected value with a value out of the sandbox."""

import math

import pytest

from workbench.core.errors import SandboxError
from workbench.sandbox import compare_exact


class Evil(int):
    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = int.__hash__


class Anything:
    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = object.__hash__


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        0,
        -3,
        10**30,
        1.5,
        math.inf,
        "",
        "é\0\ud800",
        [],
        [1, [2, {"a": None}]],
        {"b": 1, "a": [True]},
    ],
)
def test_a_value_equals_itself(value: object) -> None:
    assert compare_exact(value, value)


@pytest.mark.parametrize(
    ("expected", "got"),
    [
        (1, True),
        (True, 1),
        (0, False),
        (1, 1.0),
        (1.0, 1),
        (1, "1"),
        (None, False),
        ("", None),
        ([], None),
        ([], {}),
        ([1], [1, 1]),
        ([1, 2], [2, 1]),
        ([1, [True]], [1, [1]]),
        ({"a": 1}, {"a": 1.0}),
        ({"a": 1}, {"b": 1}),
        ({"a": 1}, {"a": 1, "b": 2}),
        (5, Evil(0)),
        (5, Evil(5)),
        ([5], [Evil(5)]),
        (5, Anything()),
        ({"a": 5}, Anything()),
        ([1], [Anything()]),
        (0.1 + 0.2, 0.3),
    ],
)
def test_another_type_or_value_is_not_equal(expected: object, got: object) -> None:
    assert not compare_exact(expected, got)


def test_nan_is_the_same_answer_as_nan_and_nothing_else_is() -> None:
    assert compare_exact([math.nan], [math.nan])
    assert not compare_exact(math.nan, 0.0)
    assert not compare_exact(0.0, math.nan)


def test_a_tuple_counts_as_the_list_it_travels_as() -> None:
    assert compare_exact((1, (2,)), [1, [2]])
    assert compare_exact([1, [2]], (1, (2,)))


def test_the_order_of_keys_does_not_count() -> None:
    assert compare_exact({"a": 1, "b": 2}, {"b": 2, "a": 1})


def test_deep_nesting_does_not_overflow_the_stack() -> None:
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    assert compare_exact(deep, deep)
    assert not compare_exact(deep, [deep])


def test_an_expected_answer_that_is_not_json_is_refused_with_its_type() -> None:
    with pytest.raises(SandboxError, match="holds a set; allowed are None, bool"):
        compare_exact([{1, 2}], [[1, 2]])
