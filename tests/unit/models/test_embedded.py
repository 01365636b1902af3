"""The shipped base model: loads by the plain classes, and can what it should while not doing it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

from workbench.core.config import RunConfig
from workbench.core.types import Prompt
from workbench.models import embedded
from workbench.models.embedded import corpus, measure, recipe, vocabulary
from workbench.prompts import TASKS, chain
from workbench.prompts.heldout import is_held_out

MANIFEST = json.loads((embedded.folder() / "manifest.json").read_text())


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(embedded.folder())


@pytest.fixture(scope="module")
def model() -> Any:
    return AutoModelForCausalLM.from_pretrained(embedded.folder(), dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def prompts() -> list[Prompt]:
    return TASKS["chain"].heldout(RunConfig(task="chain", eval_problems=128))


def test_it_loads_by_the_plain_classes_with_pad_end_and_chat_template(model: Any, tokenizer: Any) -> None:
    assert model.num_parameters() == MANIFEST["parameters"] == 336_480
    assert (tokenizer.pad_token, tokenizer.eos_token) == ("<|pad|>", "<|end|>")
    assert model.config.eos_token_id == model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert model.config.pad_token_id == tokenizer.pad_token_id
    assert model.config.max_position_embeddings == 1024
    assert tokenizer.chat_template
    assert len(tokenizer) == model.config.vocab_size == 426


def test_it_is_shipped_in_bfloat16_below_a_megabyte() -> None:
    path = embedded.folder() / "model.safetensors"
    with safe_open(path, framework="pt") as tensors:
        kinds = {tensors.get_tensor(name).dtype for name in tensors.keys()}  # noqa: SIM118  not a mapping
    assert kinds == {torch.bfloat16}
    assert sum(file.stat().st_size for file in embedded.folder().iterdir()) < 1_000_000


def test_its_folder_is_known_without_torch() -> None:
    code = (
        "import sys; from workbench.models import embedded; print(embedded.folder()); "
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(embedded.folder())


def test_tags_are_single_tokens_that_survive_decoding(tokenizer: Any) -> None:
    ids = tokenizer("<think>6+8=4\n</think><answer>4</answer><|end|>")["input_ids"]
    assert len(ids) == 12
    assert tokenizer.decode(ids, skip_special_tokens=True) == "<think>6+8=4\n</think><answer>4</answer>"


def test_untuned_it_guesses_without_reasoning_and_is_mostly_wrong(
    model: Any, tokenizer: Any, prompts: list[Prompt]
) -> None:
    figures = measure.untuned(model, tokenizer, prompts, seed=3)
    assert 0.14 <= figures.sampled_accuracy <= 0.34
    assert 0.08 <= figures.greedy_accuracy <= 0.28
    assert figures.greedy_length < 12 < figures.sampled_length < 32
    # Pretraining shares times the 88 % with tags; three standard errors of 128 samples are about .13.
    expected = {name: share * (1 - corpus.UNTAGGED) for name, share in corpus.LAZY.items()} | {
        "untagged": corpus.UNTAGGED
    }
    assert figures.style_shares == pytest.approx(expected, abs=0.13)


def test_the_manifest_holds_the_same_figures(model: Any, tokenizer: Any, prompts: list[Prompt]) -> None:
    completions, lengths = measure.complete(model, tokenizer, prompts)
    # Rounding differs between machines and may flip a near-tie.
    assert measure.accuracy(completions, prompts) == pytest.approx(
        MANIFEST["untuned"]["greedy_accuracy"], abs=0.03
    )
    assert sum(lengths) / len(prompts) == pytest.approx(MANIFEST["untuned"]["greedy_length"], abs=1.5)


def test_with_the_first_step_prefilled_it_is_right_at_every_length(
    model: Any, tokenizer: Any, prompts: list[Prompt]
) -> None:
    by_level = measure.worked_accuracy(model, tokenizer, prompts)
    assert set(by_level) == set(range(3, 10))
    assert min(by_level.values()) >= 0.94


def test_it_knows_every_single_digit_fact(model: Any, tokenizer: Any) -> None:
    facts = [
        (value, chain.Step(sign, digit)) for value in range(10) for sign in "+-*" for digit in range(2, 10)
    ]
    assert len(facts) == 240
    prompts = [
        Prompt(chain.Problem(value, (step, chain.Step("+", 2), chain.Step("-", 2))).question)
        for value, step in facts
    ]
    prefills = [f"<think>{value}{step.operator}{step.digit}=" for value, step in facts]
    texts, _ = measure.complete(model, tokenizer, prompts, prefills=prefills)
    wrong = [
        start
        for start, text, fact in zip(prefills, texts, facts, strict=True)
        if text[:1] != str(chain.apply(*fact))
    ]
    assert wrong == []


def test_pretraining_shows_no_held_out_problem_and_all_styles() -> None:
    texts = [text for step in range(100) for text in corpus.texts(recipe.SEED, step, total_steps=1)]
    assert not any(is_held_out(text.problem.question) for text in texts)
    shares = chain.style_shares(text.completion for text in texts)
    expected = {name: share * (1 - corpus.UNTAGGED) for name, share in corpus.LAZY.items()} | {
        "untagged": corpus.UNTAGGED
    }
    assert shares == pytest.approx(expected, abs=0.02)


def test_the_corpus_is_a_pure_function_of_its_seed() -> None:
    assert corpus.texts(1, 7, 100) == corpus.texts(1, 7, 100)
    assert corpus.texts(1, 7, 100) != corpus.texts(2, 7, 100)
    assert corpus.texts(1, 7, 100) != corpus.texts(1, 8, 100)


def test_the_tokenizer_is_rebuilt_exactly_from_the_recipe(tokenizer: Any) -> None:
    built = vocabulary.build(recipe.SEED)
    assert built.get_vocab() == tokenizer.get_vocab()
    assert built.chat_template == tokenizer.chat_template
    text = "Chain: 6+8-3 <think>6+8=4\ncheck\n</think> größer 42"
    assert built(text)["input_ids"] == tokenizer(text)["input_ids"]


@pytest.mark.slow
def test_the_recipe_repeats_the_recorded_first_losses(tokenizer: Any) -> None:
    assert recipe.data_hash(recipe.SEED) == MANIFEST["data_sha256"]
    model = recipe.initial_model(tokenizer, recipe.SEED)
    losses = recipe.pretrain(model, tokenizer, stop_after=recipe.RECORDED_STEPS)
    assert losses == pytest.approx(MANIFEST["first_losses"], abs=1e-3)


def test_the_manifest_names_its_recipe_seed_and_versions() -> None:
    assert MANIFEST["recipe_sha256"] == recipe.recipe_hash()
    assert (MANIFEST["seed"], MANIFEST["steps"]) == (recipe.SEED, recipe.STEPS)
    assert set(MANIFEST["versions"]) == {"python", "torch", "transformers", "tokenizers"}


def test_a_short_run_of_the_command_writes_a_folder_that_loads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "MAX_NEW_TOKENS", 4)  # an untrained model does not stop by itself
    recipe.main(["--out", str(tmp_path / "model"), "--steps", "2"])
    assert "step     2/2" in capsys.readouterr().out
    made = json.loads((tmp_path / "model" / "manifest.json").read_text())
    assert made["steps"] == 2 and len(made["first_losses"]) == 2
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "model").num_parameters() == 336_480


def test_steps_below_one_are_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as caught:
        recipe.main(["--out", str(tmp_path), "--steps", "0"])
    assert caught.value.code == 2
    assert "at least 1" in capsys.readouterr().err
