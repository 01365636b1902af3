"""Every alarm fires at the step worked out by hand from its limits, and not before; figures of a run that learns raise none."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from tests.fakes import fake_config, make_step
from workbench.core.config import RewardSpec, RunConfig
from workbench.core.glossary import ALARMS, metric
from workbench.diagnose.alarms import evidence
from workbench.diagnose.alarms.remedies import RunLimits
from workbench.diagnose.alarms.watch import CALM, RULES, Change, Watch, text_of
from workbench.diagnose.metrics import step_metrics

RECORDED = Path(__file__).parents[2] / "data" / "alarm_runs.json"
BENCHMARKS = Path(__file__).parents[3] / "benchmarks"
DEAD = "frac_reward_zero_std"
CALM_FIGURES = {
    "reward": 0.3, "accuracy": 0.3, f"{DEAD}/all_wrong": 0.1, f"{DEAD}/all_right": 0.1, f"{DEAD}/tied": 0.0,
    "completions/clipped_ratio": 0.0, "completions/mean_length": 20.0, "entropy": 0.3, "kl": 0.01, "kl_k1": 0.01,
    "kl_max_token": 1.0, "kl_max_share": 0.05, "beta": 0.0, "groups/tiny_std": 0.0, "diversity/duplicates": 0.2,
    "diversity/distinct_2": 0.2, "diversity/unique_answers": 6.0, "completions/mean_length_wrong": 20.0,
    "completions/mean_length_right": 20.0, "reward/errors": 0.0, "update/skipped": 0.0, "sampling/ess": 1.0,
    "sampling/sampling_logp_difference/mean": 0.0,
}  # fmt: skip
"""A step at which nothing is wrong."""
Curve = Callable[[int], float]
AROUND = RunLimits(context=1024, levels=(3, 9), offered=range(1, 13))


def at(step: int, before: float, after: float) -> Curve:
    """`before`, and from this step on `after`."""
    return lambda now: after if now >= step else before


def watched(
    curves: Mapping[str, Curve],
    config: RunConfig | None = None,
    steps: int = 30,
    checks: Mapping[int, tuple[float, float, float]] = {},
) -> tuple[Watch, list[Change]]:
    """A run whose figures are calm but for these curves. `checks`: accuracy with its interval, by step."""
    watch = Watch(config or RunConfig.build(), AROUND)
    for step, (value, low, high) in checks.items():
        watch.check(step, {"heldout/sampled/accuracy": value, "heldout/sampled/accuracy_low": low, "heldout/sampled/accuracy_high": high})  # fmt: skip
    changes: list[Change] = []
    for step in range(steps):
        changes += watch.step(step, {**CALM_FIGURES, **{name: curve(step) for name, curve in curves.items()}})
    return watch, changes + watch.end()


def first(changes: list[Change], name: str) -> Change:
    """Where an alarm begins."""
    return next(change for change in changes if change.name == name and change.begins)


CASES: dict[str, tuple[dict[str, Curve], dict[str, object], int, int]] = {
    # from step 4 on; six steps in a row are 4 to 9
    "all_wrong": ({f"{DEAD}/all_wrong": at(4, 0.1, 0.6)}, {}, 9, 4),
    "all_right": ({f"{DEAD}/all_right": at(4, 0.1, 0.8)}, {}, 9, 4),
    # five: 4 to 8
    "tied": ({f"{DEAD}/tied": at(4, 0.0, 0.6)}, {}, 8, 4),
    # four: 4 to 7
    "truncation": ({"completions/clipped_ratio": at(4, 0.0, 0.2)}, {}, 7, 4),
    # the line is .27 x .3 = .081; three steps below it: 10 to 12
    "entropy": ({"entropy": at(10, 0.3, 0.08)}, {}, 12, 10),
    # below .8 - .2 for three steps: 10 to 12; the best three before are 7 to 9
    "regress": ({"accuracy": at(10, 0.8, 0.5), "reward": at(10, 0.8, 0.5)}, {}, 12, 9),
    # .005 a step: over 12 steps .06 nats, more than .05, and more than half; 12 + 3 steps are needed: step 14, since 14 - 12
    "drift": ({"kl": lambda step: 0.005 * step}, {}, 14, 2),
    # above 2 x .1 for four steps: 6 to 9
    "kl_target": ({"kl": at(6, 0.1, 0.25)}, {"beta": 0.04, "kl_target": 0.1, "beta_controller": "ppo"}, 9, 6),
    # three steps with a token above 10 nats that makes up more than a fifth: 6 to 8
    "kl_tail": ({"kl_max_share": at(6, 0.05, 0.3), "kl_max_token": at(6, 1.0, 20.0)}, {"beta": 0.04}, 8, 6),
    # fifteen steps: the fifteenth is step 14
    "frozen": ({"beta": at(0, 2.0, 2.0), "kl": at(0, 0.003, 0.003)}, {"beta": 2.0}, 14, 0),
    # three: 4 to 6
    "noise": ({"groups/tiny_std": at(4, 0.0, 0.3)}, {}, 6, 4),
    # above max(.5, .2 + .2) for four steps: 4 to 7
    "collapse": ({"diversity/duplicates": at(4, 0.2, 0.6)}, {}, 7, 4),
    # two: 4 and 5
    "reward_failures": ({"reward/errors": at(4, 0.0, 0.1)}, {}, 5, 4),
    # 40 is above 1.5 x 20 both ways; five steps: 4 to 8
    "long_wrong": ({"completions/mean_length_wrong": at(4, 20.0, 40.0)}, {}, 8, 4),
    # accuracy below .3 - .08 and reward above .3 + .1 x .6 for three steps: 6 to 8
    "hacking": ({"accuracy": at(6, 0.3, 0.2), "reward": at(6, 0.3, 0.6)}, {}, 8, 6),
    # two: 4 and 5
    "mismatch": ({"sampling/sampling_logp_difference/mean": at(4, 0.0, 0.03)}, {}, 5, 4),
    "non_finite": ({"update/skipped": at(4, 0.0, 1.0)}, {}, 4, 4),
}  # fmt: skip


@pytest.mark.parametrize("name", list(RULES))
def test_each_alarm_begins_at_the_step_worked_out_by_hand(name: str) -> None:
    curves, settings, fires, since = CASES[name]
    _, changes = watched(curves, RunConfig.build(None, settings))
    begun = first(changes, name)
    assert begun.finding is not None
    assert (begun.step, begun.finding.since) == (fires, since)


@pytest.mark.parametrize("name", list(RULES))
def test_each_says_it_in_few_words_with_figures_and_offers_what_can_be_done(name: str) -> None:
    curves, settings, _, _ = CASES[name]
    config = RunConfig.build(None, settings)
    finding = first(watched(curves, config)[1], name).finding
    assert finding is not None
    assert len(finding.claim.split()) <= 7 and len(finding.claim.replace(" %", "%").split()) <= 6
    assert ALARMS[name].cause in text_of(name, finding)
    assert 1 <= len(finding.remedies) <= 2 and all(value == value for value in finding.figures.values())
    for remedy in finding.remedies:
        assert len(remedy["label"]) <= 40
        if "fork" in remedy:
            config.changed(**remedy["fork"])
        elif remedy["command"] == "set":
            assert config.live_changed(remedy["args"]) != config
        else:
            assert remedy["command"] in ("pause", "stop", "checkpoint")


def test_every_alarm_has_its_words_and_watches_a_metric_of_the_glossary() -> None:
    assert set(ALARMS) == set(RULES)
    assert all(metric(row.metric) for row in ALARMS.values())
    assert "more than 50 % of the groups all wrong for 6 steps" in ALARMS["all_wrong"].condition


def test_calm_figures_raise_no_alarm() -> None:
    assert watched({}, steps=60)[1] == []


@pytest.mark.parametrize(
    ("name", "worse", "fires"),
    [
        ("all_wrong", {f"{DEAD}/all_wrong": at(4, 0.1, 0.95)}, 9),
        ("tied", {f"{DEAD}/tied": at(4, 0.0, 1.0)}, 8),
        ("truncation", {"completions/clipped_ratio": at(4, 0.0, 0.6)}, 7),
        ("entropy", {"entropy": at(10, 0.3, 0.02)}, 12),
        ("reward_failures", {"reward/errors": at(4, 0.0, 0.7)}, 5),
        ("drift", {"kl": lambda step: 0.05 * step, "reward": at(8, 0.3, 0.1)}, 14),
    ],
)
def test_beyond_its_second_limit_an_alarm_is_critical(name: str, worse: dict[str, Curve], fires: int) -> None:
    begun = first(watched(worse)[1], name)
    assert begun.finding is not None and (begun.step, begun.finding.level) == (fires, "critical")


def test_a_second_skipped_step_in_a_row_is_critical() -> None:
    levels = [c.finding.level for c in watched({"update/skipped": at(4, 0.0, 1.0)})[1] if c.finding]
    assert levels[:2] == ["warning", "critical"]


def test_low_entropy_and_copies_are_no_alarm_while_accuracy_rises() -> None:
    learns = {
        "accuracy": lambda step: min(0.9, 0.2 + 0.03 * step),
        "reward": lambda step: min(0.9, 0.2 + 0.03 * step),
    }
    falls = {"entropy": lambda step: 0.3 * 0.8**step, "diversity/duplicates": at(8, 0.2, 0.8)}
    _, changes = watched({**learns, **falls})
    assert {(c.name, c.finding.level) for c in changes if c.finding} == {("entropy", "info")}
    finding = first(changes, "entropy").finding
    assert finding is not None and "may be harmless" in text_of("entropy", finding)


def test_what_was_learning_becomes_an_alarm_once_half_of_it_is_lost() -> None:
    # .2 to .8 by step 10; at .45 it has kept less than half of the gain of .6
    accuracy = lambda step: 0.2 if step < 3 else 0.8 if step < 20 else 0.45  # noqa: E731
    _, changes = watched(
        {"accuracy": accuracy, "reward": accuracy, "diversity/duplicates": at(5, 0.2, 0.8)}, steps=30
    )
    begun = first(changes, "collapse")
    assert begun.finding is not None
    # The mean of three steps is below .5 from step 22 on (.8 .8 .45 -> .68, .57, .45); six steps of that are 22 to 27.
    assert begun.step == 27 and begun.finding.since >= 17


def test_held_out_accuracy_must_fall_by_more_than_both_margins() -> None:
    rises = {"reward": lambda step: 0.3 + 0.02 * step}
    apart = {0: (0.5, 0.42, 0.58), 10: (0.3, 0.22, 0.38)}
    begun = first(watched(rises, checks=apart)[1], "hacking")
    assert begun.step == 10 and begun.finding is not None and begun.finding.level == "critical"
    assert "50 % to 30 %" in begun.finding.details
    near = {0: (0.5, 0.42, 0.58), 10: (0.4, 0.32, 0.48)}
    assert watched(rises, checks=near)[1] == []


def test_a_loss_of_accuracy_without_gain_is_found_in_held_out_evaluations_too() -> None:
    falls = {"reward": at(8, 0.6, 0.5)}
    # 64 % to 46 % of 256 samples: the intervals .58 to .70 and .40 to .52 do not touch; best at the check of step 10
    lost = {0: (0.2, 0.15, 0.25), 10: (0.64, 0.58, 0.70), 20: (0.46, 0.40, 0.52)}
    begun = first(watched(falls, checks=lost)[1], "regress")
    assert begun.finding is not None and begun.finding.since == 10
    assert "64 % → 46 % of unseen problems" in begun.finding.details
    within = {10: (0.64, 0.58, 0.70), 20: (0.54, 0.48, 0.60)}
    assert watched(falls, checks=within)[1] == []


def test_a_check_counts_from_its_step_on_whenever_it_comes_in() -> None:
    early, late = (Watch(RunConfig.build()) for _ in range(2))
    figures = [{**CALM_FIGURES, "reward": 0.3 + 0.02 * step} for step in range(12)]
    check = {
        "heldout/sampled/accuracy": 0.3,
        "heldout/sampled/accuracy_high": 0.38,
        "heldout/sampled/accuracy_low": 0.2,
    }
    base = {
        "heldout/sampled/accuracy": 0.5,
        "heldout/sampled/accuracy_high": 0.58,
        "heldout/sampled/accuracy_low": 0.42,
    }
    for watch in (early, late):
        watch.check(0, base)
    early.check(10, check)
    before = [early.step(step, figures[step]) for step in range(12)]
    after = []
    for step in range(12):
        if step == 10:
            late.check(10, check)
        after.append(late.step(step, figures[step]))
    assert before == after and before[10]


def test_an_alarm_ends_after_calm_steps_and_may_come_again() -> None:
    tied = lambda step: 0.8 if step < 10 or step >= 25 else 0.0  # noqa: E731
    _, changes = watched({f"{DEAD}/tied": tied}, steps=32)
    story = [(c.step, c.begins, c.finding is None) for c in changes if c.begins or c.finding is None]
    # begun at step 4; cause for the last time at step 9; over at 9 + CALM; again at 25 + 4
    assert story == [(4, True, False), (9 + CALM, False, True), (29, True, False)]


def test_remedies_keep_to_what_the_model_and_the_task_allow() -> None:
    short = Watch(RunConfig.build(), RunLimits(context=300))
    changes = [
        c for step in range(5) for c in short.step(step, {**CALM_FIGURES, "completions/clipped_ratio": 0.3})
    ]
    labels = [remedy["label"] for remedy in changes[0].finding.remedies]  # type: ignore[union-attr]
    assert labels == [
        "Fork, truncated samples masked",
        "Learning rate 0.001 → 2.5e-4",
    ]  # 2 x 256 tokens do not fit into 300
    hard = watched({f"{DEAD}/all_right": at(0, 0.8, 0.8)})[1][0].finding
    assert hard is not None and hard.remedies[0]["fork"] == {"min_level": 5, "max_level": 11}


def test_a_reward_that_counts_little_is_made_to_count() -> None:
    config = RunConfig.build(None, {"rewards": "format=1"})
    finding = first(watched({f"{DEAD}/tied": at(0, 0.9, 0.9)}, config)[1], "tied").finding
    assert finding is not None
    wanted = config.live_changed(finding.remedies[0]["args"]).rewards
    assert [(spec.name, spec.weight) for spec in wanted] == [("format", 1.0), ("correct", 1.0)]


def test_evidence_is_the_clearest_samples_of_different_groups() -> None:
    config = fake_config(groups=4, samples=4)
    record = make_step(0, groups=4, samples=4, config=config)
    record.metrics = step_metrics(record, config)
    found = evidence.samples("long_wrong", record, config)
    wrong = {
        k: max((r.length for r, s in zip(g.rollouts, record.scores_B[4 * k : 4 * k + 4], strict=True)
                if s.values["correct"] == 0), default=0)
        for k, g in enumerate(record.groups)
    }  # fmt: skip
    best = sorted((k for k in wrong if wrong[k]), key=lambda k: -wrong[k])[:3]
    assert [one["group"] for one in found] == best
    for one in found:
        group = record.groups[one["group"]]
        assert (
            one["prompt_id"] == group.prompt.id and group.rollouts[one["index"]].length == wrong[one["group"]]
        )
    assert evidence.samples("unknown", record, config) == []


def test_every_pick_works_on_a_step_without_tokens_scores_or_failures() -> None:
    config = fake_config(groups=2, samples=3)
    record = make_step(0, groups=2, samples=3, config=config)
    record.tokens, record.advantages_B = None, None
    for name in RULES:
        assert len(evidence.samples(name, record, config)) <= 3


def test_equal_weights_take_one_sample_a_group_first() -> None:
    assert evidence.best(np.array([1.0, 1.0, 1.0, 1.0, 0.0]), np.array([0, 0, 1, 1, 2])) == [0, 2, 1]


def test_rewards_of_the_spec_survive_a_remedy() -> None:
    config = RunConfig.build().changed(
        rewards=[RewardSpec(name="correct", weight=0.0, enabled=False), RewardSpec(name="format")]
    )
    finding = first(watched({f"{DEAD}/tied": at(0, 0.9, 0.9)}, config)[1], "tied").finding
    assert finding is not None
    assert [(s["name"], s["weight"], s["enabled"]) for s in finding.remedies[0]["args"]["rewards"]] == [
        ("correct", 1.0, True), ("format", 1.0, True)]  # fmt: skip


def test_every_alarm_was_raised_by_a_real_run() -> None:
    """Kept by benchmarks/raise_alarms.py."""
    runs = json.loads((BENCHMARKS / "results" / "alarms.json").read_text())["runs"]
    loud = {alarm["name"] for run in runs.values() for alarm in run["alarms"] if alarm["level"] != "info"}
    raised = {alarm["name"] for run in runs.values() for alarm in run["alarms"]}
    assert set(RULES) - loud == {"all_right"}  # nothing is wrong with solved prompts: always an observation
    assert "all_right" in raised


def test_recorded_runs_raise_what_they_raised() -> None:
    """Real runs of benchmarks/raise_alarms.py and two that learned as they should."""
    runs = json.loads(RECORDED.read_text())
    for name, run in runs.items():
        watch = Watch(RunConfig.build(None, run["settings"]))
        for step, accuracy, low, high in run["checks"]:
            watch.check(step, {"heldout/sampled/accuracy": accuracy, "heldout/sampled/accuracy_low": low, "heldout/sampled/accuracy_high": high})  # fmt: skip
        changes = []
        for step in range(run["steps"]):
            changes += watch.step(step, {metric: values[step] for metric, values in run["metrics"].items()})
        changes += watch.end()
        loud: dict[str, int] = {}
        for change in changes:
            if change.finding and change.finding.level != "info":
                loud.setdefault(change.name, change.step)
        assert loud == run["alarms"], name
