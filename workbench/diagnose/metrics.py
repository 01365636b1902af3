"""The glossary's metrics of one step's completions: a `StepRecord` in, name -> number out.

Numpy only; called before the step is recorded. A metric that cannot be computed is left out: absent rewards are
absent, never 0, and a mean over nothing does not appear. Formulas: core/glossary.toml.
"""

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from workbench.algorithm import update_stats
from workbench.core.config import RunConfig
from workbench.core.types import Score, StepRecord, TokenArrays, group_ids
from workbench.diagnose import text
from workbench.diagnose.attempts import Attempts, at_k
from workbench.diagnose.style import STYLES, final_answer, style
from workbench.record import rollup
from workbench.rewards.builtin.language import language

Floats = NDArray[np.float64]
Metrics = dict[str, float]
TINY_STD = 0.01
"""Below this share of the step's reward range, division by a group's std amplifies noise."""
SURE = 0.99
"""A token counts as sure above this probability under the sampler."""
BLEU_GROUPS, BLEU_SAMPLES, BLEU_WORDS = 16, 8, 128
"""Self-BLEU takes time quadratic in the group size, so it reads only the first so many groups, completions and words."""


def step_metrics(
    record: StepRecord, config: RunConfig, token_text: Callable[[int], str | bytes] | None = None
) -> Metrics:
    """Every sample-level metric of a step, by glossary name. `token_text`: the text of one token id. Sets
    `record.styles_B` where it is None."""
    accuracy = rollup.accuracy_reward(config, record)
    numbers = rollup.sample_numbers(record, accuracy)
    if record.styles_B is None:
        record.styles_B = [style(rollout) for rollout in record.rollouts()]
    ids_B = group_ids(record.groups)
    found = {
        **rewards(record.scores_B, numbers),
        "reward/right_without_work": right_without_work(record.styles_B, numbers),
        **groups(record, numbers, config),
        **lengths(record, numbers),
        **texts(record, numbers, ids_B),
        **timing(record),
    }
    if token_text is not None:
        found |= overthinking(record, numbers, token_text)
    if record.advantages_B is not None:
        found |= advantages(record, record.advantages_B, numbers, ids_B)
    if record.tokens is not None:
        found |= tokens(record.tokens, numbers)
    return {name: value for name, value in found.items() if math.isfinite(value)}


def rewards(scores_B: Sequence[Score], numbers: rollup.SampleNumbers) -> Metrics:
    """Total reward, accuracy, and of each single reward its mean, std and share of failures; means over (B,)."""
    found = {
        "reward": _mean(numbers.reward_B),
        "accuracy": _mean(numbers.right_B),
        "reward/unscored": float(np.isnan(numbers.reward_B).mean()) if len(scores_B) else math.nan,
    }
    for name in dict.fromkeys(name for score in scores_B for name in score.values):
        values = np.array([_number(score.values[name]) for score in scores_B if name in score.values])
        there = values[np.isfinite(values)]
        found[f"rewards/{name}/mean"] = _mean(there)
        found[f"rewards/{name}/std"] = float(there.std(ddof=1)) if len(there) > 1 else math.nan
        found[f"rewards/{name}/failed"] = 1.0 - len(there) / len(values)
    return found


def right_without_work(styles_B: Sequence[str], numbers: rollup.SampleNumbers) -> float:
    """Share of the right completions that show no work; NaN where over 90 % of all show none: then the task expects
    none."""
    bare_B = np.isin(np.array(styles_B, dtype=str), ["direct", "bare"])
    return _mean(bare_B[numbers.right_B == 1]) if len(bare_B) and bare_B.mean() <= 0.9 else math.nan


def groups(record: StepRecord, numbers: rollup.SampleNumbers, config: RunConfig) -> Metrics:
    """Reward std within groups, and shares of groups without reward spread (`frac_reward_zero_std`).

    `groups/draws_per_kept` = 1 / (1 - p^G - (1-p)^G) with p the accuracy and G the median group size: draws until a
    group is mixed.
    """
    found = rollup.group_numbers(record, numbers, config)
    if not found:
        return {}
    stds = np.array([_number(group.reward_std) for group in found])
    zero_std = {
        side: sum(group.zero_std == side for group in found) / len(found)
        for side in ("right", "wrong", "tied")
    }
    scored = numbers.reward_B[np.isfinite(numbers.reward_B)]
    # All rewards may be close to one value: then that value is the scale.
    scale = max(float(np.ptp(scored)), float(np.abs(scored).max())) if len(scored) else math.nan
    share = _mean(numbers.right_B)
    size = float(np.median([group.size for group in found]))
    mixed = 1.0 - share**size - (1.0 - share) ** size
    return {
        "reward_std": _mean(stds),
        "frac_reward_zero_std": sum(zero_std.values()),
        "frac_reward_zero_std/all_right": zero_std["right"],
        "frac_reward_zero_std/all_wrong": zero_std["wrong"],
        "frac_reward_zero_std/tied": zero_std["tied"],
        "groups/effective": float(sum(not group.zero_std for group in found)),
        "groups/draws_per_kept": 1.0 / mixed if mixed > 0 else math.nan,
        "groups/tiny_std": float(
            np.mean(
                [
                    not group.zero_std and std < TINY_STD * scale
                    for group, std in zip(found, stds, strict=True)
                ]
            )
        ),
    }


def advantages(
    record: StepRecord, advantages_B: Floats, numbers: rollup.SampleNumbers, ids_B: NDArray[np.int64]
) -> Metrics:
    """Size and concentration of the (B,) advantages and gradient shares, and whether the update moved log-probabilities
    in the direction of the advantage.

    `gradient/effective_samples` = (sum s)^2 / sum s^2 over gradient shares s.
    """
    size_B = np.abs(advantages_B)
    right_P = np.bincount(ids_B, weights=np.nan_to_num(numbers.right_B), minlength=len(record.groups))
    up_B, down_B = advantages_B > 0, advantages_B < 0
    found = {
        "advantage/mean_abs": _mean(size_B),
        "advantage/max": float(advantages_B.max()) if len(advantages_B) else math.nan,
        "completions/mean_length_pushed_up": _mean(numbers.length_B[up_B]),
        "completions/mean_length_pushed_down": _mean(numbers.length_B[down_B]),
    }
    if size_B.sum() > 0:
        found["groups/lone_success_share"] = float(size_B[right_P[ids_B] == 1].sum() / size_B.sum())
    share_B = record.gradient_share_B
    if share_B is not None and share_B.sum() > 0:
        share_P = np.bincount(ids_B, weights=share_B, minlength=len(record.groups))
        found["gradient/top_group_share"] = float(share_P.max())
        found["gradient/down_share"] = float(share_B[down_B].sum())
        found["gradient/effective_samples"] = float(share_B.sum() ** 2 / (share_B**2).sum())
    moved_B = (up_B | down_B) & np.isfinite(numbers.logprob_change_B)
    if moved_B.any():
        same_B = np.sign(numbers.logprob_change_B[moved_B]) == np.sign(advantages_B[moved_B])
        found["update/right_way"] = float(same_B.mean())
        found["update/delta_logp_up"] = _mean(numbers.logprob_change_B[up_B])
        found["update/delta_logp_down"] = _mean(numbers.logprob_change_B[down_B])
    return found


def lengths(record: StepRecord, numbers: rollup.SampleNumbers) -> Metrics:
    """Lengths in tokens over all completions, over terminated ones (finish reason stop), and of right and wrong ones."""
    length_B = numbers.length_B.astype(np.float64)
    if not len(length_B):
        return {}
    cut_B = np.array([rollout.finish_reason == "length" for rollout in record.rollouts()])
    found = {**_spread(length_B, ""), **_spread(length_B[~cut_B], "terminated_")}
    found["completions/mean_truncated_length"] = _mean(length_B[cut_B])
    for name, share in (("p10", 10), ("p50", 50), ("p90", 90)):
        found[f"completions/{name}_length"] = float(np.percentile(length_B, share))
    return found | {
        "completions/clipped_ratio": float(cut_B.mean()),
        "completions/tokens": float(length_B.sum()),
        "completions/mean_length_right": _mean(length_B[numbers.right_B == 1]),
        "completions/mean_length_wrong": _mean(length_B[numbers.right_B == 0]),
    }


def texts(record: StepRecord, numbers: rollup.SampleNumbers, ids_B: NDArray[np.int64]) -> Metrics:
    """Styles, reflection, repetition, and how much the completions of a group differ (means over groups)."""
    texts_B = [rollout.text for rollout in record.rollouts()]
    if not texts_B:
        return {}
    words_B = [text.words(completion) for completion in texts_B]
    styles_B = record.styles_B or []
    found = {
        f"style/{name}": styles_B.count(name) / len(texts_B) for name in dict.fromkeys([*STYLES, *styles_B])
    }
    judged = [i for i in range(len(texts_B)) if np.isfinite(numbers.right_B[i])]
    seen = text.reflection(
        [texts_B[i] for i in judged],
        [int(numbers.length_B[i]) for i in judged],
        [bool(numbers.right_B[i]) for i in judged],
    )
    if judged:
        found["reflection/per_1k_tokens"] = seen.per_1k_tokens
        found["reflection/share"] = seen.share
        found["reflection/accuracy_with"] = _number(seen.accuracy_with)
        found["reflection/accuracy_without"] = _number(seen.accuracy_without)
    members = [np.flatnonzero(ids_B == k) for k in range(len(record.groups))]
    final_B = [final_answer(completion) for completion in texts_B]
    return found | {
        "completions/repeat_3": _mean([text.repeat_fraction(words, 3) for words in words_B]),
        "completions/longest_sure_run": float(_sure_run([rollout.logprobs for rollout in record.rollouts()])),
        **{
            f"diversity/distinct_{n}": _mean(
                [text.distinct_n([words_B[i] for i in rows], n) for rows in members]
            )
            for n in (1, 2, 3)
        },
        "diversity/self_bleu_2": _mean(
            [
                _number(text.self_bleu([words_B[i][:BLEU_WORDS] for i in rows[:BLEU_SAMPLES]]))
                for rows in members[:BLEU_GROUPS]
            ]
        ),
        "completions/language_consistency": _mean([_number(language(completion)) for completion in texts_B]),
        **at_k([Attempts(numbers.right_B[rows], [final_B[i] for i in rows]) for rows in members]),
        "diversity/duplicates": _mean(
            [text.duplicate_fraction([texts_B[i] for i in rows]) for rows in members]
        ),
        "diversity/unique_answers": _mean(
            [text.distinct_count([final_B[i] for i in rows]) for rows in members]
        ),
    }


def overthinking(
    record: StepRecord, numbers: rollup.SampleNumbers, token_text: Callable[[int], str | bytes]
) -> Metrics:
    """Share of tokens that right completions spend after their first statement of the reference answer, over those in
    which a statement is found."""
    right = after = total = seen = 0
    references = [group.prompt.answer for group in record.groups for _ in group.rollouts]
    for rollout, reference, is_right in zip(record.rollouts(), references, numbers.right_B, strict=True):
        if is_right != 1 or not reference or not reference.strip():
            continue
        right += 1
        end = text.first_statement_end(rollout.text, reference)
        tokens = map(token_text, rollout.token_ids.tolist())
        if end and (until := text.tokens_until(tokens, rollout.text[:end])) is not None:
            seen, after, total = seen + 1, after + rollout.length - until, total + rollout.length
    found = {"overthinking/detected": seen / right} if right else {}
    return found | ({"overthinking/share": after / total} if total else {})


def tokens(arrays: TokenArrays, numbers: rollup.SampleNumbers) -> Metrics:
    """Entropy, KL to the reference, KL of the update, and the mismatch of sampler and trainer; means over all N tokens.

    With d = log p_other - log p_policy per token: k3 = e^d - d - 1, k1 = -d. ESS of the ratios r = p_policy / p_sampler
    is (sum r)^2 / (N sum r^2).
    """
    found: Metrics = {}
    policy = rollup.joined(rollup.policy_logp(arrays))
    if not len(policy):
        return found
    if arrays.entropy is not None:
        entropy = rollup.joined(arrays.entropy)
        top = max(1, round(0.2 * len(entropy)))
        found["entropy"] = _mean(entropy)
        found["entropy_sequence"] = _mean(numbers.entropy_B)
        found["entropy_top20"] = _mean(np.partition(entropy, len(entropy) - top)[-top:])
    if arrays.reference_logp is not None:
        d = rollup.joined(arrays.reference_logp) - policy
        k3 = rollup.k3(d)
        found |= {"kl": _mean(k3), "kl_k1": 0.0 - _mean(d), "kl_sequence": _mean(numbers.kl_k1_sum_B)}
        found["kl_max_token"] = float(k3.max())
        found["kl_max_share"] = float(k3.max() / k3.sum()) if k3.sum() > 0 else 0.0
    if arrays.initial_logp is not None:
        found["kl_initial"] = _mean(rollup.k3(rollup.joined(arrays.initial_logp) - policy))
    if arrays.after_logp is not None:
        found["kl_update"] = _mean(rollup.k3(rollup.joined(arrays.after_logp) - policy))
    if arrays.policy_logp is not None:
        gap = policy - rollup.joined(arrays.sampler_logp)
        ratio = np.exp(gap)
        found |= {
            "sampling/sampling_logp_difference/mean": _mean(np.abs(gap)),
            "sampling/sampling_logp_difference/max": float(np.abs(gap).max()),
            "sampling/importance_sampling_ratio/min": float(ratio.min()),
            "sampling/importance_sampling_ratio/mean": _mean(ratio),
            "sampling/importance_sampling_ratio/max": float(ratio.max()),
            "sampling/ess": update_stats.ess_fraction(ratio),
        }
    return found


def timing(record: StepRecord) -> Metrics:
    """Wall time of the step and of its phases."""
    if not record.phases:
        return {}
    phases = {f"time/{name}": seconds for name, seconds in record.phases.items()}
    return {**phases, "step_time": sum(record.phases.values())}


def _spread(length_B: Floats, which: str) -> Metrics:
    if not len(length_B):
        return {}
    return {
        f"completions/mean_{which}length": float(length_B.mean()),
        f"completions/min_{which}length": float(length_B.min()),
        f"completions/max_{which}length": float(length_B.max()),
    }


def _sure_run(logps: Sequence[NDArray[np.float32]]) -> int:
    """Longest run of tokens with probability above SURE in any completion (`text.longest_run_above`, in numpy)."""
    wall = np.full(1, -np.inf, np.float32)
    sure_N = np.concatenate([wall, *(part for logp_T in logps for part in (logp_T, wall))]) > math.log(SURE)
    edges = np.flatnonzero(np.diff(sure_N.astype(np.int8)))
    return int((edges[1::2] - edges[::2]).max()) if len(edges) else 0


def _mean(values: Iterable[float] | NDArray[np.generic]) -> float:
    """Mean of what is finite; NaN where nothing is."""
    array = np.asarray(values if isinstance(values, np.ndarray) else list(values), dtype=np.float64)
    array = array[np.isfinite(array)]
    return float(array.mean()) if len(array) else math.nan


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
