"""Makes the embedded base model from nothing: `python -m workbench.models.embedded.recipe --out DIR`.

In: a seed. Out: a plain Hugging Face folder and a manifest with the losses and figures to expect. Single
precision, so that the first losses come out the same on other machines and with other thread counts.
"""

import argparse
import json
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from workbench.core.config import RunConfig
from workbench.core.types import Prompt
from workbench.models.embedded import corpus, measure, vocabulary
from workbench.prompts import TASKS

STEPS = 2_000
SEED = 11
RECORDED_STEPS = 20
HELD_OUT_PROBLEMS = 128
SHAPE: Mapping[str, Any] = {
    "hidden_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "intermediate_size": 256,
    "max_position_embeddings": vocabulary.CONTEXT,
    "rope_theta": 10_000.0,
    "tie_word_embeddings": True,
}
"""A Llama of 336,480 parameters."""
INITIAL_STD = 0.02
MUON: Mapping[str, Any] = {"lr": 0.02, "momentum": 0.95, "weight_decay": 0.0}
"""Optimizer of the hidden matrices."""
ADAMW: Mapping[str, Any] = {"lr": 2e-3, "betas": (0.9, 0.98), "weight_decay": 0.0}
"""Optimizer of embeddings and norms."""
MAX_GRAD_NORM = 1.0

_WARM_UP = 50
_CONSTANT_UNTIL = 0.55
_FINAL_RATE = 0.02
_LENGTH_RATIO = 1.35
_PADDED_TOKENS = 6_000


class Example(NamedTuple):
    """One tokenized text; the loss covers the positions from `start` on."""

    ids: list[int]
    start: int


def config(tokenizer: Any) -> Any:
    """The model's config for this vocabulary."""
    return LlamaConfig(
        **SHAPE,
        vocab_size=len(tokenizer),
        bos_token_id=None,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )


def initial_model(tokenizer: Any, seed: int) -> Any:
    """The untrained model. Weights are drawn by name here: a library's own order may change some day."""
    model = LlamaForCausalLM(config(tokenizer)).float()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, parameter in sorted(model.named_parameters()):
            if parameter.ndim == 2:
                parameter.normal_(0.0, INITIAL_STD, generator=generator)
    return model


def examples(tokenizer: Any, texts: Sequence[corpus.Text]) -> list[Example]:
    """Texts in the chat template, shortest first."""
    chats = [[{"role": "user", "content": text.problem.question}] for text in texts]
    prompts = tokenizer.apply_chat_template(chats, tokenize=False, add_generation_prompt=True)
    prompt_ids = tokenizer(prompts, add_special_tokens=False)["input_ids"]
    completions = [text.completion + vocabulary.END for text in texts]
    completion_ids = tokenizer(completions, add_special_tokens=False)["input_ids"]
    pairs = zip(prompt_ids, completion_ids, strict=True)
    found = [Example(prompt + completion, len(prompt)) for prompt, completion in pairs]
    return sorted(found, key=lambda example: len(example.ids))


def microbatches(batch: Sequence[Example]) -> Iterator[list[Example]]:
    """Cut examples, shortest first, into runs of similar length: padding would else be most of the work."""
    part: list[Example] = []
    for example in batch:
        length = len(example.ids)
        if part and (length > _LENGTH_RATIO * len(part[0].ids) or length * (len(part) + 1) > _PADDED_TOKENS):
            yield part
            part = []
        part.append(example)
    if part:
        yield part


def summed_loss(model: Any, part: Sequence[Example], pad_id: int) -> Tensor:
    """Cross-entropy summed over completion tokens. Right padding under a causal mask needs no other mask."""
    width = len(part[-1].ids)
    ids = torch.tensor([example.ids + [pad_id] * (width - len(example.ids)) for example in part])
    predicts = torch.zeros_like(ids, dtype=torch.bool)
    for row, example in enumerate(part):
        predicts[row, example.start - 1 : len(example.ids) - 1] = True
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state
    targets = ids.roll(-1, dims=1)[predicts]
    return torch.nn.functional.cross_entropy(model.lm_head(hidden[predicts]), targets, reduction="sum")


def rate(step: int, total_steps: int) -> float:
    """Learning-rate factor: warm-up, constant, then a straight line down."""
    constant_until = _CONSTANT_UNTIL * total_steps
    decay = (step - constant_until) / max(total_steps - constant_until, 1)
    return min(1.0, (step + 1) / _WARM_UP) * (1 - (1 - _FINAL_RATE) * max(0.0, decay))


def pretrain(
    model: Any,
    tokenizer: Any,
    *,
    seed: int = SEED,
    total_steps: int = STEPS,
    stop_after: int | None = None,
    report: Callable[[int, float], None] | None = None,
) -> list[float]:
    """Train in place and return every step's loss in nats per completion token.

    `stop_after` cuts the same schedule short. Hidden matrices are updated by Muon, embeddings and norms by
    AdamW.
    """
    hidden = {name for name, weight in model.named_parameters() if weight.ndim == 2 and "embed" not in name}
    matrices = [weight for name, weight in model.named_parameters() if name in hidden]
    rest = [weight for name, weight in model.named_parameters() if name not in hidden]
    muon, adamw = torch.optim.Muon(matrices, **MUON), torch.optim.AdamW(rest, **ADAMW)
    optimizers = [(muon, MUON["lr"]), (adamw, ADAMW["lr"])]
    losses = []
    model.train()
    for step in range(total_steps if stop_after is None else stop_after):
        batch = examples(tokenizer, corpus.texts(seed, step, total_steps))
        tokens = sum(len(example.ids) - example.start for example in batch)
        total = 0.0
        for part in microbatches(batch):
            loss = summed_loss(model, part, tokenizer.pad_token_id) / tokens
            torch.autograd.backward(loss)
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_GRAD_NORM)
        for optimizer, base_rate in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = base_rate * rate(step, total_steps)
            optimizer.step()
            optimizer.zero_grad()
        losses.append(total)
        if report is not None:
            report(step, total)
    model.eval()
    return losses


def held_out(count: int = HELD_OUT_PROBLEMS) -> list[Prompt]:
    """The chain task's own held-out problems, those that every run is evaluated on."""
    return TASKS["chain"].heldout(RunConfig(task="chain", eval_problems=count))


def save(model: Any, tokenizer: Any, out: Path) -> None:
    """Write the folder in bfloat16: half the size, and the policy is trained in float32 from it anyway."""
    model.generation_config = GenerationConfig(
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    model.to(torch.bfloat16).save_pretrained(out)
    tokenizer.save_pretrained(out)


def data_hash(seed: int, steps: int = RECORDED_STEPS, total_steps: int = STEPS) -> str:
    """SHA-256 of the texts of the first steps, to distinguish a changed corpus from changed arithmetic."""
    texts = [text for step in range(steps) for text in corpus.texts(seed, step, total_steps)]
    joined = "\0".join(f"{text.problem.question}\n{text.completion}" for text in texts)
    return sha256(joined.encode()).hexdigest()


def recipe_hash(seed: int = SEED, steps: int = STEPS) -> str:
    """SHA-256 of every number that the recipe consists of: the texts of all steps, the shape, the optimizers and their schedule.

    Values and no source code, so that it stays when the code is only written differently.
    """
    ingredients = {
        "seed": seed,
        "steps": steps,
        "texts": data_hash(seed, steps, steps),
        "vocabulary": [vocabulary.VOCABULARY, *vocabulary.TAGS, *vocabulary.ROLES, vocabulary.CHAT_TEMPLATE],
        "shape": SHAPE,
        "initial_std": INITIAL_STD,
        "muon": MUON,
        "adamw": ADAMW,
        "max_grad_norm": MAX_GRAD_NORM,
        "rates": [round(rate(step, steps), 9) for step in range(steps)],
    }
    return sha256(json.dumps(ingredients, sort_keys=True).encode()).hexdigest()


def make(out: Path, *, seed: int = SEED, steps: int = STEPS, log: Callable[[str], None] = print) -> None:
    """Train, save, load back what was saved, measure it and write the manifest."""
    began, cpu_began = time.monotonic(), time.process_time()

    def report(step: int, loss: float) -> None:
        if step < RECORDED_STEPS or step % 50 == 49:
            log(f"step {step + 1:5d}/{steps}  loss {loss:.4f}  {time.process_time() - cpu_began:5.0f} CPU s")

    tokenizer = vocabulary.build(seed)
    model = initial_model(tokenizer, seed)
    losses = pretrain(model, tokenizer, seed=seed, total_steps=steps, report=report)
    cpu_seconds = time.process_time() - cpu_began
    save(model, tokenizer, out)
    shipped = LlamaForCausalLM.from_pretrained(out, dtype=torch.float32)
    figures = measure.untuned(shipped, tokenizer, held_out(), seed)
    worked = measure.worked_accuracy(shipped, tokenizer, held_out(7 * 64))
    manifest = {
        "name": "chain",
        "parameters": shipped.num_parameters(),
        "seed": seed,
        "steps": steps,
        "texts_per_step": corpus.TEXTS_PER_STEP,
        "first_losses": [round(loss, 6) for loss in losses[:RECORDED_STEPS]],
        "final_loss": round(sum(losses[-50:]) / len(losses[-50:]), 6),
        "untuned": figures._asdict(),
        "worked_greedy_accuracy": {str(level): share for level, share in worked.items()},
        "cpu_seconds": round(cpu_seconds),
        "wall_seconds": round(time.monotonic() - began),
        "data_sha256": data_hash(seed),
        "recipe_sha256": recipe_hash(seed, steps),
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "transformers", "tokenizers")},
        },
    }
    (out / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    log(json.dumps(manifest, indent=2))


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m workbench.models.embedded.recipe", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder to write; made if missing")
    parser.add_argument("--steps", type=int, default=STEPS, help=f"whole schedule (default {STEPS})")
    parser.add_argument("--seed", type=int, default=SEED, help=f"weights and texts (default {SEED})")
    options = parser.parse_args(arguments)
    if options.steps < 1:
        parser.error(f"--steps {options.steps}: give at least 1")
    options.out.mkdir(parents=True, exist_ok=True)
    make(options.out, seed=options.seed, steps=options.steps)


if __name__ == "__main__":
    main()
