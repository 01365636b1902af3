"""Recorded runs without a model: a fake sampler that learns, so that readers, pages and alarms have something
true to show.

`make_step` gives one StepRecord, `write_fake_run` a whole run folder; both are pure functions of their seed.
Styles and figures follow the embedded model's real runs: correct completions 20 % -> 90 %, lengths 17 -> 43,
entropy .29 -> .04.
"""

import random
import re
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from workbench.core.config import RunConfig
from workbench.core.types import (
    EvalMode,
    Group,
    Prompt,
    Rollout,
    Score,
    StepRecord,
    TokenArrays,
    prompt_id,
    sample_seed,
)
from workbench.diagnose.metrics import step_metrics
from workbench.record.folder import RunFolder, create
from workbench.record.writer import Writer

TOKENS = re.compile(r"<think>|</think>|<answer>|</answer>|check\n|wait\n|ok\n|\d{1,2}|\s|.", re.DOTALL)
END = 2
_VOCABULARY = [
    "<|pad|>",
    "<s>",
    "<|end|>",
    "<think>",
    "</think>",
    "<answer>",
    "</answer>",
    "check\n",
    "wait\n",
    "ok\n",
    "\n",
    "=",
    "+",
    "-",
    "*",
    *(str(n) for n in range(100)),
    *(f"0{n}" for n in range(10)),
    "answer",
    "think",
    " ",
]
_IDS = {text: i for i, text in enumerate(_VOCABULARY)}


class Draw(NamedTuple):
    """One fake completion before it becomes tokens."""

    text: str
    right: bool
    valid: bool
    finished: bool = True


def token_text(token: int) -> bytes:
    """The text of one fake token, special ones as they are written."""
    return _VOCABULARY[token].encode()


def tokenize(text: str, finished: bool = True) -> list[int]:
    """Fake tokens of a text, the end token included where the completion stopped by itself."""
    ids = [_IDS.get(piece, _IDS[" "]) for piece in TOKENS.findall(text)]
    return [*ids, END] if finished else ids


def chain_prompt(rng: random.Random, low: int = 3, high: int = 9) -> Prompt:
    """A prompt of the chain task, rendered as the embedded model's template does."""
    question = str(rng.randrange(10))
    for _ in range(rng.randint(low, high)):
        question += rng.choice("++-**") + str(rng.randint(2, 9))
    answer = str(solve(question))
    text = f"<|user|>{question}<|end|><|assistant|>"
    return Prompt(
        question,
        answer,
        {"level": len(question) // 2},
        text,
        tuple(tokenize(question)),
        prompt_id(text, answer),
    )


def solve(question: str) -> int:
    """Left to right, last digit after every step."""
    value = int(question[0])
    for operator, digit in re.findall(r"([+*-])(\d)", question):
        value = {"+": value + int(digit), "-": value - int(digit), "*": value * int(digit)}[operator] % 10
    return value


def draw(rng: random.Random, prompt: Prompt, skill: float) -> Draw:
    """A completion in one of the task's styles; `skill` 0 (base model) .. 1 (trained) moves from guessing to
    working."""
    weights = {
        "direct": 0.55 * (1 - skill) + 0.01,
        "jump": 0.25 * (1 - skill) + 0.02,
        "full": 0.12 + 0.75 * skill,
        "check": 0.06 + 0.48 * skill * (1 - skill),
        "bare": 0.02,
    }
    style = rng.choices(list(weights), list(weights.values()))[0]
    guess = str(rng.randrange(10))
    if style == "bare":
        return Draw(guess, False, False)
    if style == "direct":
        return Draw(f"<think></think><answer>{guess}</answer>", guess == prompt.answer, True)
    value, lines = prompt.question[0], []
    operations = re.findall(r"[+*-]\d", prompt.question)
    stride = 2 if style == "jump" else 1
    error = {"jump": 0.25, "full": 0.008 + 0.06 * (1 - skill), "check": 0.05}[style]
    for start in range(0, len(operations), stride):
        shown = value + "".join(operations[start : start + stride])
        value = str(rng.randrange(10) if rng.random() < error else solve(shown))
        lines.append(f"{shown}={value}")
    work = "\n".join(lines) + "\n"
    if style == "check":
        if rng.random() < 0.03:  # never finds its end: cut at the limit
            return Draw("<think>" + ("check\n" + work + "wait\n") * 4, False, False, finished=False)
        work += "check\n" + work + "ok\n"
    return Draw(f"<think>{work}</think><answer>{value}</answer>", value == prompt.answer, True)


def make_step(
    step: int,
    *,
    steps: int = 50,
    groups: int = 16,
    samples: int = 12,
    seed: int = 0,
    kind: str = "train",
    mode: EvalMode | None = None,
    prompts: list[Prompt] | None = None,
    skill: float | None = None,
    failures: float = 0.0,
    config: RunConfig | None = None,
) -> StepRecord:
    """One recorded step of a run that learns. `failures`: share of samples whose `correct` reward raised.
    `skill` overrides how far the fake model is; `prompts` are drawn by seed from 256 where none are given."""
    config = config or fake_config(groups=groups, samples=samples, steps=steps, seed=seed)
    skill = 1 - np.exp(-4.0 * (step / max(steps, 1)) ** 1.3) if skill is None else skill
    rng = random.Random(f"{seed}/{step}/{kind}/{mode}")
    noise = np.random.default_rng(rng.getrandbits(32))
    if prompts is None:
        stock = [chain_prompt(random.Random(f"{seed}/prompt/{i}")) for i in range(256)]
        prompts = [stock[(step * groups + j) % len(stock)] for j in range(groups)]
    made: list[Group] = []
    scores: list[Score] = []
    for prompt in prompts:
        rollouts = []
        reached = min(1.0, skill * (0.7 + 0.6 * int(prompt.id[:2], 16) / 255))  # some prompts are easier
        for i in range(samples):
            answer = draw(rng, prompt, 1.0 if mode == "greedy" and skill > 0.3 else reached)
            ids = np.array(tokenize(answer.text, answer.finished), dtype=np.int32)
            logp = -_some(noise, len(ids), 0.18 * (1 - skill) + 0.02)
            rollouts.append(
                Rollout(
                    ids,
                    logp,
                    answer.text,
                    "stop" if answer.finished else "length",
                    "fake",
                    step,
                    sample_seed(seed, step, prompt.id, i),
                )
            )
            if rng.random() < failures:
                scores.append(
                    Score(
                        {"correct": None, "format": float(answer.valid)},
                        {"correct": "ValueError: no answer tag (reward.py line 3)"},
                        None,
                    )
                )
            else:
                scores.append(
                    Score(
                        {"correct": float(answer.right), "format": float(answer.valid)},
                        {},
                        float(answer.right),
                    )
                )
        made.append(Group(prompt, tuple(rollouts), "train" if kind == "train" else "eval"))
    tokens = _arrays(noise, made, skill)
    record = StepRecord(step, "train" if kind == "train" else "eval", made, scores, tokens=tokens, mode=mode)
    if kind == "train":
        _advantages(noise, record, tokens, samples)
        record.phases = {
            "sample": 0.6 + 0.2 * rng.random(),
            "score": 0.02,
            "update": 0.5 + 0.1 * rng.random(),
            "record": 0.004,
        }
    record.metrics = _metrics(record, config, rng)
    return record


def _some(noise: np.random.Generator, n: int, scale: float) -> np.ndarray:
    """(n,) positive numbers, most of them tiny and a few large, as surprisals are."""
    return (scale * noise.exponential(size=n) * np.where(noise.random(n) < 0.1, 4.0, 0.3)).astype(np.float32)


def _arrays(noise: np.random.Generator, groups: list[Group], skill: float) -> TokenArrays:
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    sampler = [rollout.logprobs for rollout in rollouts]
    policy = [np.minimum(logp + noise.normal(0, 1e-4, len(logp)), 0).astype(np.float32) for logp in sampler]
    drift = [skill * noise.normal(-0.02, 0.28, len(logp)) for logp in sampler]
    return TokenArrays(
        token_ids=[rollout.token_ids for rollout in rollouts],
        sampler_logp=sampler,
        policy_logp=policy,
        reference_logp=[(now + away).astype(np.float32) for now, away in zip(policy, drift, strict=True)],
        entropy=[(1.4 * -now).astype(np.float32) for now in policy],
    )


def _advantages(noise: np.random.Generator, record: StepRecord, tokens: TokenArrays, samples: int) -> None:
    reward = np.array([np.nan if score.reward is None else score.reward for score in record.scores_B])
    reward = reward.reshape(-1, samples)
    count = np.maximum((~np.isnan(reward)).sum(axis=1, keepdims=True), 1)
    deviation = reward - np.nansum(reward, axis=1, keepdims=True) / count
    std = np.sqrt(np.nansum(deviation**2, axis=1, keepdims=True) / np.maximum(count - 1, 1))
    record.advantages_B = np.nan_to_num(deviation / (std + 1e-4)).reshape(-1)
    assert tokens.policy_logp is not None
    total = sum(len(ids) for ids in tokens.token_ids)
    pairs = list(zip(record.advantages_B, tokens.policy_logp, strict=True))
    push = [advantage * -np.expm1(now.astype(np.float64)) for advantage, now in pairs]
    mass = np.array([np.abs(push_T).sum() for push_T in push])
    record.gradient_share_B = mass / mass.sum() if mass.sum() else np.zeros_like(mass)
    moved = [
        now + 0.15 * push_T + noise.normal(0, 0.004, len(now))
        for (_, now), push_T in zip(pairs, push, strict=True)
    ]
    tokens.after_logp = [np.minimum(after, 0).astype(np.float32) for after in moved]
    tokens.weight = [np.full(len(now), -advantage / total, dtype=np.float32) for advantage, now in pairs]


def _metrics(record: StepRecord, config: RunConfig, rng: random.Random) -> dict[str, float]:
    found = step_metrics(record, config)
    if record.kind == "train":
        # What only the update knows.
        update = {"loss": rng.gauss(0, 0.01), "grad_norm": 0.15 + 0.05 * rng.random(), "beta": config.beta}
        clipped = dict.fromkeys(
            ["clip_ratio/low_mean", "clip_ratio/high_mean", "clip_ratio/region_mean"], 0.0
        )
        count = {"samples_drawn": float(len(record.scores_B)), "groups_replaced": 0.0}
        return {**found, **update, **clipped, **count, "learning_rate": config.learning_rate}
    accuracy, problems = found["accuracy"], len(record.groups)
    margin = 1.96 * np.sqrt(accuracy * (1 - accuracy) / problems)
    name = f"heldout/{record.mode}"
    return found | {
        f"{name}/accuracy": accuracy,
        f"{name}/accuracy_low": max(0.0, accuracy - margin),
        f"{name}/accuracy_high": min(1.0, accuracy + margin),
        f"{name}/problems": float(problems),
        f"{name}/reward": found["reward"],
        f"{name}/mean_length": found["completions/mean_length"],
        f"{name}/clipped_ratio": found["completions/clipped_ratio"],
    }


def fake_config(
    *, groups: int = 16, samples: int = 12, steps: int = 50, seed: int = 0, **changes: object
) -> RunConfig:
    """The embedded preset, resized."""
    return RunConfig.build(
        "embedded",
        {"prompts_per_step": groups, "num_generations": samples, "steps": steps, "seed": seed, **changes},
    )


def write_fake_run(
    root: Path | str,
    *,
    steps: int = 31,
    groups: int = 16,
    samples: int = 12,
    seed: int = 0,
    total: int | None = None,
    eval_steps: int = 10,
    state: str = "finished",
    failures: float = 0.0,
    name: str | None = None,
) -> RunFolder:
    """A whole recorded run below `root`: `steps` training steps of `total`, checks at 0, `eval_steps`, ...,
    watched prompts, events, one alarm, a status file in `state`."""
    total = total or steps
    config = fake_config(
        groups=groups, samples=samples, steps=total, seed=seed, eval_steps=eval_steps, run_name=name
    )
    folder = create(root, config)
    watched = [chain_prompt(random.Random(f"watched/{i}")) for i in range(16)]
    with Writer(folder, config, token_text=token_text) as writer:
        writer.event("state", {"state": "running"}, 0)
        for step in range(steps + 1):
            if step % eval_steps == 0:
                _evaluation(writer, step, total, seed, watched, config)
            if step == steps:
                break
            writer.step(
                make_step(
                    step,
                    steps=total,
                    groups=groups,
                    samples=samples,
                    seed=seed,
                    failures=failures,
                    config=config,
                )
            )
            if step == 14:
                writer.alarm(
                    "entropy",
                    "warning",
                    step,
                    "Entropy fell to 13 % of its start",
                    "0.29 → 0.04 nats per token. The model has nearly stopped exploring.",
                    {"from": 0.29, "value": 0.04, "limit": 0.08, "samples": _places(14, seed, steps, groups)},
                    [
                        {"label": "Temperature 1.0 → 1.2", "command": "set", "args": {"temperature": 1.2}},
                        {"label": "Fork with β 0.04", "fork": {"beta": 0.04}, "step": 14},
                    ],
                )
            if step == 20:
                writer.event("setting_changed", {"temperature": {"from": 1.0, "to": 1.1}}, step)
        writer.event("state", {"state": state}, steps)
    now = time.time()
    folder.write_status(
        {
            "state": state,
            "phase": None if state == "finished" else "sample",
            "phase_done": 61,
            "phase_total": groups * samples,
            "step": steps,
            "steps": total,
            "pid": 0,
            "create_time": now - 70,
            "boot_id": "",
            "token": "",
            "heartbeat": now,
            "progress_at": now,
            "started": now - 70,
            "ended": now if state in ("finished", "stopped", "failed") else None,
            "reason": None,
            "eta": 1.3 * (total - steps),
        }
    )
    folder.log_path.write_text("\n".join(f"step {step} done" for step in range(steps)) + "\n")
    return folder


def _places(step: int, seed: int, steps: int, groups: int) -> list[dict[str, object]]:
    """Three samples of a step, as evidence of alarms names them."""
    made = make_step(step, steps=steps, groups=groups, samples=4, seed=seed)
    return [
        {"step": step, "group": k, "prompt_id": made.groups[k].prompt.id, "index": 0}
        for k in range(min(3, groups))
    ]


def _evaluation(
    writer: Writer, step: int, total: int, seed: int, watched: list[Prompt], config: RunConfig
) -> None:
    for mode, samples in (("sampled", 4), ("greedy", 1)):
        writer.step(
            make_step(
                step,
                steps=total,
                groups=len(watched),
                samples=samples,
                seed=seed,
                kind="eval",
                mode="sampled" if mode == "sampled" else "greedy",
                prompts=watched,
                config=config,
            )
        )
