"""Sampling with an adapter folded into the weights against adapters beside them: `python benchmarks/lora.py --models DIR`.

The same answers (token for token) both ways, with a trained-looking adapter of the default rank, in turn: CPU seconds a generation. The update
never merges: it needs the adapter apart, and its reference is the adapter switched off. Figures go to results/lora.json.
"""

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from surroundings import surroundings
from transformers import AutoTokenizer

from workbench.core.config import RunConfig
from workbench.core.types import Group, Prompt, Request
from workbench.models import embedded
from workbench.models.fast import cpu_decoder
from workbench.models.load import load_policy
from workbench.models.policy import Policy
from workbench.rollouts.local import LocalEngine
from workbench.train.update import sampling_of

RESULT = Path(__file__).parent / "results" / "lora.json"
ROUNDS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, required=True, help="the random models of peers.py")
    options = parser.parse_args()
    torch.set_num_threads(1)
    around = surroundings()
    found = {
        "embedded": measured(str(embedded.folder()), options.models / "prompts_embedded.jsonl", 16, 12, 64),
        "A": measured(str(options.models / "A"), options.models / "prompts_A.jsonl", 8, 8, 128),
    }
    print(json.dumps(found))
    RESULT.write_text(json.dumps({**around, "models": found}, indent=1) + "\n")


def measured(model: str, prompts: Path, groups: int, samples: int, longest: int) -> dict[str, Any]:
    """Medians of both ways, taken in turn."""
    config = RunConfig.build(
        "trl-default",
        {
            "model": model,
            "task": "chain",
            "use_peft": True,
            "max_completion_length": longest,
            "device": "cpu",
        },
    )
    policy = load_policy(config)
    with torch.no_grad():
        torch.manual_seed(0)
        for name, parameter in policy.model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.02)
    tokenizer = AutoTokenizer.from_pretrained(model)
    texts = [json.loads(line)["prompt"] for line in prompts.read_text().splitlines()[:groups]]
    requests = [
        Request(
            Prompt(text, text=text, token_ids=tuple(tokenizer(text).input_ids), id=text),
            tuple(range(samples)),
        )
        for text in texts
    ]
    times: dict[str, list[float]] = {"merged": [], "beside": []}
    answers: dict[str, list[list[int]]] = {}
    for _ in range(ROUNDS):
        for way in times:
            with mock.patch.object(
                cpu_decoder, "can_run", cpu_decoder.can_run if way == "merged" else lambda model: False
            ):
                began = time.process_time()
                drawn = generated(policy, requests, config)
                times[way].append(time.process_time() - began)
            answers[way] = [rollout.token_ids.tolist() for group in drawn for rollout in group.rollouts]
    middle = {way: statistics.median(seconds) for way, seconds in times.items()}
    alike = sum(a == b for a, b in zip(answers["merged"], answers["beside"], strict=True)) / len(
        answers["merged"]
    )
    return {**middle, "ratio": middle["beside"] / middle["merged"], "answers_alike": alike}


def generated(policy: Policy, requests: list[Request], config: RunConfig) -> list[Group]:
    return LocalEngine(policy).generate(requests, sampling_of(config))


if __name__ == "__main__":
    main()
