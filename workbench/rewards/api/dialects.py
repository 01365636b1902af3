"""Arguments that rewards written for other tools ask for: verl, OpenRLHF, ms-swift, verifiers.

In: a group and the name of an argument. Out: the value that tool would pass. A column of the data with the same name
wins.
"""

from collections.abc import Callable, Collection
from typing import Any, Final

from workbench.core import tags
from workbench.rewards.api.reward_input import RewardInput

Message = dict[str, str]

CHAT_COLUMN = "prompt_messages"
"""The column in which conversational data keeps its prompt as messages (`prompts.data.MESSAGES`)."""
_VERL = frozenset({"solution_str", "ground_truth", "data_source", "extra_info"})
_VERIFIERS = frozenset({"state", "info", "task", "parser", "states", "infos", "tasks", "answers"})
_OPENRLHF = frozenset({"queries", "labels"})


class _Absent:
    """The type of ABSENT."""


ABSENT: Final = _Absent()
"""There is no such value (None is a value)."""


class Parser:
    """What verifiers passes as `parser`: the text between `<answer>` tags, or everything where there are none."""

    def parse(self, text: str) -> str:
        """The last tagged final answer of a text."""
        found = tags.last_tag(text)
        return text if found is None else found.strip()

    def parse_answer(self, completion: list[Message] | str) -> str:
        """The same, of the last message of a completion."""
        return self.parse(completion if isinstance(completion, str) else completion[-1]["content"])


class TrainerState:
    """The part of TRL's `trainer_state` that is known here."""

    def __init__(self, step: int, max_steps: int) -> None:
        self.global_step = step
        self.max_steps = max_steps
        self.epoch = 0.0
        self.log_history: list[dict[str, float]] = []

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"trainer_state has no {name!r} here; it has global_step, max_steps, epoch and log_history"
        )


_OF_SAMPLE: dict[str, Callable[[RewardInput, int], Any]] = {
    "question": lambda group, index: group["prompt"],
    "solution_str": lambda group, index: group["completions"][index],
    "ground_truth": lambda group, index: group["answer"],
    "data_source": lambda group, index: "",
    "extra_info": lambda group, index: {**group["columns"], "question": group["prompt"]},
    "state": lambda group, index: _state(group, index),
    "info": lambda group, index: dict(group["columns"]),
    "task": lambda group, index: "default",
    "parser": lambda group, index: Parser(),
}
_OF_LIST: dict[str, Callable[[RewardInput], Any]] = {
    "queries": lambda group: [(group["rendered"] or group["prompt"]) + text for text in group["completions"]],
    "labels": lambda group: [group["answer"]] * len(group["completions"]),
    "answers": lambda group: [group["answer"]] * len(group["completions"]),
    "states": lambda group: [_state(group, index) for index in range(len(group["completions"]))],
    "infos": lambda group: [dict(group["columns"]) for _ in group["completions"]],
    "tasks": lambda group: ["default"] * len(group["completions"]),
    "parser": lambda group: Parser(),
    "environments": lambda group: None,
}


def names(kind: str) -> Collection[str]:
    """Arguments of other tools that a reward of this kind can ask for."""
    return _OF_SAMPLE if kind == "sample" else _OF_LIST if kind == "list" else ()


def value(kind: str, name: str, group: RewardInput, index: int | None) -> Any:
    """The value of such an argument, or ABSENT."""
    if kind == "sample" and index is not None and name in _OF_SAMPLE:
        return _OF_SAMPLE[name](group, index)
    if kind == "list" and name in _OF_LIST:
        return _OF_LIST[name](group)
    return ABSENT


def recognise(kind: str, names: Collection[str], is_object: bool) -> str:
    """Which tool's signature it is, by the names of its arguments."""
    names = set(names)
    if kind == "sample" and names & _VERL:
        return "verl"
    if names & (_VERIFIERS if kind != "sample" else _VERIFIERS - {"info", "task"}):
        return "verifiers"
    if kind != "list":
        return "workbench"
    if names & _OPENRLHF:
        return "OpenRLHF"
    return "ms-swift" if is_object else "TRL"


def is_conversational(group: RewardInput) -> bool:
    """Whether the data gives the prompt as chat messages."""
    chat = group["columns"].get(CHAT_COLUMN)
    return isinstance(chat, list) and bool(chat) and all(isinstance(message, dict) for message in chat)


def prompt_of(group: RewardInput, messages: bool) -> str | list[Message]:
    """The prompt as text, or as chat messages: those of the data where it is conversational."""
    if not messages:
        return group["prompt"]
    if is_conversational(group):
        return [dict(message) for message in group["columns"][CHAT_COLUMN]]
    return [{"role": "user", "content": group["prompt"]}]


def completion_of(text: str, messages: bool) -> str | list[Message]:
    """A completion as text or as chat messages."""
    return [{"role": "assistant", "content": text}] if messages else text


def _state(group: RewardInput, index: int) -> dict[str, Any]:
    return {
        "prompt": prompt_of(group, True),
        "completion": completion_of(group["completions"][index], True),
        "answer": group["answer"],
        "info": dict(group["columns"]),
        "task": "default",
    }
