"""Stage 6: groups and their advantages in, updated weights and what the update saw out.

One generation gets `num_iterations` passes of `steps_per_generation` optimiser updates. Microbatches only bound memory: the
normaliser is made once for a whole update, so gradient accumulation over them gives the objective exactly.
"""

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from workbench.algorithm import token_grads, update_stats
from workbench.core.config import RunConfig
from workbench.core.types import Group, Sampling, TokenArrays, group_ids
from workbench.models import per_token_logps, randomness
from workbench.models.logprobs import PaddedTokenStats, Sequences, unflatten
from workbench.models.policy import Policy
from workbench.models.reference import sync_reference
from workbench.train import heap, microbatch, weight_change
from workbench.train.oom import OomRetry
from workbench.train.optimizers import optimizer, scheduled
from workbench.train.process_group import ProcessGroup

CPU_TOKENS, TOKENS = 1024, 8192
"""Tokens of a microbatch where nothing is set: on a CPU larger ones only cost memory."""
MAX_SKIPS = 3
"""Updates in a row that may be skipped because something was not finite."""


class UpdateResult(NamedTuple):
    """What one step of updates leaves behind."""

    metrics: dict[str, float]
    """Means over the step's updates; shares of tokens are weighted by tokens."""
    tokens: TokenArrays
    gradient_share_B: NDArray[np.float64]
    skipped: list[str]
    """Why updates were left out: what was not finite."""


class Generation(NamedTuple):
    """All samples of one step, padded to (B, T) on the policy's device; the updates take rows of it."""

    sequences: Sequences
    group_ids_B: NDArray[np.int64]
    valid_B_T: Tensor
    """Where a token is."""
    mask_B_T: Tensor
    """Where a token counts in the loss: float, 0 for samples left out of it."""
    advantages_B: Tensor
    sample_weights_B: Tensor
    sampler_B_T: Tensor
    old_B_T: Tensor | None
    """The trainer's log-probabilities before the first update; None while an update is itself that: it reads everything on policy."""
    reference_B_T: Tensor | None


class Updater:
    """Owns the optimiser; the only thing that changes weights.

    Another thread may read weights meanwhile (`reading_in_background`): every public method waits for it first.
    """

    def __init__(self, policy: Policy, config: RunConfig, ranks: ProcessGroup | None = None) -> None:
        self.policy = policy
        self.ranks = ranks or ProcessGroup()
        self.optimizer = optimizer(policy.trainable(), config, policy.device)
        self.skips_in_a_row = 0
        self.retry = OomRetry("the update")
        self.reading_in_background: Future[None] | None = None
        self.microbatch_tokens = config.micro_batch_tokens or (
            CPU_TOKENS if policy.device.type == "cpu" else TOKENS
        )

    @property
    def broken(self) -> bool:
        """Whether too many updates in a row were not finite to go on."""
        return self.skips_in_a_row >= MAX_SKIPS

    def notices(self) -> list[str]:
        """What had to be done to fit into memory since the last call, one sentence each."""
        return self.retry.notices()

    # -- the optimiser's state ---------------------------------------------------------------------------------

    def moments(self) -> dict[str, Tensor]:
        """The optimiser's tensors, keyed by parameter number and name; empty before the first update."""
        state = self.optimizer.state_dict()["state"]
        return {
            f"{index}.{name}": value.detach().cpu().contiguous()
            for index, moments in state.items()
            for name, value in moments.items()
        }

    def set_moments(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what `moments` gave."""
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            index, _, name = key.partition(".")
            state.setdefault(int(index), {})[name] = value
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})

    # -- what the loop calls -----------------------------------------------------------------------------------

    def score(
        self, groups: Sequence[Group], config: RunConfig, *, logp_only: bool = False
    ) -> PaddedTokenStats:
        """(B, T) log-probabilities (and entropies) of the completions under the policy as it is now."""
        self._settle()
        return self._score(groups, config, logp_only=logp_only)

    def reference(self, groups: Sequence[Group], config: RunConfig, *, initial: bool = False) -> Tensor:
        """(B, T) log-probabilities of the completions under the reference, or under the model as it was at the start."""
        self._settle()
        return self._reference(groups, config, initial=initial)

    def move_reference(self, alpha: float) -> None:
        """reference = alpha x policy + (1 - alpha) x reference."""
        self._settle()
        self._move_reference(alpha)

    def step(
        self,
        groups: Sequence[Group],
        advantages_B: NDArray[np.float64],
        config: RunConfig,
        step: int,
        *,
        reference_B_T: Tensor | None = None,
        excluded_B: NDArray[np.bool_] | None = None,
        sample_weights_B: NDArray[np.float64] | None = None,
    ) -> UpdateResult:
        """Make all updates of one generation.

        `reference_B_T`: what `reference` gave, needed where beta > 0. `excluded_B`: samples without loss (masked because
        truncated). `sample_weights_B`: see `advantages.prompt_weights`. An update in which something is not finite is left out;
        after three of them in a row nothing more is tried (`broken`).
        """
        self._settle()
        result = self._step(groups, advantages_B, config, step, reference_B_T, excluded_B, sample_weights_B)
        heap.trim()
        return result

    def post_update_pass(
        self, tokens: TokenArrays, groups: Sequence[Group], config: RunConfig, step: int
    ) -> None:
        """Fill in log-probabilities that only the record needs: under the updated policy (every `probe_every` steps), and under the
        reference where no penalty needed it.

        Reads weights only, so it may run in another thread while the next step is being sampled.
        """
        lengths = [len(ids) for ids in tokens.token_ids]
        if config.probe_every and step % config.probe_every == 0:
            tokens.after_logp = _rows(self._score(groups, config, logp_only=True).logp_B_T, lengths)
        if tokens.reference_logp is None and config.needs_reference:
            tokens.reference_logp = _rows(self._reference(groups, config, initial=False), lengths)
        if config.records_initial_kl:
            tokens.initial_logp = _rows(self._reference(groups, config, initial=True), lengths)

    def _settle(self) -> None:
        """Wait until no other thread reads the weights, and return the memory freed so far; raises what went wrong in that thread."""
        if self.reading_in_background is not None:
            self.reading_in_background.result()
        heap.trim()

    # -- forward passes ----------------------------------------------------------------------------------------

    def _score(self, groups: Sequence[Group], config: RunConfig, *, logp_only: bool) -> PaddedTokenStats:
        with self._precision(config):
            return self._forward(self.policy.model, groups, config, logp_only)

    def _reference(self, groups: Sequence[Group], config: RunConfig, *, initial: bool) -> Tensor:
        with self.policy.reference_model(initial=initial) as model:
            return self._forward(model, groups, config, logp_only=True).logp_B_T

    def _move_reference(self, alpha: float) -> None:
        sync_reference(self.policy, alpha)

    def _precision(self, config: RunConfig) -> AbstractContextManager[Any]:
        """What the policy's layers compute in when the trainer reads it."""
        if config.update_dtype == "same":
            return nullcontext()
        return torch.autocast(self.policy.device.type, dtype=torch.bfloat16)

    def _forward(
        self, model: Any, groups: Sequence[Group], config: RunConfig, logp_only: bool
    ) -> PaddedTokenStats:
        """All completions under one network, each rank reading its shard of the groups."""
        sequences = _sequences(groups)

        def read(part: Sequences) -> PaddedTokenStats:
            return self.retry.run(
                lambda chunks: per_token_logps.completion_stats(
                    model,
                    part,
                    sampling_of(config),
                    self.policy.pad_id,
                    self.microbatch_tokens // chunks,
                    logp_only=logp_only,
                ),
                most=self.microbatch_tokens // max(1, int(part.lengths().max())),
            )

        if self.ranks.size == 1:
            return read(sequences)
        found = PaddedTokenStats.empty(sequences.valid(self.policy.device))
        own = np.flatnonzero(np.isin(group_ids(groups), self.ranks.shard(len(groups))))
        if len(own):
            for table_B_T, part_B_T in zip(found, read(sequences.take(own)), strict=True):
                table_B_T[own, : part_B_T.shape[1]] = part_B_T
        self.ranks.all_reduce(*found)
        return found

    # -- updates -----------------------------------------------------------------------------------------------

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
        # An update of the whole generation reads every completion on policy: its own forward gives the old log-probabilities. Where
        # the first updates see only parts, a pass before them does: the trainer's forward, not the sampler's record, whose
        # kernels and precision differ.
        before = self._score(groups, config, logp_only=False) if config.steps_per_generation > 1 else None
        generation = self._generation(
            groups, advantages_B, before, reference_B_T, excluded_B, sample_weights_B
        )
        seen = before or PaddedTokenStats.empty(generation.valid_B_T)
        grads_B_T = torch.zeros_like(generation.mask_B_T)
        updates = [
            part_P
            for _ in range(config.num_iterations)
            for part_P in np.array_split(np.arange(len(groups)), config.steps_per_generation)
        ]
        logs: list[dict[str, float]] = []
        skipped: list[str] = []
        for number, part_P in enumerate(updates):
            own_P = part_P[self.ranks.shard(len(part_P))]
            rows = np.flatnonzero(np.isin(generation.group_ids_B, own_P))
            accumulate = partial(
                self._accumulate,
                generation,
                self._microbatches(generation, rows, config),
                config,
                seen if generation.old_B_T is None else None,
                grads_B_T if number < config.steps_per_generation else None,
            )
            # What ranks do together stays outside: one of them may have to try its shard again.
            sums = self.retry.run(accumulate, most=max(1, len(rows)))
            log = self._reduced_and_clipped(sums, config, step)
            logs.append(log)
            if generation.old_B_T is None and len(updates) > 1:
                generation = generation._replace(old_B_T=seen.logp_B_T)
            problem = next(
                (f"{name} is {value}" for name, value in log.items() if not math.isfinite(value)), None
            )
            if problem is None:
                before_step = weight_change.weight_samples(self.policy.trainable())
                self.optimizer.step()
                if before_step:
                    log["update/weights_changed"] = weight_change.changed_share(
                        before_step, self.policy.trainable()
                    )
                self.policy.version += 1
                self.skips_in_a_row = 0
            else:
                skipped.append(f"update {number + 1} of step {step}: {problem}")
                self.skips_in_a_row += 1
                if self.broken:
                    break
        self.optimizer.zero_grad(set_to_none=True)
        self.ranks.all_reduce(grads_B_T, *(seen if before is None else ()))  # each rank wrote its own rows
        share_B = update_stats.gradient_share(
            grads_B_T, seen.logp_B_T, generation.mask_B_T, seen.sum_p_squared_B_T
        )
        return UpdateResult(
            _mean(logs),
            _token_arrays(generation, seen, grads_B_T),
            share_B.cpu().numpy().astype(np.float64),
            skipped,
        )

    def _generation(
        self,
        groups: Sequence[Group],
        advantages_B: NDArray[np.float64],
        before: PaddedTokenStats | None,
        reference_B_T: Tensor | None,
        excluded_B: NDArray[np.bool_] | None,
        sample_weights_B: NDArray[np.float64] | None,
    ) -> Generation:
        device = self.policy.device
        sequences = _sequences(groups)
        rollouts = [rollout for group in groups for rollout in group.rollouts]
        valid_B_T = sequences.valid(device)
        mask_B_T = valid_B_T.float()
        for row, rollout in enumerate(rollouts):
            if rollout.turns:
                mask_B_T[row, : rollout.length] *= torch.from_numpy(rollout.loss_mask_T).to(device)
        if excluded_B is not None:
            mask_B_T[torch.from_numpy(excluded_B).to(device)] = 0.0
        sampled_N = torch.from_numpy(np.concatenate([rollout.logprobs for rollout in rollouts])).to(device)
        weights_B = np.ones(len(rollouts)) if sample_weights_B is None else sample_weights_B
        return Generation(
            sequences=sequences,
            group_ids_B=group_ids(groups),
            valid_B_T=valid_B_T,
            mask_B_T=mask_B_T,
            advantages_B=torch.from_numpy(advantages_B).to(device, torch.float32),
            sample_weights_B=torch.from_numpy(weights_B).to(device, torch.float32),
            sampler_B_T=unflatten(sampled_N, valid_B_T),
            old_B_T=None if before is None else before.logp_B_T,
            reference_B_T=reference_B_T,
        )

    def _microbatches(
        self, generation: Generation, rows: NDArray[np.int64], config: RunConfig
    ) -> "_Microbatches":
        """This rank's samples `rows` as microbatches, and what the sums over all ranks are divided by."""
        objective = token_grads.Objective.of(config)
        plan = _plan(self.policy.model, generation, rows, objective, self.microbatch_tokens)
        microbatch_B = np.zeros(len(generation.group_ids_B), dtype=np.int64)
        for number, (index, _) in enumerate(plan):
            microbatch_B[index] = number
        everything = np.concatenate([rows[:0], *(index for index, _ in plan)])
        normalizer = token_grads.normalizer(
            generation.mask_B_T[everything].sum(1),
            torch.from_numpy(generation.group_ids_B[everything]).to(self.policy.device),
            micro_batch_ids_B=torch.from_numpy(microbatch_B[everything]).to(self.policy.device),
            sample_weights_B=generation.sample_weights_B[everything],
        )
        return _Microbatches(plan, normalizer.with_totals(*self.ranks.sum(normalizer.totals)))

    def _accumulate(
        self,
        generation: Generation,
        microbatches: "_Microbatches",
        config: RunConfig,
        seen: PaddedTokenStats | None,
        grads_B_T: Tensor | None,
        chunks: int = 1,
    ) -> "_UpdateSums":
        """Accumulate the gradient of this rank's shard of one optimiser update.

        Writes what the forward saw into `seen` and each token's d(loss)/d(log-prob) into `grads_B_T`, where given.
        """
        self.optimizer.zero_grad(set_to_none=True)
        objective, sampling = token_grads.Objective.of(config), sampling_of(config)
        sums = _UpdateSums()
        start = 0
        randomness.set_training(self.policy.model, config.gradient_checkpointing)
        for index, has_signal in _split(microbatches.plan, chunks):
            old_B_T, reference_B_T = (
                None if table is None else table[index]
                for table in (generation.old_B_T, generation.reference_B_T)
            )
            inputs = microbatch.LossInputs(
                generation.valid_B_T[index],
                generation.mask_B_T[index],
                generation.advantages_B[index],
                generation.sampler_B_T[index],
                old_B_T,
                reference_B_T,
                objective,
                microbatches.normalizer.rows(slice(start, start + len(index))),
            )
            result = microbatch.run(
                self.policy.model,
                generation.sequences,
                index,
                inputs,
                sampling,
                self.policy.pad_id,
                has_signal=has_signal,
                precision=self._precision(config),
            )
            if seen is not None:
                seen.write(index, generation.valid_B_T, result.stats)
            if grads_B_T is not None:
                grads_B_T[index] = result.grads.grad_B_T
            sums.add(result.grads, inputs.mask_B_T, result.loss, objective)
            start += len(index)
        self.policy.model.eval()
        return sums

    def _reduced_and_clipped(self, sums: "_UpdateSums", config: RunConfig, step: int) -> dict[str, float]:
        """Metrics of one update; leaves the gradient of all ranks, clipped, and the learning rate in place for the optimiser."""
        self.ranks.all_reduce_gradients(self.policy.trainable())
        sums.all_reduce(self.ranks)
        for parameters in self.optimizer.param_groups:
            parameters["lr"] = scheduled(config, step)
        norm = torch.nn.utils.clip_grad_norm_(self.policy.trainable(), config.max_grad_norm)
        return {"grad_norm": float(norm), "learning_rate": scheduled(config, step), **sums.metrics()}


def _split(plan: list[tuple[NDArray[np.int64], bool]], chunks: int) -> list[tuple[NDArray[np.int64], bool]]:
    """Each microbatch in so many chunks, or in single samples; the normaliser keeps counting the microbatches of the plan."""
    return [
        (chunk, has_signal)
        for index, has_signal in plan
        for chunk in np.array_split(index, min(chunks, len(index)))
    ]


def sampling_of(config: RunConfig) -> Sampling:
    """How this run samples its training completions."""
    return Sampling(
        temperature=config.temperature,
        top_p=config.top_p,
        top_k=config.top_k,
        min_p=config.min_p,
        max_completion_length=config.max_completion_length,
    )


class _Microbatches(NamedTuple):
    """One rank's shard of an update."""

    plan: list[tuple[NDArray[np.int64], bool]]
    """Sample indices of each microbatch, and whether it needs a backward pass."""
    normalizer: token_grads.Normalizer
    """Of its samples, with the totals of all ranks."""


class _UpdateSums:
    """Sums over the microbatches of one update, for its metrics."""

    def __init__(self) -> None:
        self.loss = 0.0
        self.clip_low = self.clip_high = self.clip_count = 0.0
        self.ratio_low, self.ratio_high = math.inf, -math.inf

    def add(
        self, result: token_grads.TokenGrads, mask_B_T: Tensor, loss: float, objective: token_grads.Objective
    ) -> None:
        self.loss += loss
        clipped = update_stats.clip_fractions(
            result.clipped_low_B_T, result.clipped_high_B_T, mask_B_T, objective.importance_sampling_level
        )
        self.clip_low += clipped.low * clipped.total
        self.clip_high += clipped.high * clipped.total
        self.clip_count += clipped.total
        if mask_B_T.any():
            ratio_N = result.ratio_B_T[mask_B_T > 0]
            self.ratio_low = min(self.ratio_low, float(ratio_N.min()))
            self.ratio_high = max(self.ratio_high, float(ratio_N.max()))

    def all_reduce(self, ranks: ProcessGroup) -> None:
        """From this rank's sums to those of all ranks."""
        names = ("loss", "clip_low", "clip_high", "clip_count")
        for name, total in zip(names, ranks.sum([getattr(self, name) for name in names]), strict=True):
            setattr(self, name, total)
        low, self.ratio_high = ranks.max([-self.ratio_low, self.ratio_high])
        self.ratio_low = -low

    def metrics(self) -> dict[str, float]:
        count = max(1.0, self.clip_count)
        found = {
            "loss": self.loss,
            "clip_ratio/low_mean": self.clip_low / count,
            "clip_ratio/high_mean": self.clip_high / count,
            "clip_ratio/region_mean": (self.clip_low + self.clip_high) / count,
        }
        if math.isfinite(self.ratio_high):
            found |= {"ratio/min": self.ratio_low, "ratio/max": self.ratio_high}
        return found


def _plan(
    model: Any,
    generation: Generation,
    rows: NDArray[np.int64],
    objective: token_grads.Objective,
    max_tokens: int,
) -> list[tuple[NDArray[np.int64], bool]]:
    """Microbatches of one update: sample indices, and whether they need a backward pass.

    Groups without signal get a forward pass only: their entropy belongs in the record, a backward pass would add zeros.
    """
    signal_B = (generation.advantages_B != 0).cpu().numpy()
    if objective.kl_weight or objective.entropy_coef:
        signal_B[:] = True
    signal_B &= (generation.mask_B_T.sum(1) > 0).cpu().numpy()
    # By group: a group that is read twice pays for its prompt twice.
    signal_B = np.isin(generation.group_ids_B, generation.group_ids_B[signal_B])
    return [
        (index, has_signal)
        for has_signal in (True, False)
        for index in per_token_logps.microbatches(
            model, generation.sequences, rows[signal_B[rows] == has_signal], max_tokens
        )
    ]


def _sequences(groups: Sequence[Group]) -> Sequences:
    return Sequences(
        [g.prompt.token_ids for g in groups for _ in g.rollouts],
        [r.token_ids for g in groups for r in g.rollouts],
    )


def _mean(logs: list[dict[str, float]]) -> dict[str, float]:
    return {
        name: float(np.mean([log[name] for log in logs if name in log]))
        for name in dict.fromkeys(n for log in logs for n in log)
    }


def _token_arrays(generation: Generation, seen: PaddedTokenStats, grads_B_T: Tensor) -> TokenArrays:
    lengths = [len(c) for c in generation.sequences.completions]
    reference = None if generation.reference_B_T is None else _rows(generation.reference_B_T, lengths)
    return TokenArrays(
        token_ids=generation.sequences.completions,
        sampler_logp=_rows(generation.sampler_B_T, lengths),
        policy_logp=_rows(seen.logp_B_T, lengths),
        reference_logp=reference,
        entropy=_rows(seen.entropy_B_T, lengths),
        weight=_rows(grads_B_T, lengths),
    )


def _rows(table_B_T: Tensor, lengths: Sequence[int]) -> list[NDArray[np.float32]]:
    table = table_B_T.cpu().numpy()
    return [table[b, :length].copy() for b, length in enumerate(lengths)]
