"""Which prompts a step samples from: epochs of a seeded shuffle.

A pure function of seed and step, so that a resumed run needs no cursor.
"""

from collections.abc import Sequence
from random import Random

from workbench.core.errors import ConfigError
from workbench.core.types import Prompt


class PromptStream:
    """The prompt order of a run. Within one step no prompt comes twice."""

    def __init__(self, prompts: Sequence[Prompt], prompts_per_step: int, seed: int) -> None:
        """Raises ConfigError where a step needs more prompts than there are."""
        if prompts_per_step > len(prompts):
            message = (
                f"prompts_per_step = {prompts_per_step}, but there are only {len(prompts)} prompts to train "
                f"on. Set it to {len(prompts)} or less, or give more prompts."
            )
            raise ConfigError(message, {"prompts_per_step": message})
        self._prompts = tuple(prompts)
        self._per_step = prompts_per_step
        self._seed = seed
        self._epoch, self._order = -1, list[int]()

    @property
    def steps_per_epoch(self) -> int:
        """Whole steps in one pass; the few prompts left over are others in every epoch."""
        return len(self._prompts) // self._per_step

    def at(self, step: int) -> list[Prompt]:
        """The prompts of a step, counted from 0."""
        epoch, place = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:  # kept only to save time: a million prompts take half a second to shuffle
            self._epoch = epoch
            self._order = self._shuffled(f"{self._seed}/epoch/{epoch}", range(len(self._prompts)))
        return [self._prompts[i] for i in self._order[place * self._per_step : (place + 1) * self._per_step]]

    def replacement_prompts(self, step: int) -> list[Prompt]:
        """All other prompts in a seeded order, from which dynamic sampling replaces groups without signal."""
        drawn = {id(prompt) for prompt in self.at(step)}
        others = [i for i, prompt in enumerate(self._prompts) if id(prompt) not in drawn]
        return [self._prompts[i] for i in self._shuffled(f"{self._seed}/spare/{step}", others)]

    @staticmethod
    def _shuffled(key: str, indices: Sequence[int]) -> list[int]:
        order = list(indices)
        Random(key).shuffle(order)
        return order


def watched(heldout: Sequence[Prompt], n: int = 16) -> list[Prompt]:
    """The held-out prompts whose completions are kept at every evaluation: evenly spread, hence of all levels."""
    count = min(n, len(heldout))
    return [heldout[i * len(heldout) // count] for i in range(count)]
