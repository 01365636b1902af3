"""What-if without a model: the advantages that each recorded step would have had with other settings.

In: the recorded samples as arrays and the changed settings. Out: their advantages, and step by step how they differ
from the recorded ones. It is about the gradient of each recorded step, never about how the run would have continued.
The arithmetic is that of training, `advantages.by_settings`, called with numpy.

Axes: B samples of all steps, P groups, S steps, F rewards.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from workbench.algorithm import advantages
from workbench.core.config import RunConfig
from workbench.core.errors import ConfigError
from workbench.record.arrays import Floats, SampleArrays
from workbench.record.reader import Reader

CHANGEABLE = (
    "num_generations", "scale_rewards", "advantage_std", "advantage_eps", "advantage_baseline",
    "multi_objective_aggregation", "reward_clip", "rewards", "beta", "kl_in", "kl_estimator",
)  # fmt: skip
"""Settings whose effect on advantages and penalty follows from the recorded samples alone."""
_NEEDS_PARTS = ("rewards", "multi_objective_aggregation")
Values = Mapping[str, Floats]


class Recomputed(NamedTuple):
    """Advantage, reward and penalty of every recorded sample under some settings."""

    advantage_B: Floats
    """0 in a group without reward spread, without a reward, and for a sample beyond a smaller group size."""
    reward_B: Floats
    """The total reward; NaN where there is none."""
    inside_B: NDArray[np.bool_]
    """Whether the sample would have been drawn at all."""
    penalty_B: Floats
    """beta x mean KL to the reference, nats per token; NaN where no KL was recorded."""


class Timeline(NamedTuple):
    """(S,) summaries of some settings, one entry a step."""

    reward_S: Floats
    size_S: Floats
    """Mean |A| of the samples drawn."""
    zero_std_S: Floats
    """Share of groups whose advantages are all 0."""
    all_right_S: Floats
    all_wrong_S: Floats
    effective_S: Floats
    """Effective number of samples: (sum of gradient shares)^2 / sum of their squares."""
    penalty_S: Floats
    """Mean of `penalty_B`."""


class Difference(NamedTuple):
    """(S,) differences between two settings, one entry a step."""

    winner_S: Floats
    """Share of groups with advantages under both, whose highest advantage belongs to other completions."""
    flipped_S: Floats
    """Share of samples whose advantage has the opposite sign."""
    moved_S: Floats
    """Share of the gradient that goes to other samples: 1/2 sum |difference of gradient shares|."""


def parse_changes(sets: Sequence[str]) -> dict[str, str]:
    """`name=value` texts as changed settings. Raises ConfigError for a setting that is not in CHANGEABLE."""
    found: dict[str, str] = {}
    for text in sets:
        name, equals, value = text.partition("=")
        if not equals or name not in CHANGEABLE:
            raise ConfigError(
                f"{text[:60]!r} cannot be computed from recorded samples. Give name=value with one of "
                f"{', '.join(CHANGEABLE)}.",
                {name: "cannot be computed from recorded samples"},
            )
        found[name] = value
    return found


def settings_over_time(reader: Reader) -> list[tuple[int, RunConfig]]:
    """The settings in force from each step on: those of the start, then each live change."""
    found = [(0, reader.config)]
    for event in reader.events(kind="setting_changed", limit=100_000):
        changes = {
            name: change["to"]
            for name, change in event["data"].items()
            if isinstance(change, dict) and "to" in change
        }
        try:
            found.append((event["step"] or 0, found[-1][1].changed(**changes)))
        except ConfigError:
            continue  # recorded by another version; its samples still have their rewards
    return found


def as_recorded(samples: SampleArrays, settings: Sequence[tuple[int, RunConfig]]) -> Recomputed:
    """The recorded advantages and rewards, with the penalty of the settings then in force."""
    beta_B = np.array([config.beta for _, config in settings])[_segments(samples, settings)]
    all_B = np.ones(len(samples.id_B), dtype=np.bool_)
    return Recomputed(np.nan_to_num(samples.advantage_B), samples.reward_B, all_B, beta_B * samples.kl_B)


def recompute(
    samples: SampleArrays,
    settings: Sequence[tuple[int, RunConfig]],
    changes: Mapping[str, Any],
    names: Mapping[str, str],
    rescored: Values | None = None,
) -> Recomputed:
    """Advantages of every sample with these changes: `advantages.by_settings` on each step's rewards and groups.

    `settings`: see `settings_over_time`. `names`: from a reward's name in the settings to its recorded name.
    `rescored`: (B,) values of rewards that the run did not have, by their name in the changes; NaN where not scored yet.
    Raises ConfigError: an invalid value, more samples than were drawn, a reward without recorded or rescored values, a
    penalty without recorded KL.
    """
    count = len(samples.id_B)
    absent_B = np.full(count, np.nan)
    result = Recomputed(np.zeros(count), absent_B, np.zeros(count, dtype=np.bool_), absent_B.copy())
    segment_B, place_B = _segments(samples, settings), samples.place_B
    for segment, (_, config) in enumerate(settings):
        other = _changed(config, changes)
        inside_B = (segment_B == segment) & (place_B < other.num_generations)
        if not inside_B.any():
            continue
        rewards_B_F, weights_F = _rewards(samples, other, changes, names, rescored or {})
        found = advantages.by_settings(
            rewards_B_F[inside_B],
            weights_F,
            samples.group_B[inside_B],
            other,
            penalty_B=_penalty(samples, other, inside_B),
            batch_ids_B=samples.step_B[inside_B],
        )
        result.advantage_B[inside_B] = found.advantages_B
        result.reward_B[inside_B] = advantages.combine(rewards_B_F[inside_B], weights_F)
        result.inside_B[inside_B] = True
        result.penalty_B[inside_B] = other.beta * samples.kl_B[inside_B]
    return result


def _segments(samples: SampleArrays, settings: Sequence[tuple[int, RunConfig]]) -> NDArray[np.int64]:
    """Which entry of `settings` was in force at each sample's step."""
    return np.searchsorted([start for start, _ in settings], samples.step_B, side="right") - 1


def _changed(config: RunConfig, changes: Mapping[str, Any]) -> RunConfig:
    other = config.changed(**changes)
    if "num_generations" in changes and other.num_generations > config.num_generations:
        limit = config.num_generations
        problem = (
            f"num_generations = {other.num_generations}: only {limit} samples of a group were drawn. "
            f"Give 2 to {limit}."
        )
        raise ConfigError(problem, {"num_generations": problem})
    return other


def _rewards(
    samples: SampleArrays,
    config: RunConfig,
    changes: Mapping[str, Any],
    names: Mapping[str, str],
    rescored: Values,
) -> tuple[Floats, Floats]:
    """The (B, F) rewards that count, and their (F,) weights. Without changed rewards these are the recorded totals,
    which contain the weights in force at each step."""
    if (
        not any(name in changes for name in _NEEDS_PARTS)
        and config.multi_objective_aggregation == "sum_then_normalize"
    ):
        return samples.reward_B[:, None], np.ones(1)
    counted = [spec for spec in config.rewards if spec.enabled and spec.weight]
    columns = []
    for spec in counted:
        if spec.name in rescored:
            columns.append(rescored[spec.name])
        elif names.get(spec.name, spec.name) in samples.names:
            columns.append(samples.columns((names.get(spec.name, spec.name),))[:, 0])
        else:
            known = ", ".join(samples.names)
            problem = (
                f"No sample of this run was scored with {spec.name!r}. Recorded: {known}. Score it first."
            )
            raise ConfigError(problem, {"rewards": problem})
    values_B_F = np.column_stack(columns)
    # A sample without a total reward was left out of its group, even where single rewards have values.
    unscored_B = np.isnan(samples.reward_B) & ("rewards" not in changes)
    return np.where(unscored_B[:, None], np.nan, values_B_F), np.array([spec.weight for spec in counted])


def _penalty(samples: SampleArrays, config: RunConfig, inside_B: NDArray[np.bool_]) -> Floats | None:
    """(B,) beta x the recorded KL of each completion, summed over its tokens, where it is part of the reward."""
    if config.kl_in != "reward" or not config.beta:
        return None
    match config.kl_estimator.removesuffix("_ratio"):
        case "k1":
            kl_B = samples.kl_k1_sum_B
        case "k3":
            kl_B = samples.kl_B * samples.length_B
        case other:
            problem = f"kl_estimator = {other}: each sample's k1 and k3 are recorded. Give one of these."
            raise ConfigError(problem, {"kl_estimator": problem})
    if np.isnan(kl_B[inside_B]).all():
        problem = "This run recorded no KL (record_kl was off), so beta in the reward cannot be computed."
        raise ConfigError(problem, {"beta": problem})
    return config.beta * np.nan_to_num(kl_B[inside_B])


def share_per_advantage(samples: SampleArrays) -> Floats:
    """(B,) gradient share that one unit of advantage gives each sample, up to a constant of its step: the recorded share
    over |A|. A sample with A = 0 has no measurement and gets its step's mean; in a step without any, all get 1."""
    step_B = np.searchsorted(samples.steps(), samples.step_B)
    size_B = np.abs(np.nan_to_num(samples.advantage_B))
    known_B = (size_B > 0) & np.isfinite(samples.gradient_share_B) & (samples.gradient_share_B > 0)
    per_unit_B = np.where(
        known_B, np.nan_to_num(samples.gradient_share_B) / np.where(known_B, size_B, 1.0), 0.0
    )
    count_S = np.bincount(step_B, weights=known_B)
    mean_S = np.bincount(step_B, weights=per_unit_B) / np.maximum(count_S, 1)
    return np.where(known_B, per_unit_B, np.where(count_S > 0, mean_S, 1.0)[step_B])


def timeline(samples: SampleArrays, found: Recomputed) -> Timeline:
    """(S,) summaries, step by step; see the fields of `Timeline`."""
    step_B = np.searchsorted(samples.steps(), samples.step_B)
    inside_B = found.inside_B
    groups = _Groups.of(samples, found)
    share_B = _gradient_shares(samples, found, step_B)
    squares_S = np.bincount(step_B, weights=share_B**2)
    return Timeline(
        _mean(found.reward_B, step_B, inside_B & np.isfinite(found.reward_B)),
        _mean(np.abs(found.advantage_B), step_B, inside_B),
        groups.share(groups.zero_std_P),
        groups.share(groups.zero_std_P & groups.right_P),
        groups.share(groups.zero_std_P & groups.wrong_P),
        np.bincount(step_B, weights=share_B) ** 2 / np.where(squares_S > 0, squares_S, 1.0),
        _mean(found.penalty_B, step_B, inside_B & np.isfinite(found.penalty_B)),
    )


def difference(samples: SampleArrays, one: Recomputed, other: Recomputed) -> Difference:
    """(S,) differences of `other` from `one`, step by step; see the fields of `Difference`."""
    step_B = np.searchsorted(samples.steps(), samples.step_B)
    groups = _Groups.of(samples, other)
    best_one, best_other = (_best(groups.members, found.advantage_B) for found in (one, other))
    both_P = best_one.any(axis=1) & best_other.any(axis=1)
    changed_P = np.asarray(both_P & ~(best_one & best_other).any(axis=1))
    flipped_B = np.sign(one.advantage_B) * np.sign(other.advantage_B) < 0
    gap_B = np.abs(_gradient_shares(samples, one, step_B) - _gradient_shares(samples, other, step_B))
    return Difference(
        groups.share(changed_P),
        _mean(flipped_B.astype(np.float64), step_B, other.inside_B),
        np.asarray(0.5 * np.bincount(step_B, weights=gap_B), dtype=np.float64),
    )


def _gradient_shares(samples: SampleArrays, found: Recomputed, step_B: NDArray[np.int64]) -> Floats:
    """(B,) each sample's share of its step's gradient, |A| x `share_per_advantage` normalised by step; 0 without any."""
    push_B = np.abs(found.advantage_B) * share_per_advantage(samples)
    total_S = np.bincount(step_B, weights=push_B)
    return np.asarray(push_B / np.where(total_S > 0, total_S, 1.0)[step_B])


class _Groups(NamedTuple):
    """The groups of all steps."""

    members: advantages.Members
    step_P: NDArray[np.int64]
    zero_std_P: NDArray[np.bool_]
    """All advantages are 0."""
    right_P: NDArray[np.bool_]
    """All judged completions are right."""
    wrong_P: NDArray[np.bool_]

    @classmethod
    def of(cls, samples: SampleArrays, found: Recomputed) -> "_Groups":
        members = advantages.members(samples.group_B)
        judged_B = found.inside_B & np.isfinite(samples.right_B)
        right_P = members.sum(np.where(judged_B, samples.right_B, 0.0))
        judged_P = members.sum(judged_B.astype(np.float64))
        return cls(
            members,
            np.searchsorted(samples.steps(), samples.step_B[members.table_P_G[:, 0]]),
            members.sum((found.advantage_B != 0).astype(np.float64)) == 0,
            (right_P == judged_P) & (judged_P > 0),
            (right_P == 0) & (judged_P > 0),
        )

    def share(self, chosen_P: NDArray[np.bool_]) -> Floats:
        """(S,) share of each step's groups that are chosen."""
        count_S = np.bincount(self.step_P)
        return np.asarray(np.bincount(self.step_P, weights=chosen_P) / np.maximum(count_S, 1))


def _best(members: advantages.Members, advantage_B: Floats) -> NDArray[np.bool_]:
    """(P, G) the completions with the highest advantage; none where it is not positive."""
    gathered_P_G = members.gather(advantage_B, outside=-np.inf)
    top_P = gathered_P_G.max(axis=1, keepdims=True)
    return np.asarray((top_P > 0) & (gathered_P_G >= top_P - 1e-9 * np.abs(top_P)))


def _mean(values_B: Floats, step_B: NDArray[np.int64], chosen_B: NDArray[np.bool_]) -> Floats:
    """(S,) mean over each step's chosen samples; NaN without any."""
    steps = int(step_B[-1]) + 1 if len(step_B) else 0
    count_S = np.bincount(step_B, weights=chosen_B, minlength=steps)
    sum_S = np.bincount(step_B, weights=np.where(chosen_B, values_B, 0.0), minlength=steps)
    return np.where(count_S > 0, sum_S / np.maximum(count_S, 1), np.nan)


JSON_NAMES = {"zero_std": "dead", "all_right": "dead_right", "all_wrong": "dead_wrong", "penalty": "pull"}
"""Keys of the JSON that differ from the field's name."""


def as_json(columns: Timeline | Difference) -> Iterator[tuple[str, list[float | None]]]:
    """Columns as plain numbers, None for what is not there."""
    for field, values in columns._asdict().items():
        name = field.removesuffix("_S")
        yield (
            JSON_NAMES.get(name, name),
            [None if np.isnan(value) else round(float(value), 5) for value in values],
        )
