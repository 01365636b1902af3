"""KL controllers: a measured KL and its target in, the next beta out. And how a reference model follows the policy."""

from typing import Any, TypeVar

T = TypeVar("T", float, Any)


def ziegler(beta: float, kl: float, target: float, gain: float = 0.1) -> float:
    """Next beta: beta (1 + gain e), e = (kl - target) / target cut to plus and minus 0.2. (1909.08593)

    `kl` and `target` in nats per *completion*, the sum of KL(policy || reference) over its tokens; Ziegler's
    targets are 6 to 10.
    """
    _positive(target)
    error = min(max((kl - target) / target, -0.2), 0.2)
    return beta * (1.0 + gain * error)


def ppo_adaptive(beta: float, kl: float, target: float) -> float:
    """Next beta: halved below target / 1.5, doubled above 1.5 target. (PPO 2017, 1707.06347 section 4)

    `kl` and `target` in nats per token.
    """
    _positive(target)
    if kl < target / 1.5:
        return beta / 2.0
    if kl > target * 1.5:
        return beta * 2.0
    return beta


def mix_reference(policy: T, reference: T, alpha: float) -> T:
    """alpha policy + (1 - alpha) reference, for a number, an array or a tensor.

    alpha 1 replaces the reference (R1, every 400 steps); TR-DPO (2404.09656) mixes .6 in every 512 steps.
    """
    return alpha * policy + (1.0 - alpha) * reference


def _positive(target: float) -> None:
    if not target > 0:
        raise ValueError(f"the KL target is {target}: it must be above 0.")
