"""When the device runs out of memory: the same work again in smaller pieces, with the objective and the random numbers unchanged.

In: work that can be cut. Out: its result, or a RunError that says what to change. What has once been cut stays cut.
"""

import ctypes
import gc
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import torch

from workbench.core.errors import RunError
from workbench.core.types import Group, Request, Sampling
from workbench.rollouts.engine import Engine, Progress, Whole

Result = TypeVar("Result")
ADVICE = (
    "Lower max_completion_length or prompts_per_step, turn on gradient_checkpointing, set dtype to bfloat16, use LoRA, or choose a "
    "smaller model; then fork the run."
)


class Pieces:
    """Into how many pieces work is cut so that it fits."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.count = 1
        self._told: list[str] = []

    def news(self) -> list[str]:
        """What had to be done since this was asked last, in words."""
        told, self._told = self._told, []
        return told

    def fit(self, work: Callable[[int], Result], most: int) -> Result:
        """`work(count)`, again with twice as many pieces while memory runs out. `most`: pieces that cannot be cut any further. Raises
        RunError where even those do not fit."""
        while True:
            numbers = _random_state()
            try:
                return work(self.count)
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                if not out_of_memory(error):
                    raise
                said = str(error).partition("\n")[0]
            # Only here, behind the except block, is the failed graph let go: the error's traceback held it.
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            _set_random_state(numbers)
            if self.count >= most:
                raise RunError(
                    f"Out of memory in {self.what}, even with one answer at a time ({said}). {ADVICE}"
                )
            self.count *= 2
            self._told.append(
                f"out of memory in {self.what}: from now on in {self.count} pieces at a time, same result"
            )


class FittingEngine:
    """An engine that asks for fewer answers at a time once memory has run out. Answers do not depend on their neighbours."""

    def __init__(self, engine: Engine) -> None:
        self.name = engine.name
        self.pieces = Pieces("sampling")
        self._engine = engine

    def generate(
        self,
        requests: Sequence[Request],
        sampling: Sampling,
        progress: Progress | None = None,
        whole: Whole | None = None,
    ) -> list[Group]:
        """See `Engine.generate`."""
        asked = [(place, seed) for place, request in enumerate(requests) for seed in request.seeds]

        def work(count: int) -> list[Group]:
            if count == 1:
                return self._engine.generate(requests, sampling, progress, whole)
            answers: list[list[Group]] = [[] for _ in requests]
            size = -(-len(asked) // count)
            for start in range(0, len(asked), size):
                seeds: dict[int, list[int]] = {}
                for place, seed in asked[start : start + size]:
                    seeds.setdefault(place, []).append(seed)
                part = [Request(requests[place].prompt, tuple(drawn)) for place, drawn in seeds.items()]
                for place, group in zip(seeds, self._engine.generate(part, sampling), strict=True):
                    answers[place].append(group)
                if progress:
                    progress(min(start + size, len(asked)), len(asked))
            return [
                replace(parts[0], rollouts=tuple(rollout for part in parts for rollout in part.rollouts))
                for parts in answers
            ]

        return self.pieces.fit(work, len(asked))


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out: on CUDA with its own type, on the CPU as a RuntimeError of the allocator."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def _random_state() -> tuple[torch.Tensor, list[torch.Tensor]]:
    return torch.get_rng_state(), torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []


def _set_random_state(state: tuple[torch.Tensor, list[torch.Tensor]]) -> None:
    torch.set_rng_state(state[0])
    if state[1]:
        torch.cuda.set_rng_state_all(state[1])


def tidy_heap() -> None:
    """Ask the C library for one heap that keeps what is freed, and for large blocks (8 MB and more: logits, caches) outside of it, which
    go back to the system at once. Its defaults adapt to the sizes they see and leave a step's blocks in holes of the last one's.
    Does nothing on a system without glibc."""
    if (mallopt := _glibc("mallopt")) is not None:
        for parameter, value in ((_MMAP_THRESHOLD, 8 << 20), (_TRIM_THRESHOLD, 1 << 30), (_ARENA_MAX, 1)):
            mallopt(parameter, value)


def give_back() -> None:
    """Return memory that was freed to the system: sampling, reference and update each leave holes in the heap that the next one's
    blocks do not fit into, so that without this their working memory would add up. Does nothing on a system without glibc."""
    if (trim := _glibc("malloc_trim")) is not None:
        trim(0)


_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
"""Of malloc.h."""


def _glibc(name: str) -> Any:
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
