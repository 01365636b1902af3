"""Runs ground-truth cases against the functions that the loop, the record and the theory page call.

    python tests/grpo_cases.py FILE.json

prints one line per failed case (id, expected, got), ends with `N passed, N failed`, and exits 1 on any
failure. A file holds
`cases`, each with id, category, function, inputs, expected, atol, rtol. Loss cases are dispatched by what
their inputs hold, so that any combination of loss type, ratio level, clip, KL and correction can be asked
for. Nothing is computed here: inputs are translated into the settings' names, results into the names of
`expected`.
"""

import json
import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # also from a checkout that is not installed

from workbench.algorithm import advantages as adv
from workbench.algorithm import kl_controllers, losses, token_grads, update_stats
from workbench.core import variants
from workbench.core.types import Sampling
from workbench.diagnose import text, theory
from workbench.models.logprobs import logit_stats
from workbench.rewards.builtin import formulas

Inputs = Mapping[str, Any]
Case = Mapping[str, Any]
CASES = Path(__file__).parent / "data" / "grpo_cases.json"
STD = {0: "population", 1: "sample"}


class Failure(NamedTuple):
    """One wrong case."""

    id: str
    expected: Any
    got: Any

    def __str__(self) -> str:
        return f"{self.id}: expected {_short(self.expected)}, got {_short(self.got)}"


def load(path: Path = CASES) -> list[Case]:
    data = json.loads(path.read_text(encoding="utf-8"))
    return list(data["cases"] if isinstance(data, dict) else data)


def check(case: Case) -> Failure | None:
    """None where every expected number is reached within atol + rtol |expected|."""
    expected = case["expected"]
    try:
        got = compute(case)
    except (
        Exception
    ) as error:  # a case that cannot be computed is a failed case, and the others still have to run
        return Failure(case["id"], expected, f"{type(error).__name__}: {error}")
    atol, rtol = case.get("atol", 1e-6), case.get("rtol", 0.0)
    wrong = [name for name in expected if not _close(got.get(name), expected[name], atol, rtol)]
    if not wrong:
        return None
    return Failure(
        case["id"], {name: expected[name] for name in wrong}, {name: got.get(name) for name in wrong}
    )


def compute(case: Case) -> dict[str, Any]:
    """All the results that a case's function gives, by name; more than `expected` asks for is fine."""
    inputs, function = case["inputs"], case["function"]
    if case.get("category") == "loss":
        return loss_case(inputs)
    if case.get("category") == "advantages":
        return advantages(_named_variant(function) | inputs)
    # A longer name is a variation of the shorter one it begins with: self_bleu4 of self_bleu.
    known = [name for name in FUNCTIONS if function.startswith(name)]
    if not known:
        raise ValueError(f"function {function!r} is not known: {', '.join(FUNCTIONS)}, or category loss.")
    return FUNCTIONS[max(known, key=len)](inputs)


# -- losses ----------------------------------------------------------------------------------------


def loss_case(inputs: Inputs) -> dict[str, Any]:
    """What is asked for follows from which inputs are there."""
    if "policy_probs" in inputs:
        return loss_and_gradient(inputs)
    if "ratio" in inputs:
        return clip_fractions(inputs)
    if "threshold" in inputs:
        return off_policy_mask(inputs)
    return micro_batch_losses(inputs)


def loss_and_gradient(inputs: Inputs) -> dict[str, Any]:
    """Value by losses.py; gradient by weights.py as the update takes it, which autograd through losses.py
    must confirm."""
    probs, mask = _tensor(inputs["policy_probs"]), _tensor(inputs["mask"])
    tokens = torch.tensor(inputs["tokens"])
    logits = probs.log().requires_grad_()
    sampling = Sampling(temperature=inputs.get("temperature", 1.0))
    stats = logit_stats(logits.flatten(0, 1), tokens.flatten(), sampling, entropy_gradient=True)
    logp, entropy = stats.logp_N.view_as(mask), stats.entropy_N.view_as(mask)
    aim = objective(inputs, mask.shape[1])
    n = token_grads.normalizer(
        mask.sum(1), _groups(inputs, len(mask)), micro_batch_ids_B=_micro_batches(inputs, len(mask))
    )
    tis = inputs.get("tis") or {}
    terms = (
        _log(inputs.get("old_token_probs")),
        _log(inputs.get("ref_token_probs")),
        _log(tis.get("sampler_token_probs")),
        _tensor(inputs["advantages"]),
        mask,
        aim,
        n,
    )

    found = token_grads.loss_grads(logp.detach(), *terms)
    value = losses.loss(logp, *terms, entropy_B_T=entropy)
    analytic = (found.grad_B_T * logp).sum() - aim.entropy_coef * value.entropy
    (gradient,) = torch.autograd.grad(analytic, logits, retain_graph=True)
    (confirmed,) = torch.autograd.grad(value.total, logits)
    gap = float((gradient - confirmed).abs().max())
    if not gap < 1e-10:
        raise AssertionError(f"weights.py and autograd through losses.py differ by {gap}")
    clipped = update_stats.clip_fractions(
        found.clipped_low_B_T, found.clipped_high_B_T, mask, aim.importance_sampling_level
    )
    return {
        "loss": value.total.item(),
        "grad_wrt_logits": gradient.tolist(),
        "loss_grads": found.grad_B_T.tolist(),
        "policy_loss": value.policy.item(),
        "kl_loss": value.kl.item(),
        **clipped._asdict(),
    }


def objective(inputs: Inputs, width: int) -> token_grads.Objective:
    """The settings that a case's inputs stand for; what a case leaves out has the settings' default."""
    tis = inputs.get("tis") or {}
    kl = inputs.get("kl") or inputs.get("kl_estimator") or "k3"
    by_ratio = bool(inputs.get("kl_is")) or kl.endswith(("_ratio", "_is"))
    return token_grads.Objective(
        loss_type=inputs.get("loss_type", "grpo"),
        importance_sampling_level=_first(inputs, "level", "importance_sampling_level", default="token"),
        epsilon=_first(inputs, "eps_low", "epsilon", default=0.2),
        epsilon_high=_first(inputs, "eps_high", "epsilon_high"),
        delta=inputs.get("delta"),
        dual_clip=inputs.get("dual_clip"),
        sapo_temperature_pos=_first(inputs, "tau_pos", "sapo_temperature_pos", default=1.0),
        sapo_temperature_neg=_first(inputs, "tau_neg", "sapo_temperature_neg", default=1.05),
        importance_sampling_correction=(tis.get("mode") or "sequence_mask") if tis else "off",
        importance_sampling_clip_max=tis.get("cmax", 3.0),
        importance_sampling_clip_min=tis.get("cmin"),
        off_policy_mask_threshold=_first(
            inputs, "off_policy_threshold", "off_policy_mask_threshold", "off_policy_delta", "threshold"
        ),
        beta=_first(inputs, "beta", default=0.0),
        kl_estimator=kl.removesuffix("_ratio").removesuffix("_is") + "_ratio" * by_ratio,
        kl_in=inputs.get("kl_in") or "loss",
        entropy_coef=_first(inputs, "entropy_coef", "entropy_bonus", default=0.0),
        max_completion_length=_first(inputs, "max_len", "max_completion_length", default=width),
    )


def clip_fractions(inputs: Inputs) -> dict[str, Any]:
    ratio, mask = np.array(inputs["ratio"], float), np.array(inputs["mask"])
    advantage = np.array(inputs["advantages"], float)[:, None] + 0 * ratio
    aim = objective(inputs, ratio.shape[1])
    return update_stats.clip_fractions(
        *token_grads.clip_masks(ratio, advantage, aim), mask, aim.importance_sampling_level
    )._asdict()


def off_policy_mask(inputs: Inputs) -> dict[str, Any]:
    sampled = inputs.get("sampling_logps", inputs.get("old_logps"))
    keep = token_grads.off_policy_keep(
        np.array(inputs["logps"], float),
        np.array(sampled, float),
        np.array(inputs["advantages"], float),
        np.array(inputs["mask"]),
        inputs["threshold"],
    )
    return {"keep": keep[:, 0].astype(float).tolist()}


def micro_batch_losses(inputs: Inputs) -> dict[str, Any]:
    """Every loss type's value on the first loss case, accumulated over the micro-batches that the note or the
    inputs name."""
    first = next(case["inputs"] for case in [*_loaded, *load()] if "policy_probs" in case["inputs"])
    samples = ("policy_probs", "tokens", "mask", "advantages", "old_token_probs")
    inputs = {**{name: first[name] for name in samples}, **inputs}
    parts = inputs.get("micro_batches") or [
        [int(i) for i in part.split(",")] for part in re.findall(r"\{([\d,\s]+)\}", inputs["note"])
    ]
    return {
        name: loss_and_gradient({**inputs, "micro_batches": parts, "loss_type": name})["loss"]
        for name in variants.LOSSES
    }


# -- advantages ------------------------------------------------------------------------------------


def advantages(inputs: Inputs) -> dict[str, Any]:
    table = np.array(
        inputs["rewards_per_func"] if "rewards_per_func" in inputs else [[r] for r in inputs["rewards"]],
        float,
    )
    excluded = _first(inputs, "excluded", "truncated")
    scale, std = inputs.get("scale", "group"), inputs.get("std", inputs.get("ddof", 1))
    found = adv.from_rewards(
        table,
        np.array(inputs.get("weights") or np.ones(table.shape[1]), float),
        _groups(inputs, len(table)).numpy(),
        aggregation=inputs.get("aggregation", "sum_then_normalize"),
        scale={True: "group", False: "none"}.get(scale, scale),
        std=STD.get(std, std),
        eps=_first(inputs, "eps", default=1e-4),
        baseline=inputs.get("baseline", "mean"),
        excluded_B=None if excluded is None else np.array(excluded, bool),
    )
    return {
        "advantages": found.advantages_B.tolist(),
        "value": float(found.zero_std_P.mean()),
        "std": found.std_P.tolist(),
        "mean": found.mean_P.tolist(),
    }


def _named_variant(function: str) -> dict[str, Any]:
    """What the name of an advantages function says beyond its inputs."""
    if "rloo" in function:
        return {"baseline": "leave_one_out", "scale": "none"}
    if "gdpo" in function:
        return {"aggregation": "normalize_then_sum"}
    return {"scale": "none"} if function.startswith("dr_grpo") else {}


def kl_in_reward(inputs: Inputs) -> dict[str, Any]:
    rewards = token_grads.kl_in_rewards(
        np.array(inputs["rewards"], float),
        np.array(inputs["logps"], float),
        np.array(inputs["ref_logps"], float),
        np.array(inputs["mask"]),
        inputs["beta"],
        inputs.get("kl", "k1"),
    )
    return {"rewards": rewards.tolist()}


# -- KL --------------------------------------------------------------------------------------------


def kl_discrete(inputs: Inputs) -> dict[str, Any]:
    """Expectations by enumerating the outcomes: one one-token answer each, weighted with its probability."""
    pi, ref = np.array(inputs["pi"], float), np.array(inputs["ref"], float)
    possible = pi > 0
    logp, ref_logp = (np.log(np.where(possible, p, 1.0))[:, None] for p in (pi, ref))
    got: dict[str, Any] = {"kl_pi_ref": theory.kl(pi, ref), "kl_ref_pi": theory.kl(ref, pi)}
    n = token_grads.normalizer(possible.astype(float), np.zeros(len(pi), int), sample_weights_B=pi)
    for name in ("k1", "k2", "k3", "k1_ratio", "k2_ratio", "k3_ratio"):
        aim = token_grads.Objective(loss_type="dapo", beta=1.0, kl_estimator=name)
        found = token_grads.loss_grads(
            logp, None, ref_logp, None, np.zeros(len(pi)), possible[:, None], aim, n
        )
        assert found.kl_B_T is not None
        got[f"mean_{name}"] = float(pi @ found.kl_B_T[:, 0])
        got[f"grad_{name}_in_loss"] = (found.grad_B_T[:, 0] - pi * found.grad_B_T.sum()).tolist()
    return got


# -- groups and end points -------------------------------------------------------------------------


def pair(inputs: Inputs, direct: bool) -> dict[str, Any]:
    gamma = inputs.get("gamma", 1.0) * (math.sqrt(0.5) if inputs.get("std") == "sample" else 1.0)
    end_point = (
        theory.direct_pair if inputs.get("penalty", "direct" if direct else "k3") == "direct" else theory.eq14
    )
    return {"pi": end_point(inputs["pi_ref"], inputs["beta"], gamma)}


def large_group(inputs: Inputs) -> dict[str, Any]:
    if inputs.get("penalty") == "direct":
        stable = theory.direct_large_group_roots(inputs["pi_ref"], inputs["beta"]).stable
        return {"pi": 1.0 if math.isnan(stable) else stable}  # without an interior point it runs to 1
    return {"pi": theory.eq15(inputs["pi_ref"], inputs["beta"])}


def large_group_noisy(inputs: Inputs) -> dict[str, Any]:
    a, b = inputs["bernoulli_reward"]
    return {
        "pi": theory.large_group_noisy(inputs["pi_ref"], inputs["beta"], a, b, inputs.get("penalty", "k3")),
        "eq15_would_say": theory.eq15(inputs["pi_ref"], inputs["beta"]),
    }


def finite_group(inputs: Inputs) -> dict[str, Any]:
    a, b = inputs.get("rewards", (1.0, 0.0))
    return {
        "pi": theory.finite_group(
            inputs["pi_ref"],
            inputs["beta"],
            inputs["group_size"],
            inputs.get("std", "population"),
            inputs.get("eps", 0.0),
            inputs.get("penalty", "k3"),
            (a, b),
        )
    }


def multi_output(inputs: Inputs) -> dict[str, Any]:
    return {
        "pi": theory.multi_output(
            inputs["rewards"],
            inputs["pi_ref"],
            inputs["beta"],
            inputs["group_size"],
            inputs.get("std", "population"),
            inputs.get("eps", 0.0),
            inputs.get("penalty", "k3"),
        ).tolist()
    }


def token_level(inputs: Inputs) -> dict[str, Any]:
    length, ref = inputs.get("length", 2), inputs.get("pi_ref", "uniform")
    ref = 1 / len(inputs["vocab"]) if ref == "uniform" else ref
    penalty = "direct" if str(inputs.get("penalty", "k3")).startswith("direct") else "k3"
    pi = theory.token_level(
        ref, inputs["beta"], length, inputs.get("group_size", 2), inputs.get("std", "population"), penalty
    )
    return {"p_" + "a" * length: pi, "sequence_level_eq14": theory.eq14(ref**length, inputs["beta"])}


def time_to_half(inputs: Inputs) -> dict[str, Any]:
    return theory.time_to_half(
        inputs["p0"],
        inputs["group_size"],
        inputs.get("beta", 0.0),
        inputs.get("pi_ref"),
        inputs.get("std", "population"),
    )._asdict()


# -- text ------------------------------------------------------------------------------------------


def entropy_nats(inputs: Inputs) -> dict[str, Any]:
    """Mean over the tokens where `probs` holds several distributions."""
    probs = torch.atleast_2d(_tensor(inputs["probs"]))
    entropy = logit_stats(probs.log(), torch.zeros(len(probs), dtype=torch.long), Sampling()).entropy_N
    mask = _tensor(inputs.get("mask", [1] * len(probs)))
    return {"value": float((entropy * mask).sum() / mask.sum())}


def self_bleu(inputs: Inputs) -> dict[str, Any]:
    if inputs.get("smoothing", "none") != "none":
        raise ValueError("only self-BLEU without smoothing is defined here")
    return {"value": text.self_bleu(inputs["texts"], inputs.get("weights", (0.5, 0.5)))}


FUNCTIONS: dict[str, Callable[[Inputs], dict[str, Any]]] = {
    "frac_reward_zero_std": advantages,
    "kl_in_reward": kl_in_reward,
    "estimators_discrete": kl_discrete,
    "estimators_gaussian": lambda i: theory.gaussian_kl(_mean_of_normal(i))._asdict(),
    "group_statistics": lambda i: theory.group_statistics(i["p"], i["group_size"])._asdict(),
    "min_group_size": lambda i: {"group_size": theory.min_group_size(i["p"], i["prob_mixed_at_least"])},
    "time_to_half": time_to_half,
    "eq14_G2": lambda i: pair(i, direct=False),
    "direct_kl_G2": lambda i: pair(i, direct=True),
    "eq15_Ginf": large_group,
    "Ginf_noisy": large_group_noisy,
    "finite_G": finite_group,
    "shift_only": lambda i: {
        "pi": theory.shift_only(
            i["pi_ref"], i["beta"], i["reward_gap"], i["group_size"], i.get("penalty", "k3")
        )
    },
    "beta_c_direct_Ginf": lambda i: {"beta_c": theory.beta_critical(i["pi_ref"])},
    "direct_Ginf_roots": lambda i: theory.direct_large_group_roots(i["pi_ref"], i["beta"])._asdict(),
    "multi_output": multi_output,
    "token_level": token_level,
    "pass_at_k": lambda i: {"value": text.pass_at_k(i["n"], i["c"], i["k"])},
    "maj_at_k": lambda i: {"value": text.maj_at_k(i["answers"], i["correct"])},
    "avg_at_k": lambda i: {"value": text.avg_at_k(i["n"], i["c"])},
    "unique_answers": lambda i: {"value": text.distinct_count(i["answers"])},
    "duplicate": lambda i: {"value": text.duplicate_fraction([_hashable(t) for t in i["texts"]])},
    "repeat_fraction": lambda i: {"value": text.repeat_fraction(i["items"], i.get("n", 3))},
    "entropy_nats": entropy_nats,
    "distinct_n": lambda i: {"value": text.distinct_n(i["texts"], i["n"])},
    "self_bleu": self_bleu,
    "reflection_count": lambda i: text.reflection_counts(i["text"], i.get("words", text.R1_WORDS))._asdict(),
    "ess_fraction": lambda i: {"value": update_stats.ess_fraction(np.array(i["weights"], float))},
    "soft_overlong": lambda i: {"value": formulas.soft_overlong(i["length"], i["max_len"], i["cache"])},
    "repetition_penalty": lambda i: {
        "value": formulas.repetition_penalty(i["ids"], i["n"], i["max_penalty"])
    },
    "kimi_length": lambda i: {"values": formulas.kimi_length(i["lengths"], i["correct"])},
    "language_consistency": lambda i: {"value": formulas.language_consistency(i["target_words"], i["words"])},
    "ziegler": lambda i: {
        "beta_next": kl_controllers.ziegler(i["beta"], i["kl"], i["target"], i.get("K", 0.1))
    },
    "ppo_adaptive": lambda i: {"beta_next": kl_controllers.ppo_adaptive(i["beta"], i["kl"], i["target"])},
    "ref_sync": lambda i: {
        "ref_next": kl_controllers.mix_reference(
            np.array(i["theta"], float), np.array(i["ref"], float), i["alpha"]
        ).tolist()
    },
}


# -- translation -----------------------------------------------------------------------------------

_loaded: list[Case] = []
"""The cases of the file being run: one case may say "inputs as in the first loss case"."""


def _tensor(values: Any) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def _log(probs: Any) -> torch.Tensor | None:
    return None if probs is None else _tensor(probs).log()


def _first(inputs: Inputs, *names: str, default: Any = None) -> Any:
    """The first of these inputs that is there and not null."""
    return next((inputs[name] for name in names if inputs.get(name) is not None), default)


def _mean_of_normal(inputs: Inputs) -> float:
    """`mu`, or the mean that `p` is written with: N(0.5,1)."""
    return inputs["mu"] if "mu" in inputs else float(inputs["p"].strip("N() ").split(",")[0])


def _hashable(item: Any) -> Any:
    return tuple(item) if isinstance(item, list) else item


def _groups(inputs: Inputs, count: int) -> torch.Tensor:
    if inputs.get("group_ids") is not None:
        return torch.tensor(inputs["group_ids"])
    return torch.arange(count) // (inputs.get("group_size") or count)


def _micro_batches(inputs: Inputs, count: int) -> torch.Tensor | None:
    if not inputs.get("micro_batches"):
        return None
    ids = torch.zeros(count, dtype=torch.long)
    for number, rows in enumerate(inputs["micro_batches"]):
        ids[list(rows)] = number
    return ids


def _close(got: Any, expected: Any, atol: float, rtol: float) -> bool:
    if isinstance(expected, Mapping):
        return isinstance(got, Mapping) and all(
            _close(got.get(key), expected[key], atol, rtol) for key in expected
        )
    if isinstance(expected, Sequence) and not isinstance(expected, str):
        return (
            isinstance(got, Sequence)
            and len(got) == len(expected)
            and all(_close(g, e, atol, rtol) for g, e in zip(got, expected, strict=True))
        )
    if expected is None or isinstance(expected, str):
        return bool(got == expected)
    if not isinstance(got, int | float):
        return False
    return got == expected or abs(got - expected) <= atol + rtol * abs(expected)


def _short(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_short(item)}" for key, item in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ", ".join(_short(item) for item in value) + "]"
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def main(arguments: Sequence[str]) -> int:
    if len(arguments) != 1:
        print("usage: python tests/grpo_cases.py FILE.json", file=sys.stderr)
        return 2
    torch.set_num_threads(1)
    cases = load(Path(arguments[0]))
    _loaded[:] = cases
    failures = [failure for case in cases if (failure := check(case))]
    for failure in failures:
        print(failure)
    print(f"{len(cases) - len(failures)} passed, {len(failures)} failed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
