"""The decorator that marks a function as a reward, and what it declares about the reward.

In: a function. Out: the same function, marked. Imported in every reward process, so it must stay light.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar, overload

AnyFunction = TypeVar("AnyFunction", bound=Callable[..., Any])

MARK = "__workbench_reward__"


class Example(NamedTuple):
    """One completion and its value; shown on pages and run by the tests."""

    given: Mapping[str, Any]
    """What the reward asks for, by name. For a group reward `completions` and what goes with them."""
    value: float | list[float | None] | None


@dataclass(frozen=True, slots=True)
class Declared:
    """The arguments of `@reward(...)`. Only catalogue rewards need all of them."""

    name: str
    title: str = ""
    weakness: str = ""
    """How a model can score without being good, or what the reward does not see."""
    example: Example | None = None
    range: tuple[float, float] | None = None
    group: bool = False
    """It gets a whole group: plural `completions`; prompt, `answer` and columns stay single values."""
    alone: bool = False
    """It holds a model and gets a process of its own, one whatever the size of the pool."""
    outside: bool = False
    """Its values come from a server or a person: a resumed run takes them from the record. `async def` implies it."""
    messages: bool | None = None
    """Prompts and completions as chat messages instead of text. None: see `signature.read_shape`."""
    random: bool | None = None
    """It draws random numbers, which must be the same on every visit to a sample: `random` and `numpy.random` are seeded before
    each call. None: see `signature.read_shape`."""


registered: dict[str, Callable[..., Any]] = {}
"""Rewards that this process declared outside the catalogue, in a notebook or a script, by name."""


@overload
def reward(function: AnyFunction, /) -> AnyFunction: ...
@overload
def reward(
    *,
    name: str | None = None,
    title: str = "",
    weakness: str = "",
    example: Example | None = None,
    range: tuple[float, float] | None = None,
    group: bool = False,
    alone: bool = False,
    outside: bool = False,
    messages: bool | None = None,
    random: bool | None = None,
) -> Callable[[AnyFunction], AnyFunction]: ...
def reward(function: Callable[..., Any] | None = None, /, *, name: str | None = None, **about: Any) -> Any:
    """Mark a function as a reward: it asks by name for what it needs and returns a number or None.

    @reward
    def short(completion: str, length: int, *, limit: int = 200) -> float:
        return 1.0 if length <= limit else 0.0
    """

    def mark(function: Callable[..., Any]) -> Callable[..., Any]:
        declared = Declared(name or str(getattr(function, "__name__", "reward")), **about)
        setattr(function, MARK, declared)
        if not (function.__module__ or "").startswith("workbench.rewards."):
            registered[declared.name] = function
        return function

    return mark if function is None else mark(function)


def declared(function: Callable[..., Any]) -> Declared | None:
    """The arguments of its decorator, or None for a function without it."""
    found = getattr(function, MARK, None)
    return found if isinstance(found, Declared) else None
