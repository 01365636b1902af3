"""Rank 0 of a run with several processes: an engine and an updater that share each call out over all ranks.

In: the engine and the updater of one process. Out: the same interfaces. Prompts are sharded for sampling, completions are scored and
advantages computed on rank 0 alone, and each optimiser update is sharded by group. All ranks hold the same weights throughout.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from workbench.core.config import RunConfig
from workbench.core.types import Group, Request, Sampling
from workbench.models.logprobs import PaddedTokenStats
from workbench.models.policy import Policy
from workbench.rollouts.engine import Capabilities, Engine, OnGroupDone, Progress, assemble
from workbench.train.distributed.messages import Sampled, pack, pack_groups, unpack, unpack_completions
from workbench.train.process_group import ProcessGroup, process_group
from workbench.train.update import Updater, UpdateResult

_SKIPS = "skips_in_a_row"


def broadcast_state(ranks: ProcessGroup, policy: Policy, updater: Updater) -> None:
    """Give every rank the weights, reference and optimiser state of rank 0, wherever its checkpoint or its start left them."""
    if ranks.size == 1:
        return
    if ranks.rank == 0:
        ranks.broadcast(save_tensors({**updater.moments(), _SKIPS: torch.tensor(updater.skips_in_a_row)}))
    else:
        state = load_tensors(ranks.receive())
        updater.skips_in_a_row = int(state.pop(_SKIPS))
        updater.set_moments(state)
    reference = [] if policy.reference is None else list(policy.reference.parameters())
    ranks.broadcast_tensors([parameter.detach() for parameter in (*policy.trainable(), *reference)])


@contextmanager
def leading(config: RunConfig) -> Iterator[ProcessGroup]:
    """Rank 0's place in the process group (the whole of it where the run has one process); the other ranks end with it."""
    with process_group(config.nproc) as ranks:
        yield ranks
        ranks.broadcast(pack({"do": "end"}))


def leading_engine(own: Engine, ranks: ProcessGroup, policy: Policy) -> Engine:
    """Rank 0's engine: `own` in a run of one process."""
    return own if ranks.size == 1 else ShardedEngine(own, ranks, policy)


def leading_updater(policy: Policy, config: RunConfig, ranks: ProcessGroup) -> Updater:
    """Rank 0's updater: a plain one in a run of one process."""
    return Updater(policy, config) if ranks.size == 1 else LeadingUpdater(policy, config, ranks)


class ShardedEngine:
    """Rank 0's engine: every rank samples its block of the prompts, and the completions come back in order."""

    def __init__(self, engine: Engine, ranks: ProcessGroup, policy: Policy) -> None:
        self.engine, self.ranks, self.policy = engine, ranks, policy
        self.name = engine.name
        self.version = policy.version

    @property
    def capabilities(self) -> Capabilities:
        """See `Engine.capabilities`: those of each rank's own engine."""
        return self.engine.capabilities

    def generate(
        self,
        requests: Sequence[Request],
        sampling: Sampling,
        progress: Progress | None = None,
        on_group_done: OnGroupDone | None = None,
    ) -> list[Group]:
        """See `Engine.generate`. Progress is that of rank 0's own block; `on_group_done` is not called: groups arrive together."""
        fields = {
            "do": "generate",
            "sampling": asdict(sampling),
            "prompts": [list(request.prompt.token_ids) for request in requests],
            "seeds": [list(request.seeds) for request in requests],
        }
        self.ranks.broadcast(pack(fields))
        completions = sample_shards(self.engine, self.ranks, requests, sampling, progress)
        return assemble(requests, completions, self.policy, self.name, self.version)

    def sync(self, version: int) -> None:
        """See `Engine.sync`; on every rank."""
        self.version = version
        self.ranks.broadcast(pack({"do": "sync", "version": version}))
        self.engine.sync(version)

    def notices(self) -> list[str]:
        """See `Engine.notices`: those of rank 0's own engine."""
        return self.engine.notices()


def sample_shards(
    engine: Engine,
    ranks: ProcessGroup,
    requests: Sequence[Request],
    sampling: Sampling,
    progress: Progress | None = None,
) -> list[Sampled]:
    """Completions of all requests, in their order; this rank's block of them is sampled here."""
    own = [requests[i] for i in ranks.shard(len(requests))]
    _, arrays = pack_groups(engine.generate(own, sampling, progress) if own else [])
    parts = ranks.all_gather(pack({}, arrays))
    return [completion for part in parts for completion in unpack_completions(unpack(part)[1])]


class LeadingUpdater(Updater):
    """Rank 0's updater: each call is broadcast first, so that every rank makes it too."""

    _inside_call = False

    def _score(self, groups: Sequence[Group], config: RunConfig, *, logp_only: bool) -> PaddedTokenStats:
        with self._on_all_ranks("score", groups, config, {"logp_only": logp_only}):
            return super()._score(groups, config, logp_only=logp_only)

    def _reference(self, groups: Sequence[Group], config: RunConfig, *, initial: bool) -> Tensor:
        with self._on_all_ranks("reference", groups, config, {"initial": initial}):
            return super()._reference(groups, config, initial=initial)

    def _move_reference(self, alpha: float) -> None:
        self.ranks.broadcast(pack({"do": "move_reference", "alpha": alpha}))
        super()._move_reference(alpha)

    def _step(
        self,
        groups: Sequence[Group],
        advantages_B: NDArray[np.float64],
        config: RunConfig,
        step: int,
        reference_B_T: Tensor | None,
        excluded_B: NDArray[np.bool_] | None,
        sample_weights_B: NDArray[np.float64] | None,
    ) -> UpdateResult:
        given = {
            "advantages": advantages_B,
            "reference": None if reference_B_T is None else reference_B_T.cpu().numpy(),
            "excluded": excluded_B,
            "sample_weights": sample_weights_B,
        }
        with self._on_all_ranks("step", groups, config, {"step": step}, given):
            return super()._step(
                groups, advantages_B, config, step, reference_B_T, excluded_B, sample_weights_B
            )

    @contextmanager
    def _on_all_ranks(
        self,
        call: str,
        groups: Sequence[Group],
        config: RunConfig,
        fields: Mapping[str, Any],
        arrays: Mapping[str, NDArray[Any] | None] | None = None,
    ) -> Iterator[None]:
        """Broadcast a call, unless it is made inside another one: the other ranks make that inner call by themselves."""
        outermost, self._inside_call = not self._inside_call, True
        try:
            if outermost:
                packed_groups, sampled = pack_groups(groups)
                given = {name: value for name, value in (arrays or {}).items() if value is not None}
                header = {"do": call, "config": config.model_dump(mode="json"), **packed_groups, **fields}
                self.ranks.broadcast(pack(header, {**sampled, **given}))
            yield
        finally:
            self._inside_call = not outermost
