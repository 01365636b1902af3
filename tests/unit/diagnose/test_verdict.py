"""The verdict on hand-made runs: each rule speaks where it should, in at most 90 characters, with its
figures."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.fakes import fake_config, write_fake_run
from workbench.core.config import RunConfig
from workbench.diagnose.verdict import Verdict, figure, of_run, part, share, shorten, verdict
from workbench.record.reader import Reader

N = 31


def line(first: float, last: float, n: int = N) -> list[float]:
    """A straight way that begins and ends with a stretch at its end points, so that means over a few steps
    are exact."""
    return [first] * 3 + np.linspace(first, last, n - 8).tolist() + [last] * 5


def run(
    *,
    check: tuple[float, float] | None = None,
    state: str = "running",
    reason: str = "",
    config: RunConfig | None = None,
    n: int = N,
    **metrics: Sequence[float | None],
) -> Verdict:
    """The verdict on a run of n steps; metric names with __ for a slash."""
    named = {name.replace("__", "/"): values for name, values in metrics.items()}
    train = {"step": list(range(n)), **named}
    sampled = (
        {}
        if check is None
        else {
            "step": [0, 30],
            "heldout/sampled/accuracy": list(check),
            "heldout/sampled/accuracy_low": [check[0] - 0.03, check[1] - 0.03],
            "heldout/sampled/accuracy_high": [check[0] + 0.03, check[1] + 0.03],
            "heldout/sampled/problems": [128.0, 128.0],
        }
    )
    greedy = {} if check is None else {"step": [0, 30], "heldout/greedy/accuracy": [0.16, 1.0]}
    found = verdict(train, sampled, greedy, config=config or fake_config(), state=state, reason=reason)
    assert len(found.sentence) <= 90 and found.sentence.startswith(found.word)
    return found


def test_learning_that_holds_on_unseen_problems() -> None:
    found = run(
        check=(0.24, 0.87),
        reward=line(0.2, 0.9),
        accuracy=line(0.2, 0.9),
        completions__mean_length=line(17, 43),
    )
    assert found.sentence == "Learning: 20 % to 90 % right in 31 steps, and it holds on unseen problems."
    assert found.facts == (
        "Held-out 87 % sampled, 100 % greedy (128 problems, ± 3 points). Samples grew from 17 to 43 tokens."
    )
    assert found.level == "good"


def test_learning_that_does_not_carry_over() -> None:
    found = run(check=(0.24, 0.25), reward=line(0.2, 0.5), accuracy=line(0.2, 0.5))
    assert (
        found.sentence == "Learning: 20 % to 50 % right in 31 steps, but not on unseen problems."
        and found.level == "watch"
    )


def test_learning_without_checks_and_without_right_or_wrong() -> None:
    assert (
        run(reward=line(0.2, 0.5), accuracy=line(0.2, 0.5)).sentence
        == "Learning: 20 % to 50 % right in 31 steps."
    )
    assert run(reward=line(0.31, 0.58)).sentence == "Learning: reward .31 to .58 in 31 steps."
    assert run(reward=line(-2.0, -1.0)).sentence == "Learning: reward −2.00 to −1.00 in 31 steps."


def test_learning_by_guessing() -> None:
    found = run(reward=line(0.2, 0.4), accuracy=line(0.2, 0.4), reward__right_without_work=line(0.5, 0.51))
    assert found.sentence == "Learning, but guessing: 51 % of right samples show no work."


def test_flat_because_no_group_has_reward_spread() -> None:
    found = run(
        reward=line(0.1, 0.1),
        accuracy=line(0.1, 0.1),
        frac_reward_zero_std=line(0.5, 0.58),
        frac_reward_zero_std__all_wrong=line(0.5, 0.5),
    )
    assert found.sentence == "Flat: in 58 % of groups every sample scored the same, so there is no gradient."
    assert found.facts == "50 % of groups give no gradient: every sample is wrong."


def test_flat_for_no_reason_seen() -> None:
    assert run(reward=line(0.31, 0.32)).sentence == "Flat: reward .31 to .32 in 31 steps."


def test_a_reward_code_that_fails_is_named() -> None:
    found = run(reward__unscored=line(0.9, 0.93))
    assert (
        found.sentence == "Flat: 93 % of samples got no reward, the reward code fails."
        and found.level == "bad"
    )


def test_gaming_the_reward() -> None:
    found = run(check=(0.19, 0.10), reward=line(0.85, 0.99), accuracy=line(0.3, 0.3))
    assert found.sentence == "Gaming the reward: reward .85 to .99 while accuracy fell from 19 % to 10 %."
    assert run(reward=line(0.85, 0.99), accuracy=line(0.19, 0.10)).word == "Gaming"
    assert run(check=(0.19, 0.18), reward=line(0.85, 0.99)).word == "Learning", "one point is chance"
    small = {
        "heldout/sampled/accuracy": [0.3, 0.2],
        "heldout/sampled/accuracy_low": [0.1, 0.05],
        "heldout/sampled/accuracy_high": [0.5, 0.4],
    }
    train = {"step": list(range(N)), "reward": line(0.85, 0.99)}
    assert verdict(train, small, {}, config=fake_config()).word == "Learning", (
        "ten points of 16 problems are chance"
    )


def test_diverging() -> None:
    found = run(
        check=(0.25, 0.02),
        reward=line(0.25, 0.02),
        accuracy=line(0.25, 0.02),
        completions__mean_length=line(24, 115),
    )
    assert found.sentence == "Diverging: samples grew from 24 to 115 tokens while accuracy fell to 2 %."


def test_diverging_by_numbers_that_are_none() -> None:
    found = run(
        reward=line(0.2, 0.9), accuracy=line(0.2, 0.9), record__nonfinite_dropped=[None] * 29 + [1.0, 2.0]
    )
    assert found.sentence == "Diverging: loss or gradient were not finite in 2 of the last 10 steps."
    early = run(reward=line(0.2, 0.9), accuracy=line(0.2, 0.9), record__nonfinite_dropped=[1.0] + [None] * 30)
    assert early.word == "Learning"


def test_longer_completions_that_get_better_are_no_divergence() -> None:
    assert (
        run(reward=line(0.2, 0.9), accuracy=line(0.2, 0.9), completions__mean_length=line(17, 60)).word
        == "Learning"
    )


@pytest.mark.parametrize(
    ("metrics", "sentence"),
    [
        ({"entropy": line(0.29, 0.02)}, "Collapsing: entropy .29 to .02 while 31 % are right."),
        (
            {"diversity__duplicates": line(0.1, 0.74)},
            "Collapsing: 74 % of samples copy another of their group while 31 % are right.",
        ),
    ],
)
def test_collapsing(metrics: dict[str, list[float]], sentence: str) -> None:
    assert run(reward=line(0.3, 0.31), accuracy=line(0.3, 0.31), **metrics).sentence == sentence


def test_collapsing_to_short_completions() -> None:
    found = run(reward=line(0.25, 0.2), accuracy=line(0.25, 0.1), completions__mean_length=line(24, 8))
    assert found.sentence == "Collapsing: samples shrank from 24 to 8 tokens while 10 % are right."


def test_low_entropy_of_a_run_that_has_learned_is_no_collapse() -> None:
    assert run(reward=line(0.2, 0.9), accuracy=line(0.2, 0.9), entropy=line(0.29, 0.02)).word == "Learning"


def test_frozen() -> None:
    found = run(reward=line(0.2, 0.24), accuracy=line(0.2, 0.24), kl=line(0, 0.007), beta=line(2.0, 2.0))
    assert found.sentence == "Frozen: beta 2 holds the model at its start (KL .007)."
    assert run(reward=line(0.2, 0.24), kl=line(0, 0.007), beta=line(0.04, 0.04)).word == "Flat"


def test_nearly_done() -> None:
    found = run(
        reward=line(0.5, 0.97),
        accuracy=line(0.5, 0.97),
        frac_reward_zero_std=line(0.2, 0.76),
        frac_reward_zero_std__all_right=line(0.1, 0.75),
    )
    assert found.sentence == "Nearly done: 3 of 4 groups are all right. Harder prompts would teach more."


@pytest.mark.parametrize(
    ("state", "reason", "sentence"),
    [
        ("crashed", "The machine ran out of memory.", "Crashed at step 31: the machine ran out of memory."),
        ("crashed", "", "Crashed at step 31: the worker is gone."),
        ("failed", "RunError: disk full", "Failed at step 31: RunError: disk full."),
        ("interrupted", "", "Interrupted at step 31: the machine restarted."),
    ],
)
def test_a_run_that_broke_says_so_before_anything_else(state: str, reason: str, sentence: str) -> None:
    found = run(state=state, reason=reason, reward=line(0.2, 0.9), accuracy=line(0.2, 0.9))
    assert found.sentence == sentence and found.level == "bad"


def test_a_long_reason_is_cut_between_words() -> None:
    found = run(state="crashed", reason="word " * 60)
    assert found.sentence.endswith("word…") and len(found.sentence) <= 90


def test_a_run_at_its_end() -> None:
    assert run(state="finished", check=(0.24, 0.9), reward=line(0.2, 0.9)).sentence == (
        "Finished: 24 % to 90 % right on unseen problems in 31 steps."
    )
    assert (
        run(state="stopped", accuracy=line(0.24, 0.25)).sentence == "Stopped: 24 % to 25 % right in 31 steps."
    )
    assert run(state="stopped", accuracy=line(0.24, 0.25)).level == "watch"
    assert run(state="finished", reward=line(1, 2)).sentence == "Finished: reward 1.00 to 2.00 in 31 steps."
    assert run(state="finished", check=(0.19, 0.10), reward=line(0.85, 0.99)).word == "Gaming", (
        "an end excuses nothing"
    )
    assert run(state="finished", n=1, accuracy=[0.3]).sentence == "Finished: 30 % to 30 % right in 1 step."


@pytest.mark.parametrize(
    ("state", "n", "sentence"),
    [
        ("queued", 0, "Starting: waiting for the device."),
        ("running", 0, "Starting: the first step is under way."),
        ("", 0, "Starting: nothing is recorded yet."),
        ("running", 1, "Starting: 1 step done, too few to say where it goes."),
        ("running", 4, "Starting: 4 steps done, too few to say where it goes."),
    ],
)
def test_nothing_is_claimed_early(state: str, n: int, sentence: str) -> None:
    assert run(state=state, n=n, reward=[0.1, 0.9, 0.9, 0.9][:n]).sentence == sentence


def test_facts_name_truncated_samples() -> None:
    found = run(
        reward=line(0.2, 0.2), completions__mean_length=line(40, 41), completions__clipped_ratio=line(0, 0.4)
    )
    assert found.facts == "Samples stay near 41 tokens. 40 % of samples are cut at the limit."


@pytest.mark.parametrize(
    ("value", "written"),
    [(0.85, ".85"), (-0.03, "−.03"), (1.2, "1.20"), (0.999, "1.00"), (0.0, ".00"), (0.004, ".00")],
)
def test_figures_are_written_as_in_this_field(value: float, written: str) -> None:
    assert figure(value) == written


def test_shares_and_parts() -> None:
    assert (
        share(0.194) == "19 %" and part(0.75) == "3 of 4" and part(0.61) == "3 of 5" and part(0.99) == "all"
    )
    assert shorten("x" * 90) == "x" * 90


def test_a_recorded_run_gets_its_verdict(tmp_path: Path) -> None:
    reader = Reader(write_fake_run(tmp_path, steps=20, groups=6, samples=6, state="running"))
    assert of_run(reader).word == "Learning" and "unseen problems" in of_run(reader).sentence
    assert of_run(reader, "crashed", "killed").sentence == "Crashed at step 20: killed."
