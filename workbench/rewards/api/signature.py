"""What a reward function asks for, and the arguments it gets.

In: a function of one of the accepted signatures. Out: its `Shape`, and for each call the keyword arguments,
always fresh copies. Accepted: one answer by name (ours, verl, verifiers); a whole group
(`@reward(group=True)`); lists (TRL, ms-swift, OpenRLHF). Runs in every reward process, so it must stay light.
"""

import difflib
import inspect
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal

from workbench.rewards.api import dialects
from workbench.rewards.api.decorator import declared
from workbench.rewards.api.reward_input import RewardInput

Kind = Literal["sample", "group", "list"]

SAMPLE_NAMES = (
    "prompt",
    "completion",
    "answer",
    "tokens",
    "length",
    "finish_reason",
    "group",
    "index",
    "step",
    "rendered",
    "max_length",
    "columns",
    "human_rating",
)
"""What a reward of one answer can ask for, beside the columns of the data. `prompt` is the question as the
data has it, `rendered` the exact text the model read, `max_length` how many tokens an answer may have in
this run, `group` the texts of all answers to the prompt, this one included, `human_rating` what a person said
about the answer: 0 to 1, None where nobody did."""
GROUP_NAMES = (
    "prompt",
    "completions",
    "answer",
    "tokens",
    "lengths",
    "finish_reasons",
    "step",
    "rendered",
    "max_length",
    "columns",
    "human_ratings",
)
LIST_NAMES = (
    "prompts",
    "completions",
    "completion_ids",
    "trainer_state",
    "log_extra",
    "log_metric",
    "environments",
    "lengths",
    "finish_reasons",
    "human_ratings",
)
"""TRL's names; every column of the data, `answer` among them, is a list with one entry a completion. Called
once for each group, where TRL calls once for the whole batch, so that the pool's size changes nothing."""

_LIST_MARKS = frozenset({"completions", "completion_ids", "prompts", "queries"})
_READS_MESSAGES = re.compile(r"""\[\s*["']content["']\s*\]|\.get\(\s*["']content["']""")


class AskedTooMuch(Exception):
    """A reward asks for a name that is not there; the message lists what is."""


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
    messages: bool
    """Gets completions as chat messages."""
    line: int
    """Line of its only `return`, or of its `def`."""
    alone: bool = False
    """Gets a process of its own."""
    outside: bool = False
    """Said of itself that it asks a server or a person."""

    @property
    def asks_outside(self) -> bool:
        """Whether it may answer differently the second time: an asynchronous one waits for somebody."""
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
        """Whether it asks what a person said about an answer."""
        return bool({"human_rating", "human_ratings"} & set(self.names))

    @property
    def standard(self) -> tuple[str, ...]:
        """Names that it can ask for whatever the data is."""
        return {"sample": SAMPLE_NAMES, "group": GROUP_NAMES, "list": LIST_NAMES}[self.kind]

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return asdict(self)

    @classmethod
    def of_json(cls, data: Mapping[str, Any]) -> "Shape":
        """From `to_json()`, however the lists of names travelled."""
        lists: dict[str, Any] = {name: tuple(data[name]) for name in ("needs", "takes")}
        return cls(**{**data, **lists})

    def columns(self) -> tuple[str, ...]:
        """Columns that the data must have."""
        known = {"answer", *self.standard, *dialects.names(self.kind)}
        return tuple(name for name in self.needs if name not in known)


def read_shape(function: Callable[..., Any]) -> Shape:
    """The shape of a function or callable object. Raises TypeError that says what to change."""
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
    source, line = _source(function)
    messages = bool(_READS_MESSAGES.search(source))
    dialect = dialects.recognise(kind, names, is_object=not inspect.isfunction(function))
    if about is not None and about.messages is not None:
        messages = about.messages
    return Shape(
        kind=kind,
        dialect=dialect,
        needs=tuple(item.name for item in named if item.default is item.empty),
        takes=tuple(item.name for item in named if item.default is not item.empty),
        takes_all=takes_all,
        is_async=inspect.iscoroutinefunction(function)
        or inspect.iscoroutinefunction(type(function).__call__),
        messages=messages,
        line=line,
        alone=about is not None and about.alone,
        outside=(about is not None and about.outside) or bool({"human_rating", "human_ratings"} & names),
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
    standard = set(shape.standard) | {"answer"}
    for name in options:
        if name in standard:
            return f"the option `{name}` has the name of something that every reward can ask for. Rename it."
        if name not in shape.names and not shape.takes_all:
            allowed = ", ".join(name for name in shape.takes if name not in standard) or "none"
            return f"it has no option `{name}`. Its options: {allowed}.{_hint(name, shape.takes)}"
    if columns is None:
        return None
    missing = [name for name in shape.columns() if name not in columns and name not in options]
    return _not_there(missing[0], shape, columns) if missing else None


def _not_there(name: str, shape: Shape, columns: Collection[str]) -> str:
    standard = [*shape.standard, *(["answer"] if "answer" not in shape.standard else [])]
    of_data = (
        f" Columns of your data: {', '.join(sorted(columns))}."
        if columns
        else " Your data has no other columns."
    )
    return (
        f"it asks for `{name}`, which is not there. It can ask for: {', '.join(standard)}.{of_data}"
        f"{_hint(name, [*standard, *columns])}"
    )


def _hint(name: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f" Did you mean `{close[0]}`?" if close else ""


class Binder:
    """The arguments of one reward for one group. Each call gets copies, which it may change.

    given: what is no part of the group: step and max_length, or TRL's trainer_state, log_extra and
    log_metric.
    """

    def __init__(
        self, shape: Shape, group: RewardInput, options: Mapping[str, Any], given: Mapping[str, Any]
    ) -> None:
        self.shape = shape
        self.group = group
        self.options = options
        self._given = {name: partial(_itself, value) for name, value in given.items()}

    def arguments(self, index: int | None = None) -> dict[str, Any]:
        """Keyword arguments of one answer, or of the group where `index` is None. Raises AskedTooMuch."""
        lookup = self._of_sample(index) if index is not None else self._of_group()
        columns = self.group["columns"]
        found = {}
        for name in self.shape.names:
            if name in self.options:
                found[name] = self.options[name]
            elif name in lookup:
                found[name] = _fresh(lookup[name]())
            elif name in columns:
                found[name] = self._column(name)
            elif (foreign := dialects.value(self.shape.kind, name, self.group, index)) is not dialects.ABSENT:
                found[name] = foreign
            elif name in self.shape.needs:
                raise AskedTooMuch(_not_there(name, self.shape, list(columns)))
        if self.shape.takes_all:
            found = {**self._everything(lookup), **self.options, **found}
        missing = [name for name in found if found[name] is dialects.ABSENT]
        if missing:
            raise AskedTooMuch(f"it asks for `{missing[0]}`, which these samples do not carry.")
        return found

    def _column(self, name: str) -> Any:
        value = self.group["columns"][name]
        if self.shape.kind == "list":
            return [_fresh(value) for _ in self.group["completions"]]
        return _fresh(value)

    def _everything(self, lookup: Mapping[str, Callable[[], Any]]) -> dict[str, Any]:
        names = lookup if self.shape.kind == "list" else ("prompt", "completion", "answer")
        standard = {name: _fresh(lookup[name]()) for name in names if name in lookup}
        columns = {name: self._column(name) for name in self.group["columns"] if name not in standard}
        return {
            name: value for name, value in {**columns, **standard}.items() if value is not dialects.ABSENT
        }

    def _of_sample(self, index: int) -> dict[str, Callable[[], Any]]:
        group, messages = self.group, self.shape.messages
        return {
            "prompt": lambda: dialects.asked(group["prompt"], messages),
            "completion": lambda: dialects.said(group["completions"][index], messages),
            "answer": lambda: group["answer"],
            "tokens": lambda: _at(group["tokens"], index),
            "length": lambda: _at(group["lengths"], index),
            "finish_reason": lambda: group["finish_reasons"][index],
            "human_rating": lambda: group["ratings"][index],
            "group": lambda: [dialects.said(text, messages) for text in group["completions"]],
            "index": lambda: index,
            "rendered": lambda: group["rendered"],
            "columns": lambda: group["columns"],
            **self._given,
        }

    def _of_group(self) -> dict[str, Callable[[], Any]]:
        group, messages = self.group, self.shape.messages
        count = len(group["completions"])
        both: dict[str, Callable[[], Any]] = {
            "completions": lambda: [dialects.said(text, messages) for text in group["completions"]],
            "lengths": lambda: dialects.ABSENT if None in group["lengths"] else group["lengths"],
            "finish_reasons": lambda: group["finish_reasons"],
            "human_ratings": lambda: group["ratings"],
        }
        if self.shape.kind == "group":
            return both | {
                "prompt": lambda: dialects.asked(group["prompt"], messages),
                "answer": lambda: group["answer"],
                "tokens": partial(_or_absent, group["tokens"]),
                "rendered": lambda: group["rendered"],
                "columns": lambda: group["columns"],
                **self._given,
            }
        return both | {
            "prompts": lambda: [dialects.asked(group["prompt"], messages) for _ in range(count)],
            "completion_ids": partial(_or_absent, group["tokens"]),
            "answer": lambda: [group["answer"]] * count,
            **self._given,
        }


def _itself(value: Any) -> Any:
    return value


def _or_absent(value: Any) -> Any:
    return dialects.ABSENT if value is None else value


def _at(values: list[Any] | None, index: int) -> Any:
    return dialects.ABSENT if values is None or values[index] is None else values[index]


def _fresh(value: Any) -> Any:
    """A copy of lists and dicts all the way down; everything else that JSON knows cannot be changed."""
    if isinstance(value, list):
        return [_fresh(item) for item in value]
    if isinstance(value, dict):
        return {key: _fresh(item) for key, item in value.items()}
    return value
