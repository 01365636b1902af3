"""The shared data types: prompt, rollout (one sampled completion), group, score, and the record of a step.

Every room imports this file; it imports nothing of ours and no torch. Shape suffixes (see CONTRIBUTING.md): `_B` samples,
`_T` completion tokens of one sample, `_B_T` both. Log-probabilities, KL and entropy are in nats per token.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

FinishReason = Literal["stop", "length"]
GroupKind = Literal["train", "eval"]
EvalMode = Literal["sampled", "greedy"]


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt. Tasks yield it unrendered; `models.chat.render` adds text, token ids and id."""

    question: str
    """The text that the chat template wraps, as a person reads it."""
    answer: str | None = None
    """The reference answer, given to rewards as `answer`; None where the data has none."""
    columns: Mapping[str, Any] = field(default_factory=dict)
    """All other columns of the data (for bundled tasks also `level`); rewards take them by name."""
    text: str = ""
    """The rendered prompt, special tokens included."""
    token_ids: tuple[int, ...] = ()
    id: str = ""
    """`prompt_id(text, answer)`: the same in every step and every run."""
    own_names: Mapping[str, Any] = field(default_factory=dict)
    """Question and reference answer by their columns' own names and as the data have them; rewards may ask for either."""


def prompt_id(text: str, answer: str | None) -> str:
    """16 hex digits that name a rendered prompt together with its reference answer, stable across steps and runs."""
    return hashlib.sha256(f"{text}\0{answer}".encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Sampling:
    """Sampling settings. `temperature` 0 means greedy."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    max_completion_length: int = 256


@dataclass(frozen=True, slots=True)
class Request:
    """A request for `len(seeds)` completions of one prompt. Each sample has a seed of its own, so that extending a group or resuming
    a run never changes the samples that were there before."""

    prompt: Prompt
    seeds: tuple[int, ...]


def sample_seed(run_seed: int, step: int, prompt_id: str, index: int) -> int:
    """The 63-bit seed of one sample, a pure function of its place in the run."""
    digest = hashlib.sha256(f"{run_seed}/{step}/{prompt_id}/{index}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


class Turn(NamedTuple):
    """A stretch of a completion that one party wrote: tokens `start` up to `stop`."""

    role: Literal["policy", "prefill", "user", "tool"]
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Rollout:
    """One sampled completion."""

    token_ids: NDArray[np.int32]
    """(T,) completion tokens, the end-of-sequence token included where the completion stopped by itself."""
    logprobs: NDArray[np.float32]
    """(T,) the sampler's log-probabilities under the actual sampling distribution (temperature, top-p/k, min-p)."""
    text: str
    """Decoded without special tokens. Untrusted."""
    finish_reason: FinishReason
    engine: str = ""
    weights_version: int = 0
    """Number of optimiser updates of the policy that sampled it."""
    seed: int = 0
    turns: tuple[Turn, ...] = ()
    """Who wrote which tokens; empty = the policy wrote all of them."""

    @property
    def length(self) -> int:
        """Completion tokens, the end-of-sequence token included."""
        return len(self.token_ids)

    @property
    def loss_mask_T(self) -> NDArray[np.bool_]:
        """(T,) True where a token is trained: those the policy wrote."""
        if not self.turns:
            return np.ones(self.length, bool)
        mask_T = np.zeros(self.length, bool)
        for turn in self.turns:
            mask_T[turn.start : turn.stop] |= turn.role == "policy"
        return mask_T


@dataclass(frozen=True, slots=True)
class Group:
    """All completions of one prompt in one step; sizes may differ from group to group."""

    prompt: Prompt
    rollouts: tuple[Rollout, ...]
    kind: GroupKind = "train"

    def __len__(self) -> int:
        return len(self.rollouts)


@dataclass(frozen=True, slots=True)
class Score:
    """The rewards of one completion: each reward's value, or None with the reason why there is none."""

    values: Mapping[str, float | None]
    """Raw value of each reward, before its weight."""
    reasons: Mapping[str, str] = field(default_factory=dict)
    """For each None: what happened, with the line of the user's code where it raised."""
    reward: float | None = None
    """Weighted sum of the values that are there; None where every one is absent. An absent reward is not zero."""
    logs: Mapping[str, Any] = field(default_factory=dict)
    """Extra columns that a reward recorded (TRL's `log_extra`)."""


@dataclass(slots=True)
class TokenArrays:
    """Per-token arrays of one step, one entry a sample, each (T,) float32. None = not computed in this run or step."""

    token_ids: list[NDArray[np.int32]]
    sampler_logp: list[NDArray[np.float32]]
    """By the sampler, under the sampling distribution."""
    policy_logp: list[NDArray[np.float32]] | None = None
    """The trainer's forward before the first update of the step, at the sampling temperature."""
    reference_logp: list[NDArray[np.float32]] | None = None
    initial_logp: list[NDArray[np.float32]] | None = None
    """Under the initial model, where the reference has moved away from it; not kept on disk."""
    after_logp: list[NDArray[np.float32]] | None = None
    """The same tokens under the updated policy (`probe_every`)."""
    entropy: list[NDArray[np.float32]] | None = None
    """Full-vocabulary entropy at the sampling temperature, nats."""
    weight: list[NDArray[np.float32]] | None = None
    """d(loss)/d(log-prob) of the first update (algorithm/token_grads.py)."""


@dataclass(slots=True)
class StepRecord:
    """Everything that is recorded of one step. Samples are flat: group after group, `group_ids_B` implied by `groups`."""

    step: int
    kind: GroupKind
    groups: list[Group] = field(default_factory=list)
    scores_B: list[Score] = field(default_factory=list)
    advantages_B: NDArray[np.float64] | None = None
    """None for evaluations."""
    tokens: TokenArrays | None = None
    gradient_share_B: NDArray[np.float64] | None = None
    """Each sample's share of the step's gradient, sums to 1 (or to 0 in a step without signal)."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Glossary names. Non-finite values are dropped by the writer and counted."""
    phases: dict[str, float] = field(default_factory=dict)
    """Seconds in each phase: sample, score, update, record, evaluate."""
    mode: EvalMode | None = None
    """For evaluations: sampled or greedy."""
    accuracy_reward: str = ""
    """Name of the reward that decides right or wrong; '' leaves it to the settings."""
    stage: str = "grpo"
    """What trains in this step. Stages other than GRPO (sft) have metrics but no groups, scores and advantages."""
    styles_B: list[str] | None = None
    """Style of each completion, one word (direct, full, check, ...); see diagnose/style.py."""

    def rollouts(self) -> Iterator[Rollout]:
        """All completions in sample order."""
        for group in self.groups:
            yield from group.rollouts


def group_ids(groups: Sequence[Group]) -> NDArray[np.int64]:
    """(B,) index of the group that each sample belongs to; groups are contiguous and may differ in size."""
    return np.repeat(np.arange(len(groups)), [len(group) for group in groups])
