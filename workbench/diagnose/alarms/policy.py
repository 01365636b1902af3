"""Alarms about the policy and its update: entropy, KL to the reference, sampler mismatch, values that are not finite."""

from workbench.diagnose.alarms import remedies as do
from workbench.diagnose.alarms.history import EDGE, Finding, History, limits
from workbench.diagnose.verdict import figure, share


def entropy(seen: History) -> Finding | None:
    """Entropy collapses. While accuracy rises that is part of learning: an observation only."""
    limit, start = limits("entropy"), seen.start("entropy")
    if not start:
        return None
    since = seen.below("entropy", limit["warn"] * start, limit["steps"])
    now = seen.now("entropy")
    if since is None or now is None:
        return None
    gone = seen.below("entropy", limit["critical"] * start, limit["steps"]) is not None
    right = seen.truth
    if not seen.faltering and right is not None:
        aside = f"Accuracy went from {share(right.first)} to {share(right.last)}, so this may be harmless."
    else:
        aside = ""
    return Finding(
        "critical" if gone and seen.faltering else "warning" if seen.faltering else "info",
        f"Entropy fell to {share(now / start)}",
        f"{figure(start)} → {figure(now)} nats per token, below {figure(limit['warn'] * start)} since step {since}.",
        since,
        {"from": start, "value": now, "limit": limit["warn"] * start},
        do.available(
            do.higher_temperature(seen.config),
            None
            if seen.thriving
            else do.fork(f"Fork from step {since}, entropy bonus", since, entropy_coef=0.01),
        ),
        aside,
    )


def regress(seen: History) -> Finding | None:
    """Accuracy falls from its best, and the reward does not rise for it (that would be `hacking`)."""
    limit = limits("regress")
    fallen = _held_out_fell(seen) or _training_fell(seen, limit["fall"], limit["steps"])
    if fallen is None:
        return None
    since, best, now, what = fallen
    reward = seen.move("reward", seen.steps[-1] - since)
    if reward is not None and reward.gain > 0:
        return None
    return Finding(
        "warning",
        f"Accuracy fell to {share(now)}",
        f"{share(best)} → {share(now)} of {what} are right, best after step {since}.",
        since,
        {"from": best, "value": now},
        do.available(
            do.fork(f"Fork from step {since}, slower", since, learning_rate=seen.config.learning_rate / 4),
            do.lower_learning_rate(seen.config, 4),
        ),
    )


def _held_out_fell(seen: History) -> tuple[int, float, float, str] | None:
    if len(seen.checks) < 2:
        return None
    newest = seen.checks[-1]
    best = max(seen.checks, key=lambda check: check.accuracy)
    # Both margins: the intervals do not touch, so chance is no explanation.
    return (best.step, best.accuracy, newest.accuracy, "unseen problems") if newest.high < best.low else None


def _training_fell(seen: History, fall: float, steps: float) -> tuple[int, float, float, str] | None:
    (since, best), right, now = seen.peak, seen.column("accuracy"), seen.now("accuracy")
    if (
        now is None
        or seen.held(lambda row: bool(right) and (a := right[row]) is not None and a < best - fall, steps)
        is None
    ):
        return None
    return since, best, now, "training samples"


def drift(seen: History) -> Finding | None:
    """KL to the reference rises, and the reward does not."""
    limit = limits("drift")
    window = int(limit["window"])
    kl, reward, right = (seen.move(name, window) for name in ("kl", "reward", "accuracy"))
    if kl is None or reward is None or len(seen.steps) < window + EDGE or seen.thriving:
        return None
    scale = max(1e-9, max(abs(value) for value in seen.column("reward") if value is not None))
    gains = reward.gain > limit["gain"] * scale or (right is not None and right.gain > limit["gain"])
    moves = kl.gain >= limit["nats"] and kl.last >= 1.5 * kl.first
    lost = kl.last > limit["far"] and (overall := seen.move("accuracy")) is not None and overall.gain <= 0
    if not lost and (gains or not moves):
        return None
    since = seen.steps[-window - 1]
    worse = reward.gain < -limit["fall"] * scale or (right is not None and right.gain < -limit["fall"])
    return Finding(
        "critical" if worse else "warning",
        "Drifting without gain",
        f"KL to the reference {figure(kl.first)} → {figure(kl.last)} nats per token since step {since}, "
        f"reward {figure(reward.first)} → {figure(reward.last)}.",
        since,
        {"from": kl.first, "value": kl.last, "reward_from": reward.first, "reward": reward.last},
        do.available(do.lower_learning_rate(seen.config, 4), do.larger_beta(seen.config)),
    )


def kl_target(seen: History) -> Finding | None:
    """The KL controller does not hold its target."""
    target, limit = seen.config.kl_target, limits("kl_target")
    if target is None or seen.config.beta_controller == "fixed":
        return None
    name = "kl_sequence" if seen.config.beta_controller == "ziegler" else "kl"
    since, now = seen.above(name, limit["times"] * target, limit["steps"]), seen.now(name)
    if since is None or now is None:
        return None
    return Finding(
        "warning",
        f"KL {now / target:.1f} times its target",
        f"{figure(now)} nats against a target of {figure(target)}, since step {since}.",
        since,
        {"value": now, "limit": target},
        do.available(do.larger_beta(seen.config), do.lower_learning_rate(seen.config)),
    )


def kl_tail(seen: History) -> Finding | None:
    """A few tokens make up most of the KL penalty."""
    limit = limits("kl_tail")
    if seen.config.beta == 0 or seen.config.kl_estimator != "k3":
        return None  # the tail of k3 is not part of the loss
    share_of, token = seen.column("kl_max_share"), seen.column("kl_max_token")
    if not (share_of and token):
        return None

    def heavy(row: int) -> bool:
        part, most = share_of[row], token[row]
        return part is not None and most is not None and most > limit["token"] and part > limit["share"]

    since, now, most = seen.held(heavy, limit["steps"]), seen.now("kl_max_share"), seen.now("kl_max_token")
    if since is None or now is None or most is None:
        return None
    return Finding(
        "warning",
        f"One token makes {share(now)} of KL",
        f"The largest token has {most:.0f} nats and makes up {share(now)} of a step's KL, since step {since}.",
        since,
        {"value": now, "most": most},
        do.available(
            do.lower_learning_rate(seen.config), do.fork("Fork with estimator k2", since, kl_estimator="k2")
        ),
    )


def frozen(seen: History) -> Finding | None:
    """The KL penalty is so strong that the policy stays at the reference."""
    limit = limits("frozen")
    beta, kl, reward = seen.now("beta"), seen.move("kl"), seen.move("reward")
    if beta is None or kl is None or reward is None or len(seen.steps) < limit["steps"]:
        return None
    scale = max(1.0, abs(reward.first))
    if beta < limit["beta"] or kl.last > limit["nats"] or reward.gain > limit["gain"] * scale:
        return None
    less = 0.04 if beta > 0.4 else beta / 10
    return Finding(
        "warning",
        f"Beta {beta:g} holds the model",
        f"KL {figure(kl.last, 3)} nats per token after {len(seen.steps)} steps, reward {figure(reward.first)} → "
        f"{figure(reward.last)}.",
        seen.steps[0],
        {"value": kl.last, "beta": beta},
        do.available(
            do.live(f"Beta {beta:g} → {less:g}", beta=less), do.fork(f"Fork with β {less:g}", 0, beta=less)
        ),
    )


def mismatch(seen: History) -> Finding | None:
    """The sampler's log-probabilities are not the trainer's."""
    limit = limits("mismatch")
    gap, ess = "sampling/sampling_logp_difference/mean", "sampling/ess"
    sinces = (seen.above(gap, limit["warn"], limit["steps"]), seen.below(ess, limit["ess"], limit["steps"]))
    known = [since for since in sinces if since is not None]
    now, left = seen.now(gap), seen.now(ess)
    if not known or now is None:
        return None
    since = min(known)
    size = "" if left is None else f" {share(left)} of the tokens count after correction."
    corrects = seen.config.importance_sampling_correction
    return Finding(
        "warning",
        "Sampler and trainer differ",
        f"{figure(now, 3)} nats per token on average, above {figure(limit['warn'])} since step {since}.{size}",
        since,
        {"value": now, "limit": limit["warn"], **({} if left is None else {"ess": left})},
        do.available(
            do.fork("Fork in float32", since, dtype="float32") if seen.config.dtype != "float32" else None,
            do.fork("Fork with truncated correction", since, importance_sampling_correction="token_truncate")
            if corrects == "off"
            else None,
            do.lower_learning_rate(seen.config),
        ),
    )


def non_finite(seen: History) -> Finding | None:
    """An update was skipped because its loss or gradient was not finite."""
    skipped = seen.column("update/skipped")
    if not skipped or not (now := skipped[-1]):
        return None
    since = seen.above("update/skipped", 0.0, 1)
    assert since is not None
    again = seen.steps[-1] > since
    return Finding(
        "critical" if again else "warning",
        "Loss or gradient not finite",
        f"{now:.0f} {'update' if now == 1 else 'updates'} of step {seen.steps[-1]} skipped"
        + (f", every step since {since}." if again else "."),
        since,
        {"value": now},
        do.available(do.lower_learning_rate(seen.config, 10), do.fork(f"Fork from step {since}, slower", since,
                                                      learning_rate=seen.config.learning_rate / 10)),
    )  # fmt: skip


RULES = {
    "entropy": entropy, "regress": regress, "drift": drift, "kl_target": kl_target, "kl_tail": kl_tail, "frozen": frozen,
    "mismatch": mismatch, "non_finite": non_finite,
}  # fmt: skip
