"""A wrong normaliser, clip edge or surrogate must turn a named ground-truth case red, or the cases guard
nothing."""

from dataclasses import replace

import pytest

from tests import grpo_cases
from workbench.algorithm import token_grads
from workbench.algorithm.token_grads import NORMALIZATIONS, SURROGATES
from workbench.core.variants import LOSSES

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
TOKEN_CLIPPED = ["grpo", "dapo", "dapo_group", "dr_grpo", "bnpo"]


def turns_red(
    monkeypatch: pytest.MonkeyPatch, loss_type: str, table: dict, part: str, mutant: object
) -> bool:
    """Whether the case of a loss fails with another function in place of one of its two."""
    assert grpo_cases.check(CASES[NAMED[loss_type]]) is None
    with monkeypatch.context() as patch:
        patch.setitem(table, part, mutant)
        return grpo_cases.check(CASES[NAMED[loss_type]]) is not None


def test_every_variant_has_its_case() -> None:
    assert set(NAMED) == set(LOSSES)


@pytest.mark.parametrize("loss_type", NAMED)
def test_any_other_normaliser_turns_the_variants_case_red(
    monkeypatch: pytest.MonkeyPatch, loss_type: str
) -> None:
    own = LOSSES[loss_type].normalization
    others = [name for name in NORMALIZATIONS if name != own]
    if loss_type in ("dapo", "cispo"):
        others.remove("microbatch_tokens")  # the same in a batch of one microbatch; LOS-041 tells them apart
        others.remove("group_tokens")  # the same in a batch of one group; LOS-003 tells them apart
    assert [
        name
        for name in others
        if not turns_red(monkeypatch, loss_type, NORMALIZATIONS, own, NORMALIZATIONS[name])
    ] == []


@pytest.mark.parametrize("loss_type", NAMED)
def test_any_other_surrogate_turns_the_variants_case_red(
    monkeypatch: pytest.MonkeyPatch, loss_type: str
) -> None:
    own = LOSSES[loss_type].surrogate
    others = [name for name in SURROGATES if name != own]
    assert all(turns_red(monkeypatch, loss_type, SURROGATES, own, SURROGATES[name]) for name in others)


@pytest.mark.parametrize("loss_type", TOKEN_CLIPPED)
@pytest.mark.parametrize("lost_edge", [{"epsilon": 1.0}, {"epsilon_high": 1e9}], ids=["low", "high"])
def test_a_lost_clip_edge_turns_the_variants_case_red(
    monkeypatch: pytest.MonkeyPatch, loss_type: str, lost_edge: dict
) -> None:
    def blunt(ratio, advantage, objective):
        edges = {"epsilon_high": objective.clip_high, **lost_edge}
        return token_grads.clipped_surrogate(ratio, advantage, replace(objective, **edges))

    assert turns_red(monkeypatch, loss_type, SURROGATES, "clipped", blunt)


@pytest.mark.parametrize("loss_type", TOKEN_CLIPPED)
def test_clipping_on_the_wrong_side_turns_the_variants_case_red(
    monkeypatch: pytest.MonkeyPatch, loss_type: str
) -> None:
    def wrong_side(ratio, advantage, objective):
        push = token_grads.clipped_surrogate(ratio, -advantage, objective)
        return push._replace(slope=-push.slope)

    assert turns_red(monkeypatch, loss_type, SURROGATES, "clipped", wrong_side)
