"""Every metric has its words, every recorded name finds its entry, and nothing else does."""

import re

import pytest

from workbench.core.glossary import METRICS, SECTIONS, SLOTS, metric


@pytest.mark.parametrize("name", METRICS)
def test_an_entry_is_complete_and_plain(name: str) -> None:
    entry = METRICS[name]
    assert entry.label and entry.formula and entry.unit and entry.section in SECTIONS
    assert entry.meaning.endswith(".") and len(entry.meaning) <= 160 and "!" not in entry.meaning
    slots = set(re.findall(r"<(\w+)>", name))
    used = set(re.findall(r"{(\w+)}", " ".join(entry)))
    assert used <= slots, f"{used - slots} would stay unfilled"


@pytest.mark.parametrize(
    ("name", "label", "trl"),
    [
        ("reward", "Reward", "reward"),
        ("rewards/correct/mean", "Reward correct", "rewards/correct/mean"),
        ("rewards/my/file.py:close/std", "Std of my/file.py:close", "rewards/my/file.py:close/std"),
        ("completions/p90_length", "Length p90", ""),
        ("completions/mean_length_wrong", "Length of wrong samples", ""),
        (
            "completions/mean_terminated_length",
            "Length of finished samples",
            "completions/mean_terminated_length",
        ),
        ("heldout/greedy/accuracy", "Held-out accuracy, greedy", "eval_rewards/<name>/mean"),
        ("heldout/sampled/accuracy_low", "Held-out accuracy, sampled: lower end", ""),
        ("time/check, sampled", "Time: check, sampled", ""),
        (
            "sampling/sampling_logp_difference/max",
            "Sampler mismatch, max",
            "sampling/sampling_logp_difference/max",
        ),
    ],
)
def test_a_recorded_name_finds_its_entry_with_its_slots_filled(name: str, label: str, trl: str) -> None:
    found = metric(name)
    assert found is not None and found.name == name
    assert (found.label, found.trl) == (label, trl)
    assert "{" not in " ".join(found)


@pytest.mark.parametrize(
    "name", ["", "nothing", "completions/p91_length", "heldout/beam/accuracy", "rewards/correct", "<name>"]
)
def test_a_name_that_is_not_ours_finds_none(name: str) -> None:
    assert metric(name) is None


def test_names_that_trl_logs_keep_its_spelling() -> None:
    trl = [
        "reward",
        "reward_std",
        "frac_reward_zero_std",
        "completions/mean_length",
        "completions/min_length",
        "completions/max_length",
        "completions/clipped_ratio",
        "completions/mean_terminated_length",
        "completions/min_terminated_length",
        "completions/max_terminated_length",
        "kl",
        "entropy",
        "clip_ratio/low_mean",
        "clip_ratio/high_mean",
        "clip_ratio/region_mean",
        "step_time",
        "loss",
        "grad_norm",
        "learning_rate",
    ]
    assert {name: METRICS[name].trl for name in trl} == {name: name for name in trl}


def test_every_slot_with_a_closed_list_is_used() -> None:
    used = {slot for name in METRICS for slot in re.findall(r"<(\w+)>", name)}
    assert set(SLOTS) <= used
