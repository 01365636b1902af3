"""What-if over recorded samples: numbers worked out by hand, and the recorded run as its own reference."""

import numpy as np
import pytest

from tests.fakes import fake_config, write_fake_run
from workbench.algorithm import advantages
from workbench.core.errors import ConfigError
from workbench.diagnose import whatif
from workbench.record.arrays import SampleArrays
from workbench.record.reader import Reader

NAN = float("nan")


def samples(rewards, groups, steps, **columns):
    """Flat samples of which only what the test speaks of is known."""
    count = len(rewards)
    unknown = np.full(count, NAN)
    fields = {
        "cursor": 1,
        "id_B": np.arange(count),
        "step_B": np.array(steps),
        "group_B": np.array(groups),
        "k_B": np.array(groups),
        "reward_B": np.array(rewards, dtype=float),
        "advantage_B": np.zeros(count),
        "kl_B": unknown,
        "kl_k1_sum_B": unknown,
        "gradient_share_B": unknown,
        "right_B": np.array(rewards, dtype=float),
        "length_B": np.ones(count),
        "cut_B": np.zeros(count),
        "names": ("correct",),
        "values_B_F": np.array(rewards, dtype=float)[:, None],
    }
    return SampleArrays(**{**fields, **{name: np.array(value) for name, value in columns.items()}})


def config(**changes):
    return fake_config(groups=2, samples=4, advantage_eps=0.0, **changes)


def recomputed(found, changes, **settings):
    return whatif.recompute(found, [(0, config(**settings))], changes, {"correct": "correct"})


def test_a_smaller_group_keeps_its_first_samples_and_may_die():
    found = samples([1, 0, 0, 1, 0, 0, 1, 0], [0, 0, 0, 0, 1, 1, 1, 1], [0] * 8)
    other = recomputed(found, {"num_generations": "2"}, scale_rewards="none")
    # (1, 0): mean 1/2. (0, 0): dead. The other four would not have been drawn.
    assert other.advantage_B.tolist() == [0.5, -0.5, 0, 0, 0, 0, 0, 0]
    assert other.inside_B.tolist() == [True, True, False, False, True, True, False, False]
    line = whatif.timeline(found, other)
    assert (line.zero_std_S, line.all_wrong_S, line.size_S) == ([0.5], [0.5], [0.25])


def test_more_samples_than_were_drawn_are_refused():
    with pytest.raises(ConfigError, match="only 4 samples of a group were drawn"):
        recomputed(samples([1, 0, 0, 1], [0] * 4, [0] * 4), {"num_generations": "8"})


def test_each_step_is_a_batch_of_its_own():
    rewards, steps = [0, 4, 0, 0, 0, 0, 8, 8], [0, 0, 0, 0, 1, 1, 1, 1]
    found = samples(rewards, [0, 0, 1, 1, 2, 2, 3, 3], steps)
    other = recomputed(found, {"scale_rewards": "batch", "advantage_std": "population"})
    # Step 0: one std of (0, 4, 0, 0) = sqrt(3); group 0 lies 2 from its mean. Step 1: both groups are tied.
    assert other.advantage_B == pytest.approx([-2 / 3**0.5, 2 / 3**0.5, 0, 0, 0, 0, 0, 0])
    for step in (0, 1):
        here = np.array(steps) == step
        alone = advantages.compute(
            np.array(rewards, float)[here], found.group_B[here], scale="batch", std="population", eps=0.0
        )
        assert other.advantage_B[here] == pytest.approx(alone.advantages_B)


def test_beta_in_the_reward_uses_each_completions_recorded_kl():
    found = samples([1, 1], [0, 0], [0, 0], kl_B=[0.5, 0.25], kl_k1_sum_B=[3.0, 1.0], length_B=[4.0, 4.0])
    question = {"beta": "0.1", "kl_in": "reward", "scale_rewards": "none"}
    # k3 summed: 2 and 1 nats, rewards .8 and .9. k1 summed: 3 and 1, rewards .7 and .9.
    assert recomputed(found, question).advantage_B == pytest.approx([-0.05, 0.05])
    assert recomputed(found, {**question, "kl_estimator": "k1"}).advantage_B == pytest.approx([-0.1, 0.1])
    with pytest.raises(ConfigError, match="k1 and k3 are recorded"):
        recomputed(found, {**question, "kl_estimator": "k2"})


def test_beta_in_the_loss_leaves_the_advantages_and_shows_its_pull():
    found = samples([1, 0], [0, 0], [0, 0], kl_B=[0.5, 0.25])
    other = recomputed(found, {"beta": "0.4", "scale_rewards": "none"})
    assert other.advantage_B.tolist() == [0.5, -0.5]
    assert whatif.timeline(found, other).penalty_S == pytest.approx([0.4 * 0.375])


def test_other_weights_and_a_rewards_absence_change_the_totals():
    values = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, NAN], [0.0, 0.0]])
    found = samples([1, 0, 1, 0], [0] * 4, [0] * 4)._replace(names=("correct", "format"), values_B_F=values)
    other = recomputed(found, {"rewards": "correct=1,format=3", "scale_rewards": "none"})
    # Totals 1, 3, 1 (format is absent, not zero), 0: mean 1.25.
    assert other.advantage_B == pytest.approx([-0.25, 1.75, -0.25, -1.25])
    line, gap = whatif.timeline(found, other), whatif.difference(found, recomputed(found, {}), other)
    assert line.reward_S == [1.25]
    assert gap.winner_S == [1.0]  # completions 1 and 3 led, now it is completion 2
    assert gap.flipped_S == [0.75]
    with pytest.raises(ConfigError, match="No reward counts"):
        recomputed(found, {"rewards": "correct=0"})
    with pytest.raises(ConfigError, match="No sample of this run was scored with 'brevity'"):
        recomputed(found, {"rewards": "brevity=1"})


def test_a_rescored_reward_counts_where_it_has_a_value():
    found = samples([1, 0, 1, 0], [0, 0, 1, 1], [0, 0, 1, 1])
    other = whatif.recompute(
        found,
        [(0, config())],
        {"rewards": "new=1", "scale_rewards": "none"},
        {},
        {"new": np.array([0, 2, NAN, NAN])},
    )
    assert other.advantage_B.tolist() == [-1, 1, 0, 0]


def test_the_gradient_is_shared_by_the_reach_that_was_measured():
    # Recorded: |A| 1 each, shares .3 and .1, .6 and 0 (advantage 0): per unit .3, .1, .6, and their mean for the last.
    found = samples(
        [1, 0, 1, 0],
        [0, 0, 1, 1],
        [0] * 4,
        advantage_B=[1.0, -1.0, 1.0, 0.0],
        gradient_share_B=[0.3, 0.1, 0.6, 0.0],
    )
    assert whatif.share_per_advantage(found) == pytest.approx([0.3, 0.1, 0.6, 1 / 3])
    before = whatif.as_recorded(found, [(0, config())])
    other = before._replace(advantage_B=np.array([1.0, -1.0, 0.0, 0.0]))
    # Shares .3 .1 .6 0 become .75 .25 0 0: half of .45 + .15 + .6.
    assert whatif.difference(found, before, other).moved_S == pytest.approx([0.6])
    assert whatif.timeline(found, other).effective_S == pytest.approx([1 / (0.75**2 + 0.25**2)])


def test_settings_changed_while_it_ran_hold_from_their_step_on():
    found = samples([1, 0, 1, 0], [0, 0, 1, 1], [0, 0, 5, 5], kl_B=[0.1] * 4)
    settings = [(0, config(beta=0.0)), (5, config(beta=0.2))]
    assert whatif.timeline(found, whatif.as_recorded(found, settings)).penalty_S == pytest.approx([0.0, 0.02])


@pytest.mark.parametrize(
    "name", ["normal", *(pytest.param(name, marks=pytest.mark.slow) for name in ("dead", "failing"))]
)
def test_asking_nothing_else_gives_what_was_recorded(recorded, name):
    reader = Reader(getattr(recorded, name))
    found = reader.arrays()
    same = whatif.recompute(found, whatif.settings_over_time(reader), {}, {})
    assert len(found.id_B) and np.abs(same.advantage_B - found.advantage_B).max() < 1e-9
    spelled = whatif.recompute(
        found,
        whatif.settings_over_time(reader),
        {"rewards": [spec.model_dump() for spec in reader.config.rewards]},
        {reader.config.rewards[0].name: reader.folder.about()["rewards"][0]["name"]},
    )
    assert np.abs(spelled.advantage_B - found.advantage_B).max() < 1e-9


def test_the_record_is_read_as_arrays_and_can_be_read_on(tmp_path):
    reader = Reader(write_fake_run(tmp_path, steps=6, groups=3, samples=4, failures=0.2))
    everything = reader.arrays()
    rows = [reader.group(step, k) for step in range(6) for k in range(3)]
    flat = [sample for row in rows for sample in row["samples"]]
    assert everything.steps().tolist() == [0, 1, 2, 3, 4, 5]
    assert everything.place_B.tolist() == [0, 1, 2, 3] * 18
    assert everything.k_B.tolist() == [k for _ in range(6) for k in range(3) for _ in range(4)]
    known = [NAN if sample["reward"] is None else sample["reward"] for sample in flat]
    assert everything.reward_B == pytest.approx(known, nan_ok=True)
    right = [NAN if (value := s["rewards"]["correct"]) is None else value for s in flat]
    assert everything.columns(("correct", "never"))[:, 0] == pytest.approx(right, nan_ok=True)
    half = everything._replace(
        **{name: getattr(everything, name)[:36] for name in everything._fields if name.endswith("_B")},
        values_B_F=everything.values_B_F[:36],
    )
    rest = everything._replace(
        **{name: getattr(everything, name)[36:] for name in everything._fields if name.endswith("_B")},
        names=everything.names[::-1],
        values_B_F=everything.values_B_F[36:, ::-1],
    )
    joined = half + rest
    assert all(
        np.array_equal(getattr(joined, name), getattr(everything, name), equal_nan=True)
        for name in (*everything._fields[1:-2], "values_B_F")
    )


def test_only_settings_that_follow_from_samples_may_change():
    assert whatif.parse_changes(["beta=0.1", "rewards=a=1,b=2"]) == {"beta": "0.1", "rewards": "a=1,b=2"}
    with pytest.raises(ConfigError, match="'temperature=2' cannot be computed"):
        whatif.parse_changes(["temperature=2"])
