"""Metrics of one step against numbers worked out by hand; what cannot be computed is absent."""

import dataclasses
import math

import numpy as np
import pytest

from tests.fakes import fake_config, make_step
from workbench.core.glossary import metric
from workbench.core.types import Group, Prompt, Rollout, Score, StepRecord, TokenArrays
from workbench.diagnose import text
from workbench.diagnose.metrics import step_metrics
from workbench.record import rollup

CONFIG = fake_config(groups=3, samples=2)
HALF = math.log(0.5)


def completion(text: str, length: int, finish: str = "stop", logp: float = HALF) -> Rollout:
    return Rollout(np.zeros(length, np.int32), np.full(length, logp, np.float32), text, finish)  # type: ignore[arg-type]


def step(**changes: object) -> StepRecord:
    """Three groups of two: one mixed, one all right, one all wrong with a truncated completion."""
    groups = [
        Group(
            Prompt("a", id="a"),
            (completion("<think>1+1=2\n</think><answer>2</answer>", 4), completion("<answer>3</answer>", 2)),
        ),
        Group(
            Prompt("b", id="b"), (completion("<answer>5</answer>", 2), completion("<answer>5</answer>", 2))
        ),
        Group(Prompt("c", id="c"), (completion("<think>wait, wait", 10, "length"), completion("7", 1))),
    ]
    scores = [Score({"correct": value}, {}, value) for value in (1.0, 0.0, 1.0, 1.0, 0.0, 0.0)]
    record = StepRecord(
        3,
        "train",
        groups,
        scores,
        advantages_B=np.array([0.7, -0.7, 0, 0, 0, 0]),
        gradient_share_B=np.array([0.75, 0.25, 0, 0, 0, 0]),
        phases={"sample": 1.5, "update": 0.5},
    )
    return dataclasses.replace(record, **changes)  # type: ignore[arg-type]


def expect(record: StepRecord, **values: float) -> None:
    found = step_metrics(record, CONFIG)
    assert {name: found.get(name) for name in values} == pytest.approx(values, abs=1e-6)


def test_rewards_and_accuracy() -> None:
    expect(
        step(),
        **{
            "reward": 0.5,
            "accuracy": 0.5,
            "reward/unscored": 0,
            "rewards/correct/mean": 0.5,
            "rewards/correct/std": math.sqrt(6 * 0.25 / 5),
            "rewards/correct/failed": 0,
        },
    )


def test_groups_without_reward_spread_are_split_by_side() -> None:
    expect(
        step(),
        **{
            "frac_reward_zero_std": 2 / 3,
            "frac_reward_zero_std/all_right": 1 / 3,
            "frac_reward_zero_std/all_wrong": 1 / 3,
            "frac_reward_zero_std/tied": 0,
            "groups/effective": 1,
            "reward_std": math.sqrt(0.5) / 3,
            "groups/draws_per_kept": 2.0,
        },
    )


def test_a_group_that_agrees_without_being_right_or_wrong_is_tied() -> None:
    scores = [
        Score({"correct": value, "style": 1 - value}, {}, 1.0) for value in (1.0, 0.0, 1.0, 1.0, 0.0, 0.0)
    ]
    expect(step(scores_B=scores), **{"frac_reward_zero_std/tied": 1 / 3, "frac_reward_zero_std": 1.0})


def test_an_absent_reward_is_absent_and_not_zero() -> None:
    scores = [Score({"correct": 1.0}, {}, 1.0), Score({"correct": None}, {"correct": "x"}, None)] * 3
    expect(
        step(scores_B=scores),
        **{
            "reward": 1.0,
            "accuracy": 1.0,
            "reward/unscored": 0.5,
            "rewards/correct/mean": 1.0,
            "rewards/correct/failed": 0.5,
            "frac_reward_zero_std/all_right": 1.0,
        },
    )
    nothing = step_metrics(step(scores_B=[Score({"correct": None}, {}, None)] * 6), CONFIG)
    assert {"reward", "accuracy", "rewards/correct/mean", "groups/draws_per_kept"}.isdisjoint(nothing)
    assert nothing["rewards/correct/failed"] == 1.0 and nothing["frac_reward_zero_std/tied"] == 1.0


def test_noise_that_division_would_amplify_is_seen() -> None:
    values = (1.0, 1.001, 1.0, 1.0, 0.0, 1.0)
    expect(
        step(scores_B=[Score({"correct": value}, {}, value) for value in values]),
        **{"groups/tiny_std": 1 / 3},
    )


def test_lengths_over_all_finished_and_by_side() -> None:
    expect(
        step(),
        **{
            "completions/mean_length": 21 / 6,
            "completions/min_length": 1,
            "completions/max_length": 10,
            "completions/mean_terminated_length": 11 / 5,
            "completions/max_terminated_length": 4,
            "completions/p50_length": 2,
            "completions/clipped_ratio": 1 / 6,
            "completions/tokens": 21,
            "completions/mean_length_right": 8 / 3,
            "completions/mean_length_wrong": 13 / 3,
            "completions/mean_length_pushed_up": 4,
            "completions/mean_length_pushed_down": 2,
        },
    )


def test_who_carries_the_gradient() -> None:
    expect(
        step(),
        **{
            "gradient/top_group_share": 1.0,
            "gradient/down_share": 0.25,
            "gradient/effective_samples": 1.6,
            "advantage/mean_abs": 1.4 / 6,
            "advantage/max": 0.7,
            "groups/lone_success_share": 1.0,
        },
    )


def test_styles_reflection_and_diversity() -> None:
    expect(
        step(),
        **{
            "style/direct": 3 / 6,
            "style/worked": 1 / 6,
            "style/unfinished": 1 / 6,
            "style/bare": 1 / 6,
            "style/checked": 0,
            "reward/right_without_work": 2 / 3,
            "reflection/share": 1 / 6,
            "reflection/per_1k_tokens": 2000 / 21,
            "reflection/accuracy_with": 0.0,
            "reflection/accuracy_without": 0.6,
            "diversity/duplicates": (0 + 0.5 + 0) / 3,
            "diversity/unique_answers": (2 + 1 + 0) / 3,
            "completions/longest_sure_run": 0,
        },
    )


def test_a_task_that_needs_no_work_is_not_called_guessing() -> None:
    record = step()
    record.styles_B = ["direct"] * 6
    assert "reward/right_without_work" not in step_metrics(record, CONFIG)


def tokens(**changes: object) -> TokenArrays:
    """One token a completion; the reference holds each twice as likely as the policy."""
    one = [np.array([HALF], np.float32)] * 6
    arrays_of_six = TokenArrays(
        [np.zeros(1, np.int32)] * 6,
        one,
        policy_logp=one,
        reference_logp=[np.array([0.0], np.float32)] * 6,
        after_logp=[np.array([math.log(p)], np.float32) for p in (0.75, 0.25, 0.5, 0.5, 0.5, 0.5)],
        entropy=[np.array([value], np.float32) for value in (0.0, 0.1, 0.2, 0.3, 0.4, 1.0)],
    )
    return dataclasses.replace(arrays_of_six, **changes)  # type: ignore[arg-type]


def short(record: StepRecord) -> StepRecord:
    """The same with completions of one token."""
    groups = [
        dataclasses.replace(group, rollouts=tuple(completion(r.text, 1) for r in group.rollouts))
        for group in record.groups
    ]
    return dataclasses.replace(record, groups=groups, tokens=tokens())


def test_drift_entropy_and_the_steps_own_move() -> None:
    k3 = 2 - math.log(2) - 1  # d = log 2
    up, down = math.log(1.5), math.log(0.5)
    expect(
        short(step()),
        **{
            "kl": k3,
            "kl_k1": HALF,
            "kl_sequence": HALF,
            "kl_max_token": k3,
            "kl_max_share": 1 / 6,  # six tokens, all alike
            "entropy": 2 / 6,
            "entropy_top20": 1.0,
            "kl_update": ((1.5 - up - 1) + (0.5 - down - 1)) / 6,
            "update/right_way": 1.0,
            "update/delta_logp_up": up,
            "update/delta_logp_down": down,
            "sampling/ess": 1.0,
            "sampling/sampling_logp_difference/max": 0.0,
        },
    )


def test_an_update_that_went_against_the_ask_is_counted() -> None:
    record = short(step())
    record.advantages_B = np.array([-0.7, -0.7, 0, 0, 0, 0])
    expect(record, **{"update/right_way": 0.5})


def test_the_samplers_mismatch_is_measured_over_tokens() -> None:
    record = short(step())
    shifted = [np.array([HALF + (0.2 if i == 0 else 0.0)], np.float32) for i in range(6)]
    record.tokens = tokens(policy_logp=shifted)
    w = math.exp(0.2)
    expect(
        record,
        **{
            "sampling/sampling_logp_difference/mean": 0.2 / 6,
            "sampling/importance_sampling_ratio/max": w,
            "sampling/ess": (w + 5) ** 2 / (6 * (w**2 + 5)),
        },
    )


def test_what_was_not_computed_is_left_out() -> None:
    found = step_metrics(short(step()), CONFIG)
    bare = short(step())
    bare.tokens = tokens(policy_logp=None, reference_logp=None, after_logp=None, entropy=None)
    less = step_metrics(bare, CONFIG)
    gone = {
        "kl",
        "kl_k1",
        "kl_sequence",
        "entropy",
        "entropy_top20",
        "kl_update",
        "update/right_way",
        "sampling/ess",
    }
    assert gone <= set(found) and gone.isdisjoint(less)
    assert all(math.isfinite(value) for value in {**found, **less}.values())


@pytest.mark.parametrize("kind", ["train", "eval"])
def test_every_metric_is_in_the_glossary(kind: str) -> None:
    record = make_step(5, groups=4, samples=4, kind=kind, mode="sampled" if kind == "eval" else None)
    assert [name for name in record.metrics if metric(name) is None] == []


def test_empty_completions_and_an_empty_step_divide_by_nothing() -> None:
    empty = Group(Prompt("a", id="a"), (completion("", 0), completion("", 0)))
    arrays = TokenArrays(
        [np.zeros(0, np.int32)] * 2, [np.zeros(0, np.float32)] * 2, entropy=[np.zeros(0, np.float32)] * 2
    )
    record = StepRecord(
        0, "train", [empty], [Score({"correct": 0.0}, {}, 0.0)] * 2, np.zeros(2), arrays, np.zeros(2)
    )
    found = step_metrics(record, CONFIG)
    assert (
        found["completions/mean_length"] == 0
        and "entropy" not in found
        and "gradient/down_share" not in found
    )
    assert all(
        math.isfinite(value) for value in step_metrics(StepRecord(0, "train", [], []), CONFIG).values()
    )


def test_ragged_groups_are_measured_as_they_are() -> None:
    record = make_step(3, groups=3, samples=4)
    first, *rest = record.groups
    shorter = dataclasses.replace(first, rollouts=first.rollouts[:1])
    ragged = StepRecord(3, "train", [shorter, *rest], [record.scores_B[0], *record.scores_B[4:]])
    found = step_metrics(ragged, CONFIG)
    assert found["completions/tokens"] == sum(rollout.length for rollout in ragged.rollouts())
    groups = rollup.group_numbers(ragged, rollup.sample_numbers(ragged, "correct"), CONFIG)
    assert (
        [group.size for group in groups] == [1, 4, 4]
        and groups[0].reward_std == 0.0
        and groups[0].zero_std != ""
    )


def test_the_accuracy_reward_is_what_the_record_says_then_the_settings() -> None:
    config = fake_config(rewards=["format=1", "correct=0.5"])
    assert rollup.accuracy_reward(config) == "correct"
    assert rollup.accuracy_reward(fake_config(rewards=["mine.py:close=1"])) == "mine.py:close"
    assert rollup.accuracy_reward(fake_config(rewards=["format"], eval_reward="exact")) == "exact"
    assert rollup.accuracy_reward(config, step(accuracy_reward="countdown")) == "countdown"


@pytest.mark.parametrize(
    ("value", "right"),
    [(1.0, True), (0.5, True), (0.49, False), (-1.0, False), (None, None), (math.nan, None)],
)
def test_right_is_at_least_half_marks(value: float | None, right: bool | None) -> None:
    assert rollup.is_right(Score({"correct": value}), "correct") is right


def test_several_completions_and_their_wording() -> None:
    expect(
        step(),
        **{
            "pass_at/2": 2 / 3,
            "avg_at/2": 0.5,
            "maj_at/2": 1.0,  # group c has no final answer, hence no vote
            "completions/mean_truncated_length": 10,
            "completions/language_consistency": 1.0,  # wait, wait: the only reasoning with words
            # a: < think > 1 + = 2 / `answer` 3 among 28 signs and words; b: < `answer` > 5 / among 16; c: six among seven
            "diversity/distinct_1": np.mean([10 / 28, 5 / 16, 6 / 7]),
        },
    )


def test_self_bleu_is_one_for_copies_and_nought_without_anything_in_common() -> None:
    record = step()
    words = [[text.words(rollout.text) for rollout in group.rollouts] for group in record.groups]
    assert text.self_bleu(words[1]) == pytest.approx(1.0) and text.self_bleu(words[2]) == 0.0
    expect(record, **{"diversity/self_bleu_2": np.mean([text.self_bleu(group) for group in words])})


def spelt(text: str) -> Rollout:
    """One token a character, and the end token."""
    return Rollout(
        np.array([*map(ord, text), 0], np.int32), np.full(len(text) + 1, HALF, np.float32), text, "stop"
    )


def test_overthinking_is_what_right_completions_spend_after_the_reference_answer() -> None:
    long = "1+1=2\n2+0=2\nok\n2+0=2\n</think>2"  # settled after 11 of 31 tokens: the first 2 is computed on
    brief = "1+1=2"  # settled after 5 of 6
    groups = [Group(Prompt("a", "2", id="a"), (spelt(long), spelt(brief), spelt("2!"), spelt("=2, or 3?")))]
    scores = [Score({"correct": value}, {}, value) for value in (1.0, 1.0, 1.0, 0.0)]
    record = step(groups=groups, scores_B=scores, advantages_B=None, gradient_share_B=None)
    found = step_metrics(record, CONFIG, chr)
    assert found["overthinking/detected"] == pytest.approx(2 / 3)  # a bare "2!" states nothing
    assert found["overthinking/share"] == pytest.approx((20 + 1) / (31 + 6))
    wordless = step_metrics(record, CONFIG, lambda token: "?")
    assert wordless["overthinking/detected"] == 0 and "overthinking/share" not in wordless
    assert "overthinking/detected" not in step_metrics(record, CONFIG)
