"""The registry of named choices: one list from which settings, functions and words are made."""

from typing import get_args

import pytest

from workbench.algorithm import token_grads
from workbench.core import variants
from workbench.core.config import settings
from workbench.core.errors import ConfigError

TABLES = {
    "loss_type": variants.LOSSES,
    "kl_estimator": variants.KL_ESTIMATORS,
    "scale_rewards": variants.SCALES,
    "advantage_baseline": variants.BASELINES,
}


@pytest.mark.parametrize("name", TABLES)
def test_a_setting_offers_exactly_the_rows_of_its_table(name):
    offered = {info.name: info.choices for info in settings()}[name]
    assert offered == tuple(TABLES[name])


def test_every_part_of_a_loss_has_its_function_and_none_is_left_over():
    assert set(token_grads.SURROGATES) == set(variants.SURROGATES) == set(get_args(variants.Surrogate))
    assert (
        set(token_grads.NORMALIZATIONS)
        == set(variants.NORMALIZATIONS)
        == set(get_args(variants.Normalization))
    )
    assert {loss.surrogate for loss in variants.LOSSES.values()} == set(token_grads.SURROGATES)
    assert {loss.normalization for loss in variants.LOSSES.values()} == set(token_grads.NORMALIZATIONS)


def test_a_loss_says_in_words_what_it_divides_by():
    assert variants.LOSSES["sapo"].words == "soft gate, mean over each sample, then over samples"
    assert variants.LOSSES["dr_grpo"].words == "clipped ratio, sum over tokens ÷ max completion length"
    assert (
        variants.LOSSES["cispo"].formula == "(1 / Σ T) Σ over all tokens −stop_grad(min(r, ε_high)) A log π"
    )


@pytest.mark.parametrize("name", ["loss_type", "kl_estimator"])
def test_an_unknown_choice_is_refused_with_those_that_are_known(name):
    with pytest.raises(
        ConfigError, match=f"{name} = 'vpg' is not known. Choose one of {next(iter(TABLES[name]))}, "
    ):
        token_grads.Objective(**{name: "vpg"})
