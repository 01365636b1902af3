"""Recorded runs without a model: a fake sampler that learns, so that readers, pages and alarms have something
true to show.

`make_step` gives one StepRecord, `write_fake_run` a whole run folder; both are pure functions of their seed.
Styles and figures follow the embedded model's real runs: right answers 20 % -> 90 %, lengths 17 -> 43,
entropy .29 -> .04.
"""

import random
import re
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from workbench.config import RunConfig
from workbench.record.folder import RunFolder, create
from workbench.record.writer import Writer
from workbench.types import (
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

PIECES = re.compile(r"<think>|</think>|<answer>|</answer>|check\n|wait\n|ok\n|\d{1,2}|\s|.", re.DOTALL)
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
    """One fake answer before it becomes tokens."""

    text: str
    right: bool
    valid: bool
    style: str
    finished: bool = True


def token_text(token: int) -> bytes:
    """The text of one fake token, special ones as they are written."""
    return _VOCABULARY[token].encode()


def tokenize(text: str, finished: bool = True) -> list[int]:
    """Fake tokens of a text, the end token included where the answer stopped by itself."""
    ids = [_IDS.get(piece, _IDS[" "]) for piece in PIECES.findall(text)]
    return [*ids, END] if finished else ids


def chain_prompt(rng: random.Random, low: int = 3, high: int = 9) -> Prompt:
    """A prompt of the chain task, rendered as the embedded model's template does."""
    question = str(rng.randrange(10))
    for _ in range(rng.randint(low, high)):
        question += rng.choice("++-**") + str(rng.randint(2, 9))
    answer = str(solve(question))
    text = f"<|user|>Chain: {question}<|end|><|assistant|>"
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
    """An answer in one of the task's styles; `skill` 0 (base model) .. 1 (trained) moves from guessing to
    working."""
    style = rng.choices(
        ["direct", "jump", "full", "check", "bare"],
        [
            0.55 * (1 - skill) + 0.01,
            0.25 * (1 - skill) + 0.02,
            0.12 + 0.75 * skill,
            0.06 + 0.12 * skill * (1 - skill) * 4,
            0.02,
        ],
    )[0]
    if style == "bare":
        guess = str(rng.randrange(10))
        return Draw(guess, False, False, "direct")
    if style == "direct":
        guess = rng.randrange(10)
        return Draw(f"<think></think><answer>{guess}</answer>", str(guess) == prompt.answer, True, style)
    value, lines = int(prompt.question[0]), []
    error = {"jump": 0.25, "full": 0.03 + 0.06 * (1 - skill), "check": 0.05}[style]
    for operator, digit in re.findall(r"([+*-])(\d)", prompt.question):
        said = {"+": value + int(digit), "-": value - int(digit), "*": value * int(digit)}[operator] % 10
        if rng.random() < error:
            said = rng.randrange(10)
        lines.append(f"{value}{operator}{digit}={said}")
        value = said
    if style == "jump":
        lines = lines[::2]
    work = "\n".join(lines) + "\n"
    if style == "check":
        work += "check\n" + work + "ok\n"
    text = f"<think>{work}</think><answer>{value}</answer>"
    if style == "check" and rng.random() < 0.02:  # never finds its end: cut at the limit
        return Draw("<think>" + (work + "wait\n") * 3, False, False, style, finished=False)
    return Draw(text, str(value) == prompt.answer, True, style)


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
    if prompts is None:
        stock = [chain_prompt(random.Random(f"{seed}/prompt/{i}")) for i in range(256)]
        prompts = [stock[(step * groups + j) % len(stock)] for j in range(groups)]
    made: list[Group] = []
    scores: list[Score] = []
    styles: list[str] = []
    for prompt in prompts:
        rollouts = []
        for i in range(samples):
            answer = draw(rng, prompt, 1.0 if mode == "greedy" and skill > 0.3 else skill)
            ids = np.array(tokenize(answer.text, answer.finished), dtype=np.int32)
            logp = -_some(rng, len(ids), 0.18 * (1 - skill) + 0.02)
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
            styles.append(answer.style)
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
    tokens = _arrays(rng, made, skill)
    record = StepRecord(
        step, "train" if kind == "train" else "eval", made, scores, tokens=tokens, mode=mode, styles_B=styles
    )
    if kind == "train":
        _advantages(record, tokens, samples)
        record.phases = {
            "sample": 0.6 + 0.2 * rng.random(),
            "score": 0.02,
            "update": 0.5 + 0.1 * rng.random(),
            "record": 0.004,
        }
    record.metrics = _metrics(record, config, rng)
    return record


def _some(rng: random.Random, n: int, scale: float) -> np.ndarray:
    """(n,) positive numbers, most of them tiny and a few large, as surprisals are."""
    return np.array(
        [scale * rng.expovariate(1.0) * (4.0 if rng.random() < 0.1 else 0.3) for _ in range(n)],
        dtype=np.float32,
    )


def _arrays(rng: random.Random, groups: list[Group], skill: float) -> TokenArrays:
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    policy = [
        np.minimum(rollout.logprobs + np.float32(1e-4) * np.float32(rng.gauss(0, 1)), 0).astype(np.float32)
        for rollout in rollouts
    ]
    return TokenArrays(
        token_ids=[rollout.token_ids for rollout in rollouts],
        sampler_logp=[rollout.logprobs for rollout in rollouts],
        policy_logp=policy,
        reference_logp=[
            (now + np.float32(skill) * np.array([rng.gauss(-0.02, 0.28) for _ in now])).astype(np.float32)
            for now in policy
        ],
        entropy=[(1.4 * -now).astype(np.float32) for now in policy],
    )


def _advantages(record: StepRecord, tokens: TokenArrays, samples: int) -> None:
    reward = np.array(
        [np.nan if score.reward is None else score.reward for score in record.scores_B]
    ).reshape(-1, samples)
    mean = np.nanmean(np.where(np.isnan(reward).all(1, keepdims=True), 0.0, reward), axis=1, keepdims=True)
    deviation = reward - mean
    std = np.sqrt(
        np.nansum(deviation**2, axis=1, keepdims=True)
        / np.maximum((~np.isnan(reward)).sum(1, keepdims=True) - 1, 1)
    )
    record.advantages_B = np.nan_to_num(deviation / (std + 1e-4)).reshape(-1)
    assert tokens.policy_logp is not None
    total = sum(len(ids) for ids in tokens.token_ids)
    push = [
        advantage * -np.expm1(now.astype(np.float64))
        for advantage, now in zip(record.advantages_B, tokens.policy_logp, strict=True)
    ]
    mass = np.array([np.abs(push_T).sum() for push_T in push])
    record.gradient_share_B = mass / mass.sum() if mass.sum() else np.zeros_like(mass)
    tokens.after_logp = [
        np.minimum(now + 0.15 * push_T, 0).astype(np.float32)
        for now, push_T in zip(tokens.policy_logp, push, strict=True)
    ]
    tokens.weight = [
        np.full(len(now), -advantage / total, dtype=np.float32)
        for advantage, now in zip(record.advantages_B, tokens.policy_logp, strict=True)
    ]


def _metrics(record: StepRecord, config: RunConfig, rng: random.Random) -> dict[str, float]:
    reward = np.array([np.nan if score.reward is None else score.reward for score in record.scores_B])
    if record.kind == "eval":
        accuracy, n = float(np.nanmean(reward)), len(reward)
        margin = 1.96 * np.sqrt(accuracy * (1 - accuracy) / n)
        name = f"heldout/{record.mode}/accuracy"
        return {
            name: accuracy,
            f"{name}_low": max(0.0, accuracy - margin),
            f"{name}_high": min(1.0, accuracy + margin),
            f"heldout/{record.mode}/mean_length": float(np.mean([r.length for r in record.rollouts()])),
            f"heldout/{record.mode}/n": float(n),
        }
    lengths = np.array([rollout.length for rollout in record.rollouts()], dtype=np.float64)
    return {
        "reward": float(np.nanmean(reward)),
        "completions/mean_length": float(lengths.mean()),
        "loss": rng.gauss(0, 0.01),
        "grad_norm": 0.15 + 0.05 * rng.random(),
        "learning_rate": config.learning_rate,
        "beta": config.beta,
        "step_time": sum(record.phases.values()),
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
                _check(writer, step, total, seed, watched, config)
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
                    {"metric": "entropy", "from": 0.29, "to": 0.04, "samples": [1, 2, 3]},
                    [{"label": "Temperature 1.0 → 1.2", "command": "set", "args": {"temperature": 1.2}}],
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


def _check(
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
