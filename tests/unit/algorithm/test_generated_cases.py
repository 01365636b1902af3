"""Files of the cases' format that hold combinations the shipped one does not: generated at random, expected numbers from slow loops."""

import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import grpo_cases, naive

LOSSES = ("grpo", "bnpo", "dapo", "dapo_group", "dr_grpo", "cispo", "sapo", "luspo")
KLS = (None, ("k1", False), ("k2", True), ("k3", False), ("k3", True), ("k1", True), ("k2", False))
TIS = (
    None,
    {"mode": "token_truncate", "cmax": 1.3},
    {"mode": "token_mask", "cmin": 0.6, "cmax": 1.5},
    {"mode": "sequence_truncate", "cmax": 1.4, "cmin": 0.7},
    {},
)


def batch(random: np.random.Generator) -> dict[str, Any]:
    """Five answers of up to three tokens over four words, in ragged groups; one answer is empty now and then."""
    count, longest, words = 5, 3, 4

    def probs(*shape: int) -> Any:
        return np.round(random.uniform(0.15, 0.9, shape), 3).tolist()

    lengths = [int(random.integers(0 if b == 4 else 1, longest + 1)) for b in range(count)]
    return {
        "policy_probs": random.dirichlet([3.0] * words, (count, longest)).tolist(),
        "tokens": random.integers(0, words, (count, longest)).tolist(),
        "mask": [[int(t < length) for t in range(longest)] for length in lengths],
        "advantages": np.round(random.normal(size=count), 3).tolist(),
        "old_token_probs": probs(count, longest),
        "ref_token_probs": probs(count, longest),
        "group_ids": [0, 0, 0, 1, 1],
        "micro_batches": [[0, 4, 1], [2, 3]],
    }


def loss_cases() -> list[dict[str, Any]]:
    random = np.random.default_rng(11)
    cases = []
    for loss_type, level, kl in itertools.product(LOSSES, ("token", "sequence"), KLS):
        inputs = batch(random) | {"loss_type": loss_type, "level": level}
        if kl:
            inputs |= {"kl": kl[0], "kl_is": kl[1], "beta": 0.3}
        if tis := TIS[random.integers(len(TIS))]:
            inputs["tis"] = {
                **tis,
                "sampler_token_probs": np.round(random.uniform(0.3, 0.7, (5, 3)), 3).tolist(),
            }
        for name, value in (
            ("eps_high", 0.28 if loss_type != "cispo" else 1.1),
            ("eps_low", 0.1),
            ("delta", 1.4),
            ("dual_clip", 1.5),
            ("entropy_coef", 0.07),
            ("off_policy_threshold", 0.2),
            ("max_len", 7),
            ("tau_pos", 0.8),
            ("old_token_probs", None),
        ):
            if random.random() < 0.35:
                inputs[name] = value
        if not inputs["mask"][4][0]:
            inputs["advantages"][4] = 0.5
        name = f"{loss_type}-{level}-{kl}"
        cases.append(
            {
                "id": name,
                "category": "loss",
                "function": name,
                "inputs": inputs,
                "expected": naive.loss_case(inputs),
                "atol": 2e-8,
            }
        )
    return cases


def advantage_cases() -> list[dict[str, Any]]:
    random = np.random.default_rng(5)
    cases = []
    for number, (function, scale, ddof) in enumerate(
        itertools.product(
            ("advantages", "advantages_with_none", "rloo_advantages", "gdpo_advantages"),
            ("group", "batch", "none"),
            (0, 1),
        )
    ):
        table = np.round(random.choice([0, 0, 1, 1, 0.3, 2.5], (9, 2)), 2).astype(object)
        if function == "advantages_with_none":
            table[random.random((9, 2)) < 0.3] = None
            table[4] = None
        inputs: dict[str, Any] = {
            "rewards_per_func": table.tolist(),
            "weights": [1, 0.5],
            "scale": scale,
            "ddof": ddof,
            "eps": 1e-4,
        }
        inputs |= {"group_ids": [0, 0, 0, 1, 1, 2, 2, 2, 2]} if number % 2 else {"group_size": 3}
        if function == "advantages" and number % 3 == 0:
            inputs = {**inputs, "rewards": [row[0] for row in inputs.pop("rewards_per_func")]}
            del inputs["weights"]
        asked = dict(inputs)
        if function == "rloo_advantages":
            asked = {"baseline": "leave_one_out", **inputs}
        if function == "gdpo_advantages":
            asked = {"aggregation": "normalize_then_sum", **inputs}
        expected = {"advantages": naive.advantages(asked)}
        cases.append(
            {
                "id": f"{function}-{scale}-{ddof}",
                "category": "advantages",
                "function": function,
                "inputs": inputs,
                "expected": expected,
            }
        )
    return cases


CASES = {case["id"]: case for case in [*loss_cases(), *advantage_cases()]}


@pytest.mark.parametrize("case_id", CASES)
def test_a_generated_case_gives_what_slow_loops_give(case_id: str) -> None:
    failure = grpo_cases.check(CASES[case_id])
    assert failure is None, str(failure)


def test_a_file_of_generated_cases_runs_from_the_command_line(tmp_path: Path) -> None:
    path = tmp_path / "hidden.json"
    path.write_text(json.dumps({"header": {}, "cases": list(CASES.values())[::8]}))
    done = subprocess.run(
        [sys.executable, grpo_cases.__file__, str(path)], capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines() == [f"{len(list(CASES)[::8])} passed, 0 failed"], done.stdout[-2000:]
