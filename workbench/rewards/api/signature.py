"""What a reward function asks for, and the arguments it gets.

In: a function of one of the accepted signatures. Out: its `Shape`, and for each call the keyword arguments, always fresh
copies. Accepted: one completion, arguments by name (ours, verl, verifiers); a whole group (`@reward(group=True)`); lists (TRL,
ms-swift, OpenRLHF). Imported in every reward process, so it must stay light.
"""

import difflib
import inspect
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from workbench.rewards.api import dialects
from workbench.rewards.api.decorator import declared
from workbench.rewards.api.reward_input import RewardInput

Kind = Literal["sample", "group", "list"]
OfIndex = Callable[[int | None], Any]
"""A value that belongs to the run and not to the group, by the sample's index; None in a call for a whole group."""

_LIST_MARKS = frozenset({"completions", "completion_ids", "prompts", "queries"})
_READS_MESSAGES = re.compile(r"""\[\s*["']content["']\s*\]|\.get\(\s*["']content["']""")


class MissingArgument(Exception):
    """A reward asks for an argument that is not there; the message lists those that are."""


@dataclass(frozen=True, slots=True)
class Shape:
    """How a reward function is called."""

    kind: Kind
    dialect: str
    """Whose signature it is: workbench, TRL, ms-swift, verl, OpenRLHF or verifiers."""
    needs: tuple[str, ...]
    """Arguments without a default."""
    takes: tuple[str, ...]
    """Arguments with a default: options, or columns of the data where those have the name."""
    takes_all: bool
    """Has `**kwargs`, and so gets every column."""
    is_async: bool
    messages: bool | None
    """Gets prompts and completions as chat messages. None: where the data is conversational, as in TRL."""
    line: int
    """Line of its only `return`, or of its `def`."""
    alone: bool = False
    """Gets a process of its own."""
    outside: bool = False
    """Declares that it asks a server or a person."""
    random: bool = False
    """Its random numbers are seeded before each call."""
    guessed: tuple[str, ...] = ()
    """What was guessed from the source text because neither the decorator nor an argument's name says it, as ends of a sentence
    that begins with the reward's name."""

    @property
    def is_external(self) -> bool:
        """Whether a second call may give another value, since a server or a person gives it. Implied by `async def`."""
        return self.outside or self.is_async

    @property
    def names(self) -> tuple[str, ...]:
        """Every argument it has by name."""
        return self.needs + self.takes

    @property
    def wants_tokens(self) -> bool:
        """Whether token ids must be sent to it."""
        return bool({"tokens", "completion_ids"} & set(self.names)) or (
            self.takes_all and self.kind == "list"
        )

    @property
    def wants_ratings(self) -> bool:
        """Whether it asks for the ratings that people gave."""
        return bool({"human_rating", "human_ratings"} & set(self.names))

    @property
    def standard(self) -> tuple[str, ...]:
        """Arguments that it can ask for whatever the data is."""
        return STANDARD[self.kind]

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return asdict(self)

    @classmethod
    def of_json(cls, data: Mapping[str, Any]) -> "Shape":
        """From `to_json()`; JSON has made the tuples lists. Records of older runs lack the last fields."""
        values: dict[str, Any] = {
            name: tuple(item) if isinstance(item, list) else item for name, item in data.items()
        }
        return cls(**values)

    def columns(self) -> tuple[str, ...]:
        """Columns that the data must have."""
        known = {*self.standard, *dialects.names(self.kind)}
        return tuple(name for name in self.needs if name not in known)


def read_shape(function: Callable[..., Any], file_text: str = "") -> Shape:
    """The shape of a function or callable object. Raises TypeError that says what to change.

    Two facts can be declared (`@reward(messages=..., random=...)`) or follow from an argument: one that is called `rng` gets a
    seeded `random.Random`, and TRL's lists are messages where the data is conversational. Beyond that they are guessed, from
    the text of the function and from `file_text`, that of its whole file; every guess is listed in `guessed`.
    """
    parameters = inspect.signature(function).parameters.values()
    fixed = [item.name for item in parameters if item.kind is item.POSITIONAL_ONLY]
    if fixed:
        raise TypeError(
            f"has positional-only arguments ({', '.join(fixed)}); rewards are called by name. Take "
            "out the `/`."
        )
    named = [item for item in parameters if item.kind in (item.POSITIONAL_OR_KEYWORD, item.KEYWORD_ONLY)]
    takes_all = any(item.kind is item.VAR_KEYWORD for item in parameters)
    if not named and not takes_all:
        raise TypeError("asks for nothing. Name what it needs, for example `completion` and `answer`.")
    names = {item.name for item in named}
    about = declared(function)
    kind: Kind = "list" if names & _LIST_MARKS else "sample"
    if about is not None and about.group:
        kind = "group"
    text, line = _source(function)
    guessed = []
    messages = None if about is None else about.messages
    if messages is None and _READS_MESSAGES.search(text) and "json.loads" not in text:
        messages = True
        always = ", also where the data is not conversational" if kind == "list" else ""
        guessed.append(
            f"reads chat messages{always} (guessed from the code; say @reward(messages=True) to be explicit)"
        )
    elif messages is None and kind != "list":
        messages = False
    random = None if about is None else about.random
    if random is None and "rng" in names:
        random = True
    if random is None and "random" in file_text:
        random = True
        guessed.append(
            "draws random numbers, seeded for each sample (guessed from the code; say @reward(random=True) to be explicit)"
        )
    return Shape(
        kind=kind,
        dialect=dialects.recognise(kind, names, is_object=not inspect.isfunction(function)),
        needs=tuple(item.name for item in named if item.default is item.empty),
        takes=tuple(item.name for item in named if item.default is not item.empty),
        takes_all=takes_all,
        is_async=inspect.iscoroutinefunction(function)
        or inspect.iscoroutinefunction(type(function).__call__),
        messages=messages,
        line=line,
        alone=about is not None and about.alone,
        outside=(about is not None and about.outside) or bool({"human_rating", "human_ratings"} & names),
        random=bool(random),
        guessed=tuple(guessed),
    )


def _source(function: Callable[..., Any]) -> tuple[str, int]:
    """Source text of a function or of an object's class, and the line to name when its result is wrong."""
    try:
        lines, first = inspect.getsourcelines(function if inspect.isfunction(function) else type(function))
    except (OSError, TypeError):
        return "", 1
    returns = [number for number, text in enumerate(lines, first) if re.match(r"\s*return\b", text)]
    start = next(
        (number for number, text in enumerate(lines, first) if re.match(r"\s*(async\s+)?def\b", text)), first
    )
    return "".join(lines), returns[0] if len(returns) == 1 else start


def problem(shape: Shape, options: Mapping[str, Any], columns: Collection[str] | None = None) -> str | None:
    """Why a reward cannot be called with these options on data with these columns, or None.

    columns None: not known yet, so anything may be one.
    """
    for name in options:
        if name in shape.standard:
            return f"the option `{name}` has the name of something that every reward can ask for. Rename it."
        if name not in shape.names and not shape.takes_all:
            allowed = ", ".join(name for name in shape.takes if name not in shape.standard) or "none"
            return f"it has no option `{name}`. Its options: {allowed}.{_hint(name, shape.takes)}"
    if columns is None:
        return None
    missing = [name for name in shape.columns() if name not in columns and name not in options]
    return _not_there(missing[0], shape, columns) if missing else None


def _not_there(name: str, shape: Shape, columns: Collection[str]) -> str:
    of_data = (
        f" Columns of your data: {', '.join(sorted(columns))}."
        if columns
        else " Your data has no other columns."
    )
    return (
        f"it asks for `{name}`, which is not there. It can ask for: {', '.join(shape.standard)}.{of_data}"
        f"{_hint(name, [*shape.standard, *columns])}"
    )


def _hint(name: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f" Did you mean `{close[0]}`?" if close else ""


class Binder:
    """The arguments of one reward for one group. Each call gets copies, which it may change.

    of_run: what is no part of the group, each with a name of `_OF_RUN`.
    """

    def __init__(
        self, shape: Shape, group: RewardInput, options: Mapping[str, Any], of_run: Mapping[str, OfIndex]
    ) -> None:
        self.shape = shape
        self.group = group
        self.count = len(group["completions"])
        self.messages = dialects.is_conversational(group) if shape.messages is None else shape.messages
        self._options = options
        self._of_run = of_run

    def arguments(self, index: int | None = None) -> dict[str, Any]:
        """Keyword arguments for one sample, or for the group where `index` is None. Raises MissingArgument."""
        found = {}
        for name in self.shape.names:
            value = self._options[name] if name in self._options else self._value(name, index)
            if value is not dialects.ABSENT:
                found[name] = value
            elif name in self.shape.standard:
                raise MissingArgument(f"it asks for `{name}`, which these samples do not carry.")
            elif name in self.shape.needs:
                raise MissingArgument(_not_there(name, self.shape, list(self.group["columns"])))
        if self.shape.takes_all:
            found = {**self._everything(index), **self._options, **found}
        return found

    def _value(self, name: str, index: int | None) -> Any:
        if name in self._of_run:
            return self._of_run[name](index)
        if name in _VALUES[self.shape.kind]:
            return _fresh(_VALUES[self.shape.kind][name](self, index))
        if name in self.group["columns"]:
            return self._column(name)
        return dialects.value(self.shape.kind, name, self.group, index)

    def _column(self, name: str) -> Any:
        value = self.group["columns"][name]
        return [_fresh(value) for _ in range(self.count)] if self.shape.kind == "list" else _fresh(value)

    def _everything(self, index: int | None) -> dict[str, Any]:
        """What `**kwargs` gets: every column, and the standard arguments (TRL passes all of its own)."""
        standard = self.shape.standard if self.shape.kind == "list" else ("prompt", "completion", "answer")
        values = {name: self._column(name) for name in self.group["columns"]}
        values |= {name: self._value(name, index) for name in standard if name not in ("rng", "environments")}
        return {name: value for name, value in values.items() if value is not dialects.ABSENT}

    def completions(self) -> list[Any]:
        """Those of the group, as text or as messages."""
        return [dialects.completion_of(text, self.messages) for text in self.group["completions"]]


def _at(values: list[Any] | None, index: Any) -> Any:
    return dialects.ABSENT if values is None or values[index] is None else values[index]


def _all(values: list[Any] | None) -> Any:
    return dialects.ABSENT if values is None or None in values else values


_OF_SAMPLE: dict[str, Callable[[Binder, Any], Any]] = {
    "prompt": lambda binder, index: dialects.prompt_of(binder.group, binder.messages),
    "completion": lambda binder, index: dialects.completion_of(
        binder.group["completions"][index], binder.messages
    ),
    "answer": lambda binder, index: binder.group["answer"],
    "tokens": lambda binder, index: _at(binder.group["tokens"], index),
    "length": lambda binder, index: _at(binder.group["lengths"], index),
    "finish_reason": lambda binder, index: binder.group["finish_reasons"][index],
    "group": lambda binder, index: binder.completions(),
    "index": lambda binder, index: index,
    "rendered": lambda binder, index: binder.group["rendered"],
    "columns": lambda binder, index: binder.group["columns"],
    "human_rating": lambda binder, index: binder.group["ratings"][index],
}
"""What a reward of one completion can ask for beside the columns of the data. `prompt` is the question as the data has it,
`rendered` the exact text the model read, `group` all completions of the prompt, this one included, `human_rating` a person's
rating from 0 to 1, None where there is none."""
_OF_GROUP: dict[str, Callable[[Binder, Any], Any]] = {
    "prompt": _OF_SAMPLE["prompt"],
    "completions": lambda binder, index: binder.completions(),
    "answer": _OF_SAMPLE["answer"],
    "tokens": lambda binder, index: _all(binder.group["tokens"]),
    "lengths": lambda binder, index: _all(binder.group["lengths"]),
    "finish_reasons": lambda binder, index: binder.group["finish_reasons"],
    "rendered": _OF_SAMPLE["rendered"],
    "columns": _OF_SAMPLE["columns"],
    "human_ratings": lambda binder, index: binder.group["ratings"],
}
_OF_LIST: dict[str, Callable[[Binder, Any], Any]] = {
    "prompts": lambda binder, index: [
        dialects.prompt_of(binder.group, binder.messages) for _ in range(binder.count)
    ],
    "completions": _OF_GROUP["completions"],
    "completion_ids": _OF_GROUP["tokens"],
    "answer": lambda binder, index: [binder.group["answer"]] * binder.count,
    "lengths": _OF_GROUP["lengths"],
    "finish_reasons": _OF_GROUP["finish_reasons"],
    "human_ratings": _OF_GROUP["human_ratings"],
}
"""TRL's arguments; every column of the data is a list with one entry a completion. Called once for each group, where TRL calls
once for the whole batch, so that values do not depend on the size of the pool."""
_VALUES = {"sample": _OF_SAMPLE, "group": _OF_GROUP, "list": _OF_LIST}
_OF_RUN = {
    "sample": ("step", "max_length", "rng"),
    "group": ("step", "max_length", "rng"),
    "list": ("trainer_state", "log_extra", "log_metric", "rng", "environments"),
}
"""Arguments that belong to the run: `max_length` is the completion length limit in tokens, `rng` a `random.Random` seeded for the
sample."""
STANDARD = {kind: (*_VALUES[kind], *_OF_RUN[kind]) for kind in _VALUES}


def _fresh(value: Any) -> Any:
    """A copy of lists and dicts all the way down; everything else that JSON knows cannot be changed."""
    if isinstance(value, list):
        return [_fresh(item) for item in value]
    if isinstance(value, dict):
        return {key: _fresh(item) for key, item in value.items()}
    return value
