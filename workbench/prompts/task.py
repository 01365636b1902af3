"""What a task is: a name, its instructions to the model, and where its prompts come from."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from workbench.core.config import RunConfig
from workbench.core.types import Prompt

TAGGED_FORMAT = (
    "Reason inside <think> and </think>, then give nothing but the result inside <answer> and </answer>."
)
"""The format instruction of tasks whose verifiers read the final answer from its tags."""


class Split(NamedTuple):
    """A task's unrendered prompts; no question of one part occurs in the other."""

    train: list[Prompt]
    heldout: list[Prompt]
    warnings: tuple[str, ...] = ()
    """What a user should know but need not repair, one sentence each."""


@dataclass(frozen=True)
class Task:
    """A source of prompts."""

    name: str
    title: str
    about: str
    """One line that describes it to a user."""
    instruction: str
    """What the task demands; part of the system prompt."""
    format_instruction: str
    """The form of a completion; part of the system prompt with the chat template only, because the others bring their own form."""
    rewards: tuple[str, ...]
    """Rewards that fit, the verifier first."""
    load: Callable[[RunConfig], Split]
    example: Prompt
    levels: range | None = None
    """Difficulties on offer; None where the task has none."""

    def train(self, config: RunConfig) -> list[Prompt]:
        """The prompts to train on. Raises DataError or ConfigError."""
        return self.load(config).train

    def heldout(self, config: RunConfig) -> list[Prompt]:
        """At most `eval_problems` prompts never trained on, the same for every seed."""
        return self.load(config).heldout

    def system_prompt(self, config: RunConfig) -> str:
        """The user's system prompt, or the task's own; empty for the bare text of the plain template.

        The embedded model reads the bare question: its pretraining held no instructions.
        """
        if config.system_prompt:
            return config.system_prompt
        if config.model == "embedded":
            return ""
        match config.template:
            case "chat":
                return " ".join(part for part in (self.instruction, self.format_instruction) if part)
            case "r1-zero":
                return self.instruction
            case "plain":
                return ""
