"""When the device runs out of memory: the same work again in smaller chunks, with objective and random numbers unchanged.

In: work that can be split. Out: its result, or a RunError that says what to change. The number of chunks only grows.
"""

import gc
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

import torch

from workbench.core.errors import RunError
from workbench.core.types import Group, Request, Sampling
from workbench.rollouts.engine import Capabilities, Engine, OnGroupDone, Progress

Result = TypeVar("Result")
ADVICE = (
    "Lower max_completion_length or prompts_per_step, turn on gradient_checkpointing, set dtype to bfloat16, use LoRA, or choose a "
    "smaller model; then fork the run."
)


class OomRetry:
    """Repeats work in more chunks until it fits into memory."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.chunks = 1
        self._notices: list[str] = []

    def notices(self) -> list[str]:
        """What happened since the last call, one sentence each."""
        notices, self._notices = self._notices, []
        return notices

    def run(self, work: Callable[[int], Result], most: int) -> Result:
        """`work(chunks)`, again with twice as many chunks while memory runs out. `most`: the number of chunks beyond which it cannot
        be split. Raises RunError where even those do not fit."""
        while True:
            random_state = _random_state()
            try:
                return work(self.chunks)
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                if not out_of_memory(error):
                    raise
                message = str(error).partition("\n")[0]
            # Only here, behind the except block, is the failed graph let go: the error's traceback held it.
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            _set_random_state(random_state)
            if self.chunks >= most:
                raise RunError(
                    f"Out of memory in {self.what}, even with one sample at a time ({message}). {ADVICE}"
                )
            self.chunks *= 2
            self._notices.append(
                f"out of memory in {self.what}: from now on in {self.chunks} chunks, with the same result"
            )


class OomRetryEngine:
    """An engine that samples fewer completions at a time once memory has run out, where they do not depend on their neighbours."""

    def __init__(self, engine: Engine) -> None:
        self.name = engine.name
        self.retry = OomRetry("sampling")
        self._engine = engine

    @property
    def capabilities(self) -> Capabilities:
        """See `Engine.capabilities`."""
        return self._engine.capabilities

    def sync(self, version: int) -> None:
        """See `Engine.sync`."""
        self._engine.sync(version)

    def generate(
        self,
        requests: Sequence[Request],
        sampling: Sampling,
        progress: Progress | None = None,
        on_group_done: OnGroupDone | None = None,
    ) -> list[Group]:
        """See `Engine.generate`."""
        places = [(place, seed) for place, request in enumerate(requests) for seed in request.seeds]

        def work(chunks: int) -> list[Group]:
            if chunks == 1:
                return self._engine.generate(requests, sampling, progress, on_group_done)
            parts_of: list[list[Group]] = [[] for _ in requests]
            size = -(-len(places) // chunks)
            for start in range(0, len(places), size):
                seeds: dict[int, list[int]] = {}
                for place, seed in places[start : start + size]:
                    seeds.setdefault(place, []).append(seed)
                chunk = [Request(requests[place].prompt, tuple(drawn)) for place, drawn in seeds.items()]
                for place, group in zip(seeds, self._engine.generate(chunk, sampling), strict=True):
                    parts_of[place].append(group)
                if progress:
                    progress(min(start + size, len(places)), len(places))
            return [
                replace(parts[0], rollouts=tuple(rollout for part in parts for rollout in part.rollouts))
                for parts in parts_of
            ]

        # Completions that depend on their neighbours must not be sampled apart from them.
        return self.retry.run(work, len(places) if self.capabilities.independent_samples else 1)

    def notices(self) -> list[str]:
        """See `Engine.notices`."""
        return self.retry.notices() + self._engine.notices()


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out: on CUDA with its own type, on the CPU as a RuntimeError of the allocator."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def _random_state() -> tuple[torch.Tensor, list[torch.Tensor]]:
    return torch.get_rng_state(), torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []


def _set_random_state(state: tuple[torch.Tensor, list[torch.Tensor]]) -> None:
    torch.set_rng_state(state[0])
    if state[1]:
        torch.cuda.set_rng_state_all(state[1])
