"""The text that rewards read: every token but the ends and the padding, special or not."""

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from workbench.models.policy import Policy

LETTERS = [*"abc", "Ġ"]
SPECIAL = ["<pad>", "</s>", "<|end|>", "<think>", "</think>", "<|tool|>"]


def policy() -> Policy:
    core = Tokenizer(models.BPE(vocab={name: index for index, name in enumerate(LETTERS)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(SPECIAL)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="</s>", pad_token="<pad>")
    ends = frozenset(map(tokenizer.convert_tokens_to_ids, ("</s>", "<|end|>")))
    return Policy(None, tokenizer, torch.device("cpu"), ends, tokenizer.pad_token_id, 64)


def test_special_tokens_that_mean_something_reach_the_reward():
    model = policy()
    for text in ("<think>a b</think>c", "a<|tool|>b", "abc"):
        ids = model.tokenizer(text, add_special_tokens=False)["input_ids"]
        assert model.text_of(ids) == text


def test_end_and_padding_tokens_do_not():
    model = policy()
    ids = model.tokenizer("<think>a</think>b<|end|></s><pad><pad>", add_special_tokens=False)["input_ids"]
    assert model.text_of(ids) == "<think>a</think>b"
