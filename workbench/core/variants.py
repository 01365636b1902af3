"""Every named choice of the algorithm, once: losses, KL estimators, how advantages are scaled, how a sampler mismatch is corrected.

Settings take their choices from here, `algorithm/` its functions by the names in the rows, and forms, sentences and the what-if drawer
their words and formulas. A new loss is a row of LOSSES; a new function only where no row has its surrogate or normaliser yet.
"""

from typing import Any, Literal, NamedTuple

# -- losses ------------------------------------------------------------------------------------------------

LossType = Literal["grpo", "bnpo", "dapo", "dapo_group", "dr_grpo", "cispo", "sapo", "luspo"]
Surrogate = Literal["clipped", "soft_gate", "capped_weight"]
Normalization = Literal[
    "sequence_mean", "sequence_sum", "constant_length", "all_tokens", "group_tokens", "microbatch_tokens"
]


class Loss(NamedTuple):
    """One loss: what each token's term is, and what the sum of terms is divided by."""

    surrogate: Surrogate
    normalization: Normalization
    source: str
    """Paper (arXiv number) or trainer whose definition this is."""

    @property
    def words(self) -> str:
        """Both parts in one line, for people."""
        surrogate, normalization = SURROGATES[self.surrogate].words, NORMALIZATIONS[self.normalization].words
        return f"{surrogate}, {normalization}"

    @property
    def formula(self) -> str:
        """The loss as a formula: r the ratio to the old policy, A the advantage, T a completion's length."""
        return NORMALIZATIONS[self.normalization].formula.format(term=SURROGATES[self.surrogate].formula)


class Part(NamedTuple):
    """One part of a loss, in words and as a formula."""

    words: str
    formula: str


SURROGATES: dict[Surrogate, Part] = {
    "clipped": Part("clipped ratio", "−min(r A, clip(r, 1 − ε, 1 + ε_high) A)"),
    "soft_gate": Part("soft gate", "−(4 / τ) σ(τ (r − 1)) A"),
    "capped_weight": Part("capped weight", "−stop_grad(min(r, ε_high)) A log π"),
}
"""What one token contributes to the loss."""
NORMALIZATIONS: dict[Normalization, Part] = {
    "sequence_mean": Part(
        "mean over each sample, then over samples", "mean over samples of (1/T) Σ_t {term}"
    ),
    "sequence_sum": Part("sum over each sample, mean over samples", "mean over samples of Σ_t {term}"),
    "constant_length": Part(
        "sum over tokens ÷ max completion length", "mean over samples of (1/T_max) Σ_t {term}"
    ),
    "all_tokens": Part("mean over all tokens", "(1 / Σ T) Σ over all tokens {term}"),
    "group_tokens": Part("mean over a group's tokens", "mean over groups of (1 / Σ_group T) Σ {term}"),
    "microbatch_tokens": Part(
        "mean over a microbatch's tokens", "mean over microbatches of (1 / Σ_microbatch T) Σ {term}"
    ),
}
"""What the sum of all terms of an update is divided by."""
LOSSES: dict[LossType, Loss] = {
    "grpo": Loss("clipped", "sequence_mean", "2402.03300"),
    "bnpo": Loss("clipped", "microbatch_tokens", "TRL"),
    "dapo": Loss("clipped", "all_tokens", "TRL"),
    "dapo_group": Loss("clipped", "group_tokens", "2503.14476"),
    "dr_grpo": Loss("clipped", "constant_length", "2503.20783"),
    "cispo": Loss("capped_weight", "all_tokens", "2506.13585"),
    "sapo": Loss("soft_gate", "sequence_mean", "2511.20347"),
    "luspo": Loss("clipped", "sequence_sum", "TRL"),
}

# -- KL to the reference -----------------------------------------------------------------------------------

KlEstimator = Literal["k1", "k2", "k3", "k1_ratio", "k2_ratio", "k3_ratio"]
KL_ESTIMATORS: dict[KlEstimator, Part] = {
    "k1": Part("unbiased, may be negative; as a loss its expected gradient is 0", "log π − log π_ref"),
    "k2": Part("biased value, gradient of KL(policy ‖ reference)", "½ (log π_ref − log π)²"),
    "k3": Part("unbiased, never negative; gradient of KL(reference ‖ policy)", "π_ref/π − log(π_ref/π) − 1"),
    "k1_ratio": Part("k1 times π/π_old: gradient of KL(policy ‖ reference)", "(π/π_old) k1"),
    "k2_ratio": Part("k2 times π/π_old", "(π/π_old) k2"),
    "k3_ratio": Part(
        "k3 times π/π_old: gradient of KL(policy ‖ reference); TRL's with importance sampling", "(π/π_old) k3"
    ),
}
"""Per-token estimates of KL(policy || reference). (2502.18548 eq 8-10)"""

# -- advantages --------------------------------------------------------------------------------------------

Scale = Literal["group", "batch", "none"]
Std = Literal["sample", "population"]
Baseline = Literal["mean", "leave_one_out"]
Aggregation = Literal["sum_then_normalize", "normalize_then_sum"]
SCALES: dict[Scale, str] = {"group": "÷ group std", "batch": "÷ batch std", "none": "not divided"}
BASELINES: dict[Baseline, str] = {"mean": "group mean", "leave_one_out": "mean of the others"}


class Scaling(NamedTuple):
    """A usual way to scale advantages: a name people know, and the settings that make it."""

    name: str
    title: str
    settings: dict[str, Any]


SCALINGS: tuple[Scaling, ...] = (
    Scaling("group", "Group std", {"scale_rewards": "group"}),
    Scaling("batch", "Batch std", {"scale_rewards": "batch"}),
    Scaling("none", "Nothing", {"scale_rewards": "none"}),
    Scaling("leave_one_out", "RLOO", {"scale_rewards": "none", "advantage_baseline": "leave_one_out"}),
    Scaling("gdpo", "GDPO", {"multi_objective_aggregation": "normalize_then_sum"}),
)

# -- ratio and sampler mismatch ----------------------------------------------------------------------------

RatioLevel = Literal["token", "sequence"]
Correction = Literal["off", "token_truncate", "token_mask", "sequence_truncate", "sequence_mask"]


def as_json() -> dict[str, Any]:
    """The tables as plain values, for pages: what a page offers and explains is what the algorithm has."""
    return {
        "losses": {
            name: {"words": loss.words, "formula": loss.formula, "source": loss.source}
            for name, loss in LOSSES.items()
        },
        "kl_estimators": {name: part._asdict() for name, part in KL_ESTIMATORS.items()},
        "scalings": [scaling._asdict() for scaling in SCALINGS],
    }
