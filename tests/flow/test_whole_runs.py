"""Whole runs by real workers: what they learn, what they leave behind."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from workbench.algorithm import advantages
from workbench.record.reader import Reader


def series(folder, name: str, kind: str = "train", mode: str | None = None) -> np.ndarray:
    frame = Reader(folder).metrics([name])
    frame = frame[(frame["kind"] == kind) & ((frame["mode"] == mode) if mode else True)].sort_values("step")
    return frame[name].dropna().to_numpy(float)


def test_a_default_run_of_20_steps_raises_held_out_accuracy_and_answers_grow(recorded):
    sampled = series(recorded.normal, "heldout/sampled/accuracy", "eval", "sampled")
    greedy = series(recorded.normal, "heldout/greedy/accuracy", "eval", "greedy")
    assert len(sampled) == len(greedy) == 3  # before step 0, 10, 20
    assert sampled[0] < 0.35 and sampled[-1] > sampled[0] + 0.2
    assert greedy[-1] > 0.85
    lengths, rewards = series(recorded.normal, "completions/mean_length"), series(recorded.normal, "reward")
    assert lengths[-5:].mean() > 1.4 * lengths[:2].mean()
    assert rewards[-5:].mean() > rewards[:5].mean() + 0.15


def test_recorded_advantages_are_those_of_the_recorded_rewards(recorded):
    config = recorded.normal.config()
    samples = Reader(recorded.normal).samples(step=4)
    rewards = samples["reward"].to_numpy(float)
    again = advantages.compute(
        rewards,
        samples["k"].to_numpy(),
        scale=config.scale_rewards,
        std=config.advantage_std,
        eps=config.advantage_eps,
    ).advantages_B
    np.testing.assert_allclose(samples["advantage"].to_numpy(float), again, atol=1e-9)


def test_answers_that_were_pushed_up_mostly_became_more_likely(recorded):
    reader = Reader(recorded.normal)
    moved = np.concatenate(
        [reader.samples(step=step)[["advantage", "delta_logp"]].to_numpy(float) for step in range(5)]
    )
    asked = moved[np.abs(moved[:, 0]) > 0.5]
    assert (np.sign(asked[:, 0]) == np.sign(asked[:, 1])).mean() > 0.6


def test_final_loads_with_plain_auto_classes_and_has_learned(recorded):
    base, final = (
        AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
        for path in (recorded.normal.config().model.replace("embedded", _embedded()), recorded.normal.final)
    )
    tokenizer = AutoTokenizer.from_pretrained(recorded.normal.final)
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Chain: 3+4*2-5"}],
        add_generation_prompt=True,
        return_dict=False,
        return_tensors="pt",
    )
    answers = [
        tokenizer.decode(
            model.generate(ids, do_sample=False, max_new_tokens=64)[0, ids.shape[1] :],
            skip_special_tokens=True,
        )
        for model in (base, final)
    ]
    assert answers[1].endswith("<answer>9</answer>") and "\n" in answers[1]
    assert len(answers[0]) < len(answers[1])


@pytest.mark.slow
def test_a_reward_that_raises_leaves_gaps_with_reasons_and_the_run_goes_on(recorded):
    reader = Reader(recorded.failing)
    group = reader.group(1, 0)
    broken = [s for g in range(6) for s in reader.group(1, g)["samples"] if s["rewards"]["picky"] is None]
    whole = [s for g in range(6) for s in reader.group(1, g)["samples"] if s["rewards"]["picky"] is not None]
    assert broken and whole
    for sample in broken:
        assert (
            len(sample["text"]) % 3 == 0 and sample["reward"] is None and sample["advantage"] in (None, 0.0)
        )
        assert (
            "cannot read an answer" in sample["reasons"]["picky"]
            and "Line 6 of picky.py" in sample["reasons"]["picky"]
        )
    assert group["samples"][0]["rewards"].keys() >= {"picky"}


@pytest.mark.slow
def test_groups_that_agree_are_counted_by_side(recorded):
    assert series(recorded.dead, "frac_reward_zero_std")[-1] > 0.4
    sides = [
        series(recorded.dead, f"frac_reward_zero_std/{side}")[-1]
        for side in ("all_right", "all_wrong", "tied")
    ]
    assert sum(sides) == pytest.approx(series(recorded.dead, "frac_reward_zero_std")[-1])


def _embedded() -> str:
    from workbench import embedded_model  # noqa: PLC0415

    return str(embedded_model())


@pytest.mark.parametrize(
    "name", ["normal", *(pytest.param(name, marks=pytest.mark.slow) for name in ("dead", "failing"))]
)
def test_every_recorded_metric_is_in_the_glossary(recorded, name):
    from workbench.core.glossary import metric  # noqa: PLC0415

    names = set(Reader(getattr(recorded, name)).metrics().columns) - {
        "step",
        "kind",
        "mode",
        "attempt",
        "started",
        "seconds",
    }
    assert [found for found in sorted(names) if metric(found) is None] == []
