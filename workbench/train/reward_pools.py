"""The reward pool of a run, replaced between two steps when its rewards change.

In: the settings as they are now. Out: the pool that scores by them, built from the code in the run folder.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from workbench.core.config import RunConfig
from workbench.rewards import versions
from workbench.rewards.runtime.pool import RewardPool
from workbench.rewards.runtime.registry import RewardSource, resolve, with_verifier


class RewardPools:
    """One pool at a time. Close it, or use it in a `with`."""

    def __init__(
        self, initial: RunConfig, records: Sequence[Mapping[str, Any]], folder: Path, **options: Any
    ) -> None:
        """initial: the settings the run was started with, whose rewards `records` describes. options: of RewardPool."""
        self._initial, self._records, self._folder = initial, records, folder
        self._options = options
        self._made_for: object = None
        self._pool: RewardPool | None = None
        self.sources: list[RewardSource] = []
        """The rewards of the pool as it is now."""

    def of(self, config: RunConfig) -> RewardPool:
        """The pool for these settings; a new one only where they ask for other rewards or another max completion length.
        Raises RewardError; the pool of before stays then."""
        wanted = (config.rewards, config.max_completion_length)
        if self._pool is None or wanted != self._made_for:
            sources = self._find(config)
            self.close()
            self._pool = RewardPool(
                sources, workers=config.reward_workers, timeout=config.reward_timeout,
                reward_clip=config.reward_clip, max_steps=config.steps,
                max_length=config.max_completion_length, **self._options,
            )  # fmt: skip
            self._made_for, self.sources = wanted, sources
        return self._pool

    @property
    def names(self) -> list[str]:
        """What the values of each reward are called, those of the settings first and in their order."""
        return [source.name for source in self.sources]

    def _find(self, config: RunConfig) -> list[RewardSource]:
        """The rewards of these settings, from the very code the run keeps. Raises RewardError where it has none."""
        if config.rewards == self._initial.rewards and self._records:
            # Checked before the start; a notebook's own functions exist nowhere else.
            return [RewardSource.of_record(record, self._folder) for record in self._records]
        if not self._records:
            return resolve(config.rewards, self._folder)
        return versions.sources(with_verifier(config), self._folder, self._records)

    def receive(self, files: Mapping[str, str]) -> None:
        """Keep new versions of reward code. Raises RewardError."""
        versions.receive(files, self._folder)

    def close(self) -> None:
        """End its processes."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
