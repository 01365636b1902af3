"""Stage 6: groups and their advantages in, updated weights and what the update saw out.

One generation gets `num_iterations` passes of `steps_per_generation` optimiser updates. Micro-batches only bound memory: the
normaliser is made once for a whole update, so they sum to the objective exactly.
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from workbench.algorithm import token_grads as algorithm
from workbench.algorithm import update_stats
from workbench.core.config import RunConfig
from workbench.core.types import Group, Sampling, TokenArrays, group_ids
from workbench.models import score as scoring
from workbench.models.load import Policy
from workbench.models.logprobs import Scored, Sequences, unflatten
from workbench.models.reference import move
from workbench.train import microbatch
from workbench.train.oom import Pieces
from workbench.train.optimizers import optimizer
from workbench.train.ranks import Team

CPU_TOKENS, TOKENS = 1024, 8192
"""Tokens of a micro-batch where nothing is set: on a CPU larger ones only cost memory."""
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
    """Owns the optimiser; the only thing that changes weights."""

    def __init__(self, policy: Policy, config: RunConfig, team: Team | None = None) -> None:
        self.policy = policy
        self.team = team or Team()
        self.optimizer = optimizer(policy.trainable(), config, policy.device)
        self.skips_in_a_row = 0
        self.pieces = Pieces("the update")
        self.most_tokens = config.micro_batch_tokens or (
            CPU_TOKENS if policy.device.type == "cpu" else TOKENS
        )

    def score(self, groups: Sequence[Group], config: RunConfig, *, logp_only: bool = False) -> Scored:
        """The answers as the policy sees them now."""
        with self._precision(config):
            return self._scored(self.policy.model, groups, config, logp_only)

    def reference(self, groups: Sequence[Group], config: RunConfig, *, initial: bool = False) -> Tensor:
        """(B, T) log-probabilities of the answers under the frozen reference, or under the model as it was at the start."""
        with self.policy.as_reference(initial=initial) as model:
            return self._scored(model, groups, config, logp_only=True).logp_B_T

    def _precision(self, config: RunConfig) -> AbstractContextManager[Any]:
        """In what the policy's layers compute when the trainer reads it."""
        if config.update_dtype == "same":
            return nullcontext()
        return torch.autocast(self.policy.device.type, dtype=torch.bfloat16)

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

    def move_reference(self, alpha: float) -> None:
        """reference = alpha x policy + (1 - alpha) x reference."""
        move(self.policy, alpha)

    def _scored(self, model: Any, groups: Sequence[Group], config: RunConfig, logp_only: bool) -> Scored:
        """All answers under one network, each rank reading its share of the groups."""
        sequences = _sequences(groups)

        def read(part: Sequences) -> Scored:
            return self.pieces.fit(
                lambda count: scoring.score(
                    model,
                    part,
                    sampling_of(config),
                    self.policy.pad_id,
                    self.most_tokens // count,
                    logp_only=logp_only,
                ),
                most=self.most_tokens // max(1, int(part.lengths().max())),
            )

        if self.team.size == 1:
            return read(sequences)
        found = Scored.empty(sequences.valid(self.policy.device))
        own = np.flatnonzero(np.isin(group_ids(groups), self.team.own(len(groups))))
        if len(own):
            for table_B_T, part_B_T in zip(found, read(sequences.take(own)), strict=True):
                table_B_T[own, : part_B_T.shape[1]] = part_B_T
        self.team.add_up(*found)
        return found

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

        `reference_B_T`: what `self.reference` gave, needed where beta > 0. `excluded_B`: samples without loss (masked because
        truncated). `sample_weights_B`: see `advantages.prompt_weights`. An update in which something is not finite is left out;
        after three of them in a row nothing more is tried (`broken`).
        """
        parts = [
            part
            for _ in range(config.num_iterations)
            for part in np.array_split(np.arange(len(groups)), config.steps_per_generation)
        ]
        # An update of the whole generation reads every answer on policy: its own forward gives the old log-probabilities. Where
        # the first updates see only parts, a pass before them does: the trainer's forward, not the sampler's record, whose
        # kernels and precision differ.
        before = self.score(groups, config) if config.steps_per_generation > 1 else None
        generation = self._generation(
            groups, advantages_B, before, reference_B_T, excluded_B, sample_weights_B
        )
        seen = before or Scored.empty(generation.valid_B_T)
        weight_B_T = torch.zeros_like(generation.mask_B_T)
        logs: list[dict[str, float]] = []
        skipped: list[str] = []
        for number, part_P in enumerate(parts):
            own_P = part_P[self.team.own(len(part_P))]
            rows = np.flatnonzero(np.isin(generation.group_ids_B, own_P))
            first_pass = number < config.steps_per_generation
            accumulate = partial(
                self._accumulate,
                generation,
                self._planned(generation, rows, config),
                config,
                seen if generation.old_B_T is None else None,
                weight_B_T if first_pass else None,
            )
            # What ranks do together stays outside: one of them may have to try its share again.
            log = self._gathered(self.pieces.fit(accumulate, most=max(1, len(rows))), config, step)
            logs.append(log)
            if generation.old_B_T is None and len(parts) > 1:
                generation = generation._replace(old_B_T=seen.logp_B_T)
            problem = next(
                (f"{name} is {value}" for name, value in log.items() if not math.isfinite(value)), None
            )
            if problem is None:
                self.optimizer.step()
                self.policy.version += 1
                self.skips_in_a_row = 0
            else:
                skipped.append(f"update {number + 1} of step {step}: {problem}")
                self.skips_in_a_row += 1
                if self.broken:
                    break
        self.optimizer.zero_grad(set_to_none=True)
        self.team.add_up(weight_B_T, *(seen if before is None else ()))  # each rank wrote its own rows
        share_B = update_stats.gradient_share(weight_B_T, seen.logp_B_T, generation.mask_B_T, seen.square_B_T)
        return UpdateResult(
            _mean(logs),
            _arrays(generation, seen, weight_B_T),
            share_B.cpu().numpy().astype(np.float64),
            skipped,
        )

    @property
    def broken(self) -> bool:
        """Whether too many updates in a row were not finite to go on."""
        return self.skips_in_a_row >= MAX_SKIPS

    def look_back(self, tokens: TokenArrays, groups: Sequence[Group], config: RunConfig, step: int) -> None:
        """Fill in what only the record needs: the answers under the policy as it is now (every `probe_every` steps), and under the
        reference where no penalty needed it. Reads weights only, so it may run beside the next step's sampling, in another thread.
        """
        lengths = [len(ids) for ids in tokens.token_ids]
        if config.probe_every and step % config.probe_every == 0:
            tokens.after_logp = _cut(self.score(groups, config, logp_only=True).logp_B_T, lengths)
        if tokens.reference_logp is None and config.needs_reference:
            tokens.reference_logp = _cut(self.reference(groups, config), lengths)
        if config.records_initial_kl:
            tokens.initial_logp = _cut(self.reference(groups, config, initial=True), lengths)

    def _generation(
        self,
        groups: Sequence[Group],
        advantages_B: NDArray[np.float64],
        before: Scored | None,
        reference_B_T: Tensor | None,
        excluded_B: NDArray[np.bool_] | None,
        sample_weights_B: NDArray[np.float64] | None,
    ) -> Generation:
        device = self.policy.device
        sequences = _sequences(groups)
        valid_B_T = sequences.valid(device)
        count = len(sequences.completions)
        mask_B_T = valid_B_T.float()
        if excluded_B is not None:
            mask_B_T[torch.from_numpy(excluded_B).to(device)] = 0.0
        sampled_N = torch.from_numpy(np.concatenate([r.logprobs for g in groups for r in g.rollouts])).to(
            device
        )
        weights_B = np.ones(count) if sample_weights_B is None else sample_weights_B
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

    def _planned(self, generation: Generation, rows: NDArray[np.int64], config: RunConfig) -> "_Share":
        """Micro-batches of this rank's samples `rows`, and what the sums over all ranks are divided by."""
        objective = algorithm.Objective.of(config)
        plan = _plan(self.policy.model, generation, rows, objective, self.most_tokens)
        micro_B = np.zeros(len(generation.group_ids_B), dtype=np.int64)
        for number, (index, _) in enumerate(plan):
            micro_B[index] = number
        everything = np.concatenate([rows[:0], *(index for index, _ in plan)])
        normalizer = algorithm.normalizer(
            generation.mask_B_T[everything].sum(1),
            torch.from_numpy(generation.group_ids_B[everything]).to(self.policy.device),
            micro_batch_ids_B=torch.from_numpy(micro_B[everything]).to(self.policy.device),
            sample_weights_B=generation.sample_weights_B[everything],
        )
        return _Share(plan, normalizer.with_totals(*self.team.total(normalizer.totals)))

    def _gathered(self, tally: "_Tally", config: RunConfig, step: int) -> dict[str, float]:
        """The gradient of all ranks, clipped; the caller takes the step."""
        self.team.add_up_gradients(self.policy.trainable())
        tally.add_up(self.team)
        for group in self.optimizer.param_groups:
            group["lr"] = scheduled(config, step)
        norm = torch.nn.utils.clip_grad_norm_(self.policy.trainable(), config.max_grad_norm)
        return {"grad_norm": float(norm), "learning_rate": scheduled(config, step), **tally.metrics()}

    def _accumulate(
        self,
        generation: Generation,
        share: "_Share",
        config: RunConfig,
        seen: Scored | None,
        weight_B_T: Tensor | None,
        pieces: int = 1,
    ) -> "_Tally":
        """Gradient of this rank's share of one optimiser update.

        Writes what the forward saw into `seen` and each token's weight into `weight_B_T`, where given.
        """
        self.optimizer.zero_grad(set_to_none=True)
        objective, sampling = algorithm.Objective.of(config), sampling_of(config)
        tally = _Tally()
        start = 0
        # Checkpointing only works in training mode; dropout is off either way, so nothing else changes.
        self.policy.model.train(config.gradient_checkpointing)
        for index, has_signal in _cut_up(share.micro_batches, pieces):
            old_B_T, reference_B_T = (
                None if table is None else table[index]
                for table in (generation.old_B_T, generation.reference_B_T)
            )
            asked = microbatch.Asked(
                generation.valid_B_T[index],
                generation.mask_B_T[index],
                generation.advantages_B[index],
                generation.sampler_B_T[index],
                old_B_T,
                reference_B_T,
                objective,
                share.normalizer.rows(slice(start, start + len(index))),
            )
            done = microbatch.run(
                self.policy.model,
                generation.sequences,
                index,
                asked,
                sampling,
                self.policy.pad_id,
                has_signal=has_signal,
                precision=self._precision(config),
            )
            if seen is not None:
                seen.put(index, generation.valid_B_T, done.stats)
            if weight_B_T is not None:
                weight_B_T[index] = done.weights.weight_B_T
            tally.add(done.weights, asked.mask_B_T, done.loss, objective)
            start += len(index)
        self.policy.model.eval()
        return tally


def _cut_up(plan: list[tuple[NDArray[np.int64], bool]], pieces: int) -> list[tuple[NDArray[np.int64], bool]]:
    """Each micro-batch in so many pieces, or in single samples; the normaliser keeps counting the micro-batches of the plan."""
    return [
        (piece, has_signal)
        for index, has_signal in plan
        for piece in np.array_split(index, min(pieces, len(index)))
    ]


def sampling_of(config: RunConfig) -> Sampling:
    """How this run draws its training answers."""
    return Sampling(
        temperature=config.temperature,
        top_p=config.top_p,
        top_k=config.top_k,
        min_p=config.min_p,
        max_completion_length=config.max_completion_length,
    )


def scheduled(config: RunConfig, step: int) -> float:
    """Learning rate of a step: linear warm-up, then constant, linear to 0, or half a cosine to 0."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    done = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    factor = {"constant": 1.0, "linear": 1.0 - done, "cosine": 0.5 * (1.0 + math.cos(math.pi * done))}[
        config.lr_scheduler_type
    ]
    return config.learning_rate * max(0.0, factor)


class _Share(NamedTuple):
    """One rank's part of an update."""

    micro_batches: list[tuple[NDArray[np.int64], bool]]
    normalizer: algorithm.Normalizer
    """Of its samples, with the totals of all ranks."""


class _Tally:
    """Sums over the micro-batches of one update."""

    def __init__(self) -> None:
        self.loss = 0.0
        self.clip_low = self.clip_high = self.clip_count = 0.0
        self.ratio_low, self.ratio_high = math.inf, -math.inf

    def add(
        self, result: algorithm.TokenWeights, mask_B_T: Tensor, loss: float, objective: algorithm.Objective
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

    def add_up(self, team: Team) -> None:
        """From this rank's sums to those of all."""
        names = ("loss", "clip_low", "clip_high", "clip_count")
        for name, total in zip(names, team.total([getattr(self, name) for name in names]), strict=True):
            setattr(self, name, total)
        low, self.ratio_high = team.largest([-self.ratio_low, self.ratio_high])
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
    objective: algorithm.Objective,
    max_tokens: int,
) -> list[tuple[NDArray[np.int64], bool]]:
    """Micro-batches of one update: sample indices, and whether they ask for anything.

    Groups without signal are read without gradient: their entropy belongs in the record, a backward pass would add zeros.
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
        for index in scoring.parts(
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


def _arrays(generation: Generation, seen: Scored, weight_B_T: Tensor) -> TokenArrays:
    lengths = [len(c) for c in generation.sequences.completions]
    reference = None if generation.reference_B_T is None else _cut(generation.reference_B_T, lengths)
    return TokenArrays(
        token_ids=generation.sequences.completions,
        sampler_logp=_cut(generation.sampler_B_T, lengths),
        policy_logp=_cut(seen.logp_B_T, lengths),
        reference_logp=reference,
        entropy=_cut(seen.entropy_B_T, lengths),
        weight=_cut(weight_B_T, lengths),
    )


def _cut(table_B_T: Tensor, lengths: Sequence[int]) -> list[NDArray[np.float32]]:
    table = table_B_T.cpu().numpy()
    return [table[b, :length].copy() for b, length in enumerate(lengths)]
