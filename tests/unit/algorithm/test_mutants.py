"""A wrong normaliser, clip edge or surrogate must turn a named ground-truth case red, or the cases guard
nothing."""

from dataclasses import replace

import pytest

from tests import grpo_cases
from workbench.algorithm import token_grads
from workbench.algorithm.token_grads import VARIANTS

CASES = {case["id"]: case for case in grpo_cases.load()}
NAMED = {
    "grpo": "LOS-001",
    "dapo": "LOS-002",
    "dapo_group": "LOS-003",
    "dr_grpo": "LOS-004",
    "luspo": "LOS-007",
    "cispo": "LOS-008",
    "sapo": "LOS-009",
    "bnpo": "LOS-041",
}
SCALES = (
    token_grads.sequence_mean,
    token_grads.sequence_sum,
    token_grads.constant_length,
    token_grads.all_tokens,
    token_grads.group_tokens,
    token_grads.micro_batch_tokens,
)
SURROGATES = (token_grads.clipped_surrogate, token_grads.soft_surrogate, token_grads.capped_surrogate)
TOKEN_CLIPPED = ["grpo", "dapo", "dapo_group", "dr_grpo", "bnpo"]


def turns_red(monkeypatch: pytest.MonkeyPatch, loss_type: str, mutant: token_grads.Variant) -> bool:
    assert grpo_cases.check(CASES[NAMED[loss_type]]) is None
    with monkeypatch.context() as patch:
        patch.setitem(VARIANTS, loss_type, mutant)
        return grpo_cases.check(CASES[NAMED[loss_type]]) is not None


def test_every_variant_has_its_case() -> None:
    assert set(NAMED) == set(VARIANTS)


@pytest.mark.parametrize("loss_type", NAMED)
def test_any_other_normaliser_turns_the_variants_case_red(
    monkeypatch: pytest.MonkeyPatch, loss_type: str
) -> None:
    own = VARIANTS[loss_type]
    others = [scale for scale in SCALES if scale is not own.scale]
    if loss_type in ("dapo", "cispo"):
        others.remove(
            token_grads.micro_batch_tokens
        )  # the same in a batch of one micro-batch; LOS-041 tells them apart
        others.remove(token_grads.group_tokens)  # the same in a batch of one group; LOS-003 tells them apart
    assert [
        scale.__name__ for scale in others if not turns_red(monkeypatch, loss_type, own._replace(scale=scale))
    ] == []


@pytest.mark.parametrize("loss_type", NAMED)
def test_any_other_surrogate_turns_the_variants_case_red(
    monkeypatch: pytest.MonkeyPatch, loss_type: str
) -> None:
    own = VARIANTS[loss_type]
    others = [surrogate for surrogate in SURROGATES if surrogate is not own.surrogate]
    assert all(turns_red(monkeypatch, loss_type, own._replace(surrogate=surrogate)) for surrogate in others)


@pytest.mark.parametrize("loss_type", TOKEN_CLIPPED)
@pytest.mark.parametrize("lost_edge", [{"epsilon": 1.0}, {"epsilon_high": 1e9}], ids=["low", "high"])
def test_a_lost_clip_edge_turns_the_variants_case_red(
    monkeypatch: pytest.MonkeyPatch, loss_type: str, lost_edge: dict
) -> None:
    blunt = VARIANTS[loss_type]._replace(
        surrogate=lambda r, a, o: token_grads.clipped_surrogate(
            r, a, replace(o, **{"epsilon_high": o.clip_high, **lost_edge})
        )
    )
    assert turns_red(monkeypatch, loss_type, blunt)


@pytest.mark.parametrize("loss_type", TOKEN_CLIPPED)
def test_clipping_on_the_wrong_side_turns_the_variants_case_red(
    monkeypatch: pytest.MonkeyPatch, loss_type: str
) -> None:
    def wrong_side(ratio, advantage, objective):
        push = token_grads.clipped_surrogate(ratio, -advantage, objective)
        return push._replace(slope=-push.slope)

    assert turns_red(monkeypatch, loss_type, VARIANTS[loss_type]._replace(surrogate=wrong_side))
