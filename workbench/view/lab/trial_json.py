"""A trial's result as plain JSON: groups, forecast, checks, ratings, attacks.

In: a trial's arrays. Out: what the page draws. Advantages, winners and dead groups come from `diagnose.forecast`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workbench.algorithm import advantages
from workbench.core.errors import WorkbenchError
from workbench.diagnose import forecast as forecasting
from workbench.rewards.api.outcome import is_failure
from workbench.rewards.attacks import Attack
from workbench.view.lab import reward_source
from workbench.view.lab.trial_arrays import Trial, failures

MAX_TEXT = 2000
"""Characters of a sample in the table; `cut` counts the rest."""
MAX_BARS = 400
"""Groups that the page draws one by one."""
_VERDICTS = ("hackable", "breaks", "doubtful", "untested", "safe")
Json = dict[str, Any]
Floats = NDArray[np.float64]


def refused(error: WorkbenchError) -> Json:
    """Why nothing was scored, with the line of code it is about."""
    return {"type": "refused", "error": str(error), "line": reward_source.line_of(str(error))}


def overview(trial: Trial) -> Json:
    """The samples and functions of a trial."""
    return {
        "title": trial.samples.title,
        "groups": len(trial.samples.groups),
        "samples": sum(trial.samples.sizes),
        "old_words": trial.old_name,
        "parts": [part.model_dump() for part in trial.parts],
        "size": _median_size(trial.samples.sizes),
    }


def group(trial: Trial, k: int) -> Json:
    """One group: every sample with both rewards, both advantages, values of each function, failure reasons, ranks."""
    prompt = trial.samples.groups[k]
    start = sum(trial.samples.sizes[:k])
    here = slice(start, start + len(prompt["completions"]))
    new_G = trial.new_rewards_B[here]
    old_G = None if trial.old_rewards_B is None else trial.old_rewards_B[here]
    new = _advantages(trial, new_G)
    old = None if old_G is None else _advantages(trial, old_G)
    new_ranks = forecasting.ranks(_list(new_G))
    old_ranks = forecasting.ranks(_list(old_G)) if old_G is not None else [None] * len(new_G)
    return {
        "k": k,
        "step": trial.samples.steps[k],
        "question": prompt["prompt"][:MAX_TEXT],
        "answer": None if prompt["answer"] is None else prompt["answer"][:MAX_TEXT],
        "std": {"old": None if old is None else _number(old.std_P[0]), "new": _number(new.std_P[0])},
        "dead": {"old": None if old is None else bool(old.zero_std_P[0]), "new": bool(new.zero_std_P[0])},
        "tried": k < trial.scored_groups,
        "samples": [
            {
                "index": i,
                "text": text[:MAX_TEXT],
                "cut": max(0, len(text) - MAX_TEXT),
                "length": prompt["lengths"][i],
                "right": _bool(trial.samples.right_B[start + i]),
                "worth": _number(trial.samples.rating_B[start + i]),
                "reward": _number(new_G[i]),
                "advantage": _number(trial.new_advantages_B[start + i]),
                "old": {
                    "reward": None if old_G is None else _number(old_G[i]),
                    "advantage": None if trial.old_advantages_B is None else _number(trial.old_advantages_B[start + i]),
                },
                "place": new_ranks[i],
                "old_place": old_ranks[i],
                "parts": {
                    name: _number(values[start + i]) if start + i < len(values) else None
                    for name, values in trial.scored.values_B.items()
                },
                "reasons": {
                    name: {"text": texts[start + i], "line": reward_source.line_of(texts[start + i]), "chosen": not is_failure(texts[start + i])}
                    for name, texts in trial.scored.reasons.items()
                    if start + i in texts
                },
            }
            for i, text in enumerate(prompt["completions"])
        ],
    }  # fmt: skip


def summary(trial: Trial, size: int | None) -> Json:
    """Everything that is known once all samples are scored."""
    count = sum(trial.samples.sizes[: trial.scored_groups])
    found: Json = {
        "trial": trial.id,
        **overview(trial),
        "tried": trial.scored_groups,
        "checks": checks(trial),
        "printed": trial.scored.printed,
        "ended": trial.scored.ended
        and {"text": trial.scored.ended, "line": reward_source.line_of(trial.scored.ended)},
        "range": reward_range(trial),
    }
    if not count:
        return {**found, "forecast": None, "prefer": None, "thumbs": None, "bars": []}
    return {
        **found,
        "forecast": forecast(trial, size or _median_size(trial.samples.sizes)),
        "prefer": correctness(trial, count),
        "thumbs": rating_agreement(trial, count),
    }


def forecast(trial: Trial, size: int) -> Json:
    """Forecast of both rewards at a group size, and each group's reward std for the bars."""
    count = sum(trial.samples.sizes[: trial.scored_groups])
    ids_B = trial.samples.group_ids_B[:count]
    old_rewards_B = None if trial.old_rewards_B is None else trial.old_rewards_B[:count]
    new_rewards_B = trial.new_rewards_B[:count]
    found = forecasting.forecast(
        old_rewards_B, new_rewards_B, ids_B, size, **trial.samples.advantage_arguments()
    )
    changed_P = _changed(trial, old_rewards_B, new_rewards_B)

    def side(one: forecasting.Side) -> Json:
        return {
            "dead": one.dead,
            "signal": one.signal,
            "std": [_number(v) for v in one.std_P[:MAX_BARS]],
            "dead_share": [_number(v) for v in one.dead_P[:MAX_BARS]],
        }

    return {
        "size": size,
        "exact": found.exact,
        "stretched": found.stretched,
        "groups": trial.scored_groups,
        "old": side(found.old) if found.old else None,
        "new": side(found.new),
        "winners": found.winners,
        "changed": changed_P[:MAX_BARS],
        "noise": _noise(found.new),
    }


def checks(trial: Trial) -> Json:
    """Checks of a reward before a run uses it: repeatable, fast, finite, not constant."""
    scored = trial.scored
    known = trial.new_rewards_B[np.isfinite(trial.new_rewards_B)]
    reasons = [text for texts in scored.reasons.values() for text in texts.values() if is_failure(text)]
    first = next(iter(reasons), "")
    return {
        "again": scored.again,
        "milliseconds": 1000 * scored.each,
        "failed": failures(scored),
        "scored": scored.done,
        "nan": sum("returned NaN" in text for text in reasons),
        "absent": scored.done - len(known),
        "low": _number(known.min()) if len(known) else None,
        "high": _number(known.max()) if len(known) else None,
        "constant": len(known) > 1 and float(np.ptp(known)) <= 1e-12 * max(1.0, float(np.abs(known).max())),
        "guessed": list(scored.guessed),
        "reason": first,
        "line": reward_source.line_of(first) if first else None,
    }


def correctness(trial: Trial, count: int) -> Json | None:
    """Mean reward of right and of wrong samples, and how many are pushed the wrong way. None where correctness is unknown."""
    right_B = trial.samples.right_B[:count]
    if not np.isfinite(right_B).any():
        return None

    def side(rewards_B: Floats | None, advantages_B: Floats | None) -> Json | None:
        if rewards_B is None or advantages_B is None:
            return None
        wrong_up, right_down = forecasting.wrongly_pushed(advantages_B[:count], right_B)
        return {
            "right": _mean(rewards_B[:count][right_B == 1]),
            "wrong": _mean(rewards_B[:count][right_B == 0]),
            "wrong_up": wrong_up,
            "right_down": right_down,
        }

    return {
        "right": int(np.sum(right_B == 1)),
        "wrong": int(np.sum(right_B == 0)),
        "old": side(trial.old_rewards_B, trial.old_advantages_B),
        "new": side(trial.new_rewards_B, trial.new_advantages_B),
    }


def rating_agreement(trial: Trial, count: int) -> Json:
    """Whether advantages agree with the user's ratings, and the samples where they do not."""
    rating_B = trial.samples.rating_B[:count]
    advantages_B = trial.new_advantages_B[:count]
    wanted_B = np.sign(rating_B - 0.5)
    rated_B = np.isfinite(rating_B) & (wanted_B != 0)
    against_B = rated_B & (np.sign(advantages_B) == -wanted_B)
    silent_B = rated_B & (advantages_B == 0)
    firsts = np.concatenate([[0], np.cumsum(trial.samples.sizes)])
    ids_B = trial.samples.group_ids_B
    return {
        "rated": int(rated_B.sum()),
        "agree": int((rated_B & ~against_B & ~silent_B).sum()),
        "silent": int(silent_B.sum()),
        "against": [
            {"k": int(ids_B[i]), "index": int(i - firsts[ids_B[i]]), "good": bool(rating_B[i] > 0.5), "advantage": _number(advantages_B[i])}
            for i in np.flatnonzero(against_B)[:50]
        ],
    }  # fmt: skip


def attack_results(tricks: Sequence[Attack], old: dict[str, float | None], against: int | None) -> Json:
    """Attacks, the worst first."""
    rows = sorted(tricks, key=lambda trick: (_VERDICTS.index(trick.verdict), -(trick.score or 0.0)))
    return {
        "against": against,
        "through": sum(trick.verdict == "hackable" for trick in tricks),
        "tricks": [
            {
                "name": trick.name,
                "completion": trick.completion[:MAX_TEXT].encode("utf-8", "replace").decode(),
                "score": trick.score,
                "old": old.get(trick.name),
                "verdict": trick.verdict,
                "about": trick.about,
                "line": reward_source.line_of(trick.about) if trick.verdict == "breaks" else None,
            }
            for trick in rows
        ],
    }


def _advantages(trial: Trial, rewards_G: NDArray[np.float64]) -> advantages.Advantages:
    return advantages.compute(
        rewards_G, np.zeros(len(rewards_G), dtype=np.int64), **trial.samples.advantage_arguments()
    )


def _changed(
    trial: Trial, old_rewards_B: NDArray[np.float64] | None, new_rewards_B: NDArray[np.float64]
) -> list[bool]:
    """Whether the best sample of each group changes."""
    if old_rewards_B is None:
        return [False] * trial.scored_groups
    found, start = [], 0
    for size in trial.samples.sizes[: trial.scored_groups]:
        here = slice(start, start + size)
        found.append(
            bool(forecasting.changed_winners(old_rewards_B[here][None], new_rewards_B[here][None])[0])
        )
        start += size
    return found


def _noise(side: forecasting.Side) -> int:
    """Number of groups with less than a tenth of the median std: dividing by it amplifies noise."""
    with_signal = side.std_P[side.dead_P < 0.5]
    return int(np.sum(with_signal < 0.1 * np.median(with_signal))) if len(with_signal) > 2 else 0


def reward_range(trial: Trial) -> list[float]:
    """Range of the reward axis: all rewards that occur, 0 included."""
    both = [trial.new_rewards_B] + ([] if trial.old_rewards_B is None else [trial.old_rewards_B])
    known = np.concatenate(both)
    known = known[np.isfinite(known)]
    low, high = min(0.0, float(known.min(initial=0.0))), max(0.0, float(known.max(initial=0.0)))
    return [low, high if high > low else low + 1.0]


def _median_size(sizes: Sequence[int]) -> int:
    return max(2, int(np.median(sizes))) if sizes else 2


def _list(values: NDArray[np.float64] | None) -> list[float | None]:
    return [] if values is None else [_number(value) for value in values]


def _mean(values: NDArray[np.float64]) -> float | None:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else None


def _number(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None


def _bool(value: float) -> bool | None:
    return None if np.isnan(value) else bool(value)
