"""The same definitions once more, as slow loops over plain numbers: what generated cases expect. Shares no code with the package.

`loss_case` takes a case's inputs and gives its value, and its gradient by central differences.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

STEP = 1e-5


def loss_case(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """`loss` and `grad_wrt_logits` of one loss case."""
    logits = np.log(np.array(inputs["policy_probs"], float))
    frozen = _picked(logits, inputs)
    gradient = np.zeros_like(logits)
    for place in itertools.product(*map(range, logits.shape)):
        values = []
        for sign in (1, -1):
            moved = logits.copy()
            moved[place] += sign * STEP
            values.append(_loss(moved, frozen, inputs))
        gradient[place] = (values[0] - values[1]) / (2 * STEP)
    return {"loss": _loss(logits, frozen, inputs), "grad_wrt_logits": gradient.tolist()}


def _log_softmax(row: Sequence[float]) -> list[float]:
    total = math.log(sum(math.exp(x) for x in row))
    return [x - total for x in row]


def _picked(logits: np.ndarray, inputs: Mapping[str, Any]) -> list[list[float]]:
    return [
        [_log_softmax(row)[token] for row, token in zip(rows, tokens, strict=True)]
        for rows, tokens in zip(logits, inputs["tokens"], strict=True)
    ]


def _loss(logits: np.ndarray, frozen: list[list[float]], inputs: Mapping[str, Any]) -> float:
    """`frozen`: the policy's log-probabilities that no gradient flows through."""
    mask, kind = inputs["mask"], inputs["loss_type"]
    logp = _picked(logits, inputs)
    old = (
        [[math.log(p) for p in row] for row in inputs["old_token_probs"]]
        if inputs.get("old_token_probs")
        else frozen
    )
    samples = range(len(mask))
    length = [sum(row) for row in mask]
    groups = inputs.get("group_ids") or [b // inputs.get("group_size", len(mask)) for b in samples]
    micro = inputs.get("micro_batches") or [list(samples)]
    sums = [0.0 for _ in samples]
    entropy = 0.0
    for b in samples:
        live = [t for t in range(len(mask[b])) if mask[b][t]]
        for t in live:
            sums[b] += _term(b, t, live, logp, old, frozen, inputs)
            entropy -= sum(math.exp(x) * x for x in _log_softmax(logits[b, t]))
    longest = inputs.get("max_len") or len(mask[0])
    count, tokens = len(mask), sum(length)
    each = [sums[b] / max(length[b], 1) for b in samples]
    if kind in ("grpo", "sapo"):
        value = sum(each) / count
    elif kind == "luspo":
        value = sum(sums) / count
    elif kind == "dr_grpo":
        value = sum(sums) / (count * longest)
    elif kind in ("dapo", "cispo"):
        value = sum(sums) / tokens
    elif kind == "dapo_group":
        parts = {g: [b for b in samples if groups[b] == g] for g in groups}
        value = sum(
            sum(sums[b] for b in part) / sum(length[b] for b in part) for part in parts.values()
        ) / len(parts)
    else:
        value = sum(sum(sums[b] for b in part) / sum(length[b] for b in part) for part in micro) / len(micro)
    return value - inputs.get("entropy_coef", 0.0) * entropy / tokens


def _term(
    b: int, t: int, live: list[int], logp: Any, old: Any, frozen: Any, inputs: Mapping[str, Any]
) -> float:
    advantage = inputs["advantages"][b]
    whole = inputs.get("level") == "sequence"
    places = live if whole else [t]
    ratio = math.exp(sum(logp[b][s] - old[b][s] for s in places) / len(places))
    still = math.exp(sum(frozen[b][s] - old[b][s] for s in places) / len(places))
    low = inputs.get("eps_low", 0.2)
    high = low if inputs.get("eps_high") is None else inputs["eps_high"]
    if inputs["loss_type"] == "cispo":
        term = -min(still, high) * advantage * logp[b][t]
    elif inputs["loss_type"] == "sapo":
        tau = inputs.get("tau_pos", 1.0) if advantage > 0 else inputs.get("tau_neg", 1.05)
        term = -4 / tau / (1 + math.exp(-tau * (ratio - 1))) * advantage
    else:
        free = min(ratio, inputs["delta"]) if inputs.get("delta") else ratio
        gain = min(free * advantage, min(max(ratio, 1 - low), 1 + high) * advantage)
        if inputs.get("dual_clip") and advantage < 0:
            gain = max(gain, inputs["dual_clip"] * advantage)
        term = -gain
    term *= _correction(b, t, live, old, inputs)
    if inputs.get("off_policy_threshold") is not None and advantage < 0:
        sampler = (inputs.get("tis") or {}).get("sampler_token_probs")
        drift = sum((math.log(sampler[b][s]) if sampler else old[b][s]) - frozen[b][s] for s in live) / len(
            live
        )
        term *= drift <= inputs["off_policy_threshold"]
    if inputs.get("beta"):
        d = math.log(inputs["ref_token_probs"][b][t]) - logp[b][t]
        name = inputs.get("kl", "k3")
        penalty = {"k1": -d, "k2": d * d / 2, "k3": math.exp(d) - d - 1}[name.removesuffix("_ratio")]
        term += inputs["beta"] * penalty * (ratio if inputs.get("kl_is") or name.endswith("_ratio") else 1)
    return term


def _correction(b: int, t: int, live: list[int], old: Any, inputs: Mapping[str, Any]) -> float:
    tis = inputs.get("tis")
    if not tis:
        return 1.0
    level, mode = tis.get("mode", "sequence_mask").split("_")
    places = live if level == "sequence" else [t]
    w = math.exp(sum(old[b][s] - math.log(tis["sampler_token_probs"][b][s]) for s in places))
    low, high = tis.get("cmin") or 0.0, tis.get("cmax", 3.0)
    high = math.inf if high is None else high
    return min(max(w, low), high) if mode == "truncate" else w * (low <= w <= high)


def advantages(inputs: Mapping[str, Any]) -> list[float]:
    """Advantages of an `advantages*`, `rloo*` or `gdpo*` case."""
    table = inputs.get("rewards_per_func") or [[r] for r in inputs["rewards"]]
    weights = inputs.get("weights") or [1] * len(table[0])
    groups = inputs.get("group_ids") or [b // inputs["group_size"] for b in range(len(table))]
    ddof, eps = inputs.get("ddof", 1), inputs.get("eps", 1e-4)

    def total(row: Sequence[float | None]) -> float | None:
        there = [w * r for w, r in zip(weights, row, strict=True) if r is not None]
        return sum(there) if there else None

    def std(values: list[float]) -> float:
        mean = sum(values) / len(values)
        return math.sqrt(sum((v - mean) ** 2 for v in values) / max(len(values) - ddof, 1))

    def centred(values: list[float | None], divide: bool) -> list[float]:
        out = [0.0] * len(values)
        for g in dict.fromkeys(groups):
            part = [b for b in range(len(values)) if groups[b] == g and values[b] is not None]
            scored = [values[b] for b in part]
            if not scored or max(scored) == min(scored):
                continue
            mean = sum(scored) / len(scored)
            for b in part:
                out[b] = values[b] - mean
                if divide:
                    out[b] /= std(scored) + eps
                if inputs.get("baseline") == "leave_one_out":
                    out[b] *= len(scored) / (len(scored) - 1)
        return out

    rewards = [total(row) for row in table]
    if inputs.get("aggregation") == "normalize_then_sum":
        columns = [centred([row[f] for row in table], True) for f in range(len(weights))]
        summed = [
            sum(w * column[b] for w, column in zip(weights, columns, strict=True)) for b in range(len(table))
        ]
        spread = std([s for s, reward in zip(summed, rewards, strict=True) if reward is not None])
        return [s / (spread + eps) for s in summed]
    scale = inputs.get("scale", "group")
    if scale == "batch":
        spread = std([reward for reward in rewards if reward is not None]) + eps
        return [value / spread for value in centred(rewards, False)]
    return centred(rewards, scale == "group")
