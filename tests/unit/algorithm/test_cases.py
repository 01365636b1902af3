"""The ground-truth cases, one test each, and what their adapter must take beyond them."""

import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests import grpo_cases

CASES = {case["id"]: case for case in grpo_cases.load()}


@pytest.mark.parametrize("case_id", CASES)
def test_case(case_id: str) -> None:
    failure = grpo_cases.check(CASES[case_id])
    assert failure is None, str(failure)


def test_all_cases_are_there() -> None:
    assert len(CASES) == 114


def loss(**changes) -> dict:
    return grpo_cases.compute(
        {"function": "grpo", "category": "loss", "inputs": {**CASES["LOS-014"]["inputs"], **changes}}
    )


def test_k1_in_the_loss_adds_beta_over_the_normaliser_to_every_token() -> None:
    with_k1, without = loss(kl="k1"), loss(beta=0.0)
    mask, lengths = CASES["LOS-014"]["inputs"]["mask"], (2, 2, 1, 2)
    for row, length in enumerate(lengths):
        for t in range(2):
            difference = with_k1["loss_grads"][row][t] - without["loss_grads"][row][t]
            assert difference == pytest.approx(0.1 * mask[row][t] / (4 * length), abs=1e-12)
    assert with_k1["loss"] - without["loss"] == pytest.approx(
        0.1
        * (
            (0.693147180560 + 0.0) / 2
            + (-0.693147180560 + 0.693147180560) / 2
            + 0.0
            + (0.693147180560 - 0.693147180560) / 2
        )
        / 4
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"kl": "k1", "kl_is": True},
        {"kl": "k2", "kl_is": True, "level": "sequence"},
        {"dual_clip": 1.2, "loss_type": "dapo"},
        {"loss_type": "sapo", "level": "sequence", "kl_is": True},
        {"loss_type": "cispo", "level": "sequence", "eps_high": 1.1},
        {"loss_type": "luspo", "old_token_probs": None},
        {"loss_type": "bnpo", "micro_batches": [[0, 3], [1, 2]]},
        {"loss_type": "dapo_group", "group_ids": [0, 0, 0, 1]},
        {"entropy_coef": 0.1},
        {"off_policy_threshold": 0.01},
        {
            "tis": {
                "sampler_token_probs": [[0.3, 0.4], [0.6, 0.2], [0.5, 0.5], [0.1, 0.9]],
                "mode": "token_mask",
                "cmin": 0.5,
                "cmax": None,
            }
        },
        {"tis": {"sampler_token_probs": [[0.3, 0.4], [0.6, 0.2], [0.5, 0.5], [0.1, 0.9]]}},
        {"delta": 1.05, "eps_high": 0.5},
        {"max_len": None},
        {"loss_type": "dr_grpo", "temperature": 0.7},
    ],
)
def test_combinations_that_the_file_does_not_hold_are_computed_and_confirmed_by_autograd(
    changes: dict,
) -> None:
    assert set(loss(**changes)) >= {
        "loss",
        "grad_wrt_logits",
    }  # compute() raises where weights.py and autograd disagree


def test_a_wrong_number_is_reported_with_id_expected_and_got(tmp_path: Path) -> None:
    cases = copy.deepcopy([CASES["LOS-001"], CASES["MET-001"], CASES["LOS-041"]])
    cases[1]["expected"]["value"] = 0.5
    cases.append({**CASES["CON-001"], "function": "no_such_thing"})
    path = tmp_path / "cases.json"
    path.write_text(json.dumps({"cases": cases}))
    done = subprocess.run(
        [sys.executable, grpo_cases.__file__, str(path)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    lines = done.stdout.splitlines()
    assert done.returncode == 1
    assert lines[0] == "MET-001: expected {value: 0.5}, got {value: 0.3}"
    assert lines[1].startswith("CON-001: ") and "no_such_thing" in lines[1]
    assert lines[2:] == ["2 passed, 2 failed"]
