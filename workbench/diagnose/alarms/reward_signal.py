"""Alarms about the reward signal: sparse, solved, tied, amplified noise, failing, hacked."""

from workbench.diagnose.alarms import remedies as do
from workbench.diagnose.alarms.history import Check, Finding, History, limits
from workbench.diagnose.verdict import figure, share

ZERO_STD = "frac_reward_zero_std"


def all_wrong(seen: History) -> Finding | None:
    """Most groups have no right completion: the reward is sparse."""
    name = f"{ZERO_STD}/all_wrong"
    if (found := seen.excess(name, "all_wrong")) is None:
        return None
    return Finding(
        "critical" if found.far else "warning",
        f"{share(found.value)} of groups all wrong",
        f"{_from_to(seen, name)} of groups, above {share(found.limit)} since step {found.since}. No sample of these is right.",
        found.since,
        {"value": found.value, "limit": found.limit},
        do.available(
            do.larger_groups(seen.config),
            do.levels(seen.around, found.since, -2)
            or do.fork("Fork with dynamic sampling", found.since, dynamic_sampling=True),
        ),
    )


def all_right(seen: History) -> Finding | None:
    """Most groups are all right: no error, but no gradient from them."""
    name = f"{ZERO_STD}/all_right"
    if (found := seen.excess(name, "all_right")) is None:
        return None
    return Finding(
        "info",
        f"{share(found.value)} of groups all right",
        f"{_from_to(seen, name)} of groups, above {share(found.limit)} since step {found.since}.",
        found.since,
        {"value": found.value, "limit": found.limit},
        do.available(do.levels(seen.around, seen.steps[-1] + 1, 2), do.command("Stop and save", "stop")),
    )


def tied(seen: History) -> Finding | None:
    """The reward is the same for all completions of most groups, right or wrong."""
    name = f"{ZERO_STD}/tied"
    if (found := seen.excess(name, "tied")) is None:
        return None
    right = seen.now("accuracy")
    aside = "" if right is None else f" {share(right)} of the samples are right."
    return Finding(
        "critical" if found.far else "warning",
        f"{share(found.value)} of groups score alike",
        f"{_from_to(seen, name)} of groups, above {share(found.limit)} since step {found.since}.{aside}",
        found.since,
        {"value": found.value, "limit": found.limit},
        do.available(do.also_correct(seen.config, seen.around), do.higher_temperature(seen.config)),
    )


def noise(seen: History) -> Finding | None:
    """Advantages come from tiny reward differences, divided by their std."""
    if seen.config.scale_rewards == "none":
        return None
    name = "groups/tiny_std"
    if (found := seen.excess(name, "noise")) is None:
        return None
    spread = seen.now("reward_std")
    about = "" if spread is None else f" The mean spread in a group is {spread:.2g}."
    return Finding(
        "warning",
        f"Noise decides {share(found.value)} of groups",
        f"{_from_to(seen, name)} of groups differ by less than 1 % of the reward, since step {found.since}.{about}",
        found.since,
        {"value": found.value, "limit": found.limit},
        do.available(
            do.also_correct(seen.config, seen.around),
            do.fork("Fork without dividing by σ", found.since, scale_rewards="none"),
            do.lower_learning_rate(seen.config, 10),
        ),
    )


def reward_failures(seen: History) -> Finding | None:
    """A reward fails on many completions."""
    name = "reward/errors"
    if (found := seen.excess(name, "reward_failures")) is None:
        return None
    failing = _worst(seen)
    return Finding(
        "critical" if found.far else "warning",
        f"A reward fails on {share(found.value)}",
        f"{failing or 'One reward'} gave no value for {_from_to(seen, name)} of the samples, "
        f"above {share(found.limit)} since step {found.since}.",
        found.since,
        {"value": found.value, "limit": found.limit},
        do.available(
            do.without(seen.config, failing) if failing else None, do.command("Pause and fix it", "pause")
        ),
    )


def hacking(seen: History) -> Finding | None:
    """The reward rises while accuracy falls: on held-out problems, or in training."""
    return _held_out_falls(seen) or _accuracy_falls(seen)


def _held_out_falls(seen: History) -> Finding | None:
    if len(seen.checks) < 2:
        return None
    newest = seen.checks[-1]
    best = max(seen.checks[:-1], key=lambda check: check.accuracy)
    # Both margins: the intervals do not touch, so chance is no explanation.
    if newest.high >= best.low:
        return None
    then, now = _reward_at(seen, best), seen.now("reward")
    if then is None or now is None or now < then:
        return None
    return _hacked(seen, best.step, (best.accuracy, newest.accuracy), (then, now), "held-out accuracy")


def _accuracy_falls(seen: History) -> Finding | None:
    limit = limits("hacking")
    reward, right = seen.column("reward"), seen.column("accuracy")
    before = {name: seen.start(name) for name in ("reward", "accuracy")}
    r0, a0 = before["reward"], before["accuracy"]
    if r0 is None or a0 is None or len(seen.steps) < 6:
        return None
    scale = max(abs(value) for value in reward if value is not None)
    worse = seen.held(
        lambda row: (
            (a := right[row]) is not None
            and (r := reward[row]) is not None
            and a < a0 - limit["fall"]
            and r > r0 + limit["rise"] * scale
        ),
        limit["steps"],
    )
    r1, a1 = seen.now("reward"), seen.now("accuracy")
    if worse is None or r1 is None or a1 is None:
        return None
    return _hacked(seen, worse, (a0, a1), (r0, r1), "training accuracy")


def _hacked(
    seen: History, since: int, truth: tuple[float, float], reward: tuple[float, float], what: str
) -> Finding:
    return Finding(
        "critical",
        "Reward up, accuracy down",
        f"Reward {figure(reward[0])} → {figure(reward[1])} while {what} fell from {share(truth[0])} to {share(truth[1])}, "
        f"since step {since}.",
        since,
        {"from": truth[0], "value": truth[1], "reward_from": reward[0], "reward": reward[1]},
        do.available(
            do.also_correct(seen.config, seen.around),
            do.fork(f"Fork from step {since}, β .04", since, beta=max(0.04, 2 * seen.config.beta)),
            do.command("Stop and save", "stop"),
        ),
    )


def _reward_at(seen: History, check: Check) -> float | None:
    """Mean reward of the steps before an evaluation."""
    values = [
        value
        for step, value in zip(seen.steps, seen.column("reward"), strict=False)
        if value is not None and check.step - 3 <= step < max(check.step, seen.steps[0] + 3)
    ]
    return sum(values) / len(values) if values else seen.start("reward")


def _worst(seen: History) -> str:
    """Name of the reward that fails most; '' where none does."""
    failed = {
        name.removeprefix("rewards/").removesuffix("/failed"): value
        for name in seen.names
        if name.startswith("rewards/") and name.endswith("/failed") and (value := seen.column(name)[-1])
    }
    return max(failed, key=lambda name: failed[name]) if failed else ""


def _from_to(seen: History, name: str) -> str:
    """`0 % → 62 %`."""
    move = seen.move(name)
    return "" if move is None else f"{share(move.first)} → {share(move.last)}"


RULES = {
    "all_wrong": all_wrong, "all_right": all_right, "tied": tied, "noise": noise,
    "reward_failures": reward_failures, "hacking": hacking,
}  # fmt: skip
